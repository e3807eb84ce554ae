"""Several processes that compute one stage together, one per GPU: who is who, and what they tell each other.

torchrun and SLURM (through submitit) put each process's rank into its environment. A process that was started alone is
rank 0 of 1, for which everything here does nothing and costs nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mal.errors import ConfigError, MalError

Value = TypeVar("Value")
PATIENCE = timedelta(days=7)  # the others wait while the first rank computes a stage that is not shared
_alone = False  # within `on_first`, where the others take no part


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are; within `on_first`, 1."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks to the user."""
    return rank() == 0


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other processes for the length of a `with` block, if the environment says that there are any.

    With GPUs, process i of a machine takes its i-th one.

    Raises:
        MalError: a machine has more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise MalError(
                f"process {local} of this machine has no GPU of its own: there are {there}; start one process per GPU"
            )
        torch.cuda.set_device(local)
    # Its functions name the group of the moment as their default: imported within the group, they keep it and its
    # threads alive to the interpreter's end, where a thread that still holds a tensor aborts the process.
    import_module("torch.distributed.nn.functional")
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Go on when every process is here."""
    if size() > 1:
        dist.all_reduce(torch.zeros(1))


def share(value: Value) -> Value:
    """The first process's value, for all; it is pickled."""
    if size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Value) -> list[Value]:
    """Every process's value, in the order of ranks; they are pickled."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def on_first(work: Callable[[], Value]) -> Value:
    """What the first process computes, for all.

    Raises:
        MalError: what it raised there; the others then raise the same sentence.
    """
    global _alone
    if size() == 1:
        return work()
    failure: Exception | None = None
    value = None
    if is_first():
        _alone = True
        try:
            value = work()
        except Exception as error:
            failure = error
        finally:
            _alone = False
    told, value = share((None if failure is None else str(failure), value))
    if failure is not None:
        raise failure
    if told is not None:
        raise MalError(told)
    return value  # type: ignore[return-value]


def agreed(*reasons: str | None) -> str | None:
    """The first of these reasons that any process has (the lowest rank's): so all of them stop at the same step."""
    if size() == 1:
        return next(filter(None, reasons), None)
    flags = torch.tensor([reason is not None for reason in reasons], dtype=torch.uint8)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    which = flags.nonzero()[:, 0].tolist()
    return next(filter(None, gather(reasons[which[0]]))) if which else None


def mean(values: Tensor) -> Tensor:
    """The mean of every process's tensor."""
    if size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / size()


class _Summed(torch.autograd.Function):
    """torch.distributed.nn.functional has the same, until it is removed (2.15 warns)."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def summed(values: Tensor) -> Tensor:
    """The sum of every process's tensor. Gradients flow to all of them, so every process must go back through it."""
    return values if size() == 1 else _Summed.apply(values)


def weight(count: int | float | Tensor, *, device: torch.device, more: float = 0.0) -> Tensor | float:
    """How much a mean over this process's `count` things weighs among those of all processes: count ÷ mean count.

    A loss that is its sum over this process's things ÷ their number, times this, has gradients that, averaged over the
    processes, are those of one process with everybody's things. 1 for a process alone. Every process must ask.

    Args:
        device: of the loss; nothing waits for it.
        more: what the divisor has besides the count: sum ÷ (count + more).
    """
    if size() == 1:
        return 1.0
    # torch.tensor(count, device=…) would wait for a GPU
    own = count.to(device, torch.float32) if isinstance(count, Tensor) else torch.full((), float(count), device=device)
    total = own.clone()
    dist.all_reduce(total)
    return (own + more) * size() / (total + more).clamp(min=1)


def synchronised(network: nn.Module) -> nn.Module:
    """A network whose gradients are averaged over the processes as they are computed."""
    if size() == 1:
        return network
    return DistributedDataParallel(network, find_unused_parameters=True)


@contextmanager
def averaging(network: nn.Module, *, on: bool) -> Iterator[None]:
    """Average the gradients of a `synchronised` network in this block, or (on=False) only sum them up locally."""
    if on or not isinstance(network, DistributedDataParallel):
        yield
        return
    with network.no_sync():
        yield


def own_draws() -> list[int]:
    """What a seed gains: each process after the first draws otherwise than it, which draws as a process alone would."""
    return [rank()] if rank() else []


def own_part(count: int, what: str) -> slice:
    """This process's consecutive part of `count` things that all processes share equally.

    Raises:
        ConfigError: they cannot be shared equally.
    """
    if count % size():
        raise ConfigError(f"{what}={count} cannot be shared equally by {size()} processes; choose a multiple")
    part = count // size()
    return slice(rank() * part, (rank() + 1) * part)
