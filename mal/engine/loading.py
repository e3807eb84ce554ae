"""Batches made ahead in processes of their own and handed over in order, through memory that all of them share.

Threads would need less, but they hold the interpreter lock that the thread which launches a GPU's kernels waits for.
torch's DataLoader keeps the processes; the pixels do not take its way from one to another, which is a new file in
/dev/shm for every batch: there a container has 64 MB unless its user asks for more, and a batch of 32 crops of 512² is
25 MB. They lie in anonymous memory that is mapped once, before the processes are forked, and no limit but that of the
machine's memory counts.
"""

import atexit
import gc
import itertools
import math
import mmap
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mal.engine.runtime import StopSignals
from mal.errors import MalError

PREFETCH = 2  # batches that a process has in hand: one in the making, one waiting for its turn


class Batch(Protocol):
    """A dataclass of tensors, one of which is large."""

    pixels: Tensor

    def pin_memory(self) -> Self: ...


B = TypeVar("B", bound=Batch)
Make = Callable[[range, Iterator[Tensor]], Iterator[B]]
"""Makes the batches of some numbers, in order, each one's pixels at the beginning of the next of the given tensors."""


def load(make: Make[B], numbers: range, *, shape: tuple[int, ...], workers: int, pin: bool = False) -> Iterator[B]:
    """The batches of `numbers` in order, made ahead by `workers` processes; by this one, when asked, if 0.

    Process w of W makes every W-th batch from the w-th on. What is made ahead is bounded: PREFETCH batches a process.
    The processes leave stop signals to this one, have one torch thread each, and end with the iterator.

    Args:
        make: must give a batch that depends on its number alone.
        shape: of the uint8 tensors for pixels: what the largest batch needs.
        pin: give batches in page-locked memory, which a GPU copies from while both go on working.

    Raises:
        MalError: as `make` raises it; or a process was killed.
    """
    workers = min(workers, len(numbers), cores())
    if not workers:
        for batch in make(numbers, (torch.empty(shape, dtype=torch.uint8) for _ in itertools.repeat(None))):
            yield batch.pin_memory() if pin else batch
        return
    build = partial(
        DataLoader,
        _Maker(make, numbers, _Memory(workers, shape)),
        batch_size=None,  # an item is a batch
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=PREFETCH,
        pin_memory=pin,
        worker_init_fn=_freeze,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else it draws from the global one, which dropout draws from
    )
    way_out = "where memory ran out, set fewer train.workers, or 0 to read them in the process that trains"
    with at_work(build, way_out=way_out) as received:
        for sent in received:
            if isinstance(sent, MalError):
                raise sent
            yield sent.copied() if isinstance(sent, _Packed) else sent


@contextmanager
def at_work(build: Callable[[], DataLoader[Any]], *, way_out: str) -> Iterator[Iterator[Any]]:
    """What the processes of a DataLoader make, for the length of a block; they never see a stop signal.

    Args:
        build: gives the DataLoader.

    Raises:
        MalError: one was killed; ends with the way out.
    """
    with _signals_held(), warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; these processes take no lock that a thread here may hold
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more than there are cores
        received = iter(build())
    try:
        with _ended_at_exit(received):
            yield received
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):  # "(pid 123) is killed by signal: Killed."
            raise
        cause = str(error).splitlines()[0]
        raise MalError(f"a process that reads images has died ({cause}); {way_out}") from error


def cores() -> int:
    """How many cores this process may use: more processes than these would only take turns."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _ended_at_exit(iterator: Any) -> Iterator[None]:
    """End the processes of a DataLoader's iterator with the block, or with the interpreter if that comes first.

    An exception may keep the block from ending. At exit Python sends such processes a SIGTERM, which these do not see,
    and would wait for them for ever.
    """
    end = iterator._shutdown_workers
    atexit.register(end)  # runs before what Python's own module registered, because that was earlier
    try:
        yield
    finally:
        atexit.unregister(end)
        end()


class _Memory:
    """Pixels of PREFETCH + 1 batches for every process: a third is being copied here while it makes the next."""

    known: ClassVar[WeakValueDictionary[int, "_Memory"]] = WeakValueDictionary()  # what messages refer to

    def __init__(self, workers: int, shape: tuple[int, ...]) -> None:
        slots = (workers, PREFETCH + 1, *shape)
        try:
            room = mmap.mmap(-1, math.prod(slots))  # anonymous and shared; pages count once they are written to
        except OSError as error:
            raise MalError(
                f"cannot map {math.prod(slots) / 2**30:.1f} GiB to read images ahead ({error.strerror}); set fewer "
                "train.workers, or 0"
            ) from error
        self.slots = torch.frombuffer(room, dtype=torch.uint8).view(slots)
        self.known[id(self)] = self


@dataclass
class _Packed(Generic[B]):
    """A batch in the pipe between two processes: where its pixels lie, and the rest as arrays.

    A tensor here would be sent through a file in /dev/shm.
    """

    memory: int
    worker: int
    slot: int
    count: int  # of its rows
    kind: Callable[..., B]
    rest: dict[str, np.ndarray]

    def copied(self) -> B:
        """The batch with pixels of its own."""
        batch = self._in_place()
        batch.pixels = batch.pixels.clone()
        return batch

    def pin_memory(self) -> B:
        """The batch, copied to page-locked memory; the DataLoader calls this in a thread of its own."""
        return self._in_place().pin_memory()

    def _in_place(self) -> B:
        pixels = _Memory.known[self.memory].slots[self.worker, self.slot, : self.count]
        return self.kind(pixels=pixels, **{name: torch.from_numpy(array) for name, array in self.rest.items()})


class _Maker(Dataset[Any], Generic[B]):
    """The batches of one process, by number, asked for in the order of `load`."""

    def __init__(self, make: Make[B], numbers: range, memory: _Memory) -> None:
        self._make, self._numbers, self._memory = make, numbers, memory
        self._batches: Iterator[tuple[int, B]] | None = None

    def __getitem__(self, number: int) -> _Packed[B] | MalError:
        worker = get_worker_info()
        assert worker is not None
        if self._batches is None:
            slots = self._memory.slots[worker.id]
            own = range(number, self._numbers.stop, worker.num_workers)
            self._batches = zip(itertools.cycle(range(len(slots))), self._make(own, itertools.cycle(slots)))
        try:
            slot, batch = next(self._batches)
        except MalError as error:
            return error  # raised, it would reach the caller with this process's traceback as its text
        rest = {f.name: getattr(batch, f.name).numpy() for f in fields(batch) if f.name != "pixels"}  # type: ignore[arg-type]
        return _Packed(id(self._memory), worker.id, slot, len(batch.pixels), type(batch), rest)


def _freeze(_worker: int) -> None:
    """Keep the collector off what was there before the fork: its marks would copy every page of it."""
    gc.freeze()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Block the stop signals. Processes that are forked meanwhile never see one.

    A scheduler sends its notice to every process of a job, and a terminal its Ctrl-C: the process that trains needs
    the others' batches until it has written its checkpoint, and ends them itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, StopSignals.WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
