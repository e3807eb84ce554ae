"""A trained labeler in one file: labeler.pt as training writes it, or a small safetensors file like the shipped one.

The small file holds the weights of one network or both, matrices and kernels in half precision, and beside them the
config that they were trained with.
"""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mal.config import Config
from mal.engine.files import atomic_write
from mal.engine.runtime import load_checkpoint
from mal.errors import ConfigError, MalError
from mal.methods.mal.shipped import DEFAULT, labeler_path

NETWORKS = ("student", "teacher")
SUFFIX = ".safetensors"


def read_labeler(name: str | Path) -> dict[str, Any]:
    """A labeler's networks and config.

    Args:
        name: a labeler.pt, a safetensors file of `write_small`, or `default`.

    Returns:
        `config`: YAML text; `student`, `teacher`: state dicts, of a small file perhaps one of them alone.

    Raises:
        MalError: the file is absent or cannot be read.
        ConfigError: it is no labeler.
    """
    path = labeler_path(name)
    checkpoint = read_state(path)
    if not is_labeler(checkpoint):
        raise ConfigError(f"{path} is not a labeler; give the labeler.pt of a train_labeler stage")
    return checkpoint


def read_state(path: Path) -> Any:
    """What is in a file of weights, whatever wrote it.

    Raises:
        MalError: the file is absent or cannot be read.
    """
    return _read_small(path) if path.suffix == SUFFIX else load_checkpoint(path)


def is_labeler(state: Any) -> bool:
    """Whether that is a labeler of MAL's."""
    whole = isinstance(state, dict) and isinstance(state.get("config"), str)
    return whole and any(isinstance(state.get(network), dict) for network in NETWORKS)


def config_of(checkpoint: dict[str, Any], *, source: str | Path) -> Config:
    """The settings that a labeler was trained with.

    Raises:
        ConfigError: they are not of this program's version.
    """
    try:
        saved = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(checkpoint["config"]))
        return OmegaConf.to_object(saved)  # type: ignore[return-value]
    except Exception as error:  # OmegaConf's own kinds, and those of the YAML parser that it uses
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{source} was written by another version of this program: {reason}") from error


def write_small(path: Path, checkpoint: dict[str, Any], *, networks: tuple[str, ...], made: dict[str, str]) -> None:
    """Write a labeler as a safetensors file.

    Args:
        checkpoint: as `read_labeler` gives it.
        networks: which of student and teacher to keep.
        made: how it came about; kept in the file's header beside the config.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    tensors = {f"{name}.{key}": _halved(value) for name in networks for key, value in checkpoint[name].items()}
    with atomic_write(path, "wb") as file:
        file.write(save(tensors, metadata={**made, "config": checkpoint["config"]}))


def _halved(value: Tensor) -> Tensor:
    """Matrices and kernels in fp16; biases, norms and counters, which are small but reach far, as they are."""
    return value.half().contiguous() if value.ndim > 1 and value.is_floating_point() else value.contiguous()


def _read_small(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MalError(f"there is no labeler at {path}; give a labeler.pt that a training run wrote, or {DEFAULT}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it has no iterator
    except (SafetensorError, OSError) as error:
        raise MalError(f"{path} is not a readable labeler ({error}); give another file") from error
    found: dict[str, Any] = {"config": header.get("config")}
    for key, value in tensors.items():
        network, _, name = key.partition(".")
        if network in NETWORKS:
            found.setdefault(network, {})[name] = value.float() if value.dtype == torch.float16 else value
    return found
