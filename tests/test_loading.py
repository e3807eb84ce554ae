"""Processes that make batches ahead: order, bounds, errors, signals and ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mal.data.rois import RoiBatch, labelling_batches
from mal.engine import loading
from mal.engine.loading import PREFETCH, load
from mal.errors import ImageError, MalError

SHAPE = (4, 3, 8, 8)


@dataclass
class Numbered:
    pixels: Tensor  # (n, 3, 8, 8), filled with the batch's number
    maker: Tensor  # (1,) id of the process that made it
    pinned: bool = False

    def pin_memory(self) -> "Numbered":
        return replace(self, pinned=True)


@dataclass
class Made:
    pixels: Tensor
    maker: Tensor

    def pin_memory(self) -> "Made":
        raise AssertionError("nobody asked for it")


def numbered(numbers: range, rooms: Iterator[Tensor]) -> Iterator[Made]:
    """Batch n shows n, in 1 to 4 rows."""
    for number, room in zip(numbers, rooms, strict=False):
        rows = number % SHAPE[0] + 1
        room[:rows] = number
        yield Made(room[:rows], torch.tensor([os.getpid()]))


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as a test asks for, on any machine."""
    monkeypatch.setattr(loading, "cores", lambda: 64)


def test_there_are_no_more_processes_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cores", lambda: 2)
    batches = list(load(numbered, range(20), shape=SHAPE, workers=9))
    assert len({int(batch.maker) for batch in batches}) == 2


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 50])
def test_batches_come_in_order_and_whole(workers):
    batches = list(load(numbered, range(5, 25), shape=SHAPE, workers=workers))
    assert [len(batch.pixels) for batch in batches] == [number % 4 + 1 for number in range(5, 25)]
    assert all(bool((batch.pixels == number).all()) for number, batch in enumerate(batches, start=5))
    makers = [int(batch.maker) for batch in batches]
    assert len(set(makers)) == max(1, min(workers, 20))
    assert (os.getpid() in makers) == (workers == 0)
    if workers:
        assert makers == [makers[place % len(set(makers))] for place in range(20)]  # in turns


def test_no_process_is_more_than_its_batches_ahead(tmp_path):
    def counted(numbers: range, rooms: Iterator[Tensor]) -> Iterator[Made]:
        for number, batch in zip(numbers, numbered(numbers, rooms), strict=True):
            (tmp_path / str(number)).touch()
            yield batch

    batches = load(counted, range(100), shape=SHAPE, workers=2)
    for taken in range(1, 6):
        next(batches)
        time.sleep(0.3)
        assert len(list(tmp_path.iterdir())) <= taken + 2 * PREFETCH
    batches.close()


def test_the_global_generator_is_left_alone():
    """Dropout draws from it: how batches are made must not change a training step."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(load(numbered, range(3), shape=SHAPE, workers=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_comes_in_its_turn_as_it_was_raised():
    def broken(numbers: range, rooms: Iterator[Tensor]) -> Iterator[Made]:
        for number, batch in zip(numbers, numbered(numbers, rooms), strict=True):
            if number == 3:
                raise ImageError("3.jpg is an empty file; copy or download it again")
            yield batch

    batches = load(broken, range(20), shape=SHAPE, workers=2)
    got = [next(batches) for _ in range(3)]
    with pytest.raises(ImageError) as caught:
        next(batches)
    assert str(caught.value) == "3.jpg is an empty file; copy or download it again"
    assert not any(alive(int(batch.maker)) for batch in got)


def test_a_killed_process_is_an_error_and_no_wait():
    def killed(numbers: range, rooms: Iterator[Tensor]) -> Iterator[Made]:
        for number, batch in zip(numbers, numbered(numbers, rooms), strict=True):
            if number == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    began = time.monotonic()
    with pytest.raises(MalError, match=r"has died .* set fewer train\.workers, or 0"):
        list(load(killed, range(20), shape=SHAPE, workers=2))
    assert time.monotonic() - began < 20


def test_the_processes_end_when_the_caller_stops_early():
    batches = load(numbered, range(1000), shape=SHAPE, workers=2)
    makers = {int(next(batches).maker) for _ in range(4)}
    assert len(makers) == 2
    assert all(map(alive, makers))
    began = time.monotonic()
    batches.close()
    assert not any(map(alive, makers))
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_stop_signals_are_left_to_the_process_that_trains(number):
    batches = load(numbered, range(30), shape=SHAPE, workers=2)
    makers = {int(next(batches).maker) for _ in range(2)}
    for maker in makers:
        os.kill(maker, number)
    rest = list(batches)
    assert len(rest) == 28
    assert {int(batch.maker) for batch in rest} == makers


def test_signals_reach_this_process_again_once_the_others_run():
    batches = load(numbered, range(30), shape=SHAPE, workers=1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    next(batches)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    batches.close()


ORPHANS = """
import sys
sys.path.insert(0, sys.argv[1])
from test_loading import SHAPE, numbered
from mal.engine.loading import load
batches = load(numbered, range(10**6), shape=SHAPE, workers=2)
print(*{int(next(batches).maker) for _ in range(2)}, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_the_processes_do_not_outlive_one_that_was_killed():
    command = [sys.executable, "-c", ORPHANS, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        makers = [int(word) for word in child.stdout.readline().split()]
        assert len(makers) == 2
        child.kill()
    for _ in range(150):
        if not any(map(alive, makers)):
            break
        time.sleep(0.1)
    assert not any(map(alive, makers))


def pinnable(numbers: range, rooms: Iterator[Tensor]) -> Iterator[Numbered]:
    return (Numbered(batch.pixels, batch.maker) for batch in numbered(numbers, rooms))


def test_pinning_is_asked_of_the_batch():
    assert [batch.pinned for batch in load(pinnable, range(2), shape=SHAPE, workers=0, pin=True)] == [True, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch pins memory only where there is a GPU")
def test_pinned_batches_of_other_processes_are_the_same(compose):
    coco = {
        "images": [{"id": 0, "height": 60, "width": 80, "file_name": "0.png"}],
        "annotations": [{"id": i, "image_id": 0, "bbox": [i, i, 30, 20]} for i in range(20)],
    }
    noise = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)

    def batches(**options: Any) -> list[RoiBatch]:
        config = compose("profile=smoke").roi
        made = labelling_batches(coco, Path(), config=config, batch=3, loader=lambda *_: noise, **options)
        return [batch for _, batch in made]

    for ours, theirs in zip(batches(workers=2, pin=True), batches(workers=0), strict=True):
        assert ours.pixels.is_pinned()
        moved = ours.to(torch.device("cuda"))
        assert torch.equal(moved.pixels.cpu(), theirs.pixels)
        assert torch.equal(moved.windows.cpu(), theirs.windows)


def test_it_can_be_used_beside_threads():
    """Python 3.12 warns when a process with threads forks; that is no error of the caller's."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert len(list(load(numbered, range(4), shape=SHAPE, workers=2))) == 4
    finally:
        stop.set()
        thread.join()
