"""The detector's losses and detections, against sums by hand and planted answers."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mal.data.mask_formats import decode_mask
from mal.errors import ConfigError
from mal.methods.attentionshift.config.detector import DetectionConfig, DetectorConfig
from mal.methods.attentionshift.detect import Detections, View, as_coco, detect, kept
from mal.methods.attentionshift.detector import LOWERED, Detector, Objects
from mal.segmenters.precision import lower_precision
from mal.segmenters.rcnn.parts import ExactAnchors
from tests.test_attentionshift_heads import mae_checkpoint

CHANNELS, CLASSES, SHAPES = 12, 3, [(128, 120), (100, 128)]
CPU = torch.device("cpu")


def small(*, sampled: int = 1 << 16) -> DetectorConfig:
    """A small detector that, by default, draws every RoI."""
    config = DetectorConfig(width=16, depth=1, heads=4, positions=6)
    config.neck.width, config.box.sampled = 16, sampled
    config.box.positive = 1.0 if sampled > 512 else 0.25
    config.proposals.after_nms = [60, 40]
    return config


def detector(config: DetectorConfig | None = None) -> Detector:
    torch.manual_seed(0)
    return Detector(config or small(), channels=CHANNELS, classes=CLASSES, patch=16)


def maps(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, CHANNELS, 8, 8, generator=generator) for _ in range(4)]


def objects(count: int, seed: int = 0) -> Objects:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(count, 2, generator=generator) * 60, 25 + torch.rand(count, 2, generator=generator) * 35
    inside = corner[:, None] + torch.rand(count, 5, 2, generator=generator) * size[:, None]
    return Objects(
        boxes=torch.cat([corner, corner + size], dim=1),
        labels=torch.randint(0, CLASSES, (count,), generator=generator),
        points=list(inside),
        wanted=list(torch.randint(0, 2, (count, 5), generator=generator).float()),
    )


def giou(a: list[float], b: list[float]) -> tuple[float, float]:
    """IoU and generalised IoU of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return both / union, both / union - (hull - union) / hull


def decoded(roi: list[float], code: list[float]) -> list[float]:
    """R-CNN's box code, of standard deviations .1, .1, .2, .2."""
    width, height = roi[2] - roi[0], roi[3] - roi[1]
    x, y = roi[0] + width / 2 + code[0] / 10 * width, roi[1] + height / 2 + code[1] / 10 * height
    width, height = width * math.exp(code[2] / 5), height * math.exp(code[3] / 5)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def test_class_and_box_losses_are_sums_over_all_rois(monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector().double()
    torch.nn.init.normal_(model.heads.box_predictor.deltas.weight, std=0.3)
    given = [objects(2), objects(1, seed=1)]
    for each in given:
        each.boxes = each.boxes.double()
    seen: dict[str, Any] = {}
    classify = model.heads.classify

    def spy(features: Tensor, boxes: list[Tensor], patch: int) -> tuple[Tensor, Tensor]:
        seen["rois"], seen["found"] = boxes, classify(features, boxes, patch)
        return seen["found"]

    monkeypatch.setattr(model.heads, "classify", spy)
    losses = model.losses([map_.double() for map_ in maps()], given, SHAPES)
    logits, deltas = (value.detach() for value in seen["found"])
    rois = [(image, roi) for image, own in enumerate(seen["rois"]) for roi in own.tolist()]
    assert len(rois) == len(logits) > 100
    classes = boxes = 0.0
    positives = 0
    for (image, roi), scores, codes in zip(rois, logits, deltas, strict=True):
        overlaps = [giou(roi, box)[0] for box in given[image].boxes.tolist()]
        best = int(np.argmax(overlaps))
        label = int(given[image].labels[best]) + 1 if overlaps[best] >= 0.5 else 0
        classes -= float(scores.log_softmax(0)[label])
        if label:
            own = codes[4 * (label - 1) : 4 * label].tolist()
            boxes += 1 - giou(decoded(roi, own), given[image].boxes[best].tolist())[1]
            positives += 1
    assert positives >= 3  # the objects' own boxes are RoIs too
    assert losses["classes"].item() == pytest.approx(classes / len(rois))
    assert losses["boxes"].item() == pytest.approx(10 * boxes / len(rois), rel=1e-5)


def test_at_most_a_quarter_of_512_rois_is_positive() -> None:
    config = DetectorConfig()
    assert (config.box.sampled, config.box.positive, config.box.iou) == (512, 0.25, 0.5)
    model = detector(small(sampled=24))
    drawn: list[Any] = []
    original = model.heads.box_losses

    def spy(logits: Tensor, deltas: Tensor, sampled: Any, given: list[Objects]) -> tuple[Tensor, Tensor]:
        drawn.append(sampled)
        return original(logits, deltas, sampled, given)

    model.heads.box_losses = spy
    crowd = objects(1)
    crowd.boxes = crowd.boxes + torch.rand(20, 4)  # twenty boxes upon another
    crowd.labels, crowd.points, crowd.wanted = crowd.labels.repeat(20), crowd.points * 20, crowd.wanted * 20
    model.losses(maps(1), [crowd], SHAPES[:1])
    (labels,) = drawn[0].labels
    assert len(labels) == 24
    assert int((labels > 0).sum()) == 6


def test_anchors_are_eight_strides_wide_and_lie_around_the_maps_cells() -> None:
    model = detector()
    levels, images = model.levels(maps(1))
    images.image_sizes = SHAPES[:1]
    generator: Any = model.rpn.anchor_generator
    assert isinstance(generator, ExactAnchors)
    (anchors,) = generator(images, list(levels.values()))
    expected = []
    for stride in (4, 8, 16, 32, 64):
        for row in range(128 // stride):
            for column in range(128 // stride):
                for ratio in (0.5, 1.0, 2.0):
                    width, height = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
                    x, y = column * stride, row * stride
                    expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    torch.testing.assert_close(anchors, torch.tensor(expected))


def test_points_teach_the_mask_of_their_objects_class_alone() -> None:
    model = detector()
    given = [objects(1), objects(2, seed=1)]
    for each in given:
        each.labels = torch.ones_like(each.labels)
    model.losses(maps(), given, SHAPES)["mask"].backward()
    gradient = model.heads.mask_head.logits.bias.grad
    assert gradient is not None
    assert gradient[1] != 0
    assert gradient[0] == gradient[2] == 0


def test_whole_masks_teach_every_cell_where_they_are_given() -> None:
    """Boxes of one pixel a cell: the mean binary cross-entropy over their pixels."""
    config = small()
    config.box.iou = 0.99  # the objects' own boxes alone
    model = detector(config).double()
    masks = (torch.rand(2, 128, 128, generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.uint8)
    boxes = torch.tensor([[10, 20, 38, 48], [60, 64, 88, 92]]).double()
    given = Objects(boxes, torch.tensor([2, 0]), [torch.zeros(0, 2)] * 2, [torch.zeros(0)] * 2, masks)
    shown = [map_.double() for map_ in maps(1)]
    found = model.losses(shown, [given], [(128, 128)])["mask"].item()
    (probabilities,) = model.masks(shown[-1], [boxes], [given.labels])
    wanted = torch.stack([masks[0, 20:48, 10:38], masks[1, 64:92, 60:88]]).double()
    likelihood = wanted * probabilities + (1 - wanted) * (1 - probabilities)
    assert found == pytest.approx(-likelihood.log().mean().item())


@pytest.mark.parametrize(("grid_train", "alike"), [(14, True), (7, False)])
def test_masks_are_learned_on_the_grid_they_are_tested_on_but_in_the_released_program(
    grid_train: int, alike: bool
) -> None:
    config = small()
    config.mask.grid_train = grid_train
    model = detector(config)
    sides: list[int] = []
    model.heads.mask_head.register_forward_hook(lambda _module, given, _out: sides.append(given[0].shape[-1]))
    one = objects(1)
    model.losses(maps(1), [one], SHAPES[:1])
    (masks,) = model.masks(maps(1)[-1], [one.boxes], [one.labels])
    assert masks.shape == (1, 28, 28)
    assert sides == [grid_train, 14]
    assert (sides[0] == sides[1]) == alike


EMPTY = objects(0)
POINTLESS = Objects(objects(2).boxes, objects(2).labels, [torch.zeros(0, 2)] * 2, [torch.zeros(0)] * 2)
CASES = {
    "objects in both": [objects(2), objects(3, seed=1)],
    "none in one": [objects(2), EMPTY],
    "none at all": [EMPTY, EMPTY],
    "no points": [POINTLESS, EMPTY],
}


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_keeps_a_gradient_whatever_the_images_hold(name: str, dtype: torch.dtype) -> None:
    exact = {key: value.item() for key, value in _losses(name, torch.float32)[1].items()}
    model, losses = _losses(name, dtype)
    assert list(losses) == ["rpn_objectness", "rpn_boxes", "classes", "boxes", "mask"]
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(exact, rel=0.03, abs=1e-3)
    assert all(value.dtype == torch.float32 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    without = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert without == []


def _losses(name: str, dtype: torch.dtype) -> tuple[Detector, dict[str, Tensor]]:
    model = detector()
    lower_precision(model, LOWERED, dtype=dtype, device=CPU)
    torch.manual_seed(1)
    return model, model.losses(maps(), CASES[name], SHAPES)


def test_images_without_objects_teach_the_background_alone() -> None:
    losses = _losses("none at all", torch.float32)[1]
    assert losses["rpn_boxes"] == losses["boxes"] == losses["mask"] == 0
    assert losses["classes"] > 0


def test_autocast_around_it_changes_nothing() -> None:
    found = _losses("objects in both", torch.float32)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = detector()
        torch.manual_seed(1)
        again = within.losses(maps(), CASES["objects in both"], SHAPES)
    assert found == again


def test_both_heads_start_from_a_masked_autoencoder() -> None:
    config = small()
    config.depth = 2
    model, state = detector(config), {key: value.float() for key, value in mae_checkpoint().items()}
    assert model.start_from_mae(state, source="mae.pth")
    for head in (model.heads.box_head, model.heads.mask_head):
        assert torch.equal(head.transformer.blocks[1].mlp.fc1.weight, state["decoder_blocks.1.mlp.fc1.weight"])
    assert not model.start_from_mae({"norm.weight": torch.ones(CHANNELS)}, source="mae.pth")


@pytest.mark.parametrize(("width", "heads"), [(18, 6), (20, 8)])
def test_a_width_that_attention_or_positions_cannot_share_is_refused(width: int, heads: int) -> None:
    config = small()
    config.width, config.heads = width, heads
    with pytest.raises(ConfigError, match=f"detector.width={width} must be a multiple of 4"):
        detector(config)


def test_views_map_boxes_there_and_back() -> None:
    boxes = torch.tensor([[30.0, 10.0, 90.0, 45.0]])
    view = View([], height=100, width=240, flipped=True)
    shown = view.shown(boxes, (50, 120))
    assert shown.tolist() == [[240 - 180, 20, 240 - 60, 90]]
    assert view.back(shown, (50, 120)).tolist() == boxes.tolist()
    assert View([], height=100, width=240).shown(boxes, (50, 120)).tolist() == [[60, 20, 180, 90]]


def test_what_is_kept_is_scored_above_the_threshold_and_hides_behind_none_of_its_class() -> None:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(40, 3, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 10 + torch.rand(40, 3, 2, generator=generator) * 20], dim=-1)
    probabilities = (3 * torch.randn(40, 4, generator=generator)).softmax(dim=1)
    config = DetectionConfig(score=0.1, nms=0.3, max_detections=25)
    candidates = [
        (float(probabilities[roi, label + 1]), label, boxes[roi, label].tolist())
        for roi in range(40)
        for label in range(3)
        if probabilities[roi, label + 1] > 0.1
    ]
    best: list[tuple[float, int, list[float]]] = []
    for score, label, box in sorted(candidates, reverse=True):
        if all(other != label or giou(box, theirs)[0] <= 0.3 for _, other, theirs in best):
            best.append((score, label, box))
    assert len(candidates) > len(best) > 25
    found = zip(*(value.tolist() for value in kept(boxes, probabilities, config)), strict=True)
    assert [(score, label, box) for box, score, label in found] == best[:25]


def test_views_share_their_proposals_and_their_answers_are_averaged() -> None:
    """Two views of an image of 40 × 80: as it is, and twice as large and flipped. Each proposes one object of its own
    and one that both see."""
    size, both = (40, 80), [10.0, 10.0, 30.0, 30.0]
    proposed = [
        torch.tensor([both, [40.0, 5, 60, 25]]),
        torch.tensor([[160 - 61.0, 20, 160 - 21, 60], [160 - 150.0, 40, 160 - 110, 70]]),  # x mirrored, doubled
    ]
    logits = [torch.tensor([0.0, 3.0]), torch.tensor([0.0, 1.0])]
    left = torch.zeros(1, 4, 4)
    left[..., :2] = 1
    shown: list[Tensor] = []

    def classify(features: Tensor, boxes: list[Tensor], _patch: int) -> tuple[Tensor, Tensor]:
        shown.append(boxes[0])
        return logits[int(features)].expand(len(boxes[0]), -1), torch.zeros(len(boxes[0]), 4)

    def masks(features: Tensor, boxes: list[Tensor], _labels: list[Tensor]) -> list[Tensor]:
        own = (left.flip(-1) if int(features) else left) * (0.5 if int(features) else 1.0)
        return [own.expand(len(boxes[0]), -1, -1)]

    config, coder = DetectorConfig(), detector().heads.box_coder
    fake: Any = SimpleNamespace(
        config=config,
        patch=16,
        levels=lambda given: (int(given[-1]), SimpleNamespace()),
        rpn=SimpleNamespace(scored=lambda _images, view: ([proposed[view]], [torch.tensor([0.9, 0.8]) - 0.05 * view])),
        heads=SimpleNamespace(classify=classify, box_coder=coder),
        masks=masks,
    )
    views = [View([torch.tensor(0)], 40, 80), View([torch.tensor(1)], 80, 160, flipped=True)]
    found = detect(fake, views, size=size)
    third = [55.0, 20.0, 75.0, 35.0]  # the second view's own, in the image
    torch.testing.assert_close(shown[0], torch.tensor([both, [40.0, 5, 60, 25], third]))
    torch.testing.assert_close(shown[1], views[1].shown(shown[0], size))
    torch.testing.assert_close(found.boxes, shown[0])
    mean = sum(math.exp(a) / (1 + math.exp(a)) for a in (3, 1)) / 2
    assert found.scores.tolist() == pytest.approx([mean] * 3)
    torch.testing.assert_close(found.masks, 0.75 * left.expand(3, -1, -1))


def test_detections_lie_in_the_image_by_falling_score() -> None:
    config = small()
    config.detection.score = 0.0
    model = detector(config).eval()
    torch.nn.init.normal_(model.heads.box_predictor.logits.weight, std=0.5)
    found = detect(model, [View(maps(1), 128, 120)], size=(256, 240))
    assert len(found.boxes) == len(found.masks) > 20
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert found.boxes.min() >= 0
    assert (found.boxes[:, 2:] <= torch.tensor([240, 256])).all()
    assert found.boxes[:, 2:].max() > 200  # pixels of the image, not of the view
    assert not any(value.requires_grad for value in vars(found).values())


def test_an_image_without_detections_gives_no_results() -> None:
    config = small()
    config.detection.score = 0.999
    found = detect(detector(config).eval(), [View(maps(1), 128, 120)], size=(128, 120))
    assert found.masks.shape == (0, 28, 28)
    assert as_coco({"id": 1, "height": 128, "width": 120}, found, categories=[1, 2, 3], threshold=0.5) == []


def test_results_are_cocos_with_masks_of_the_images_pixels() -> None:
    masks = torch.zeros(2, 4, 4)
    masks[0, :2], masks[1] = 0.9, 0.51
    found = Detections(
        torch.tensor([[4.0, 8, 12, 16], [20, 0, 28, 8]]), torch.tensor([0.9, 0.4]), torch.tensor([2, 0]), masks
    )
    first, second = as_coco({"id": 7, "height": 20, "width": 30}, found, categories=[3, 5, 9], threshold=0.5)
    assert (first["image_id"], first["category_id"], first["bbox"]) == (7, 9, [4, 8, 8, 8])
    assert second["category_id"] == 3
    assert second["score"] == pytest.approx(0.4)
    drawn = decode_mask(first["segmentation"], height=20, width=30)
    assert drawn[8:12, 5:11].all()
    assert not drawn[13:].any()
    assert not drawn[:, 12:].any()
    assert not drawn[:, :4].any()
    whole = decode_mask(second["segmentation"], height=20, width=30)
    assert whole[1:7, 21:27].all()  # .51 falls below one half towards the edge of its box
