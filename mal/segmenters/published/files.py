"""A downloaded file of a whole segmenter: its tensors, read without running anything that it holds."""

import pickle
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mal.errors import WeightsError
from mal.segmenters.weights import unwrapped

CONFIGS = ("cfg", "config")  # where MMDetection keeps its config's text in `meta`
ZOO_PICKLE = ".pkl"  # detectron2's and Mask2Former's: numpy arrays in a plain pickle
PLAIN = {  # all that a pickled array is made of, under numpy's names of before and after 2.0
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


@dataclass(frozen=True)
class Weights:
    """What a file holds."""

    file: Path
    tensors: dict[str, Tensor]
    config: str  # the config that MMDetection writes beside the weights, or nothing
    setting: str = "segmenter.checkpoint"  # that names the file

    @property
    def source(self) -> str:
        """The file, after the setting that led to it."""
        return f"{self.setting}={self.file}"


def read(file: Path, *, setting: str = "segmenter.checkpoint") -> Weights:
    """Open a .pth, .pkl or .safetensors file; a wrapping `state_dict` or `model` is opened too.

    Args:
        setting: that names the file, for the errors.

    Raises:
        WeightsError: it cannot be read, or holds no weights, or more than plain values and arrays.
    """
    try:
        content = _content(file)
    except Exception as error:  # each format breaks with errors of its own
        said = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {said}"
        if isinstance(error, LookupError):  # an absent key, which says nothing
            reason = "it is of another kind, or cut short"
        raise WeightsError(
            f"{setting}={file} is not a readable file of published weights ({reason}); "
            f"download it again, or save the state dict alone with torch.save and give that"
        ) from error
    state = unwrapped(content)
    tensors = _tensors(state) if isinstance(state, dict) else None
    if not tensors:
        raise WeightsError(
            f"{setting}={file} holds no dictionary of tensors; give the file that the publisher's model page links to"
        )
    meta = content.get("meta") if isinstance(content, dict) else None
    return Weights(file, tensors, _config(meta) if isinstance(meta, dict) else "", setting)


def _config(meta: dict[Any, Any]) -> str:
    """The text of MMDetection's config: under `cfg` since version 3, under `config` before."""
    texts = [meta[name] for name in CONFIGS if isinstance(meta.get(name), str | dict)]
    return str(texts[0]) if texts else ""


def _content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix == ZOO_PICKLE:
        with file.open("rb") as stream:
            return _PlainUnpickler(stream, encoding="latin1").load()  # as detectron2 reads pickles of Python 2
    with torch.serialization.safe_globals(_numbers()):
        return torch.load(file, "cpu", weights_only=True)


class _PlainUnpickler(pickle.Unpickler):
    """Knows arrays and containers and nothing else: no other name in a file is looked up, let alone called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return getattr(import_module(module.replace("numpy.core.", "numpy._core.")), name)


def _numbers() -> list[Any]:
    """numpy's scalars and arrays, which MMDetection's notes beside the weights may hold (a best AP so far)."""
    multiarray = import_module("numpy._core.multiarray")
    named = [(getattr(multiarray, n), f"numpy.{c}.multiarray.{n}") for n in ("scalar", "_reconstruct")
             for c in ("core", "_core")]  # fmt: skip
    return [*named, np.dtype, np.ndarray, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]


def _tensors(state: dict[Any, Any]) -> dict[str, Tensor] | None:
    """None where it is no dictionary of weights by name."""
    tensors = {}
    for key, value in state.items():
        if isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind in "fiub":
            value = torch.from_numpy(np.array(value))
        if not isinstance(key, str) or not isinstance(value, Tensor):
            return None
        tensors[key] = value
    return tensors
