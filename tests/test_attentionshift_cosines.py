"""Figure 1 of AttentionShift's supplement: cosines between features, against loops over pairs, and over a training."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mal.data.annotations import read
from mal.errors import MalError
from mal.methods.attentionshift.cosines import Features, cosines, feature_cosines, features_of
from tests.attentionshift_cases import SMOKE, draw, points_of, untrained
from tests.test_end_to_end import command

CPU = torch.device("cpu")


def unit(*values: float) -> np.ndarray:
    return np.array(values) / np.linalg.norm(values)


def test_means_over_pairs_are_those_of_loops() -> None:
    rng = np.random.default_rng(0)
    found = []
    for count in (3, 0, 5, 1):
        vectors = rng.normal(size=(count, 6))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        background = None if count == 5 else unit(*rng.normal(size=6))
        found.append(Features(rng.integers(0, 3, count), vectors, background))
    labels = [label for each in found for label in each.labels]
    vectors = [vector for each in found for vector in each.instances]
    pairs = [(a == b, u @ v) for (a, u), (b, v) in itertools.combinations(zip(labels, vectors, strict=True), 2)]
    expected = {
        "background": np.mean([v @ e.background for e in found if e.background is not None for v in e.instances]),
        "between": np.mean([cosine for alike, cosine in pairs if not alike]),
        "within": np.mean([cosine for alike, cosine in pairs if alike]),
    }
    assert cosines(found) == pytest.approx(expected, abs=1e-12)


def test_kinds_without_a_pair_are_left_out() -> None:
    one = Features(np.array([2]), unit(1, 1)[None], None)
    assert cosines([one]) == {}
    other = Features(np.array([2]), unit(1, 0)[None], unit(0, 1))
    assert cosines([one, other]) == {"background": 0, "within": pytest.approx(np.sqrt(0.5))}
    assert set(cosines([one, Features(np.array([0]), unit(1, 0)[None], None)])) == {"between"}


def test_an_instance_has_the_patches_that_it_fills_by_more_than_half() -> None:
    """3 x 4 patches of 4; the image ends in the middle of the last row and of the last column of patches."""
    features = np.zeros((12, 3, 4))
    features.reshape(12, 12)[range(12), range(12)] = 1 + np.arange(12)  # a patch a channel
    masks = np.zeros((3, 10, 14), dtype=bool)
    masks[0, 0:4, 0:4] = True  # patch 0, whole
    masks[0, 0:4, 4:6] = True  # half of patch 1: not more
    masks[0, 4:7, 0:3] = True  # 9 of 16 pixels of patch 4
    masks[1, 8:10, 4:8] = True  # all of what the image shows of patch 9
    masks[2, 4:8, 12:13] = True  # half of what it shows of patch 7: not more
    others = np.zeros((10, 14), dtype=bool)
    others[0, 8] = True  # a pixel of patch 2
    found = features_of(features, np.array([5, 6, 7]), masks, others, patch=4)
    assert found.labels.tolist() == [5, 6]
    expected = np.zeros((2, 12))
    expected[0, [0, 4]], expected[1, 9] = (1, 5), 1
    assert found.instances == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True))
    free = np.zeros(12)
    free[[5, 6]] = 6, 7  # 0, 1, 4 and 9 hold an object, 2 another's pixel; 3, 7, 8, 10 and 11 are no whole patches
    assert found.background == pytest.approx(free / np.linalg.norm(free))


def test_an_image_full_of_objects_has_no_background() -> None:
    found = features_of(np.ones((2, 1, 2)), np.array([0]), np.ones((1, 4, 8), bool), np.zeros((4, 8), bool), patch=4)
    assert found.background is None
    assert found.instances == pytest.approx(unit(1, 1)[None])


def test_a_network_is_measured_on_every_image(compose, tmp_path: Path) -> None:
    config, folder = compose(*SMOKE), draw(tmp_path)
    points, human = points_of(folder), read(folder / "annotations.json", masks=True)
    trained = untrained(config, points)
    found, count = feature_cosines(trained, config, points, human, folder / "images", CPU)
    assert set(found) == {"background", "between", "within"}
    assert all(-1 <= value <= 1 for value in found.values())
    assert 0 < count <= len(human["annotations"])
    with pytest.raises(MalError, match="no object of the validation images has a mask that fills most of a patch"):
        feature_cosines(trained, config, points, {**human, "annotations": []}, folder / "images", CPU)
    for entry in human["images"]:  # one object of each image is not drawn
        next(a for a in human["annotations"] if a["image_id"] == entry["id"])["segmentation"] = []
    partly, fewer = feature_cosines(trained, config, points, human, folder / "images", CPU)
    assert set(partly) == {"between", "within"}
    assert fewer < count


@pytest.mark.slow
def test_a_run_measures_the_networks_that_it_kept(tmp_path: Path) -> None:
    kept = "attentionshift.learning.snapshots=2"
    command(*SMOKE[:1], *SMOKE[2:5], kept, store=tmp_path)
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("course_val/*/run.json"))
    names = {f"{name}_{part}" for name in ("background", "between", "within") for part in (1, 2)}
    assert names <= set(record["metrics"])
    (folder,) = tmp_path.glob("train_attentionshift/*")
    assert len([*folder.glob("snapshots/*.pt")]) == 2
    first, last = sorted(folder.glob("snapshots/*.pt"))
    before = first.read_bytes()
    first.unlink()  # then it is learned again
    command(*SMOKE[:1], *SMOKE[2:5], kept, store=tmp_path)
    assert first.read_bytes() == before
    states = [torch.load(path, weights_only=True)["network"] for path in (last, folder / "labeler.pt")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
