"""Pseudo-labels hold what is known, and of novel classes those that an image has; how good they are is measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mal.data.semantic import FILE, IGNORED, read_semantic, write_map, write_semantic
from mal.errors import TrainingError
from mal.methods.simformer import classifier, maps
from mal.methods.simformer.classifier import Activations, present
from mal.methods.simformer.classifier import train as train_classifier
from mal.methods.simformer.data import Batch
from mal.methods.simformer.diagnostics import image_pairs
from mal.methods.simformer.evaluation import pseudo_quality
from mal.metrics.auc import auc
from tests.simformer_cases import NOVEL, changed, draw, weak

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    weak(draw(folder), folder / "weak")
    return folder


def check(made: Path, view: Path) -> None:
    """Base pixels are as they are known, and no novel class is where its image has no such tag."""
    pseudo, known = read_semantic(made, maps=True), read_semantic(view)
    assert pseudo.novel is None
    for mine, theirs in zip(pseudo.images, known.images, strict=True):
        found, base = pseudo.map_of(mine), known.map_of(theirs)
        assert np.array_equal(found[base != IGNORED], base[base != IGNORED])
        assert {*np.unique(found[base == IGNORED])} <= {*(theirs.tags or ()), IGNORED}


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(0, 4)))
def test_predictions_are_kept_where_they_fit_what_is_known(seed: int, tags: set[int]) -> None:
    generator = np.random.default_rng(seed)
    predicted = generator.integers(0, 8, (5, 6)).astype(np.uint8)
    known = np.where(generator.random((5, 6)) < 0.5, generator.integers(5, 8, (5, 6)), IGNORED).astype(np.uint8)
    found = maps.kept(predicted, known, tuple(tags))
    for row, column in np.ndindex(5, 6):
        expected = predicted[row, column] if predicted[row, column] in tags else IGNORED
        assert found[row, column] == (expected if known[row, column] == IGNORED else known[row, column])


def test_the_complement_of_an_image_with_one_tag_is_that_class(drawn: Path, tmp_path: Path) -> None:
    view = read_semantic(drawn / "weak" / "weak.json")
    images = tuple(replace(image, tags=image.tags[:1] if i else image.tags) for i, image in enumerate(view.images))
    maps.complement_labels(replace(view, images=images), tmp_path)
    made = read_semantic(tmp_path / FILE)
    for image, mine in zip(images, made.images, strict=True):
        hidden = view.map_of(image) == IGNORED
        expected = {image.tags[0]} if len(image.tags) == 1 else {IGNORED}
        assert {*np.unique(made.map_of(mine)[hidden])} <= expected


def test_a_classifier_that_cannot_learn_names_its_own_rate(compose, drawn: Path, tmp_path: Path, monkeypatch) -> None:
    config, view = changed(compose), drawn / "weak" / "weak.json"
    monkeypatch.setattr(classifier, "present", lambda batch, number: torch.full((len(batch.ids), number), torch.nan))
    with pytest.raises(TrainingError, match=r"Lower simformer\.pseudo\.cam_lr"):
        train_classifier(view, drawn / "images", config, folder=tmp_path, device=CPU)


@pytest.mark.slow
def test_activation_maps_label_tags_alone(compose, drawn: Path, tmp_path: Path) -> None:
    config, view = changed(compose), drawn / "weak" / "weak.json"
    train_classifier(view, drawn / "images", config, folder=tmp_path, device=CPU)
    network = Activations(tmp_path, config, CPU)
    found = network.of(torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8), [64], long_side=99, flip=True)
    assert found.shape == (13, 40, 56)
    assert float(found.min()) >= 0
    assert float(found.max()) == pytest.approx(1)
    maps.cam_labels(network, read_semantic(view), drawn / "images", config, tmp_path / "maps")
    check(tmp_path / "maps" / FILE, view)
    tagged = [image.tags for image in read_semantic(view).images]
    made = read_semantic(tmp_path / "maps" / FILE)
    labelled = [(made.map_of(image) != IGNORED).all() for image in made.images]
    assert labelled == [bool(tags) for tags in tagged]  # there is nothing unlabelled in these maps but novel pixels


def test_a_classifier_learns_base_classes_in_the_crop_and_tags() -> None:
    labels = torch.full((2, 4, 4), IGNORED)
    labels[0, 0, 0], labels[1, 1] = 3, 0
    batch = Batch(torch.zeros(2, 3, 4, 4), labels, labels < 9, None, [[3], [0]], [[1, 2], []], [7, 8], [])
    assert present(batch, 5).tolist() == [[0, 1, 1, 1, 0], [1, 0, 0, 0, 0]]


def test_the_quality_of_pseudo_labels_is_that_of_novel_pixels(tmp_path: Path) -> None:
    truth = read_semantic(draw(tmp_path / "truth", images=1))
    values = np.zeros((64, 64), dtype=np.uint8)
    values[:2] = [[4] * 64, [5] * 64]  # of 128 novel pixels
    write_map(tmp_path / "truth" / truth.images[0].map, np.where(values, values, 1).astype(np.uint8))
    made = np.full((64, 64), 1, dtype=np.uint8)
    made[0, :32], made[0, 32:], made[1, :16], made[1, 16:] = 4, IGNORED, 4, IGNORED
    write_map(tmp_path / "made" / truth.images[0].map, made)
    write_semantic(tmp_path / "made" / FILE, replace(truth, folder=tmp_path / "made"))
    found = pseudo_quality(tmp_path / "made" / FILE, tmp_path / "truth" / FILE, NOVEL)
    assert found == {"share_kept": 48 / 128, "share_right": 32 / 48}


def test_auc_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 4, 30).astype(float), generator.random(30) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))


def test_pairs_of_images_share_a_novel_class(drawn: Path) -> None:
    truth = read_semantic(drawn / FILE)
    there = [{*np.unique(truth.map_of(image))} & {*NOVEL} for image in truth.images]
    every = {(i, j) for i in range(5) for j in range(i + 1, 5) if there[i] & there[j]}
    assert {*image_pairs(truth, NOVEL, count=100, seed=0)} == every
    assert len(image_pairs(truth, NOVEL, count=2, seed=0)) == min(2, len(every))
