"""Novel ground truth never reaches a loss: what training reads, what it ends in, and a rule that does leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mal.config import Config
from mal.data.semantic import FILE, IGNORED, read_semantic, visible, write_map, write_semantic
from mal.engine.runtime import load_checkpoint
from mal.methods.simformer import classifier, maps
from mal.methods.simformer.checkpoint import FILE as TRAINED
from mal.methods.simformer.checkpoint import load
from mal.methods.simformer.stages import without_weak_losses
from mal.methods.simformer.train import train
from tests.simformer_cases import NOVEL, changed, draw, steps, weak

CPU = torch.device("cpu")
ROWS = {
    "no_complement": ["pairs.kind=none", "losses.complement=0"],
    "basic": ["pairs.kind=none"],
    **{kind: [f"pairs.kind={kind}"] for kind in ("sampler", "self", "random", "base")},
    "within": ["distillation.student=within"],
    "released points": ["distillation.points=released", "pairs.reference=released"],
}


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Class maps, and the same with novel pixels scrambled: every image keeps its tags and its base pixels."""
    folder = tmp_path_factory.mktemp("maps")
    truth = draw(folder / "one")
    semantic = read_semantic(truth)
    generator = np.random.default_rng(0)
    for image in semantic.images:
        values = semantic.map_of(image)
        hidden = np.flatnonzero(np.isin(values, NOVEL))
        tags = [place for place in visible(values) if place in NOVEL]
        if tags:
            values.flat[hidden] = generator.choice(tags, len(hidden))
            values.flat[hidden[: len(tags)]] = tags
        write_map(folder / "other" / image.map, values)
    write_semantic(folder / "other" / FILE, replace(semantic, folder=folder / "other"))
    return truth, folder / "other" / FILE


def learned(config: Config, truth: Path, folder: Path, *, hidden: bool = False) -> dict[str, torch.Tensor]:
    """The weights after training on the weak view of class maps; images are the drawn ones."""
    images = truth.parent.parent / "one" / "images"
    view = weak(truth, folder / "view")
    train(view, images, config, folder=folder, device=CPU, hidden=truth if hidden else None)
    state = load_checkpoint(folder / TRAINED)
    return {**state["network"], **{f"similarity.{name}": it for name, it in (state["similarity"] or {}).items()}}


def alike(config: Config, truths: tuple[Path, Path], folder: Path, *, hidden: bool = False) -> bool:
    one, other = (learned(config, truth, folder / str(i), hidden=hidden) for i, truth in enumerate(truths))
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_scrambled_novel_pixels_leave_the_network_as_it_is(compose, truths: tuple[Path, Path], tmp_path: Path) -> None:
    assert alike(steps(changed(compose), 3), truths, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", [["pairs.kind=cross"], *ROWS.values()], ids=["cross", *ROWS])
def test_no_weak_row_sees_them_in_twenty_steps(
    compose, truths: tuple[Path, Path], tmp_path: Path, row: list[str]
) -> None:
    assert alike(steps(changed(compose, *row), 20), truths, tmp_path)


def retrained(config: Config, kind: str, truth: Path, folder: Path, *, leak: bool = False) -> dict[str, torch.Tensor]:
    """The weights after training on pseudo-labels, which come of the weak view of class maps."""
    images, view = truth.parent.parent / "one" / "images", weak(truth, folder / "view")
    seen, made = read_semantic(view), folder / "pseudo"
    if kind == "own":
        train(view, images, config, folder=folder / "first", device=CPU)
        maps.own_labels(load(folder / "first" / TRAINED, config, CPU), seen, images, config, made)
    elif kind == "cam":
        classifier.train(view, images, config, folder=folder / "first", device=CPU)
        maps.cam_labels(classifier.Activations(folder / "first", config, CPU), seen, images, config, made)
    else:
        maps.complement_labels(seen, made)
    plain = without_weak_losses(config, true_masks=True)
    train(made / FILE, images, plain, folder=folder / "again", device=CPU, hidden=truth if leak else None)
    return load_checkpoint(folder / "again" / TRAINED)["network"]


STARRED = {"complement": (), "own": (), "own, basic": ("pairs.kind=none",), "cam": ()}


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=() if row == "complement" else pytest.mark.slow) for row in STARRED]
)
def test_no_row_that_is_trained_again_sees_them(compose, truths: tuple[Path, Path], tmp_path: Path, row: str) -> None:
    kind = row.partition(",")[0]
    number = 2 if row == "complement" else 20
    config = steps(changed(compose, *STARRED[row], f"pseudo.cam_steps={number}"), number)
    one, other = (retrained(config, kind, truth, tmp_path / str(i)) for i, truth in enumerate(truths))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_true_masks_in_place_of_pseudo_labels_would_tell(compose, truths: tuple[Path, Path], tmp_path: Path) -> None:
    """So the test above would notice a leak: the released program falls back to them in re-training."""
    config = steps(changed(compose, "augment.crop=true", "augment.true_masks_after=0"), 2)
    one, other = (retrained(config, "complement", it, tmp_path / str(i), leak=True) for i, it in enumerate(truths))
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_tags_of_the_crop_would_tell(compose, truths: tuple[Path, Path], tmp_path: Path) -> None:
    """So the test above would notice a leak: the released program's tags come from hidden masks."""
    crops = ["augment.crop=true", "augment.scales=[2]", "augment.tags=crop"]
    assert not alike(steps(changed(compose, *crops), 3), truths, tmp_path, hidden=True)


def test_what_training_reads_holds_base_classes_alone(truths: tuple[Path, Path], tmp_path: Path) -> None:
    view = read_semantic(weak(truths[0], tmp_path))
    for image in view.images:
        assert not {*visible(view.map_of(image))} & {*NOVEL}
    assert {*view.novel} == {*NOVEL}
    assert any((view.map_of(image) == IGNORED).any() for image in view.images)
