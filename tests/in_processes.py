"""A function in several processes that know of each other: as torchrun starts them, but forked from one with torch."""

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import distributed as dist

from mal.engine import ranks

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["mal.run", "timm", "torchvision"])  # seconds of imports, once and not in each process
PATIENCE = 400.0  # seconds


def in_processes(count: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
    """What a function of a test's module answers in each of `count` processes; all is pickled."""
    # they meet here, as they would at torchrun: at a port that nobody else can take meanwhile
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PATIENCE))
    call = pickle.dumps((function, args, kwargs))
    started = []
    for rank in range(count):
        ours, its = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=_answer, args=(call, rank, count, store.port, its))
        process.start()
        its.close()
        started.append((process, ours))
    try:
        found = [_answered(ours) for _, ours in started]
        for process, _ in started:
            process.join(PATIENCE)
    finally:
        for process, _ in started:
            process.kill()
    errors = [answer for answer, failed in found if failed]
    assert not errors, "\n".join(errors)
    assert [process.exitcode for process, _ in started] == [0] * count
    return [answer for answer, _ in found]


def _answered(ours: Connection) -> tuple[Any, bool]:
    try:
        return ours.recv() if ours.poll(PATIENCE) else (f"no answer within {PATIENCE:g} s", True)
    except EOFError:
        return "a process ended without an answer", True


def _answer(call: bytes, rank: int, count: int, port: int, its: Connection) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in own.items()}, TORCHELASTIC_USE_AGENT_STORE="True")
    torch.set_num_threads(1)
    try:
        function, args, kwargs = pickle.loads(call)
        with ranks.joined(torch.device("cpu")):
            answer = function(*args, **kwargs)
        its.send((answer, False))
    except BaseException:
        its.send((traceback.format_exc(), True))
