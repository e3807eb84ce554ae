"""The rival by a query: one box, one map of pixels, and losses that loops give too."""

import math

import pytest
import torch
from partialres_networks import LEXICON, batch, config
from torchvision.ops import box_convert

from mal.methods.partialres.config.network import QueryConfig
from mal.methods.partialres.network import load_fitting
from mal.methods.partialres.query import QueryNetwork, QueryOutputs, matched, query_losses

BOXES = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.1, 0.4, 0.9], [0.5, 0.5, 0.9, 0.7]])


def network(*, boxes_only: bool = False, **changed) -> QueryNetwork:
    torch.manual_seed(0)
    return QueryNetwork(config(**changed), lexicon=LEXICON, load=False, boxes_only=boxes_only)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_gives_boxes_scores_and_the_surest_querys_mask():
    ours = network().eval()
    found = ours(*batch())
    assert found.boxes.shape == (3, 3, 4)
    assert found.scores.shape == (3, 3)
    assert found.masks.shape == (3, 16, 16)
    assert torch.equal(found.chosen, found.scores.argmax(1))
    for row, xyxy in enumerate(found.found()):
        x, y, w, h = found.boxes[row, found.chosen[row]]
        torch.testing.assert_close(xyxy, torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2]))


def test_in_training_the_mask_is_of_the_query_whose_box_fits():
    ours = network().eval()
    images, words, valid = batch()
    true = box_convert(ours(images, words, valid).boxes[:, 1], "cxcywh", "xyxy")
    found = ours(images, words, valid, true)
    assert found.chosen.tolist() == [1, 1, 1]
    with torch.no_grad():
        ours.score[0].weight.zero_()
    plain = ours(images, words, valid)
    assert plain.chosen.tolist() == [0, 0, 0]
    assert not torch.equal(plain.masks, found.masks)


def test_the_match_is_the_cheapest_in_loops():
    boxes = noise(4, 5, 4).sigmoid()
    scores, true = noise(4, 5, seed=1), torch.rand(4, 4, generator=torch.Generator().manual_seed(2)).double()
    true = torch.cat([true[:, :2] / 2, true[:, :2] / 2 + 0.1 + true[:, 2:] / 3], dim=1)
    for row, found in enumerate(matched(boxes, scores, true).tolist()):
        costs = []
        for query in range(5):
            wanted = box_convert(true[row], "xyxy", "cxcywh")
            l1 = (boxes[row, query] - wanted).abs().sum().item()
            giou = _giou(box_convert(boxes[row, query], "cxcywh", "xyxy").tolist(), true[row].tolist())
            costs.append(5 * l1 - 2 * giou - scores[row].softmax(0)[query].item())
        assert found == min(range(5), key=costs.__getitem__)


def _giou(a: list[float], b: list[float]) -> float:
    def area(box: list[float]) -> float:
        return max(0, box[2] - box[0]) * max(0, box[3] - box[1])

    both = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    hull = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    union = area(a) + area(b) - both
    return both / union - (hull - union) / hull


def test_losses_are_those_of_loops_and_padding_does_not_count():
    boxes, scores, logits = noise(2, 3, 4).sigmoid(), noise(2, 3, seed=1), noise(2, 8, 8, seed=2)
    chosen, true = torch.tensor([2, 0]), BOXES[:2].double()
    mask = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    valid = torch.tensor([[1.0, 0.5], [0.75, 1.0]])
    found = query_losses(QueryOutputs(boxes, scores, logits, chosen), true, mask, valid)
    l1 = giou = score = pixels = 0.0
    for row, (columns, rows) in enumerate(((8, 4), (6, 8))):
        own = boxes[row, chosen[row]]
        l1 += 5 * (own - box_convert(true[row], "xyxy", "cxcywh")).abs().sum().item() / 2
        giou += 2 * (1 - _giou(box_convert(own, "cxcywh", "xyxy").tolist(), true[row].tolist())) / 2
        score -= math.log(scores[row].exp()[chosen[row]] / scores[row].exp().sum()) / 2
        for y in range(rows):
            for x in range(columns):
                p, on = 1 / (1 + math.exp(-logits[row, y, x])), mask[row, y, x].item()
                pixels -= (on * math.log(p) + (1 - on) * math.log(1 - p)) / rows / columns / 2
    expected = {"l1": l1, "giou": giou, "score": score, "pixels": pixels}
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, abs=1e-5)


def test_a_network_of_boxes_has_no_masks_and_one_of_masks_starts_from_it():
    first = network(boxes_only=True).eval()
    outputs = first(*batch(), BOXES)
    assert outputs.masks is None
    assert set(query_losses(outputs, BOXES, torch.zeros(3, 16, 16), batch()[2])) == {"l1", "giou", "score"}
    assert all(name.startswith("pixels.") for name in load_fitting(network(), first.state_dict()))


def test_a_single_query_has_nothing_to_choose():
    ours = network(query=QueryConfig(queries=1))
    losses = query_losses(ours(*batch(), BOXES), BOXES, None, batch()[2])
    assert losses["score"].item() == 0
    assert set(losses) == {"l1", "giou", "score"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_reaches_every_part_in_each_precision(dtype):
    ours = network(dropout=0.0)
    mask = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        losses = query_losses(ours(*batch(), BOXES), BOXES, mask, batch()[2])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    unreached = {name.split(".")[0] for name, each in ours.named_parameters() if each.grad is None}
    assert not unreached
    assert all(each.grad.isfinite().all() for each in ours.parameters() if each.grad is not None)
