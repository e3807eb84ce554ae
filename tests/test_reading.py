"""Loader processes change how long reading takes, and nothing else."""

import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from mal.engine.store import Store
from mal.errors import ImageError, Stopped
from mal.request import Graph
from mal.segmenters import inference, loop, reading, training
from mal.segmenters.data import Sample
from mal.segmenters.reading import read_ahead
from tests.small_segmenters import SMALL, small
from tests.test_segmenter import CPU, make_dataset, same


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    data = make_dataset(tmp_path_factory.mktemp("reading") / "data", images=5)
    return {"annotations": data / "annotations.json", "images": data / "images"}


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as asked for, wherever this runs."""
    monkeypatch.setattr(reading, "cores", lambda: 8)


class Numbers(Dataset[Any]):
    def __getitem__(self, key: int) -> Any:
        if key == 13:
            raise ImageError(f"there is no image {key}")
        return {"key": key, "process": os.getpid(), "threads": torch.get_num_threads()}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_from_processes_of_one_thread(workers: int) -> None:
    keys = [[1, 2], [3], [4, 5, 6], [7]]
    with closing(read_ahead(Numbers(), keys, workers=workers, pin=False)) as batches:
        found = list(batches)
    assert [[item["key"] for item in batch] for batch in found] == keys
    processes = {item["process"] for batch in found for item in batch}
    assert len(processes) == max(1, workers)
    assert (os.getpid() in processes) == (workers == 0)
    assert {item["threads"] for batch in found for item in batch} == {1}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_arrives_as_it_was_raised_at_its_turn(workers: int) -> None:
    with closing(read_ahead(Numbers(), [[1], [13, 2], [3]], workers=workers, pin=False)) as batches:
        assert next(batches)[0]["key"] == 1
        with pytest.raises(ImageError) as error:
            next(batches)
    assert str(error.value) == "there is no image 13"


def test_no_more_processes_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "cores", lambda: 1)
    with closing(read_ahead(Numbers(), [[key] for key in range(6)], workers=5, pin=False)) as batches:
        assert len({item["process"] for batch in batches for item in batch}) == 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_notice_to_everybody_ends_no_loader(number: signal.Signals) -> None:
    with closing(read_ahead(Numbers(), [[key] for key in range(20, 60)], workers=2, pin=False)) as batches:
        process = next(batches)[0]["process"]
        os.kill(process, number)
        time.sleep(0.2)
        keys = [item["key"] for batch in batches for item in batch]
    assert keys == list(range(21, 60))
    for _ in range(100):
        if not Path(f"/proc/{process}").exists():
            return
        time.sleep(0.1)
    pytest.fail("the loader did not end with its iterator")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("name", SMALL)
def test_any_number_of_loaders_gives_the_same_bits(name: str, where: dict[str, Path], tmp_path: Path) -> None:
    states, results = [], []
    for workers in (0, 1, 3):
        config = small(name, f"running.workers={workers}", "test.batch=2", "test.score=0", "test.decayed_score=0")
        folder = tmp_path / str(workers)
        training.train(**where, config=config, seed=0, folder=folder, device=CPU)
        states.append(torch.load(folder / "segmenter.pt", weights_only=True))
        checkpoint = tmp_path / "0" / "segmenter.pt"
        results.append(inference.predict(checkpoint=checkpoint, **where, config=config, device=CPU))
    assert results[0]
    for state, result in zip(states[1:], results[1:], strict=True):
        assert same(states[0], state)
        assert result == results[0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_run_with_loaders_stops_at_a_notice_and_resumes_to_the_bit(
    where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("mask_rcnn_tiny", "schedule.steps=5")
    training.train(**where, config=config, seed=0, folder=tmp_path / "whole", device=CPU)
    real = loop._step

    def noticed(run: loop.Run, *rest: Any, **named: Any) -> None:
        real(run, *rest, **named)
        if run.trainer.step == 1:
            os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(loop, "_step", noticed)
    config.running.workers = 2
    with pytest.raises(Stopped):
        training.train(**where, config=config, seed=0, folder=tmp_path / "cut", device=CPU)
    monkeypatch.setattr(loop, "_step", real)
    training.train(**where, config=config, seed=0, folder=tmp_path / "cut", device=CPU)
    first, second = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("whole", "cut"))
    assert same(first, second)


def test_a_sample_moves_whole() -> None:
    tensors = [torch.zeros(3, 4, 4, dtype=torch.uint8), torch.ones(2, 4), torch.tensor([1, 2]), torch.ones(2, 4, 4)]
    moved = Sample(*tensors, image_id=7).to(torch.device("meta"))
    assert moved.image_id == 7
    for name, tensor in zip(("image", "boxes_xyxy", "labels", "masks"), tensors, strict=True):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == tensor.shape


def test_loaders_are_no_part_of_a_results_identity(compose: Any, tmp_path: Path) -> None:
    assert compose("profile=paper", "data.root=.", "data=coco").segmenter.running.workers == 8
    common = ("profile=smoke", f"store={tmp_path}", "tracking=none")
    few, many = (
        [
            stage.key
            for stage in Graph(compose(*common, f"segmenter.running.workers={n}"), Store(tmp_path), CPU).targets()
        ]
        for n in (0, 5)
    )
    assert few == many
