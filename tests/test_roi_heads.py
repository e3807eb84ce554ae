"""Mask targets lie where the mask lies; the rest of Mask R-CNN's heads is torchvision's."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from mal import segmenters
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.rcnn import cascade, mask_rcnn
from mal.segmenters.rcnn.parts import RegionProposals, region_proposals, roi_pool
from mal.segmenters.rcnn.roi_heads import MaskHeads, box_losses, mask_loss, mask_targets
from tests.test_segmenter import composed


def noise(*shape: int) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.uint8)


def test_a_target_is_the_masks_share_of_each_cell() -> None:
    masks, index = noise(2, 20, 24), torch.tensor([1])
    box = torch.tensor([[3.0, 5.0, 11.0, 13.0]])
    window = masks[1, 5:13, 3:11].float()
    assert torch.allclose(mask_targets(masks, box, index, cells=8, aligned=True)[0], window)
    shares = window.unflatten(0, (4, 2)).unflatten(2, (4, 2)).mean(dim=(1, 3))
    assert torch.allclose(mask_targets(masks, box, index, cells=4, aligned=True)[0], shares)


def test_a_binary_target_says_whether_the_mask_has_half_of_a_cell() -> None:
    masks, index = noise(2, 20, 24), torch.tensor([1])
    box = torch.tensor([[3.0, 5.0, 11.0, 13.0]])
    shares = masks[1, 5:13, 3:11].float().unflatten(0, (4, 2)).unflatten(2, (4, 2)).mean(dim=(1, 3))
    assert {0.25, 0.5, 0.75} <= set(shares.flatten().tolist())
    found = mask_targets(masks, box, index, cells=4, aligned=True, binary=True)[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, (shares >= 0.5).float())


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_box_losses_are_smooth_l1_of_the_positives_own_boxes(beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, deltas, wanted = (torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (4, 16, 4))
    labels = torch.tensor([0, 3, 1, 0, 0, 2, 2])
    scores, boxes = box_losses(logits, deltas, labels, wanted, beta=beta)
    total = 0.0
    for row in (1, 2, 5, 6):
        for side in range(4):
            off = abs(float(deltas[row, 4 * labels[row] + side] - wanted[row, side]))
            total += off**2 / (2 * beta) if off < beta else off - beta / 2
    assert boxes.item() == pytest.approx(total / 7)
    assert scores.item() == pytest.approx(-sum(float(logits[row].log_softmax(0)[labels[row]]) for row in range(7)) / 7)
    nothing = box_losses(logits, deltas, 0 * labels, wanted, beta=beta)[1]
    assert nothing == 0


def test_with_torchvisions_beta_the_losses_are_torchvisions_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, deltas, wanted = (torch.randn(60, n, generator=generator) for n in (4, 16, 4))
    labels = torch.randint(0, 4, (60,), generator=generator)
    found = box_losses(logits, deltas, labels, wanted, beta=1 / 9)
    assert found == fastrcnn_loss(logits, deltas, [labels], [wanted])


def anchors_losses(beta: float) -> tuple[RegionProposals, list[Any]]:
    rpn = region_proposals(composed("mask_rcnn_tiny", f"proposals.box_beta={beta}", "proposals.sampled=65536"))
    assert isinstance(rpn, RegionProposals)
    generator = torch.Generator().manual_seed(2)
    objectness, deltas = torch.randn(90, 1, generator=generator), torch.randn(90, 4, generator=generator)
    labels = [torch.randint(-1, 2, (45,), generator=generator).float() for _ in range(2)]
    return rpn, [objectness, deltas, labels, [torch.randn(45, 4, generator=generator) for _ in range(2)]]


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_proposals_learn_from_smooth_l1_over_all_drawn_anchors(beta: float) -> None:
    rpn, given = anchors_losses(beta)
    scores, boxes = rpn.compute_loss(*given)
    objectness, deltas, labels, targets = given
    flat, wanted = torch.cat(labels), torch.cat(targets)
    total = entropy = 0.0
    for row, label in enumerate(flat.tolist()):
        if label < 0:
            continue
        p = 1 / (1 + math.exp(-float(objectness[row, 0])))
        entropy -= math.log(p if label else 1 - p)
        for off in (deltas[row] - wanted[row]).abs().tolist() if label else []:
            total += off**2 / (2 * beta) if off < beta else off - beta / 2
    count = int((flat >= 0).sum())
    assert boxes.item() == pytest.approx(total / count, rel=1e-5)
    assert scores.item() == pytest.approx(entropy / count, rel=1e-5)


def test_with_torchvisions_beta_proposals_learn_as_torchvisions_to_the_bit() -> None:
    rpn, given = anchors_losses(1 / 9)
    rpn.fg_bg_sampler = BalancedPositiveNegativeSampler(16, 0.5)
    found = []
    for compute in (rpn.compute_loss, lambda *given: RegionProposalNetwork.compute_loss(rpn, *given)):
        torch.manual_seed(0)
        found.append(compute(*given))
    assert found[0] == found[1]


def test_a_filled_box_is_a_full_target_only_where_it_is_aligned() -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[0, 4:12, 4:12] = 1
    box, index = torch.tensor([[4.0, 4.0, 12.0, 12.0]]), torch.tensor([0])
    assert mask_targets(masks, box, index, cells=4, aligned=True).min() == 1
    assert mask_targets(masks, box, index, cells=4, aligned=False).min() < 0.8


def test_a_box_below_a_pixel_reads_the_pixel_it_lies_in() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, 3, 5] = 1
    box = torch.tensor([[5.4, 3.4, 5.6, 3.6]])
    assert mask_targets(masks, box, torch.tensor([0]), cells=2, aligned=True).min() > 0.8


def test_the_loss_is_torchvisions_where_targets_are_its_own() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 4, 6, 6, generator=generator)
    boxes = [torch.tensor([[1.0, 2.0, 9.0, 8.0], [0.0, 0.0, 5.0, 5.0]]), torch.tensor([[2.0, 1.0, 7.0, 9.0]] * 3)]
    matched = [torch.tensor([1, 0]), torch.tensor([0, 0, 1])]
    targets = [{"labels": torch.tensor([1, 3]), "masks": noise(2, 10, 12)} for _ in range(2)]
    lists = [[target[key] for target in targets] for key in ("masks", "labels")]
    theirs = maskrcnn_loss(logits, boxes, *lists, matched)
    assert mask_loss(logits, boxes, matched, targets, aligned=False) == pytest.approx(theirs.item(), rel=1e-6)
    assert mask_loss(logits[:0], [], [], targets, aligned=True) == 0


def test_all_other_losses_are_torchvisions() -> None:
    config = composed("mask_rcnn_tiny", "heads.aligned=false", "heads.mask_targets=share")
    model = mask_rcnn.build(config, classes=2, load=False).train()
    heads = model.roi_heads
    assert isinstance(heads, MaskHeads)
    generator = torch.Generator().manual_seed(2)
    features = {str(level): torch.randn(1, 64, 32 >> level, 32 >> level, generator=generator) for level in range(4)}
    proposals = [torch.tensor([[8.0, 8.0, 60.0, 50.0], [70.0, 70.0, 100.0, 120.0], [0.0, 90.0, 30.0, 120.0]])]
    masks = torch.zeros(1, 128, 128, dtype=torch.uint8)
    masks[0, 10:48, 12:60] = 1
    targets = [{"boxes": torch.tensor([[12.0, 10.0, 60.0, 48.0]]), "labels": torch.tensor([2]), "masks": masks}]
    found = []
    for forward in (heads.forward, lambda *arguments: RoIHeads.forward(heads, *arguments)):
        torch.manual_seed(0)
        found.append(forward(features, proposals, [(128, 128)], targets)[1])
    assert {name: loss.item() for name, loss in found[0].items()} == pytest.approx(
        {name: loss.item() for name, loss in found[1].items()}, rel=1e-5
    )
    heads.aligned = True
    torch.manual_seed(0)
    moved = heads(features, proposals, [(128, 128)], targets)[1]
    assert moved["loss_box_reg"] == found[0]["loss_box_reg"]
    assert moved["loss_mask"] != found[0]["loss_mask"]


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny"])
def test_both_rcnns_learn_the_targets_of_the_config(name: str) -> None:
    for targets in ("share", "binary"):
        config = composed(name, f"heads.mask_targets={targets}")
        heads = segmenters.find(config).build(config, classes=1, load=False).roi_heads
        for stage in getattr(heads, "stages", [heads]):
            assert stage.binary is (targets == "binary")


def test_torchvisions_published_weights_are_pooled_as_they_learned() -> None:
    for overrides, samples, aligned in (((), 0, True), (("weights=published",), 2, False)):
        pool = roi_pool(composed("mask_rcnn_r50", *overrides), cells=7)
        assert (pool.samples, pool.aligned) == (samples, aligned)


@pytest.mark.parametrize("aligned", [True, False])
def test_both_rcnns_follow_the_config(aligned: bool) -> None:
    def config(name: str) -> SegmenterConfig:
        return composed(name, f"heads.aligned={aligned}")

    assert mask_rcnn.build(config("mask_rcnn_tiny"), classes=1, load=False).roi_heads.aligned is aligned
    stages = cascade.build(config("cascade_tiny"), classes=1, load=False).roi_heads.stages
    assert [stage.aligned for stage in stages] == [aligned] * 3
