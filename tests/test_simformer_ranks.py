"""Two processes with half a batch of SimFormer each have the gradients of one process with all of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.config import Config
from mal.data.semantic import read_semantic
from mal.engine import ranks
from mal.engine.runtime import seed_everything
from mal.methods.simformer.data import Sample, TrainingImages, collate
from mal.methods.simformer.learner import Learner
from mal.methods.simformer.points import draw_points
from tests.in_processes import in_processes
from tests.simformer_cases import NOVEL, changed, draw, weak


def gradients(config: Config, items: list[tuple[Sample, ...]], *, warm: bool) -> list[float]:
    """Of this process's pairs of images after a step; points follow their pair."""
    own, mine = config.simformer, items[ranks.own_part(len(items), "pairs")]
    points = []
    for place, item in enumerate(mine):
        generator = torch.Generator().manual_seed(item[0].image_id)
        (drawn,) = draw_points(collate([item], "cross", own.augment), own.pairs, own.distillation, generator)
        points.append(replace(drawn, images=(place, len(mine) + place)))
    seed_everything(0)
    learner = Learner(config, classes=13, novel=NOVEL, dtype=torch.float32).train()
    shared = ranks.synchronised(learner)
    losses = shared(collate(mine, "cross", own.augment), points, warm=warm)
    torch.stack(list(losses.values())).sum().backward()
    balance = learner.pairs.balance.counts.sum(0).tolist() if learner.pairs is not None else []
    return [*(float(it.grad.double().square().sum()) for it in learner.parameters() if it.grad is not None), *balance]


def cases(compose: Any, folder: Path) -> tuple[Config, list[tuple[Sample, ...]]]:
    config = changed(compose, "learning.batch=4")
    own = config.simformer
    view = read_semantic(weak(draw(folder), folder / "weak"))
    images = TrainingImages(view, folder / "images", pairs=own.pairs, augment=own.augment, seed=0)
    return config, [images[(0, index)] for index in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("warm", [False, True])
def test_half_a_batch_each(compose: Any, tmp_path: Path, warm: bool) -> None:
    found = cases(compose, tmp_path)
    expected = gradients(*found, warm=warm)
    for answer in in_processes(2, gradients, *found, warm=warm):
        assert answer == pytest.approx(expected, rel=1e-4, abs=1e-9)
