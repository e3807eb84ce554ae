"""Every method and segmenter runs on a pretend GPU, where no tensor may be left on the CPU, and ends as it does here.

A GPU run that nobody made is not made by this: kernels, half precision, compilation and speed are tests marked `cuda`.
"""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_models import write
from pretend_gpu import GPU, DeviceMismatchError, OnGpu, pretend_gpu, waits
from torch import nn

from mal.config import Config
from mal.engine.graph import in_order
from mal.engine.runtime import sent
from mal.engine.store import Store
from mal.engine.trainer import Trainer
from mal.methods.mal import crf
from mal.request import Graph
from mal.run import run

RUNS = {
    "mal, looks, mask_rcnn": (
        *("segmenter=mask_rcnn_tiny", "clustering.enabled=true", "attention.enabled=true", "attention.layers=[1,3]"),
    ),
    "mal, cascade": ("segmenter=cascade_tiny",),
    "mal, swin, query decoder, solov2": ("segmenter=solov2_tiny", "encoder=swin_nano", "decoder=query"),
    "mal, mask2former": ("segmenter=mask2former_tiny",),
    "attentionshift": ("labeler=attentionshift", "segmenter=none"),
    "bestie": ("labeler=bestie", "segmenter=none"),
    "simformer": ("labeler=simformer", "simformer.pseudo.kind=own", "segmenter=none"),
    "partialres": ("labeler=partialres",),
    "partialres's rival": ("labeler=partialres", "partialres.network.model=query"),
    "partialres, language model": (
        "labeler=partialres",
        "partialres.network.text.encoder=transformer",
        "partialres.network.text.checkpoint={language_model}",
    ),
}


def settings_of(name: str, folder: Path) -> list[str]:
    write(folder / "language", hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    return [each.format(language_model=folder / "language") for each in RUNS[name]]


def metrics(compose: Callable[..., Config], store: Path, *settings: str) -> dict[str, float]:
    """Of all stages of a run: `stage.metric` → value."""
    plain = ("train.precision=fp32", "segmenter.precision=fp32", "train.compile=false", "crf.backend=torch")
    config = compose("profile=smoke", "tracking=none", "train.workers=0", f"store={store}", *plain, *settings)
    run(config)
    found = Store(store)
    stages = in_order(Graph(config, found, torch.device(config.device)).targets())
    return {
        f"{stage.name}.{name}": metric["value"]
        for stage in stages
        for name, metric in found.read(stage.name, stage.key)["metrics"].items()
        if metric["value"] is not None
    }


# files of ours in which a step of these waits for a GPU, and how often
WAITS = {
    # each image's cells that have an object
    "mal, swin, query decoder, solov2": {"mal/segmenters/solov2/__init__.py": 2},
    "simformer": {"mal/methods/simformer/criterion.py": 1},  # which query finds which target is the CPU's work
    "partialres": {},
    # transformers looks for padding
    "partialres, language model": {"mal/methods/partialres/text/language_model.py": 1},
}


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """Where each step waits, once it is done."""
    found: list[Counter[str]] = []
    ordinary = Trainer._steps

    def counted(*args: Any) -> Generator[Any, None, None]:
        with closing(ordinary(*args)) as turns:
            for turn in turns:
                waits.clear()
                yield turn
                found.append(Counter(place.split(":")[0] for place in waits.elements()))

    monkeypatch.setattr(Trainer, "_steps", counted)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUNS])
def test_a_run_on_the_pretend_gpu_ends_as_on_the_cpu_and_waits_where_it_must(
    compose: Callable[..., Config],
    tmp_path: Path,
    name: str,
    waited: list[Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name in WAITS:
        monkeypatch.setattr(crf, "_settled", lambda *_: False)  # PyTorch's mean field asks; a GPU has one of its own
    settings = settings_of(name, tmp_path)
    expected = metrics(compose, tmp_path / "cpu", "device=cpu", *settings)
    waited.clear()
    with pretend_gpu():
        found = metrics(compose, tmp_path / "gpu", "device=cuda", *settings)
    assert found.keys() == expected.keys()
    losses = {name for name in expected if name.startswith("train_")}  # predictions may turn over by their rounding
    assert losses
    assert {name: found[name] for name in losses} == pytest.approx(
        {name: expected[name] for name in losses}, rel=1e-2, abs=1e-6
    )
    if name in WAITS:
        assert len(waited) > 3
        assert dict(reduce(or_, waited[1:])) == WAITS[name]  # the most of all steps; constants are copied in the first


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (lambda gpu, cpu: gpu + cpu, DeviceMismatchError),
        (lambda gpu, cpu: cpu + gpu, DeviceMismatchError),
        (lambda gpu, cpu: torch.cat([gpu, cpu]), DeviceMismatchError),
        (lambda gpu, cpu: nn.functional.linear(cpu, gpu.new_ones(2, 4)), DeviceMismatchError),
        (lambda gpu, cpu: cpu[gpu[:, 0].long()], DeviceMismatchError),
        (lambda gpu, _: gpu.pin_memory(), RuntimeError),
        (lambda gpu, _: gpu.numpy(), TypeError),
        (lambda gpu, _: np.asarray(gpu), TypeError),
    ],
)
def test_what_a_gpu_refuses_is_refused(operation: Callable[..., object], error: type[Exception]) -> None:
    with pretend_gpu() as gpu:
        here, there = torch.rand(3, 4), torch.rand(3, 4, device=gpu)
        with pytest.raises(error):
            operation(there, here)


def test_what_a_gpu_takes_is_taken_and_stays_there() -> None:
    with pretend_gpu() as gpu:
        here = torch.arange(12.0).reshape(3, 4)
        there = here.to(gpu)
        results = [there * 2, there @ there.T, there[torch.tensor([0, 1])], there * torch.tensor(2.0), there[0],
                   there.new_zeros(2), torch.zeros_like(there), there.new_tensor([1]), there.max(1).values]  # fmt: skip
        assert all(isinstance(each, OnGpu) and each.device == GPU for each in results)
        assert torch.equal((there * 2).cpu(), here * 2)
        assert there.cpu().numpy().tolist() == here.tolist() == there.tolist()
        assert float(there.sum()) == 66


def test_a_network_learns_there_what_it_learns_here() -> None:
    def learned(device: torch.device) -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            loss = network(torch.rand(5, 4).to(device)).square().mean(0)[torch.tensor([0, 2])].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return network[0].weight.detach().cpu()

    expected = learned(torch.device("cpu"))
    with pretend_gpu() as gpu:
        assert torch.equal(learned(gpu), expected)
    assert type(nn.Linear(1, 1).weight) is nn.Parameter


@pytest.mark.parametrize(
    "operation",
    [
        lambda gpu, _: float(gpu.sum()),
        lambda gpu, _: bool(gpu.sum() > 0),
        lambda gpu, _: gpu.tolist(),
        lambda gpu, _: gpu.cpu(),
        lambda gpu, _: gpu.nonzero(),
        lambda gpu, _: gpu.unique(),
        lambda gpu, _: gpu[gpu > 0],
        lambda gpu, _: gpu[torch.tensor([0])],
        lambda gpu, _: torch.tensor([1.0], device=gpu.device),
        lambda gpu, _: gpu.new_tensor([1.0]),
        lambda gpu, _: torch.asarray([1.0], device=gpu.device),
        lambda gpu, cpu: cpu.to(gpu.device),
        lambda gpu, _: torch.rand(20_000).to(gpu.device, non_blocking=True),  # not from page-locked memory
        lambda gpu, cpu: gpu.copy_(cpu),
        lambda gpu, cpu: cpu.copy_(gpu),
        lambda gpu, _: gpu.to("cpu", non_blocking=True),
        lambda gpu, _: gpu.__setitem__(gpu > 0, gpu[0, 0]),
    ],
)
def test_what_python_waits_for_is_counted(operation: Callable[..., object]) -> None:
    with pretend_gpu() as gpu:
        here, there = torch.rand(3, 4), torch.rand(3, 4, device=gpu)
        waits.clear()
        operation(there, here)
        assert [*waits.values()] == [1]


def test_what_nobody_waits_for_is_not_counted() -> None:
    with pretend_gpu() as gpu:
        here, there = torch.rand(3, 4), torch.rand(3, 4, device=gpu)
        rows = sent(torch.tensor([0, 2]), gpu)
        waits.clear()
        there[there > 0] = 1.0
        there[rows] += sent(here, gpu)[rows]
        sent(torch.rand(20_000), gpu)
        torch.as_tensor(there, device=gpu)
        torch.zeros(3, 4).pin_memory().copy_(there, non_blocking=True)
        (there @ there.T).sum().clamp(min=1)
        there.to(torch.float16).float()
        here.cpu().tolist()
        torch.full((3,), 2.0, device=gpu)
        assert not waits
