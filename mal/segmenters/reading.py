"""Images read ahead of the work, by other processes: the same items in the same order for any number of them."""

import resource
import sys
from collections.abc import Generator, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from mal.engine.loading import at_work, cores
from mal.errors import MalError

Item = TypeVar("Item")
OPEN_FILES = 1 << 14


class _Fallible(Dataset[Any], Generic[Item]):
    """A data set that hands on our own errors: a loader process would wrap them in its traceback."""

    def __init__(self, items: Dataset[Item]) -> None:
        self.items = items

    def __getitem__(self, key: Any) -> Item | MalError:
        try:
            return self.items[key]
        except MalError as error:
            return error


def read_ahead(
    items: Dataset[Item], batches: Iterable[list[Any]], *, workers: int, pin: bool
) -> Generator[list[Item], None, None]:
    """The items of each batch of keys, in order.

    Args:
        items: key → item, the same one in any process.
        batches: of keys; asked for as the work goes on, two batches a worker ahead.
        workers: processes that read, each with one torch thread; 0 reads here. No more are started than there are
            cores.
        pin: copy items into page-locked memory, from which a GPU fetches them while it works.

    Raises:
        MalError: what an item raised, when its turn comes.
    """
    workers = min(workers, cores())
    if workers:
        _allow_open_files()
    build = partial(
        DataLoader,
        _Fallible(items),
        batch_sampler=batches,  # of lists of whatever the data set takes, not only of indices
        collate_fn=list,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # the data set is not copied
    )
    way_out = (
        "give a container more shared memory (--shm-size=8g), or set fewer segmenter.running.workers, or 0 to read in "
        "the process that trains"
    )
    with at_work(build, way_out=way_out) if workers else nullcontext(iter(build())) as reading:
        for batch in reading:
            for item in batch:
                if isinstance(item, MalError):
                    raise item
            yield batch


def _allow_open_files() -> None:
    """Each tensor that a worker hands on is an open file until it is used: a thousand in all the batches ahead."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
