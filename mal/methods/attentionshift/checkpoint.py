"""A trained network in a file, and out of it again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mal.config import Config
from mal.data.categories import Categories
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.methods.attentionshift.network import AttentionShift
from mal.methods.weights import fit

FILE = "labeler.pt"


@dataclass
class Trained:
    """A network in evaluation mode, and the categories that it learned."""

    network: AttentionShift
    categories: Categories


def save(path: Path, *, network: AttentionShift, categories: Categories, config: Config) -> None:
    """Write what it takes to use a network without its run.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    save_checkpoint(path, {"network": network.state_dict(), "categories": vars(categories), "config": text})


def load(path: Path, config: Config, device: torch.device) -> Trained:
    """
    Raises:
        MalError: the file is absent or cannot be read.
        WeightsError: it is of a network with other settings.
    """
    return build(load_checkpoint(path, parts=("network", "categories", "config")), config, device, path=path)


def build(state: dict[str, Any], config: Config, device: torch.device, *, path: Path) -> Trained:
    """The network of what the file at `path` holds.

    Raises:
        WeightsError: it is of a network with other settings.
    """
    categories = Categories(**state["categories"])
    network = AttentionShift(config, classes=len(categories.ids), load=False)
    fit(network, state["network"], path)
    dtype = network_dtype(config.train.precision, device)
    allow_tf32(device, dtype)
    return Trained(network.eval().to(device).lowered(dtype, device), categories)
