"""Two processes with half a batch of Partial-RES each learn what one process with all of it learns."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.engine import ranks
from mal.engine.runtime import load_checkpoint
from mal.methods.partialres import lessons
from mal.methods.partialres.checkpoint import FILE
from mal.methods.partialres.train import train
from tests.in_processes import in_processes
from tests.language_models import write
from tests.partialres_cases import changed, draw, some_masks

CPU = torch.device("cpu")


def weights(*data: Any, folder: Path, **settings: Any) -> list[float]:
    """Norms of the weights, and sums of the running statistics, after a few steps."""
    train(*data, **settings, folder=folder, device=CPU)
    ranks.wait()  # the first process writes
    state = load_checkpoint(folder / FILE)
    return [float(it.double().norm()) for part in ("partialres", "ema") for it in state[part].values()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("box", ()),
        ("mask", ("res.start=none",)),
        ("mask", ("res.start=none", "network.model=query")),
        ("box", ("network.text.encoder=transformer", "network.text.checkpoint={}")),
    ],
    ids=["boxes", "contours", "the rival", "a language model"],
)
def test_half_a_batch_each(compose: Any, tmp_path: Path, task: str, settings: tuple[str, ...]) -> None:
    view = draw(tmp_path / "data")
    write(tmp_path / "bert", hidden_dropout_prob=0, attention_probs_dropout_prob=0)  # processes draw each their own
    config = changed(compose, "rec.batch=4", "res.batch=4", *(each.format(tmp_path / "bert") for each in settings))
    config = lessons.for_boxes(config) if task == "box" else lessons.for_masks(config)
    masks = some_masks(tmp_path / "data", *(each["id"] for each in view["annotations"])) if task == "mask" else None
    learned = partial(weights, view, tmp_path / "data" / "images", config, task=task, masks=masks)
    alone = learned(folder=tmp_path / "one")
    for answer in in_processes(2, learned, folder=tmp_path / "two"):
        # Adam makes steps of rounding where a gradient is 0, as that of a shift before a norm
        assert answer == pytest.approx(alone, rel=2e-3, abs=5e-4)
