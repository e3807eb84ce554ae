"""Where the work is done: on the device that a config, or for `auto` the environment, names."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mal.config import Config
from mal.engine.graph import in_order
from mal.engine.runtime import pick_device
from mal.engine.store import Store
from mal.errors import MalError
from mal.request import Graph
from mal.run import run

ROOT = Path(__file__).resolve().parents[1]
CUDA = torch.device("cuda")


def test_auto_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto").type == "cpu", "the tests' own environment"
    assert pick_device("cuda") == CUDA, "a device that is named is not asked of the environment"
    for value in ("", "auto"):
        monkeypatch.setenv("MAL_DEVICE", value)
        assert pick_device("auto") == CUDA
    monkeypatch.delenv("MAL_DEVICE")
    assert pick_device("auto") == CUDA
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"


def test_a_device_that_is_not_there_is_refused_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAL_DEVICE", "cuda:99")
    with pytest.raises(MalError, match=r"device=cuda:99, but torch sees \d+ GPUs"):
        pick_device("auto")


def test_commands_that_tests_start_compute_on_the_cpu_too() -> None:
    program = (
        "import torch; torch.cuda.is_available = lambda: True\n"
        "from mal.engine.runtime import pick_device; print(pick_device('auto'))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "cpu\n"


@pytest.mark.cuda
def test_a_run_on_a_gpu_labels_every_box_and_says_where(compose: Callable[..., Config], tmp_path: Path) -> None:
    config = compose(
        "profile=smoke", "device=cuda", "segmenter=none", "compare=[]", "tracking=none", f"store={tmp_path}"
    )
    run(config)
    store = Store(tmp_path)
    stages = {stage.name: stage for stage in in_order(Graph(config, store, CUDA).targets())}
    record = store.read("train_labeler", stages["train_labeler"].key)
    assert record["provenance"]["hardware"]["gpu"]
    labels, boxes = (
        json.loads((store.folder(name, stages[name].key) / file).read_text())["annotations"]
        for name, file in (("label_val", "labels.json"), ("boxes_val", "boxes.json"))
    )
    assert [label["id"] for label in labels] == [box["id"] for box in boxes]
