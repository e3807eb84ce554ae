"""Two processes with half a batch of Partial-RES each learn what one process with all of it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mal.engine import ranks
from mal.engine.runtime import load_checkpoint
from mal.methods.partialres import lessons
from mal.methods.partialres.checkpoint import FILE
from mal.methods.partialres.train import train
from tests.language_models import write
from tests.partialres_cases import changed, draw, some_masks
from tests.test_ranks import in_processes

CPU = torch.device("cpu")


def weights(case: Path, folder: Path) -> list[float]:
    """Norms of the weights, and sums of the running statistics, after a few steps."""
    torch.set_num_threads(1)
    view, images, config, task, masks = torch.load(case, weights_only=False)
    train(view, images, config, task=task, masks=masks, folder=folder, device=CPU)
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
    torch.save((view, tmp_path / "data" / "images", config, task, masks), tmp_path / "case.pt")
    body = f"""
from pathlib import Path
from tests.test_partialres_ranks import weights
answer = weights(Path({str(tmp_path / "case.pt")!r}), Path({str(tmp_path / "two")!r}))
"""
    alone = weights(tmp_path / "case.pt", tmp_path / "one")
    for answer in in_processes(2, tmp_path, body):
        # Adam makes steps of rounding where a gradient is 0, as that of a shift before a norm
        assert answer == pytest.approx(alone, rel=2e-3, abs=5e-4)
