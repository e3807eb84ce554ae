"""A trained network in a file, and out of it again."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mal.config import Config
from mal.encoders.config import EncoderConfig
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.errors import ConfigError, MalError
from mal.methods.simformer.config.network import NetworkConfig
from mal.methods.simformer.infer import Predictor
from mal.methods.simformer.network import SimFormer
from mal.methods.weights import fit

FILE = "simformer.pt"
PARTS = ("network", "similarity", "classes", "novel")


@dataclass(frozen=True)
class Trained:
    """A trained network with what it was trained on."""

    predictor: Predictor
    classes: tuple[str, ...]
    novel: tuple[int, ...]  # places in classes, ascending
    side: int | None  # the short side of training images at a scale of 1, in pixels; None: not trained here
    long_side: int | None  # at most


def save(
    folder: Path,
    network: dict[str, Tensor],
    held: dict[str, Any],
    *,
    similarity: dict[str, Tensor] | None,
    classes: Sequence[str],
    novel: Sequence[int],
) -> None:
    """Write a network's weights to FILE in a folder, and what it takes to use them without this run's settings.

    Args:
        held: the settings of `reads.FILE_HOLDS`, of a published network without those of images.
        similarity: SimNet's; None where it has not learned.
        classes: names. novel: places of the novel ones.
    """
    state = {"network": network, "similarity": similarity, "classes": list(classes), "novel": list(novel)}
    save_checkpoint(folder / FILE, state | {"settings": held})


def load(path: Path, config: Config, device: torch.device) -> Predictor:
    """The network that a file holds, in evaluation mode.

    Raises:
        MalError: the file is absent or cannot be read.
        WeightsError: it is of a network with other settings.
    """
    state = load_checkpoint(path, parts=PARTS)
    return _predictor(path, state, config.encoder, config.simformer.network, device, precision=config.train.precision)


def open_trained(path: Path, device: torch.device) -> Trained:
    """The network that a file holds, with the settings that it was trained with, in evaluation mode.

    Args:
        path: the file, or the folder of the stage that wrote it.

    Raises:
        MalError: the file is absent or cannot be read.
        ConfigError: it is of something else, or of another version of this program.
        WeightsError: weights and settings in it do not fit.
    """
    path = path / FILE if path.is_dir() else path
    way_out = f"give the {FILE} of a train_simformer stage"
    if not path.is_file():
        raise MalError(f"there is no trained network at {path}; {way_out}")
    wrong = ConfigError(f"{path} is not a network of SimFormer's, or is damaged; {way_out}")
    if not zipfile.is_zipfile(path):  # as torch writes them
        raise wrong
    state = load_checkpoint(path)
    if not isinstance(state, dict) or not {*PARTS} <= state.keys():
        raise wrong
    if "settings" not in state:
        raise ConfigError(
            f"{path} was written by a version of this program that did not keep the network's settings with it; delete "
            f"its folder {path.parent} and train again"
        )
    held, own = state["settings"], state["settings"]["simformer"]
    try:
        encoder, network = EncoderConfig(**held["encoder"]), NetworkConfig(**own["network"])
    except TypeError as error:
        raise ConfigError(f"{path} was written by another version of this program ({error}); train again") from error
    predictor = _predictor(path, state, encoder, network, device, precision="auto")
    seen = own.get("augment", {"side": None, "long_side": None})
    return Trained(predictor, tuple(state["classes"]), tuple(state["novel"]), **seen)


def _predictor(
    path: Path,
    state: dict[str, Any],
    encoder: EncoderConfig,
    config: NetworkConfig,
    device: torch.device,
    *,
    precision: str,
) -> Predictor:
    network = SimFormer(encoder, config, classes=len(state["classes"]), load=False)
    fit(network, state["network"], path)
    dtype = network_dtype(precision, device)
    allow_tf32(device, dtype)
    return Predictor(network.eval().to(device), device, dtype)
