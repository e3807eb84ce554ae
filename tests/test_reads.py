"""A stage's key is made of the settings that the stage names: none is named in vain, and none is read unnamed."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mal.config import Config
from mal.data import shapes
from mal.data.annotations import read, strip
from mal.engine.settings import names, settings
from mal.methods.attentionshift import reads as attentionshift
from mal.methods.bestie import reads as bestie
from mal.methods.bestie import train as train_bestie
from mal.methods.bestie import train_classes
from mal.methods.bestie.map_files import write_map
from mal.methods.mal import looks
from mal.methods.mal import reads as mal
from mal.methods.mal import train as training
from mal.methods.partialres import lessons
from mal.methods.partialres import reads as partialres
from mal.methods.partialres import train as partialres_training
from mal.methods.simformer import reads as simformer
from mal.methods.simformer.train import train as train_simformer
from mal.segmenters import backends, reads
from mal.segmenters import training as segmenter_training
from tests import bestie_cases, partialres_cases, simformer_cases

CPU = torch.device("cpu")
ELSEWHERE = {  # what no key holds as it stands, and why
    "which stages there are": (
        "profile recipe experiment row sweep compare data.name segmenter.name labeler.name "
        "simformer.learning.supervision simformer.pseudo.kind simformer.network.weights partialres.parts.rec"
    ),
    "how and where the work is done": "device deterministic dry_run store tracking launcher segmenter.running",
    "where files lie: keys hold what is in them": (
        "roots data.root data.train data.val data.test data.labeler_train encoder.checkpoint train.start labeler.file "
        "labeler.val_file segmenter.checkpoint encoder.needs_file attentionshift.tokens.stem.checkpoint "
        "simformer.network.checkpoint partialres.network.text.vectors partialres.network.text.checkpoint"
    ),
    "what it is in words: keys hold what it comes to": "train.precision segmenter.precision data.format decoder.name",
    "read by stages of one or two settings, which name them where they stand": (
        "seed data.val_images data.on_bad_image data.class_agnostic data.shapes data.points data.semantic "
        "data.expressions "
        "labeler.checkpoint labeler.radius clustering attention attentionshift.looks evaluate roi.label_expansion "
        "segmenter.class_agnostic simformer.split simformer.testing.subset"
    ),
}


def leaves(part: Any, place: str = "") -> set[str]:
    """Dotted names of all settings below a part of the config."""
    found: set[str] = set()
    for entry in fields(part):
        value = getattr(part, entry.name)
        below = f"{place}{entry.name}"
        found |= leaves(value, f"{below}.") if is_dataclass(value) else {below}
    return found


def named() -> set[str]:
    """All that stages name."""
    segmenter = [reads.TRAINING, reads.PREDICTION, reads.CONVERTED, *(it.reads for it in backends.BACKENDS.values())]
    decoders = {f"decoder.{name}" for reading in mal.DECODERS.values() for name in names(reading)}
    points = [attentionshift.TRAINING, attentionshift.LABELLING, attentionshift.DETECTION]
    points += [bestie.CLASSES, bestie.TRAINING, bestie.LABELLING, bestie.DETECTION]
    maps = [simformer.TRAINING, simformer.PREDICTION, simformer.SIMILARITY, simformer.CLASSIFIER]
    referring = [
        *(partialres.REC, partialres.RES, partialres.FEW, partialres.PREDICTION, partialres.LABELS),
        *(partialres.BOXES, partialres.GUESSES, partialres.PSEUDO, partialres.SCORE, partialres.LOOKS),
    ]
    return (
        {name for reading in referring for name in names(reading)} | partialres.HOW |
        {name for reading in [*points, *maps, *simformer.PSEUDO.values()] for name in names(reading)} |
        names(mal.TRAINING) | names(mal.LABELLING) | names(looks.ENCODER) | names(looks.CROPS) | decoders | mal.HOW
        | {f"segmenter.{name}" for reading in segmenter for name in names(reading)}
        | {f"segmenter.{name}" for name in reads.HOW}
    )  # fmt: skip


def test_every_setting_is_named_by_a_stage_or_said_to_be_no_part_of_a_result(compose) -> None:
    elsewhere = tuple(f"{name}." for text in ELSEWHERE.values() for name in text.split())
    unnamed = {leaf for leaf in leaves(compose()) if leaf not in named() and not f"{leaf}.".startswith(elsewhere)}
    assert unnamed == set(), "say in the READS of its stage, or in HOW beside them, what these are to a result"


def test_no_stage_names_a_setting_that_there_is_not(compose) -> None:
    assert named() - leaves(compose()) == set()


class Seen:
    """Which settings are read of a config, while it is watched."""

    def __init__(self, config: Any) -> None:
        self.names: set[str] = set()
        self._watch(config, "")

    def _watch(self, part: Any, place: str) -> None:
        known, seen = {entry.name for entry in fields(part)}, self.names

        class Watched(type(part)):
            def __getattribute__(self, name: str) -> Any:
                if name in known:
                    seen.add(f"{place}{name}")
                return super().__getattribute__(name)

        for entry in fields(part):
            value = getattr(part, entry.name)
            if is_dataclass(value):
                self._watch(value, f"{place}{entry.name}.")
        object.__setattr__(part, "__class__", Watched)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    shapes.generate(tmp_path / "data", images=4, size=96, seed=0, split="train")
    return tmp_path / "data"


@pytest.mark.parametrize("decoder", ["attention", "fc", "fcn", "query"])
def test_training_a_labeler_reads_what_its_stage_names_and_nothing_else(
    compose, monkeypatch: pytest.MonkeyPatch, drawn: Path, decoder: str
) -> None:
    config: Config = compose("profile=smoke", f"decoder={decoder}", "train.workers=0", "train.steps=2")
    # the file of the labeler holds the whole config, for labelling later
    monkeypatch.setattr(training, "save_labeler", lambda *_: None)
    seen = Seen(config)
    training.train_labeler(
        strip(read(drawn / "annotations.json", masks=False)), drawn / "images", config, folder=drawn.parent, device=CPU
    )
    parts = {entry.name for entry in fields(Config)} | {"decoder.fc", "decoder.query"}
    decoders = names(mal.DECODERS.get(decoder, {}))
    known = names(mal.TRAINING) | mal.HOW | {f"decoder.{name}" for name in decoders}
    known |= {"encoder.checkpoint", "train.start", "train.precision"}  # by what is in them, and what it comes to
    assert seen.names - parts - known == set()
    assert {"loss.stride", "crf.zeta", "roi.theta", "train.ema"} <= seen.names  # it was watched


def test_training_simformer_reads_what_its_stages_name_and_nothing_else(compose, tmp_path: Path) -> None:
    view = simformer_cases.weak(simformer_cases.draw(tmp_path, images=3), tmp_path / "weak")
    config = simformer_cases.steps(simformer_cases.changed(compose), 2)
    parts = {entry.name for entry in fields(Config)} | {f"simformer.{entry.name}" for entry in fields(config.simformer)}
    seen = Seen(config)
    train_simformer(view, tmp_path / "images", config, folder=tmp_path, device=CPU)
    named = names(simformer.TRAINING) | mal.HOW | {"train.precision", "encoder.checkpoint"}
    assert seen.names - parts - named == set()
    assert {"simformer.pairs.points", "simformer.augment.flip", "simformer.losses.complement"} <= seen.names


def test_training_bestie_reads_what_its_stages_name_and_nothing_else(
    compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (train_classes, train_bestie):  # files of networks hold the whole config, for labelling later
        monkeypatch.setattr(module, "save", lambda *_: None)
    view = bestie_cases.draw(tmp_path, images=3)
    for entry in view["images"]:
        write_map(tmp_path / "maps", entry, np.ones((entry["height"], entry["width"])))
    for reading in (bestie.CLASSES, bestie.TRAINING):
        config = bestie_cases.changed(compose)
        parts = {name.rpartition(".")[0] for name in leaves(config)} | {"bestie"}
        seen, given = Seen(config), {"folder": tmp_path, "device": CPU}
        if reading is bestie.CLASSES:
            train_classes.train(view, tmp_path / "images", config, **given)
        else:
            train_bestie.train(view, tmp_path / "images", config, maps=tmp_path / "maps", **given)
        known = names(reading) | mal.HOW | {"train.precision", "encoder.checkpoint", "data.class_agnostic"}
        assert seen.names - parts - known == set()
        assert {"bestie.network.width", "bestie.scale.crop", "seed"} <= seen.names  # it was watched
        (tmp_path / "curves.jsonl").unlink()


@pytest.mark.parametrize("task", ["box", "mask", "taskwise", "query"])
def test_training_partialres_reads_what_its_stages_name_and_nothing_else(
    compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str
) -> None:
    # the file of the labeler holds the whole config, for labelling later
    monkeypatch.setattr(partialres_training, "save", lambda *_, **__: None)
    more = {"query": ["network.model=query"], "taskwise": ["sequence.task=taskwise", "res.start=none"]}.get(task, [])
    whole = partialres_cases.changed(compose, *more, "image.crop=true", "network.text.vectors=null")
    config = (lessons.for_boxes if task == "box" else lessons.for_masks)(whole)
    view, masks = partialres_cases.draw(tmp_path, images=3), partialres_cases.some_masks(tmp_path, 1, 2, 3)
    asked = "mask" if task == "query" else task
    parts = {name.rpartition(".")[0] for name in leaves(config)} | {"partialres"}
    seen = Seen(config)
    given = {"task": asked, "masks": None if task == "box" else masks}
    partialres_training.train(view, tmp_path / "images", config, folder=tmp_path, device=CPU, **given)
    known = names(partialres.REC if task == "box" else partialres.RES) | mal.HOW | partialres.HOW
    known |= {"train.precision", "encoder.checkpoint", "partialres.network.text.vectors", "partialres.parts.rec"}
    assert seen.names - parts - known == set()
    assert {"partialres.network.width", "partialres.image.flip", "seed"} <= seen.names  # it was watched


def test_a_new_setting_changes_no_key_before_a_stage_names_it(compose) -> None:
    config = compose()
    before = settings(config, mal.TRAINING, former=mal.FORMER)
    config.decoder.invented = 5
    assert settings(config, mal.TRAINING, former=mal.FORMER) == before


def test_a_setting_newer_than_results_is_mentioned_only_where_it_has_another_value(compose) -> None:
    for value, mentioned in (("background", False), ("foreground", True)):
        found = settings(compose(f"roi.repeats={value}"), mal.TRAINING, former=mal.FORMER)
        assert ("repeats" in found["roi"]) is mentioned


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny", "solov2_tiny", "mask2former_tiny"])
def test_training_a_segmenter_reads_what_its_stage_names_and_nothing_else(compose, drawn: Path, name: str) -> None:
    config = compose("profile=smoke", f"segmenter={name}", "segmenter.schedule.steps=1").segmenter
    parts = {entry.name for entry in fields(config) if is_dataclass(getattr(config, entry.name))}
    known = names(reads.TRAINING) | names(backends.BACKENDS[config.backend].reads) | reads.HOW
    built = {name for name in names(reads.PREDICTION) if name.startswith("test.")}  # a model predicts as well
    seen = Seen(config)
    segmenter_training.train(
        annotations=drawn / "annotations.json", images=drawn / "images", config=config, seed=0, folder=drawn, device=CPU
    )
    assert seen.names - parts - known - built - {"checkpoint", "precision"} == set()
    assert {"schedule.batch", "optimizer.lr"} <= seen.names  # it was watched
