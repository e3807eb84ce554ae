"""Clustering score: Eq. 6 written out in float64, on synthetic tokens and on whole crops of real masks."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_encoders import entry

from mal.data import shapes
from mal.data.annotations import decode_mask, read
from mal.data.config import RoiConfig
from mal.data.images import load_for
from mal.data.rois import cut
from mal.encoders.encoder import Encoder
from mal.errors import AnnotationError
from mal.metrics import clustering
from mal.metrics.clustering import TokenSums, clustering_score, foreground_cells

CONFIG = RoiConfig(64, "released", 1.2, 0.3, "wrap", 0.5, 2, 16, 1e10)


def equation_6(features: np.ndarray, foreground: np.ndarray) -> float:
    """The formula as printed, one token at a time."""
    centres = [features[foreground == side].mean(0) for side in (False, True)]
    total = 0.0
    for f, side in zip(features, foreground, strict=True):
        c = centres[int(side)]
        total += float(((f / np.sqrt((f**2).sum()) - c / np.sqrt((c**2).sum())) ** 2).sum())
    return total / len(features)


@given(st.integers(2, 40), st.integers(1, 20), st.floats(1e-3, 1e3), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_sums_give_equation_6(tokens, channels, scale, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(0.3, 1, (tokens, channels)) * scale
    foreground = rng.random(tokens) < 0.4
    foreground[:2] = [False, True]
    found = TokenSums.of(torch.from_numpy(features), torch.from_numpy(foreground)).score()
    assert found == pytest.approx(equation_6(features, foreground), rel=1e-9, abs=1e-9)


def test_sums_of_parts_add_up():
    features, foreground = torch.randn(30, 5), torch.rand(30) < 0.5
    whole = TokenSums.of(features, foreground)
    parts = TokenSums.of(features[:7], foreground[:7]) + TokenSums.of(features[7:], foreground[7:])
    assert parts.score() == pytest.approx(whole.score(), rel=1e-12)


def test_equal_directions_score_0_and_opposite_ones_2():
    along = torch.tensor([[1.0, 0], [5, 0], [0, 2], [0, 9]])
    assert TokenSums.of(along, torch.tensor([True, True, False, False])).score() == pytest.approx(0, abs=1e-12)
    # one class, e and −3e: the centre is −e, at distances² 4 and 0
    assert TokenSums.of(torch.tensor([[1.0, 0], [-3, 0], [0, 1]]), torch.tensor([True, True, False])).score() * 3 == 4


def test_a_feature_of_length_0_has_no_direction():
    found = TokenSums.of(torch.tensor([[0.0, 0], [2, 0], [1, 1]]), torch.tensor([True, True, False]))
    assert found.score() == pytest.approx((1 + 0 + 0) / 3)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=3, size=128, seed=3, split="val")
    return folder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(entry("vit_nano"), image_size=64).eval()


def score(drawn: Path, encoder: Encoder, source: str, **changes: object):
    human = changes.pop("human", None) or read(drawn / "annotations.json", masks=True)
    return clustering_score(
        human, drawn / "images", encoder, config=CONFIG, source=source, batch=4, workers=1,
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip


def brute(drawn: Path, encoder: Encoder, window: tuple, image: dict, mask: np.ndarray) -> tuple[float, int, int]:
    """Score of one crop, step by step: (score, tokens, foreground tokens)."""
    pixels = load_for(image, drawn / "images")
    crop = cut(pixels, window, size=64, border="wrap")
    with torch.no_grad():
        found = encoder(crop[None].float() / 255).last[0].double().numpy()
    x0, y0, x1, y1 = window
    shown = np.zeros((y1 - y0, x1 - x0))
    for y in range(y0, y1):
        for x in range(x0, x1):
            if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]:
                shown[y - y0, x - x0] = mask[y, x]
    height, width = shown.shape
    cells = np.array([
        shown[i * height // 8 : -(-(i + 1) * height // 8), j * width // 8 : -(-(j + 1) * width // 8)].mean()
        for i in range(8) for j in range(8)
    ]) > 0.5  # fmt: skip
    return equation_6(found.reshape(found.shape[0], -1).T, cells), cells.size, int(cells.sum())


def test_crops_agree_with_the_formula_to_1e_6(drawn, encoder):
    human = read(drawn / "annotations.json", masks=True)
    images = {image["id"]: image for image in human["images"]}
    metrics, instances = score(drawn, encoder, "crops")
    annotations = {a["id"]: a for a in human["annotations"]}
    assert metrics["n"] + metrics["n_left_out"] == len(annotations)
    for row in instances.itertuples():
        annotation = annotations[row.annotation_id]
        x, y, w, h = annotation["bbox"]
        window = tuple(int(v) for v in (np.floor(x - 0.15 * w), np.floor(y - 0.15 * h),
                                        np.ceil(x + 1.15 * w) + 1, np.ceil(y + 1.15 * h) + 1))  # fmt: skip
        image = images[annotation["image_id"]]
        mask = decode_mask(annotation["segmentation"], height=image["height"], width=image["width"])
        expected = brute(drawn, encoder, window, image, mask)
        assert row.score == pytest.approx(expected[0], abs=1e-6)
        assert (row.tokens, row.foreground) == expected[1:]
    assert metrics["clustering"] == pytest.approx(instances["score"].mean())  # each crop has 64 tokens
    for size, group in instances.groupby("size"):
        assert metrics[f"clustering_{size}"] == pytest.approx(group["score"].mean())
        assert metrics[f"n_{size}"] == len(group)
    assert metrics["clustering_global"] > metrics["clustering"]  # one pair of centres cannot fit all crops better


def test_whole_images_take_all_masks_as_foreground_and_leave_crowds_out(drawn, encoder):
    human = read(drawn / "annotations.json", masks=True)
    _, instances = score(drawn, encoder, "images")
    assert list(instances["image_id"]) == [image["id"] for image in human["images"]]
    for row, image in zip(instances.itertuples(), human["images"], strict=True):
        union = np.zeros((128, 128), dtype=bool)
        for annotation in human["annotations"]:
            if annotation["image_id"] == image["id"]:
                union |= decode_mask(annotation["segmentation"], height=128, width=128)
        expected = brute(drawn, encoder, (0, 0, 128, 128), image, union)
        assert row.score == pytest.approx(expected[0], abs=1e-6)
        assert (row.tokens, row.foreground) == expected[1:]
    first = human["images"][0]["id"]
    crowded = [{**a, "iscrowd": int(a["image_id"] == first and i == 0)} for i, a in enumerate(human["annotations"])]
    _, fewer = score(drawn, encoder, "images", human={**human, "annotations": crowded})
    assert fewer["tokens"][0] < instances["tokens"][0]


def test_crowds_and_slivers_are_no_crops(drawn, encoder):
    human = read(drawn / "annotations.json", masks=True)
    all_of_them = score(drawn, encoder, "crops")[0]["n"]
    changed = [dict(a) for a in human["annotations"]]
    changed[0]["iscrowd"] = 1
    changed[1]["bbox"] = [1.0, 1.0, 2.0, 9.0]
    metrics, instances = score(drawn, encoder, "crops", human={**human, "annotations": changed})
    assert metrics["n"] + metrics["n_left_out"] == len(changed) - 2
    assert metrics["n"] <= all_of_them
    assert not {changed[0]["id"], changed[1]["id"]} & set(instances["annotation_id"])


def test_nothing_to_score_is_an_error(drawn, encoder):
    human = read(drawn / "annotations.json", masks=True)
    crowds = {**human, "annotations": [{**a, "iscrowd": 1} for a in human["annotations"]]}
    with pytest.raises(AnnotationError, match=r"none of 0 crops"):
        score(drawn, encoder, "crops", human=crowds)


def test_features_are_forgotten_batch_by_batch(drawn, encoder, monkeypatch):
    """Constant memory: when a batch is looked at, no maps and no features of the ones before are alive."""
    alive: list[int] = []
    kept: list[weakref.ref] = []
    features: list[weakref.ref] = []
    forward, tokens = Encoder._maps, clustering._tokens

    def watched(self, images):
        gc.collect()
        alive.append(sum(ref() is not None for ref in kept[:-1] + features[:-1]))
        maps = forward(self, images)
        kept.append(weakref.ref(maps[-1]))
        return maps

    def watched_tokens(*arguments):
        for annotation, found, foreground in tokens(*arguments):
            features.append(weakref.ref(found))
            yield annotation, found, foreground

    monkeypatch.setattr(Encoder, "_maps", watched)
    monkeypatch.setattr(clustering, "_tokens", watched_tokens)
    score(drawn, encoder, "crops")
    assert len(alive) > 2
    assert len(features) > len(kept)
    assert not any(alive)


def test_cells_of_a_window_beyond_the_image_are_background():
    mask = np.ones((6, 6), dtype=bool)
    cells = foreground_cells(mask, (-4, 0, 4, 8), 4)
    assert cells.tolist() == [[False, False, True, True]] * 3 + [[False] * 4]
