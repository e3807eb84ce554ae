"""MAL on a file of one's own: the networks of a labeler.pt label its boxes."""

from pathlib import Path

import torch
from torch import nn

from mal.config import Config
from mal.context import Json
from mal.data.annotations import CocoDict
from mal.errors import ConfigError
from mal.methods.labelling import ShardLabeler
from mal.methods.mal.label import mal_labeler
from mal.methods.mal.labeler_file import NETWORKS, is_labeler
from mal.methods.mal.network import load_networks
from mal.methods.spec import OwnFiles


def check(state: Json, config: Config, path: Path) -> None:
    """
    Raises:
        ConfigError: `label.network` asks for one that the labeler has not got.
    """
    wanted = NETWORKS if config.label.network == "both" else (config.label.network,)
    if missing := [name for name in wanted if name not in state]:
        (there,) = set(NETWORKS) - set(missing)
        raise ConfigError(f"{path} holds the {there} alone, without the {missing[0]}; use --network {there}")


def networks_of(state: Json, config: Config, device: torch.device, path: Path, *, crops: int) -> list[nn.Module]:
    """The networks of a labeler.

    Args:
        path: its file. crops: how many will be labelled.

    Raises:
        ConfigError: its weights are not those of the network that its config describes, or no numbers.
    """
    try:
        networks = load_networks(state, config, device, crops=crops)
    except RuntimeError as error:  # torch names every key
        raise ConfigError(
            f"the weights in {path} do not fit the network that it describes; copy the labeler.pt again"
        ) from error
    if not all(weight.isfinite().all() for network in networks for weight in network.parameters()):
        raise ConfigError(f"weights in {path} are NaN or infinite; copy the labeler.pt again, or learn anew")
    return networks


def labeler(state: Json, config: Config, device: torch.device, coco: CocoDict, path: Path) -> ShardLabeler:
    """
    Raises:
        ConfigError: see `networks_of`.
    """
    return mal_labeler(networks_of(state, config, device, path, crops=len(coco["annotations"])), config, device)


OWN_FILES = OwnFiles(is_labeler, labeler, options=("network", "flip", "threshold", "batch"), check=check)
