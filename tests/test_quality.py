"""The predicted IoU: its cues on masks drawn by hand, and its ranking of masks that were spoilt on purpose."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from experiments import fit_quality
from mal.data import shapes
from mal.data.annotations import decode_mask, read, strip
from mal.data.config import RoiConfig
from mal.data.rois import RoiBatch, geometry, labelling_batches
from mal.methods.baselines import box
from mal.methods.labelling import image_labeler, label_dataset
from mal.methods.mal.config import LabelConfig
from mal.methods.mal.label import box_masks, mal_labeler
from mal.methods.mal.network import build_network
from mal.methods.mal.outlines import outlines
from mal.metrics import predicted as quality

THRESHOLDS = [0.4, 0.4, 0.4]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def rois_of(xywh: list[float], *, side: int = 20, image: tuple[int, int] = (40, 40), window: list[int]) -> RoiBatch:
    """One box and its window."""
    config = RoiConfig(border="wrap")
    about = geometry(
        torch.tensor([xywh], dtype=torch.float64),
        torch.tensor([image]),
        torch.tensor([window]),
        ids=[1],
        config=config,
    )
    return RoiBatch(pixels=torch.zeros(1, 3, side, side, dtype=torch.uint8), **about)


def cues_of(values: torch.Tensor, rois: RoiBatch, thresholds: list[float] = THRESHOLDS) -> dict[str, float]:
    (row,) = quality.cues(values[None], box_masks(rois), rois, thresholds).tolist()
    return dict(zip(quality.CUES, row, strict=True))


def test_a_sharp_mask_that_fills_its_box_is_sure_in_every_cue():
    rois = rois_of([15.0, 15.0, 9.5, 9.5], window=[10, 10, 30, 30])
    values = torch.zeros(20, 20)
    values[5:15, 5:15] = 1
    assert cues_of(values, rois) == {
        "stability": 1.0,
        "leak": 0.0,
        "gap": 0.0,
        "roughness": pytest.approx(np.log(40 / 10)),
    }


def test_each_cue_sees_its_own_fault():
    rois = rois_of([15.0, 15.0, 9.5, 9.5], window=[10, 10, 30, 30])
    sure = torch.zeros(20, 20)
    sure[5:15, 5:15] = 1
    soft, beyond, short, rough = sure.clone(), sure.clone(), sure.clone(), sure.clone()
    soft[5:15, 5:10] = 0.45  # over the threshold of .4, and under that two logits higher
    beyond[5:15, 15:20] = 1
    short[5:8] = 0
    rough[5:15:2, 5:15:2] = 0
    best = cues_of(sure, rois)
    assert cues_of(soft, rois)["stability"] == 0.5
    assert cues_of(beyond, rois)["leak"] == pytest.approx(50 / 150)
    assert cues_of(short, rois)["gap"] == pytest.approx(0.3)
    assert cues_of(rough, rois)["roughness"] > best["roughness"] + 0.5
    for values, own in ((beyond, "leak"), (short, "gap")):
        others = {name: value for name, value in cues_of(values, rois).items() if name not in (own, "roughness")}
        assert others == {name: best[name] for name in others}


def test_the_gap_is_the_farthest_of_the_four_sides():
    rois = rois_of([15.0, 15.0, 9.5, 9.5], window=[10, 10, 30, 30])
    for rows, columns, gap in ((slice(6, 15), slice(5, 11), 0.4), (slice(5, 14), slice(7, 15), 0.2)):
        values = torch.zeros(20, 20)
        values[rows, columns] = 1
        assert cues_of(values, rois)["gap"] == pytest.approx(gap)


def test_what_a_window_shows_beyond_the_image_does_not_leak():
    """Pixels there are wrapped or repeated ones, and the probabilities say nothing about the box."""
    rois = rois_of([0.0, 0.0, 9.5, 9.5], window=[-5, -5, 15, 15])
    values = torch.zeros(20, 20)
    values[5:15, 5:15] = 1
    values[:5] = 1
    assert cues_of(values, rois)["leak"] == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.999])
def test_empty_and_full_crops_have_finite_cues_and_a_prediction(value, threshold):
    rois = rois_of([15.0, 15.0, 9.5, 9.5], window=[10, 10, 30, 30])
    measured = quality.cues(torch.full((1, 20, 20), value), box_masks(rois), rois, [threshold] * 3).numpy()
    annotation = {"id": 1, "image_id": 1, "bbox": [15.0, 15.0, 9.5, 9.5]}
    values = quality.features(measured, [annotation], quality.surroundings([annotation]))
    assert np.isfinite(values).all()
    assert 0 <= quality.predicted_iou(values)[0] <= 1


def test_stability_moves_the_threshold_by_two_logits_whatever_it_is():
    rois = rois_of([15.0, 15.0, 9.5, 9.5], window=[10, 10, 30, 30])
    for threshold in (0.1, 0.4, 0.8):
        middle = np.log(threshold / (1 - threshold))
        values = torch.full((20, 20), -30.0)
        for column, offset in enumerate((-2.1, -1.9, -0.1, 0.1, 1.9, 2.1, 9, 9, 9, 9), start=5):
            values[5:15, column] = middle + offset
        assert cues_of(values.sigmoid(), rois, [threshold] * 3)["stability"] == pytest.approx(5 / 9)


def test_surroundings_are_those_of_brute_force():
    draw = np.random.default_rng(0)
    annotations = [
        {"id": i, "image_id": i % 3, "bbox": [*draw.uniform(0, 50, 2).tolist(), *draw.uniform(1, 40, 2).tolist()]}
        for i in range(24)
    ]
    found = quality.surroundings(annotations)
    for a in annotations:
        covered = overlap = 0.0
        for b in annotations:
            if a is b or a["image_id"] != b["image_id"]:
                continue
            (ax, ay, aw, ah), (bx, by, bw, bh) = a["bbox"], b["bbox"]
            common = max(0, min(ax + aw, bx + bw) - max(ax, bx)) * max(0, min(ay + ah, by + bh) - max(ay, by))
            overlap = max(overlap, common / (aw * ah + bw * bh - common))
            covered = max(covered, common / (aw * ah) if bw * bh < aw * ah else 0)
        assert found[a["id"]] == pytest.approx((covered, overlap))


def test_a_box_alone_in_its_image_and_one_without_area_have_no_surroundings():
    annotations = [
        {"id": 1, "image_id": 1, "bbox": [0, 0, 5, 5]},
        {"id": 2, "image_id": 2, "bbox": [3, 3, 0, 4]},
        {"id": 3, "image_id": 2, "bbox": [3, 3, 0, 4]},
    ]
    assert quality.surroundings(annotations) == {1: (0.0, 0.0), 2: (0.0, 0.0), 3: (0.0, 0.0)}


def test_every_weight_has_the_sign_that_its_cue_means():
    _, weights = quality.coefficients()
    assert set(weights) == set(quality.FEATURES)
    assert weights["stability"] > 0
    assert all(weights[name] < 0 for name in ("leak", "gap", "roughness", "overlap"))


def test_the_file_of_coefficients_says_where_they_come_from():
    fitted = json.loads((Path(quality.__file__).with_name("predicted.json")).read_text())
    assert {"date", "commit", "fitted_to", "data", "checks", "ridge"} <= set(fitted)
    assert len(fitted["data"][fitted["fitted_to"]]["labeler_sha256"]) == 64
    for name, check in fitted["checks"].items():
        assert check["spearman_quality"] > check["spearman_score"], name


@pytest.mark.parametrize("device", DEVICES)
def test_cues_come_along_and_change_no_bit_of_a_label(device):
    rois = rois_of([3.0, 4.0, 21.0, 17.5], window=[0, 0, 30, 27])
    values = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0)).to(device)
    measured = quality.cues(values, box_masks(rois.to(torch.device(device))), rois.to(torch.device(device)), THRESHOLDS)
    options = LabelConfig(threshold=THRESHOLDS)
    without, along = outlines(values, rois, options), outlines(values, rois, options, measured)
    assert along.labels() == without.labels()
    assert np.array_equal(along.cues(), measured.cpu().numpy())
    assert without.cues().shape == (1, 0)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Masks of shapes as a labeler might give them, from nearly right to nearly noise: features, score, IoU."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=40, size=160, seed=5, split="val")
    coco = read(folder / "annotations.json", masks=True)
    config = RoiConfig(size=48, label_expansion=0.15, border="wrap", min_side=2)
    draw, rows = np.random.default_rng(0), []
    around = quality.surroundings(coco["annotations"])
    for annotations, rois in labelling_batches(coco, folder / "images", config=config, batch=32, workers=0):
        inside, truth = (
            box_masks(rois),
            torch.stack([true_crop(a, w) for a, w in zip(annotations, rois.windows.tolist(), strict=True)]),
        )
        noise = torch.from_numpy(draw.normal(size=truth.shape)).float()
        noise = F.avg_pool2d(noise[:, None], 9, stride=1, padding=4)[:, 0] * 9
        amount = torch.from_numpy(draw.uniform(0.5, 6, size=len(truth))).float()[:, None, None]
        values = (3 * (2 * truth - 1) + amount * noise).sigmoid()
        found, right = (values > 0.4) & inside, (truth > 0.5) & inside
        iou = (found & right).sum((1, 2)) / (found | right).sum((1, 2)).clamp(min=1)
        score = (values * found).sum((1, 2)) / found.sum((1, 2)).clamp(min=1)
        features = quality.features(quality.cues(values, inside, rois, THRESHOLDS).numpy(), annotations, around)
        rows.append(pd.DataFrame(features, columns=list(quality.FEATURES)).assign(iou=iou.numpy(), score=score.numpy()))
    return pd.concat(rows, ignore_index=True)


def true_crop(annotation: dict[str, Any], window: list[int]) -> torch.Tensor:
    """(48, 48) of a mask in an image of 160 × 160, nothing beyond it."""
    x0, y0, x1, y1 = window
    mask = np.pad(decode_mask(annotation["segmentation"], height=160, width=160), 160)
    part = torch.from_numpy(mask[y0 + 160 : y1 + 160, x0 + 160 : x1 + 160].astype(np.float32))
    return F.interpolate(part[None, None], size=(48, 48), mode="bilinear", antialias=True)[0, 0]


def test_masks_spoilt_by_noise_are_ranked_by_their_iou(spoilt):
    """No labeler that the coefficients were fitted to had a part in these."""
    predicted = pd.Series(quality.predicted_iou(spoilt[list(quality.FEATURES)].to_numpy()))
    assert spoilt["iou"].std() > 0.1
    assert spoilt["iou"].corr(predicted, method="spearman") > 0.6


def test_a_fit_finds_the_curve_that_the_masks_follow(spoilt):
    values = spoilt[list(quality.FEATURES)].to_numpy()
    iou = quality.predicted_iou(values, (0.3, dict.fromkeys(quality.FEATURES, 0.0) | {"stability": 2.0, "gap": -3.0}))
    found = fit_quality.fit(spoilt.assign(iou=iou))
    assert np.abs(quality.predicted_iou(values, found) - iou).max() < 0.03
    report = fit_quality.check(spoilt.assign(iou=iou), quality.predicted_iou(values, found))
    assert report["spearman_quality"] > 0.98
    assert report["mean_error_quality"] < 0.01


def test_a_baseline_has_no_predicted_iou_and_an_old_one_is_not_kept(tmp_path):
    shapes.generate(tmp_path, images=1, size=96, seed=1, split="val")
    coco = read(tmp_path / "annotations.json", masks=False)
    for annotation in coco["annotations"]:
        annotation["quality"] = 0.9  # of masks that are replaced
    labels = label_dataset(
        coco, tmp_path / "images", image_labeler(box.masks),
        folder=tmp_path / "out", shard_images=1,
    )  # fmt: skip
    assert not any("quality" in annotation for annotation in labels["annotations"])


def test_a_trained_labeler_says_how_good_each_mask_seems(tmp_path, compose):
    """Whatever the size of a batch, and however the image's boxes are spread over batches."""
    shapes.generate(tmp_path, images=3, size=96, seed=1, split="val")
    coco = strip(read(tmp_path / "annotations.json", masks=False))
    found = []
    for batch in (3, 64):
        config = compose("profile=smoke", f"label.batch={batch}", "train.workers=0")
        torch.manual_seed(0)
        labeler = mal_labeler([build_network(config).eval()], config, torch.device("cpu"))
        labels = label_dataset(coco, tmp_path / "images", labeler, folder=tmp_path / str(batch), shard_images=2)
        found.append({a["id"]: a["quality"] for a in labels["annotations"] if not a.get("flagged")})
        assert not any("quality" in a for a in labels["annotations"] if a.get("flagged"))
    assert len(found[0]) > 5
    assert all(0 < value < 1 and value == round(value, 4) for value in found[0].values())
    assert found[1] == pytest.approx(found[0], abs=2e-3)


@pytest.mark.cuda
def test_a_gpu_measures_the_same_cues_and_nobody_waits_for_it():
    rois, values = rois_of([3.0, 4.0, 21.0, 17.5], window=[0, 0, 30, 27]), torch.rand(1, 20, 20)
    expected = quality.cues(values, box_masks(rois), rois, THRESHOLDS)
    device = torch.device("cuda")
    moved, on_device = rois.to(device), values.to(device)
    inside = box_masks(moved)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = quality.cues(on_device, inside, moved, THRESHOLDS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), expected, atol=1e-6, rtol=1e-6)
