"""A labeler for one's own boxes: the shipped one, taught on them for a while. Stopped, it goes on where it was."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from mal.config import Config, DataConfig, SplitConfig
from mal.config_checks import check
from mal.graph import execute, in_order
from mal.labeler_file import DEFAULT
from mal.segmenters.config import SegmenterConfig
from mal.stages import Graph
from mal.store import Store


def own_config(shipped: Config, *, boxes: Path, images: Path, steps: int, seed: int, skip: bool) -> Config:
    """The shipped labeler's settings, for a training on these boxes that starts from its weights.

    Args:
        steps: of the training. skip: leave out images that cannot be read, instead of stopping at the first.

    Raises:
        ConfigError: a value is out of range.
    """
    split = SplitConfig(str(boxes.resolve()), str(images.resolve()))
    config = replace(
        shipped,
        seed=seed,
        compare=[],
        data=DataConfig(name=boxes.stem, train=split, on_bad_image="skip" if skip else "error"),
        labeler=replace(shipped.labeler, name="mal"),
        segmenter=SegmenterConfig(name="none"),
        train=replace(shipped.train, start=DEFAULT, steps=steps, epochs=None),
    )
    check(config)
    return config


def train_on(config: Config, *, store: Path, device: torch.device) -> Path:
    """Train, or find what was trained already; a stopped training goes on.

    Returns:
        The labeler's file, `store`/labeler.pt.

    Raises:
        MalError: as the stages; Stopped: by a signal.
    """
    runs = Store(store)
    stage = Graph(config, runs, device).train_labeler()
    for needed in in_order([stage]):
        execute(needed, runs, device=device)
    labeler = store / "labeler.pt"
    shutil.copyfile(runs.folder(stage.name, stage.key) / "labeler.pt", labeler)
    return labeler
