"""Mask targets lie where the mask lies; the rest of Mask R-CNN's heads is torchvision's."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_loss

from mal.segmenters import cascade, mask_rcnn
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.roi_heads import MaskHeads, mask_loss, mask_targets
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
    config = composed("mask_rcnn_tiny", "heads.aligned=false")
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


@pytest.mark.parametrize("aligned", [True, False])
def test_both_rcnns_follow_the_config(aligned: bool) -> None:
    def config(name: str) -> SegmenterConfig:
        return composed(name, f"heads.aligned={aligned}")

    assert mask_rcnn.build(config("mask_rcnn_tiny"), classes=1, load=False).roi_heads.aligned is aligned
    stages = cascade.build(config("cascade_tiny"), classes=1, load=False).roi_heads.stages
    assert [stage.aligned for stage in stages] == [aligned] * 3
