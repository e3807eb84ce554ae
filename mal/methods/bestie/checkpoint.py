"""The trained networks in files, and out of them again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from omegaconf import OmegaConf

from mal.config import Config
from mal.data.categories import Categories
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.methods.bestie.network import ClassNetwork, InstanceNetwork
from mal.methods.weights import fit

FILE = "labeler.pt"  # of the instance network
CLASSES_FILE = "classes.pt"  # of the class network
Network = TypeVar("Network", ClassNetwork, InstanceNetwork)


@dataclass
class Trained(Generic[Network]):
    """A network in evaluation mode, and the categories that it learned."""

    network: Network
    categories: Categories
    device: torch.device


def save(path: Path, network: ClassNetwork | InstanceNetwork, categories: Categories, config: Config) -> None:
    """Write a network's weights with all it takes to use them elsewhere."""
    state = {"categories": vars(categories), "config": OmegaConf.to_yaml(OmegaConf.structured(config))}
    save_checkpoint(path, {"bestie": network.state_dict(), **state})


def load(path: Path, config: Config, device: torch.device, *, kind: type[Network]) -> Trained[Network]:
    """
    Raises:
        MalError: the file is absent or cannot be read.
        WeightsError: it is of a network with other settings.
    """
    return build(load_checkpoint(path, parts=("bestie", "categories")), config, device, path=path, kind=kind)


def build(
    state: dict[str, Any], config: Config, device: torch.device, *, path: Path, kind: type[Network]
) -> Trained[Network]:
    """The network of what the file at `path` holds.

    Raises:
        WeightsError: it is of a network with other settings.
    """
    categories = Categories(**state["categories"])
    network = kind(config, classes=len(categories.ids), load=False)
    fit(network, state["bestie"], path)
    dtype = network_dtype(config.train.precision, device)
    allow_tf32(device, dtype)
    return Trained(network.eval().to(device).lowered(dtype), categories, device)
