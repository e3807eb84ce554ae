"""`recipe=released` against the released program's rules, computed the long way in float64 (docs/method/mal.md)."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mal.data import boxes
from mal.data.config import RoiConfig
from mal.data.mask_formats import decode_mask
from mal.data.rois import RoiBatch, TrainingRois, geometry, label_windows
from mal.engine.precision import network_dtype
from mal.methods.mal.config import LabelConfig, LossConfig
from mal.methods.mal.label import box_masks
from mal.methods.mal.network import compute_losses, halfway, predict
from mal.methods.mal.outlines import outlines
from tests.test_crf import loop

SIDE, STRIDE = 32, 4
MEAN, STD = (np.array(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def crop_of(image: np.ndarray, window: tuple[int, int, int, int], side: int) -> np.ndarray:
    """A mask's window, indices modulo the image, each of side × side pixels the one under its centre."""
    x0, y0, x1, y1 = window
    rows = [math.floor(y0 + (i + 0.5) * (y1 - y0) / side) % image.shape[0] for i in range(side)]
    columns = [math.floor(x0 + (i + 0.5) * (x1 - x0) / side) % image.shape[1] for i in range(side)]
    return image[np.ix_(rows, columns)]


def shrunk(values: np.ndarray, side: int) -> np.ndarray:
    """(..., S, S) → (..., side, side), bilinear between the two pixels around each centre."""
    size = values.shape[-1]
    places = (np.arange(side) + 0.5) * size / side - 0.5
    low = np.clip(np.floor(places).astype(int), 0, size - 1)
    high, share = np.minimum(low + 1, size - 1), np.clip(places, 0, None) - low
    across = values[..., low] * (1 - share) + values[..., high] * share
    return across[..., low, :] * (1 - share[:, None]) + across[..., high, :] * share[:, None]


def batch_of(
    xywh: list[list[float]], sizes: list[tuple[int, int]], windows: list[list[int]], **changes: Any
) -> RoiBatch:
    """Crops of noise."""
    config = RoiConfig(size=SIDE, border="wrap")
    about = geometry(
        torch.tensor(xywh, dtype=torch.float64),
        torch.tensor(sizes),
        torch.tensor(windows),
        ids=list(range(len(xywh))),
        config=config,
    )
    about["repeats"] += boxes.REPEATS.index("wrap")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (len(xywh), 3, SIDE, SIDE), dtype=np.uint8))
    return replace(RoiBatch(pixels=pixels, **about), **changes)


@st.composite
def wrapped(draw: st.DrawFn) -> tuple[list[float], tuple[int, int], list[int]]:
    """A box, its image's height and width, and a window around it that may reach beyond the border, even twice."""
    height, width = draw(st.integers(4, 60)), draw(st.integers(4, 60))
    x, y = draw(st.integers(0, width - 3)), draw(st.integers(0, height - 3))
    w, h = draw(st.integers(3, width - x)) - 0.5, draw(st.integers(3, height - y)) - 0.5
    before = [draw(st.integers(0, 2 * side)) for side in (width, height)]
    after = [draw(st.integers(0, 2 * side)) for side in (width, height)]
    return (
        [float(x), float(y), w, h],
        (height, width),
        [x - before[0], y - before[1], math.ceil(x + w) + after[0], math.ceil(y + h) + after[1]],
    )


@settings(max_examples=300)
@given(wrapped(), st.booleans())
def test_the_box_mask_is_the_crop_of_the_images_mask_shrunk_without_antialiasing(placed, flipped):
    """Where the crop wraps and shows the box again it is foreground; cells on the edge hold .5 or .25."""
    xywh, (height, width), window = placed
    rois = batch_of([xywh], [(height, width)], [window], flipped=torch.tensor([flipped]))
    left, top, right, bottom = rois.spans[0].tolist()
    image = np.zeros((height, width))
    image[top:bottom, left:right] = 1
    whole = crop_of(image, tuple(window), SIDE)
    if not whole.any():
        return  # a box thinner than a pixel of the crop: the nearest counts, which R would lose
    expected = shrunk(whole, SIDE // STRIDE)[:, :: -1 if flipped else 1]
    found = rois.box_mask(SIDE // STRIDE, form="fraction")[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert set(np.unique(found)) <= {0, 0.25, 0.5, 1}


def test_a_crop_that_wraps_round_a_box_as_large_as_the_image_is_all_foreground():
    """docs/method/mal.md's example."""
    rois = batch_of([[0, 0, 64, 48]], [(48, 64)], [[-2, -1, 81, 52]])
    assert rois.box_mask(SIDE, form="cell").all()
    background = replace(rois, repeats=torch.zeros(1, dtype=torch.int64))
    assert background.box_mask(SIDE, form="cell").mean() == pytest.approx(64 * 48 / (83 * 53), abs=0.03)


def test_mirrored_crops_mirror_the_box_and_padding_never_shows_it():
    for border, mirrored in (("reflect", True), ("constant", False), ("clip", False)):
        config = RoiConfig(
            size=20, expansion="released", theta=0, border=border, flip=0, min_side=2, min_area=1, max_area=1e9,
            repeats="foreground",
        )  # fmt: skip
        coco = {
            "images": [{"id": 1, "height": 20, "width": 20}],
            "annotations": [{"id": 1, "image_id": 1, "bbox": [0, 0, 8, 19]}],
        }
        made = TrainingRois(
            coco, Path(), config=config, batch=1, pool_images=1, seed=0, workers=0,
            loader=lambda *_: torch.zeros(3, 20, 20, dtype=torch.uint8),
        )  # fmt: skip
        (batch,) = made.batches(0, 1)
        (repeats,) = batch.repeats.tolist()
        assert (boxes.REPEATS[repeats] == "reflect") == mirrored
        wide = replace(batch, windows=torch.tensor([[-10, 0, 10, 20]]))
        columns = wide.box_lines(20)[1][0].tolist()
        assert columns[10:] == [True] * 9 + [False]
        assert columns[:10] == ([False] + [True] * 9 if mirrored else [False] * 10)


class Given(nn.Module):
    """A network whose logits are what it is told."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor, sizes: Tensor, *, side: int) -> Tensor:  # noqa: ARG002
        return self.logits


def step_the_long_way(student: Tensor, teacher: Tensor, rois: RoiBatch, config: Any) -> tuple[Tensor, Tensor]:
    """MIL and CRF loss as docs/method/mal.md states them; logits (B, s, s) float64."""
    box = np.stack([shrunk(whole, SIDE // STRIDE) for whole in rois.box_mask(SIDE, form="cell").double().numpy()])
    masks, bags = student.sigmoid(), torch.from_numpy(box)

    def dice(found: Tensor, wanted: Tensor) -> Tensor:
        return 1 - 2 * (found * wanted).sum(-1) / ((found.square().sum(-1) + 0.001) + (wanted.square().sum(-1) + 0.001))

    mil = sum(dice(masks.amax(axis), bags.amax(axis)) for axis in (1, 2))
    images = (shrunk(rois.pixels.double().numpy() / 255, SIDE // STRIDE) - MEAN) / STD
    mean = (masks.detach() + teacher.sigmoid()).numpy() / 2
    refined = torch.from_numpy(np.stack([loop(m, i, b, config.crf) for m, i, b in zip(mean, images, box, strict=True)]))
    return mil.mean(), dice(masks.flatten(1), refined.double().flatten(1)).mean()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_losses_and_their_gradients_are_those_of_the_rules(compose, precision):
    config = compose("data=shapes", "recipe=released", "profile=paper")
    rng = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, SIDE // STRIDE, SIDE // STRIDE, generator=rng, dtype=torch.float64) * 2
    rois = batch_of(
        [[3, 2, 20.5, 9], [0, 0, 40, 30], [10, 10, 7.2, 25], [5, 1, 30, 30]],
        [(30, 40), (30, 40), (50, 45), (33, 36)],
        [[-1, 0, 30, 14], [-9, -4, 52, 41], [6, 2, 21, 40], [-20, -8, 50, 39]],
    )
    reference = logits[0].clone().requires_grad_()
    mil, crf = step_the_long_way(reference, logits[1], rois, config)
    (4 * mil + 0.5 * crf).backward()
    student = Given(logits[0].float())
    found = compute_losses(
        student, Given(logits[1].float()), rois, loss=config.loss, crf=config.crf,
        photometrics=lambda images, _: images, weights=(4.0, 0.5), dtype=network_dtype(precision, torch.device("cpu")),
    )  # fmt: skip
    found.total.backward()
    assert found.mil.item() == pytest.approx(mil.item(), abs=1e-6)
    assert found.crf.item() == pytest.approx(crf.item(), abs=1e-6)
    torch.testing.assert_close(student.logits.grad.double(), reference.grad, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    "change", ["loss.box_mask=cell", "crf.antialias=true"], ids=["box by cells", "antialiased image"]
)
def test_each_rule_matters(compose, change):
    """What the test above compares is not the same under the former rules."""
    rois = batch_of([[3, 2, 20.5, 9], [5, 1, 30, 30]], [(30, 40), (33, 36)], [[-1, 0, 30, 14], [-20, -8, 50, 39]])
    logits = torch.randn(2, 2, SIDE // STRIDE, SIDE // STRIDE, generator=torch.Generator().manual_seed(0)) * 2
    losses = []
    for overrides in ((), (change,)):
        config = compose("data=shapes", "recipe=released", "profile=paper", *overrides)
        losses.append(
            compute_losses(
                Given(logits[0]), Given(logits[1]), rois, loss=config.loss, crf=config.crf,
                photometrics=lambda images, _: images, weights=(4.0, 0.5),
            ).total.item()
        )  # fmt: skip
    assert losses[0] != losses[1]


def test_bags_of_a_thin_box_hold_what_its_mask_holds():
    """One pixel of the crop, between two cells' centres: its cells, rows and columns count half."""
    rois = batch_of([[10, 0, 0.9, 31]], [(32, 32)], [[0, 0, 32, 32]])
    box = rois.box_mask(SIDE // STRIDE, form="fraction")[0]
    assert rois.spans[0].tolist() == [10, 0, 11, 32]
    assert box.amax(0).tolist() == [0, 0, 0.5, 0, 0, 0, 0, 0]
    assert box.amax(1).tolist() == [0.5] * 8


LOST = [[12, 0, 0.9, 31], [0, 15, 31, 0.9], [19, 3, 0.9, 0.9]]  # pixels 4i or 4i + 3 of the crop, between two cells


@pytest.mark.parametrize("xywh", LOST)
def test_a_box_between_the_cells_is_lost_as_it_is_in_the_released_program(xywh):
    rois = batch_of([xywh], [(32, 32)], [[0, 0, 32, 32]])
    left, top, right, bottom = rois.spans[0].tolist()
    whole = np.zeros((SIDE, SIDE))
    whole[top:bottom, left:right] = 1
    assert not shrunk(whole, SIDE // STRIDE).any()
    assert not rois.box_mask(SIDE // STRIDE, form="fraction").any()
    assert rois.box_mask(SIDE // STRIDE, form="cell").any()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("form", "smooth", "constant"), [("separate", 0.001, 2), ("joint", 0.0, 1)])
def test_a_lost_box_teaches_nothing_and_spoils_no_figure(compose, form, smooth, constant, precision):
    """Its dice are 1, whatever the mask; the other boxes of its batch learn as they would beside any box."""
    config = compose("data=shapes", "recipe=released", "profile=paper", f"loss.mil={form}", f"loss.smooth={smooth}")
    known = [3, 2, 20.5, 9]
    logits = torch.randn(2, 4, SIDE // STRIDE, SIDE // STRIDE, generator=torch.Generator().manual_seed(0)) * 2

    def step(boxes_xywh: list[list[float]], rows: slice) -> tuple[Any, Tensor]:
        rois = batch_of(boxes_xywh, [(32, 32)] * len(boxes_xywh), [[0, 0, 32, 32]] * len(boxes_xywh))
        student = Given(logits[0, rows].clone())
        found = compute_losses(
            student, Given(logits[1, rows]), rois, loss=config.loss, crf=config.crf,
            photometrics=lambda images, _: images, weights=(4.0, 0.5),
            dtype=network_dtype(precision, torch.device("cpu")),
        )  # fmt: skip
        found.total.backward()
        return found, student.logits.grad

    alone, gradient = step([known], slice(0, 1))
    beside, gradients = step([known, *LOST], slice(0, 4))
    assert torch.equal(gradients[1:], torch.zeros_like(gradients[1:]))
    assert gradient.any()
    torch.testing.assert_close(4 * gradients[:1], gradient)
    assert beside.mil.item() == pytest.approx((alone.mil.item() + 3 * constant) / 4, abs=1e-6)
    assert beside.crf.item() == pytest.approx((alone.crf.item() + 3) / 4, abs=1e-6)
    assert beside.foreground == alone.foreground
    only, nothing = step(LOST, slice(1, 4))
    assert not nothing.any()
    assert torch.stack([only.total, only.mil, only.crf, only.foreground]).isfinite().all()
    assert only.foreground == 0


def test_labelling_resizes_logits_by_way_of_the_losses_map(compose):
    """Two bilinear steps are not one: where the maps of small objects are coarser than the losses'."""
    config = compose("data=shapes", "recipe=released", "profile=paper", "roi.size=32")
    assert halfway(config) == 8
    assert halfway(compose("data=shapes")) is None
    coarse = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))

    class Coarse(nn.Module):
        def forward(self, images: Tensor, sizes: Tensor, *, side: int) -> Tensor:  # noqa: ARG002
            return nn.functional.interpolate(coarse[None], size=(side, side), mode="bilinear")[0]

    rois = batch_of([[3, 2, 20.5, 9]], [(30, 40)], [[-1, 0, 30, 14]])
    twice = predict([Coarse()], rois, flip=False, through=8)
    once = predict([Coarse()], rois, flip=False)
    steps = nn.functional.interpolate(
        nn.functional.interpolate(coarse[None], size=(8, 8), mode="bilinear"), size=(32, 32), mode="bilinear"
    )
    torch.testing.assert_close(twice, steps[0].sigmoid())
    assert (twice.logit() - once.logit()).abs().max() > 0.01


def enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(S, S) → (height, width), bilinear: each pixel's centre between the four cells around it."""

    def lines(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.minimum(np.floor(places).astype(int), old - 1)
        return low, np.minimum(low + 1, old - 1), places - low

    (top, bottom, down), (left, right, across) = lines(values.shape[0], height), lines(values.shape[1], width)
    rows = values[top] * (1 - down[:, None]) + values[bottom] * down[:, None]
    return rows[:, left] * (1 - across) + rows[:, right] * across


@settings(max_examples=200)
@given(wrapped(), st.integers(0, 2**31), st.sampled_from((0.1, 0.4)), st.sampled_from((8, 64)))
def test_masks_are_pasted_without_antialiasing_and_not_cut_again(placed, seed, threshold, side):
    xywh, (height, width), window = placed
    rois = batch_of([xywh], [(height, width)], [window])
    rois = replace(rois, pixels=torch.zeros(1, 3, side, side, dtype=torch.uint8), repeats=rois.repeats * 0)
    inside = box_masks(rois)
    values = torch.from_numpy(np.random.default_rng(seed).random((1, side, side), dtype=np.float32)) * inside
    x0, y0, x1, y1 = window
    at_size = enlarged(values[0].double().numpy(), y1 - y0, x1 - x0)
    image, near = np.zeros((height, width), dtype=bool), np.zeros((height, width), dtype=bool)
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
    shown = at_size[top - y0 : bottom - y0, left - x0 : right - x0]
    image[top:bottom, left:right] = shown > threshold
    near[top:bottom, left:right] = abs(shown - threshold) < 1e-5
    (label,) = outlines(values, rois, LabelConfig(threshold=[threshold] * 3, antialias=False, cut=False)).labels()
    found = decode_mask(label["segmentation"], height=height, width=width)
    assert not (found != image)[~near].any()
    assert label["area"] == found.sum()
    (cut,) = outlines(values, rois, LabelConfig(threshold=[threshold] * 3, antialias=False, cut=True)).labels()
    left, top, right, bottom = rois.spans[0].tolist()
    outside = np.ones((height, width), dtype=bool)
    outside[top:bottom, left:right] = False
    assert np.array_equal(decode_mask(cut["segmentation"], height=height, width=width), found & ~outside)


@pytest.mark.slow
def test_antialiasing_widens_the_masks_of_small_objects_at_low_thresholds(coco_mini):
    """Human masks as if a network had given them, at coco_mini's labelling windows, threshold .1."""
    coco = json.loads((coco_mini / "annotations" / "instances_val2017_mini.json").read_text(encoding="utf-8"))
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    config = RoiConfig(size=512, label_expansion=0.3, border="wrap")
    ious: dict[tuple[bool, int], list[float]] = {}
    for annotation in coco["annotations"]:
        xywh = torch.tensor([annotation["bbox"]], dtype=torch.float64)
        if annotation["iscrowd"] or xywh[0, 2:].min() <= 2:
            continue
        size = sizes[annotation["image_id"]]
        human = decode_mask(annotation["segmentation"], height=size[0], width=size[1])
        if not human.any():
            continue
        windows = label_windows(xywh, torch.tensor([size]), config)
        about = geometry(xywh, torch.tensor([size]), windows, ids=[0], config=config)
        rois = RoiBatch(pixels=torch.zeros(1, 3, 512, 512, dtype=torch.uint8), **about)
        crop = torch.from_numpy(crop_of(human, tuple(windows[0].tolist()), 512)) & box_masks(rois)
        for antialias in (True, False):
            options = LabelConfig(threshold=[0.1] * 3, antialias=antialias, cut=False)
            (label,) = outlines(crop.float(), rois, options).labels()
            found = decode_mask(label["segmentation"], height=size[0], width=size[1])
            iou = (found & human).sum() / (found | human).sum()
            ious.setdefault((antialias, int(rois.sizes)), []).append(float(iou))
    means = {key: float(np.mean(values)) for key, values in ious.items()}
    assert sum(len(values) for values in ious.values()) == 2 * 1816
    assert all(means[False, size] > 0.99 for size in range(3))
    assert means[True, 0] < 0.82
    assert means[True, 1] < 0.92


def test_older_labelers_keep_the_rules_they_were_made_with():
    """Their files say nothing of rules that came later."""
    label, loss = LabelConfig(), LossConfig()
    assert (label.antialias, label.cut, label.upsample, loss.box_mask) == (True, True, "direct", "cell")
