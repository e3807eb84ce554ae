"""Masks for one's own boxes: the shipped labeler, taught on them for a while, labels them. Stopped, it goes on."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.config_checks import check
from mal.context import Context
from mal.data.annotations import read
from mal.data.config import DataConfig, SplitConfig
from mal.engine.files import atomic_write
from mal.engine.graph import execute, in_order
from mal.engine.history import in_words
from mal.engine.loading import cores
from mal.engine.runtime import pick_device
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.methods.mal.labeler_file import config_of
from mal.methods.mal.own_files import networks_of
from mal.methods.mal.shipped import DEFAULT, SHIPPED
from mal.methods.mal.stages import train
from mal.own.forecast import labelling_seconds, reading_seconds, training_seconds
from mal.own.label_files import label_files, with_options
from mal.own.label_outputs import check_output
from mal.own.labelers import open_labeler
from mal.segmenters.config import SegmenterConfig


def autolabel(options: argparse.Namespace) -> None:
    """Learn from the boxes unless a labeler is given, label them, and say what was done.

    Raises:
        MalError: an input that cannot be used, or an output that cannot be written or would replace what is there.
        Stopped: by a signal, while learning; the same call goes on.
    """
    device = pick_device(options.device)
    options.checkpoint = options.labeler or SHIPPED
    place = check_output(options)
    given = open_labeler(options.checkpoint, "boxes")
    config = with_options(config_of(given.state, source=options.checkpoint), given, options)
    labelling = _labelling_seconds(given.state, config, options, device)
    if options.labeler is None:
        store = options.store or place.with_name(f"{place.stem}_autolabel")
        options.checkpoint = learn(own_config(config, options), store, device, afterwards=labelling)
        kept = store / "labeler.pt"
        with options.checkpoint.open("rb") as learned, atomic_write(kept, "wb") as copy:
            shutil.copyfileobj(learned, copy)
        _say(f"labeler: {kept}, for more photographs of this kind: --labeler {kept}")
    else:
        _say(f"labelling takes about {in_words(labelling)}")
    _say(label_files(options))


def own_config(labeler: Config, options: argparse.Namespace) -> Config:
    """The shipped labeler's settings, for a training on the user's boxes that starts from its weights.

    Raises:
        ConfigError: a value is out of range.
    """
    split = SplitConfig(str(options.boxes.resolve()), str(options.images.resolve()))
    config = replace(
        labeler,
        seed=options.seed,
        compare=[],
        data=DataConfig(name=options.boxes.stem, train=split, on_bad_image=options.on_bad_image),
        labeler=replace(labeler.labeler, name="mal"),
        segmenter=SegmenterConfig(name="none"),
        train=replace(labeler.train, start=DEFAULT, steps=options.steps, epochs=None),
    )
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(str(error).replace("train.steps=", "--steps ")) from error
    return config


def learn(config: Config, store: Path, device: torch.device, *, afterwards: float) -> Path:
    """Train a labeler, or find what was trained already; a stopped training goes on.

    Args:
        store: a folder; what is learned is kept there.
        afterwards: seconds that labelling will take, for the forecast.

    Returns:
        The labeler's file in the store, which nothing that is learned later replaces.

    Raises:
        MalError: as the stages; Stopped: by a signal.
    """
    runs, steps = Store(store), config.train.steps or 0
    stage = train(Context(config, runs, device))
    if not runs.is_done(stage.name, stage.key):
        forecast = in_words(training_seconds(config, steps, device))
        _say(f"learning takes about {forecast} ({steps} steps), labelling {in_words(afterwards)}; kept in {store}")
    for needed in in_order([stage]):
        execute(needed, runs, device=device)
    return runs.folder(stage.name, stage.key) / "labeler.pt"


def _labelling_seconds(
    state: dict[str, Any], config: Config, options: argparse.Namespace, device: torch.device
) -> float:
    """Labelling the whole file, images read beside the network's work."""
    coco = read(options.boxes, masks=False)
    crops = len(coco["annotations"])
    networks = networks_of(state, config, device, options.checkpoint, crops=crops)
    seconds = labelling_seconds(networks, config, crops, device)
    shared = max(1, min(options.workers, cores()))
    return max(seconds, reading_seconds(coco["images"], options.images) / shared)


def _say(text: str) -> None:
    print(text, flush=True)
