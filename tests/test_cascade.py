"""Cascade Mask R-CNN matches, codes, weighs and averages by stage as it says, and learns."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mal.config import Config
from mal.data import shapes
from mal.data.annotations import read
from mal.errors import ConfigError
from mal.metrics.ap import average_precision
from mal.segmenters import inference, loop, training
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.data import Sample
from mal.segmenters.rcnn import cascade, mask_rcnn, parts
from mal.segmenters.rcnn.cascade_heads import CascadeHeads, CascadeStage, own_boxes

Compose = Callable[..., Config]
CPU = torch.device("cpu")
SMALL = (
    "pyramid.widths=[8,8,16,16]",
    "pyramid.channels=8",
    "heads.box_width=16",
    "heads.mask_widths=[8]",
    "heads.mask_up_width=8",
    "heads.sampled=16",
    "scale.short_sides=[48,64]",
    "scale.test_short_side=64",
    "schedule.batch=2",
    "schedule.epochs=null",
    "schedule.steps=6",
    "test.score=0",
)


@pytest.fixture(scope="module")
def small(compose: Compose) -> SegmenterConfig:
    """cascade_tiny on images of 64 pixels, as small as it gets."""
    return smaller(compose, "cascade_tiny")


def smaller(compose: Compose, name: str, *overrides: str) -> SegmenterConfig:
    options = [f"segmenter.{override}" for override in (*SMALL, "cascade.box_convs=[8]", *overrides)]
    config = compose(f"segmenter={name}", *options).segmenter
    check(config)
    return config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four procedural images of 64 pixels: annotations.json and images/."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=4, size=64, seed=0, split="train")
    return folder


def train(dataset: Path, folder: Path, config: SegmenterConfig) -> None:
    training.train(
        annotations=dataset / "annotations.json",
        images=dataset / "images",
        config=config,
        seed=0,
        folder=folder,
        device=CPU,
    )


def predict(dataset: Path, folder: Path, config: SegmenterConfig) -> list[dict[str, Any]]:
    return inference.predict(
        checkpoint=folder / "segmenter.pt",
        annotations=dataset / "annotations.json",
        images=dataset / "images",
        config=config,
        device=CPU,
    )


def random_boxes(count: int, *, side: float = 64, seed: int = 0) -> Tensor:
    """(count, 4) xyxy, float64, at least a pixel wide and high."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (side - 1)
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 1], dim=1)


def area(box: list[float]) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap(a: list[float], b: list[float]) -> float:
    return area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])


def iou(a: list[float], b: list[float]) -> float:
    return overlap(a, b) / (area(a) + area(b) - overlap(a, b))


def giou(a: list[float], b: list[float]) -> float:
    union = area(a) + area(b) - overlap(a, b)
    around = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    return overlap(a, b) / union - (around - union) / around


def stage_of(config: SegmenterConfig, number: int, classes: int = 3) -> CascadeStage:
    torch.manual_seed(number)
    return CascadeStage(config, number=number, classes=classes).double()


# --- one stage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "threshold"), [(0, 0.5), (1, 0.6), (2, 0.7)])
def test_a_proposal_is_positive_from_its_stages_iou_on(small: SegmenterConfig, number: int, threshold: float) -> None:
    stage = stage_of(small, number)
    stage.fg_bg_sampler.batch_size_per_image, stage.fg_bg_sampler.positive_fraction = 4000, 0.5  # everything is drawn
    boxes = random_boxes(5, seed=1)
    shifts = 8 * torch.randn(200, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    proposals = boxes.repeat(40, 1) + shifts * torch.rand(200, 1, dtype=torch.float64)
    proposals = torch.cat([proposals[:, :2], torch.maximum(proposals[:, 2:], proposals[:, :2] + 1)], dim=1)
    target = {"boxes": boxes, "labels": torch.tensor([1, 2, 3, 1, 2])}
    sampled = stage.sample([proposals], [target])
    candidates = torch.cat([proposals, boxes])
    assert torch.equal(sampled.boxes[0], candidates)
    assert sampled.own[0].tolist() == [False] * 200 + [True] * 5
    found = 0
    for box, label, matched in zip(candidates.tolist(), sampled.labels[0], sampled.matched[0], strict=True):
        ious = [iou(box, own) for own in boxes.tolist()]
        best = max(range(5), key=ious.__getitem__)
        assert label == (target["labels"][best] if ious[best] >= threshold else 0)
        if label > 0:
            found += 1
            assert matched == best
    assert 15 < found < 190  # some of both


def test_a_quarter_of_the_drawn_may_be_positive(small: SegmenterConfig) -> None:
    boxes = random_boxes(6)
    sampled = stage_of(small, 0).sample(
        [torch.cat([boxes.repeat(10, 1), random_boxes(300, seed=3)])],
        [{"boxes": boxes, "labels": torch.ones(6, dtype=torch.int64)}],
    )
    assert len(sampled.boxes[0]) == 16
    assert int((sampled.labels[0] > 0).sum()) == 4


@settings(deadline=None, max_examples=25)
@given(number=st.integers(0, 2), seed=st.integers(0, 1000))
def test_coding_a_box_and_decoding_it_gives_it_back(small: SegmenterConfig, number: int, seed: int) -> None:
    stage = stage_of(small, number)
    proposals, boxes = random_boxes(20, seed=seed), random_boxes(20, seed=seed + 5000)
    [deltas] = stage.box_coder.encode([boxes], [proposals])
    torch.testing.assert_close(stage.decoded(deltas, [proposals]), boxes)
    x, y, w, h = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))[number]
    one = torch.ones(20, 4, dtype=torch.float64)
    (width, height), moved = (proposals[:, 2:] - proposals[:, :2]).unbind(1), stage.decoded(one, [proposals])
    centre = (proposals[:, :2] + proposals[:, 2:]) / 2 + torch.stack([x * width, y * height], dim=1)
    torch.testing.assert_close((moved[:, :2] + moved[:, 2:]) / 2, centre)
    torch.testing.assert_close(
        moved[:, 2:] - moved[:, :2], torch.stack([width * math.exp(w), height * math.exp(h)], dim=1)
    )


def test_the_box_loss_is_one_minus_generalised_iou_of_the_positives(small: SegmenterConfig) -> None:
    stage, boxes = stage_of(small, 1), random_boxes(3)
    targets = [
        {"boxes": boxes[:2], "labels": torch.tensor([3, 1])},
        {"boxes": boxes[2:], "labels": torch.tensor([2])},
    ]
    proposals = [boxes[:2].repeat(4, 1) + 0.5, random_boxes(8, seed=9)]
    sampled = stage.sample(proposals, targets)
    count = sum(len(labels) for labels in sampled.labels)
    torch.manual_seed(0)
    deltas, logits = torch.randn(count, 4, dtype=torch.float64), torch.randn(count, 4, dtype=torch.float64)
    class_loss, box_loss = stage.box_losses(logits, deltas, sampled, targets)
    decoded = stage.decoded(deltas, sampled.boxes).tolist()
    expected_boxes = expected_classes = 0.0
    row, positives = 0, 0
    for labels, matched, target in zip(sampled.labels, sampled.matched, targets, strict=True):
        for label, index in zip(labels.tolist(), matched.tolist(), strict=True):
            expected_classes -= float(logits[row].log_softmax(0)[label])
            if label > 0:
                expected_boxes += 1 - giou(decoded[row], target["boxes"][index].tolist())
                positives += 1
            row += 1
    assert positives >= 5
    assert float(box_loss) == pytest.approx(expected_boxes / count)
    assert float(class_loss) == pytest.approx(expected_classes / count)


# --- a box for each class ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_class(compose: Compose) -> SegmenterConfig:
    return smaller(compose, "cascade_tiny", "cascade.box_per_class=true")


def test_each_class_has_its_own_box_and_the_background_none(by_class: SegmenterConfig) -> None:
    stage = stage_of(by_class, 0)
    pooled = torch.randn(4, 8, 7, 7, dtype=torch.float64)
    logits, deltas = stage.box_predictor(stage.box_head(pooled))
    assert logits.shape == (4, 4)
    assert deltas.shape == (4, 12)
    labels = torch.tensor([3, 1, 2, 1])
    own = own_boxes(deltas, labels)
    for row, label in enumerate(labels.tolist()):
        assert torch.equal(own[row], deltas[row, 4 * (label - 1) : 4 * label])
    one = deltas[:, :4]
    assert torch.equal(own_boxes(one, labels), one)


def test_the_box_loss_is_of_the_box_of_the_matched_class(by_class: SegmenterConfig) -> None:
    stage, boxes = stage_of(by_class, 2), random_boxes(3)
    target = {"boxes": boxes, "labels": torch.tensor([3, 1, 2])}
    sampled = stage.sample([torch.cat([boxes + 0.5, random_boxes(12, seed=9)])], [target])
    [labels], [matched], count = sampled.labels, sampled.matched, len(sampled.labels[0])
    torch.manual_seed(0)
    deltas, logits = torch.randn(count, 12, dtype=torch.float64), torch.randn(count, 4, dtype=torch.float64)
    expected, positives = 0.0, 0
    for row in range(count):
        if (label := int(labels[row])) > 0:
            [decoded] = stage.decoded(deltas[row : row + 1, 4 * (label - 1) : 4 * label], [sampled.boxes[0][row][None]])
            expected += 1 - giou(decoded.tolist(), boxes[matched[row]].tolist())
            positives += 1
    assert positives >= 3
    assert float(stage.box_losses(logits, deltas, sampled, [target])[1]) == pytest.approx(expected / count)


def test_rois_are_refined_by_their_own_class_and_others_by_the_best(by_class: SegmenterConfig) -> None:
    stage, boxes = stage_of(by_class, 0), random_boxes(6)
    torch.manual_seed(0)
    deltas, logits = torch.randn(6, 12, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    logits[:, 0] = 9  # the background itself has no box
    labels = torch.tensor([0, 2, 0, 1, 3, 0])
    for known in (None, labels):
        classes = logits[:, 1:].argmax(dim=1) + 1
        if known is not None:
            classes = torch.tensor([int(own) or int(best) for own, best in zip(labels, classes, strict=True)])
        chosen = torch.stack([deltas[row, 4 * (c - 1) : 4 * c] for row, c in enumerate(classes.tolist())])
        [found] = stage.refined(logits, deltas, [boxes], [(64, 64)], None if known is None else [known])
        torch.testing.assert_close(found, stage.decoded(chosen, [boxes]).clamp(0, 64))
    assert (logits[:, 1:].argmax(dim=1) + 1).tolist() != classes.tolist()


def test_a_detection_has_the_box_of_its_class(by_class: SegmenterConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = CascadeHeads(by_class, classes=2).eval()
    box = torch.tensor([[20.0, 20.0, 40.0, 40.0]])
    weight = heads.ordered()[-1].box_coder.weights[0]
    deltas = torch.tensor([[0.0, 0.0, 0.0, 0.0, weight, 0.0, 0.0, 0.0]])  # class 2: to the right by its own width
    logits = torch.tensor([[0.0, 1.0, 0.5]])
    for stage in heads.stages:
        last = stage is heads.stages[-1]
        monkeypatch.setattr(stage, "classify", lambda *_, last=last: (logits, deltas if last else 0 * deltas))
        monkeypatch.setattr(stage, "mask_logits", lambda _features, boxes, _shapes: torch.zeros(len(boxes[0]), 3, 4, 4))
    [result] = heads(maps_of(by_class), [box], [(64, 200)])[0]
    assert result["labels"].tolist() == [1, 2]
    torch.testing.assert_close(result["boxes"], torch.cat([box, box + torch.tensor([20.0, 0.0, 20.0, 0.0])]))
    assert result["scores"].tolist() == pytest.approx(logits.softmax(dim=1)[0, 1:].tolist())


def test_nothing_proposed_has_no_boxes_of_any_class(by_class: SegmenterConfig) -> None:
    torch.manual_seed(0)
    heads, nothing = CascadeHeads(by_class, classes=3).train(), torch.zeros(0, 4)
    losses = heads(maps_of(by_class), [nothing], [(64, 64)], [target_of(nothing)])[1]
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    [result] = heads.eval()(maps_of(by_class), [nothing], [(64, 64)])[0]
    assert result["boxes"].shape == (0, 4)


# --- the cascade ---------------------------------------------------------------------------------------------------


def maps_of(config: SegmenterConfig, images: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(3)
    sides = {"0": 16, "1": 8, "2": 4, "3": 2, "pool": 1}
    return {name: torch.randn(images, config.pyramid.channels, side, side) for name, side in sides.items()}


def target_of(boxes: Tensor) -> dict[str, Tensor]:
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return {"boxes": boxes.float(), "labels": torch.ones(len(boxes), dtype=torch.int64), "masks": masks}


def test_each_stage_is_trained_on_the_boxes_of_the_one_before(
    small: SegmenterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    heads = CascadeHeads(small, classes=1).train()
    seen: list[Tensor] = []
    sampled: list[Any] = []
    real = CascadeStage.sample

    def spy(stage: CascadeStage, proposals: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        seen.append(proposals[0])
        sampled.append(real(stage, proposals, targets))
        return sampled[-1]

    monkeypatch.setattr(CascadeStage, "sample", spy)
    moved = torch.tensor([1.0, -2.0, 0.5, 0.5])
    for stage in heads.stages:
        stage.box_predictor.deltas.bias.data.copy_(moved)
        stage.box_predictor.deltas.weight.data.zero_()
    target = target_of(random_boxes(3))
    losses = heads(maps_of(small), [random_boxes(60, seed=8).float()], [(64, 64)], [target])[1]
    for number, (stage, drawn) in enumerate(zip(heads.stages[:2], sampled[:2], strict=True)):
        proposals = drawn.boxes[0][~drawn.own[0]]  # the targets' own boxes do not go on
        expected = stage.decoded(moved.repeat(len(proposals), 1), [proposals]).clamp(0, 64)
        torch.testing.assert_close(seen[number + 1], expected)
        assert not seen[number + 1].requires_grad
    assert set(losses) == {f"loss_{kind}_{number}" for kind in ("class", "box", "mask") for number in (1, 2, 3)}


def test_losses_are_weighed_by_stage(small: SegmenterConfig, compose: Compose) -> None:
    heavier = smaller(compose, "cascade_tiny", "cascade.weights=[2,2,3]", "cascade.box_weight=5")
    maps, target, found = maps_of(small), target_of(random_boxes(3)), []
    for config in (small, heavier):
        torch.manual_seed(0)
        heads = CascadeHeads(config, classes=1).train()
        torch.manual_seed(1)  # what is drawn
        found.append(heads(maps, [random_boxes(60, seed=8).float()], [(64, 64)], [target])[1])
    factors = {"1": 2 / 1, "2": 2 / 0.5, "3": 3 / 0.25}
    for name, loss in found[0].items():
        factor = factors[name[-1]] * (0.5 if "box" in name else 1)
        torch.testing.assert_close(found[1][name], factor * loss)
    assert found[0]["loss_box_1"] > 0


def test_scores_and_masks_are_means_over_the_stages(small: SegmenterConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = CascadeHeads(small, classes=2).eval()
    boxes = torch.tensor([[2.0, 4.0, 20.0, 30.0], [30.0, 30.0, 60.0, 62.0]])
    logits = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.randn(3, 4, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    for number, stage in enumerate(heads.stages):
        shift = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(2, 1) * stage.box_coder.weights[0]  # by its own width
        shift[0] = 0
        monkeypatch.setattr(stage, "classify", lambda *_, n=number, s=shift: (logits[n], s if n == 1 else 0 * s))
        monkeypatch.setattr(stage, "mask_logits", lambda *_, n=number: masks[n])
    [result] = heads(maps_of(small), [boxes], [(64, 200)])[0]
    scores = logits.mean(dim=0).softmax(dim=1)
    by_score = sorted(((float(scores[i, c]), i, c) for i in (0, 1) for c in (1, 2)), reverse=True)
    moved = boxes + torch.tensor([[0.0] * 4, [30.0, 0.0, 30.0, 0.0]])
    assert result["scores"].tolist() == pytest.approx([score for score, _, _ in by_score])
    assert result["labels"].tolist() == [label for _, _, label in by_score]
    torch.testing.assert_close(result["boxes"], moved[[i for _, i, _ in by_score]])
    for row, (_, _, label) in enumerate(by_score):
        torch.testing.assert_close(result["masks"][row, 0], masks[:, row, label].sigmoid().mean(dim=0))


def test_nothing_proposed_and_nothing_there(small: SegmenterConfig) -> None:
    torch.manual_seed(0)
    heads = CascadeHeads(small, classes=1).train()
    nothing, empty = torch.zeros(0, 4), target_of(torch.zeros(0, 4))
    some = random_boxes(20, seed=4).float()
    for proposals, target in (([nothing], empty), ([some], empty), ([nothing], target_of(random_boxes(2)))):
        maps = {name: value.requires_grad_() for name, value in maps_of(small).items()}
        losses = heads(maps, proposals, [(64, 64)], [target])[1]
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert torch.isfinite(total)
        assert bool(losses["loss_mask_1"] > 0) == bool(len(target["boxes"]))  # their own boxes are sampled too
        assert all(bool(torch.isfinite(buffer).all()) for buffer in heads.buffers())
    [result] = heads.eval()(maps_of(small), [nothing], [(64, 64)])[0]
    assert [tuple(result[key].shape) for key in ("boxes", "scores", "labels")] == [(0, 4), (0,), (0,)]
    assert len(result["masks"]) == 0


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny"])
def test_a_batch_without_objects_trains_on_background(compose: Compose, name: str) -> None:
    config = smaller(compose, name)
    torch.manual_seed(0)
    model = (cascade if name == "cascade_tiny" else mask_rcnn).build(config, classes=1).train()
    nothing = target_of(torch.zeros(0, 4))
    sample = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), nothing["boxes"], nothing["labels"], nothing["masks"], 1)
    losses = parts.losses(model, [sample, sample])
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert sum(float(loss.detach()) for name, loss in losses.items() if "mask" in name) == 0


# --- training ------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_ends_in_the_same_bits(
    dataset: Path, tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = smaller(compose, "cascade_tiny", "running.checkpoint_steps=2", "scale.crop=0.5")
    config.scale.crop_short_sides, config.scale.crop_sides = [48], [24, 40]
    train(dataset, tmp_path / "whole", config)
    real, calls = loop._step, []

    def dies_at_the_fourth(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(*arguments, **named)

    monkeypatch.setattr(loop, "_step", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "cut", config)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    monkeypatch.undo()
    train(dataset, tmp_path / "cut", config)
    whole, cut = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True)["model"] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    results = predict(dataset, tmp_path / "whole", config)
    assert results
    assert all(0 <= result["score"] <= 1 and "segmentation" in result for result in results)


def test_without_a_mask_head_it_trains_on_boxes_alone_and_predicts_boxes(
    dataset: Path, tmp_path: Path, compose: Compose
) -> None:
    coco = json.loads((dataset / "annotations.json").read_text())
    for annotation in coco["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    (tmp_path / "images").symlink_to(dataset / "images")
    config = smaller(compose, "cascade_tiny", "mask_head=none", "schedule.steps=2")
    train(tmp_path, tmp_path / "run", config)
    assert "mask" not in (tmp_path / "run" / "curves.jsonl").read_text()
    results = predict(tmp_path, tmp_path / "run", config)
    assert results
    assert all(result.keys() == {"image_id", "category_id", "bbox", "score"} for result in results)


def test_lowered_parts_are_parts_of_the_model(compose: Compose) -> None:
    for overrides in ((), ("mask_head=none",)):
        config = smaller(compose, "cascade_tiny", *overrides)
        model = cascade.build(config, classes=1)
        parts = cascade.lowered_parts(config)
        assert all(model.get_submodule(part) for part in parts)
        left = [n for n, _ in model.named_parameters() if not n.startswith(tuple(f"{part}." for part in parts))]
        assert {name.split(".")[-3] for name in left} == {"box_predictor"}


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("cascade.ious=[0.5,0.6]", "must have one entry per stage each"),
        ("cascade.ious=[0.5,0.6,1.7]", "must lie between 0 and 1"),
        ("cascade.box_stds=[[1.0],[1.0],[1.0]]", "each stage needs four positive numbers"),
    ],
)
def test_stages_that_make_no_sense_are_refused(compose: Compose, override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        smaller(compose, "cascade_tiny", override)


@pytest.mark.slow
def test_it_learns_four_images_by_heart(tmp_path: Path, compose: Compose) -> None:
    shapes.generate(tmp_path / "data", images=4, size=96, seed=12, split="train")
    overrides = [
        "pyramid.widths=[16,32,48,64]",
        "pyramid.channels=32",
        "heads.mask_widths=[64,64]",
        "heads.sampled=32",
        "scale.short_sides=[96]",
        "scale.flip=0",
        "scale.test_short_side=96",
        "optimizer.base_batch=4",
        "schedule.batch=4",
        "schedule.epochs=null",
        "schedule.steps=340",
    ]
    config = compose("segmenter=cascade_tiny", *(f"segmenter.{override}" for override in overrides)).segmenter
    config.class_agnostic = True
    train(tmp_path / "data", tmp_path / "run", config)
    human = read(tmp_path / "data" / "annotations.json", masks=True)
    found = predict(tmp_path / "data", tmp_path / "run", config)
    metrics, _ = average_precision(human, found, class_agnostic=True)
    assert metrics["ap50"] > 0.95
    assert metrics["ap"] > 0.8
