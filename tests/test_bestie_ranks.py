"""Two processes with half a batch of BESTIE each have the gradients of one process with all of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mal.config import Config
from mal.encoders.config import EncoderConfig
from mal.engine import ranks
from mal.engine.runtime import seed_everything
from mal.methods.bestie.data import Sample, TrainingImages, objects_of
from mal.methods.bestie.learners import ClassLearner, InstanceLearner
from mal.methods.bestie.map_files import write_map
from mal.methods.bestie.network import ClassNetwork, InstanceNetwork
from tests.bestie_cases import changed, draw
from tests.in_processes import in_processes

LAYER_NORMS = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}  # batch norms see their own process's images alone


def gradients(config: Config, batch: list[Sample], *, instances: bool) -> list[float]:
    """Squared norms of the gradients of this process's part of a batch."""
    seed_everything(0)
    learner: Any = (
        InstanceLearner(InstanceNetwork(config, classes=6), config.bestie)
        if instances
        else ClassLearner(ClassNetwork(config, classes=6), config.bestie)
    )
    shared = ranks.synchronised(learner.train())
    losses = shared(batch[ranks.own_part(len(batch), "batch")])
    torch.stack(list(losses.values())).sum().backward()
    return [float(it.grad.double().square().sum()) for it in learner.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("instances", [False, True])
def test_half_a_batch_each(compose: Any, tmp_path: Path, instances: bool) -> None:
    points, config = draw(tmp_path), changed(compose, "targets.region=10")
    config.encoder = EncoderConfig(name="small", timm="convnext_tiny", pretrained=False, options=LAYER_NORMS)
    for entry, annotations in objects_of(points):
        write_map(tmp_path / "maps", entry, np.full((96, 96), annotations[0]["category_id"]))
    images = TrainingImages(points, tmp_path / "images", scale=config.bestie.scale, seed=0, maps=tmp_path / "maps")
    batch = [images[(0, index)] for index in range(4)]
    expected = gradients(config, batch, instances=instances)
    assert max(expected) > 0
    for answer in in_processes(2, gradients, config, batch, instances=instances):
        assert answer == pytest.approx(expected, rel=1e-4, abs=1e-9)
