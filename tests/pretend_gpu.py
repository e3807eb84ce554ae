"""A pretend GPU: tensors that say they are on `cuda`, hold their values in main memory, and mix with no others.

What would stop a step on a GPU stops it here: a tensor that was left on the CPU among those that were moved, `numpy()`
of one that was not moved back. `waits` counts where Python waits for it: numbers that are read, results whose size
hangs on values, copies that are not asynchronous. How fast it is, kernels, half precision and memory are a real GPU's
matter.

C++ takes these tensors for the CPU's, so that autograd works as there, and makes new tensors on the CPU beside them. So
only tensors that a Python program has held can be in the wrong place; what C++ made in between is in the right one.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import torch
import torch._dynamo  # before torch.cuda is patched, whose functions it lists
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NAME = "pretend GPU"
aten = torch.ops.aten
COPY = aten.copy_.default
# in which the two devices may meet: a copy, a question, lengths of sequences
PACKING = {aten._pack_padded_sequence.default, aten._pad_packed_sequence.default}
MIXED = {COPY, aten._has_compatible_shallow_copy_type.default, *PACKING, aten.gru.data, aten.lstm.data}
# of which indices may be on the CPU
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# which Python waits for: its answer is a number, or as large as values have it
READ = {
    aten._local_scalar_dense.default, aten._unique2.default, aten.bincount.default, aten.equal.default,
    aten.masked_select.default, aten.nonzero.default, aten.repeat_interleave.Tensor, aten.unique_consecutive.default,
    aten.unique_dim.default,
}  # fmt: skip
AT_ONCE = 64 * 1024  # bytes that CUDA takes over before they are copied, whatever memory they are in
MADE = (torch.tensor, torch.as_tensor, torch.asarray)  # of values in main memory
ROOT = Path(__file__).parents[1]
# torch itself asks there for the CPU, for which C++ takes these tensors
MISTAKEN = "torch/nn/utils/clip_grad.py"

waits: Counter[str] = Counter()  # by file and line of ours, such as "mal/losses.py:7"


class DeviceMismatchError(RuntimeError):
    """Tensors of two devices meet in an operation."""


class OnGpu(Tensor):
    """A tensor on the pretend GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGpu":
        with torch.inference_mode(False):  # else views of it could not be made
            made = Tensor._make_wrapper_subclass(
                cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
            )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda _: GPU)
    is_cuda = property(lambda _: True)
    is_cpu = property(lambda _: False)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _check(func, args, kwargs)
        copied = func is COPY and any(map(_held, args[:2]))
        if func in READ or (func in INDEXED and _is_read(*args)) or (copied and _is_waited_for(*args)):
            _waited()
        out = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if func is COPY and not isinstance(args[0], OnGpu):
            return args[0]
        if func in PACKING:  # lengths, the second to go in and to come out, are the CPU's
            return OnGpu(out[0]), out[1]
        return return_and_correct_aliasing(func, args, kwargs, tree_map(_outer, out))

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnGpu":
        copy: Any = OnGpu(self.inner.detach().clone())
        copy = nn.Parameter(copy, self.requires_grad) if isinstance(self, nn.Parameter) else copy
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.inner!r})"

    def tolist(self) -> Any:
        _waited()
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a CUDA tensor to numpy; use .cpu() first")

    __array__ = numpy


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnGpu) else value


def _outer(value: Any) -> Any:
    return OnGpu(value) if isinstance(value, Tensor) and not isinstance(value, OnGpu) else value


def _held(value: Any) -> bool:
    """Whether it is a tensor on the CPU that Python has seen."""
    return isinstance(value, Tensor) and not isinstance(value, OnGpu) and getattr(value, "held", False)


def _is_read(_: Any, indices: Any, value: Any = None, *__: Any) -> bool:
    """Whether indexing stops Python: a mask has as many places as it has ones, indices on the CPU must be copied."""
    if value is not None and value.numel() == 1 and not isinstance(value, OnGpu):
        return False  # a number is filled in
    return any(
        index is not None and (index.dtype in (torch.bool, torch.uint8) or not isinstance(index, OnGpu))
        for index in indices
    )


def _is_waited_for(to: Tensor, source: Tensor, asynchronous: bool = False) -> bool:
    """Whether a copy between the two devices stops Python: unless it is asynchronous and of page-locked memory, or is
    small and goes up."""
    up = isinstance(to, OnGpu)
    here = source if up else to
    if up == isinstance(source, OnGpu):
        return False
    return not (asynchronous and (getattr(here, "pinned", False) or (up and here.nbytes <= AT_ONCE)))


def _waited() -> None:
    """Count it for the innermost line of ours."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.endswith(MISTAKEN):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts and str(path) != __file__:
            waits[f"{path.relative_to(ROOT)}:{frame.f_lineno}"] += 1
            return
        frame = frame.f_back


def _check(func: Any, args: Any, kwargs: Any) -> None:
    """A CPU tensor among the pretend GPU's must be a single number, or an index, or the other side of a copy."""
    if func in MIXED:
        return
    if func in INDEXED:
        if _held(args[0]):
            raise DeviceMismatchError(f"{func}: a CPU tensor is indexed by one on the GPU")
        args = (args[0], *args[2:])
    for each in tree_flatten((args, kwargs))[0]:
        if _held(each) and (each.dim() or func is aten.cat.default):
            raise DeviceMismatchError(f"{func}: a CPU tensor of shape {tuple(each.shape)} among the GPU's")


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return OnGpu(tensor.detach().clone())

    @staticmethod
    def backward(_: Any, *grads: Any) -> Any:
        return _inner(grads[0])


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: Any) -> Tensor:
        return tensor.inner.detach().clone()

    @staticmethod
    def backward(_: Any, *grads: Any) -> Any:
        return _outer(grads[0])


def moved(tensor: Tensor, device: Any) -> Tensor:
    """A tensor on a device, differentiable; itself where it is there."""
    up = torch.device(device).type == "cuda"
    if up == isinstance(tensor, OnGpu):
        return tensor
    return (_Up if up else _Down).apply(tensor)


class _Placing(TorchFunctionMode):
    """Sees what Python asks of torch: where tensors are made and moved to, before torch would look for a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self._placed(func, args, dict(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else (out,):
            if type(each) in (Tensor, nn.Parameter):
                each.held = True  # type: ignore[attr-defined]
        return out

    def _placed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func in (Tensor.cuda, Tensor.cpu):
            return self._to(args[0], "cuda" if func is Tensor.cuda else "cpu")
        if func is Tensor.pin_memory:
            if isinstance(args[0], OnGpu):
                raise RuntimeError("cannot pin a CUDA tensor: only dense CPU tensors can be pinned")
            args[0].pinned = True
            return args[0]
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        kwargs.pop("pin_memory", None)
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, OnGpu)]
        device = torch.device(kwargs.get("device") or "meta")
        made_there = func in MADE and device.type == "cuda" and not given
        if made_there or (func is Tensor.new_tensor and given):
            _waited()
        if device.type == "cuda" or (device.type == "cpu" and given):  # of a new tensor
            made = func(*tree_map(_inner, args), **{**tree_map(_inner, kwargs), "device": CPU})
            return moved(made, device)
        out = func(*args, **kwargs)
        if not given or any(out is each for each in args) or not isinstance(out, (Tensor, tuple, list)):
            return out
        if func in (torch._VF._pack_padded_sequence, torch._VF._pad_packed_sequence):
            return moved(out[0], GPU), out[1]
        if isinstance(out, torch.Size):
            return out
        return tree_map(lambda each: moved(each, GPU) if type(each) is Tensor else each, out)

    @staticmethod
    def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        place, asynchronous = kwargs.pop("device", None), kwargs.pop("non_blocking", False)
        for value in args:
            if isinstance(value, (str, torch.device, int)) and not isinstance(value, bool):
                place = value
            elif isinstance(value, Tensor):
                place, kwargs["dtype"] = value.device, value.dtype
            elif isinstance(value, torch.dtype):
                kwargs["dtype"] = value
        if place is not None:
            there = moved(tensor, place)
            if there is not tensor and _is_waited_for(there, tensor, asynchronous):
                _waited()
            tensor = there
        dtype = kwargs.get("dtype")
        return tensor if dtype is None else Tensor.to(tensor, dtype)


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """In it torch sees one GPU, which is this."""
    future, former = torch.__future__, torch.__future__.get_overwrite_module_params_on_conversion()
    nothing: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    told = dict.fromkeys(("is_available", "is_bf16_supported"), lambda: True)
    told |= {"device_count": lambda: 1, "get_device_name": lambda *_: NAME, "max_memory_allocated": lambda *_: 0}
    silent = dict.fromkeys(("synchronize", "empty_cache", "set_device", "reset_peak_memory_stats"), nothing)
    silent |= dict.fromkeys(("Event", "current_stream"), Mock())
    with (
        patch.multiple(torch.cuda, **told, **silent),
        patch.object(torch.backends.cudnn, "is_acceptable", lambda _: False),
        patch.object(torch.accelerator, "current_device_index", lambda: 0),  # data loaders ask for it to pin memory
        patch.object(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", nothing),
        _Placing(),
    ):
        future.set_overwrite_module_params_on_conversion(True)  # those that are moved are of another type
        try:
            yield GPU
        finally:
            future.set_overwrite_module_params_on_conversion(former)
