"""How long training and labelling will take on this machine, by doing a little of both."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mal.config import Config
from mal.data.images import load_for
from mal.data.rois import RoiBatch
from mal.engine.precision import network_dtype
from mal.errors import ImageError
from mal.methods.mal.network import halfway, predict
from mal.methods.mal.train import build_learner, training_step

TIMED = 3  # steps, batches and images that are timed, after one that warms up


def training_seconds(config: Config, steps: int, device: torch.device) -> float:
    """So many steps of a training, on crops of noise; the reading of images runs beside it and is not counted."""
    bare = replace(config.encoder, pretrained=False, checkpoint=None)
    config = replace(config, encoder=bare, train=replace(config.train, start=None, compile=False))
    learner, batch = build_learner(config, device), random_batch(config).to(device)
    weights = (config.loss.mil_weight, config.loss.crf_weight)
    return steps * _timed(lambda: training_step(learner, batch, config, weights=weights), device)


def labelling_seconds(networks: list[nn.Module], config: Config, boxes: int, device: torch.device) -> float:
    """So many boxes' masks, by the network alone."""
    batch = random_batch(replace(config, train=replace(config.train, batch=min(config.label.batch, boxes)))).to(device)
    dtype = network_dtype(config.train.precision, device)
    one = _timed(lambda: predict(networks, batch, flip=config.label.flip, through=halfway(config), dtype=dtype), device)
    return math.ceil(boxes / config.label.batch) * one


def reading_seconds(records: Sequence[dict[str, Any]], folder: Path) -> float:
    """Decoding these images one after the other, by the time that a few from the middle of the list take.

    One that cannot be read is passed over: whether that stops anything is said elsewhere.
    """
    middle = len(records) // 2
    times = []
    for record in records[max(0, middle - TIMED) : middle + TIMED]:
        clock = time.perf_counter()
        with suppress(ImageError):
            load_for(record, folder)
            times.append(time.perf_counter() - clock)
    return len(records) * statistics.median(times) if times else 0.0


def random_batch(config: Config) -> RoiBatch:
    """`train.batch` crops of smooth noise around boxes of all three sizes."""
    count, size = config.train.batch, config.roi.size
    noise = torch.rand(count, 3, max(1, size // 8), max(1, size // 8))
    images = torch.nn.functional.interpolate(noise, size=(size, size), mode="bilinear")
    return RoiBatch(
        pixels=(255 * images).to(torch.uint8),
        windows=torch.tensor([0, 0, 400, 400]).expand(count, 4),
        spans=torch.tensor([80, 100, 300, 280]).expand(count, 4),
        images=torch.tensor([0, 0, 640, 480]).expand(count, 4),
        sizes=torch.arange(count) % 3,
        flipped=torch.zeros(count, dtype=torch.bool),
        padded=torch.zeros(count, dtype=torch.bool),
        repeats=torch.zeros(count, dtype=torch.int64),
        draws=torch.rand(count, 12),
        ids=torch.arange(count),
    )


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call, the median of a few."""
    times = []
    for _ in range(TIMED + 1):
        clock = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - clock)
    return statistics.median(times[1:])
