"""A trained network in a file, and out of it again."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mal.config import Config
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.errors import WeightsError
from mal.methods.simformer.infer import Predictor
from mal.methods.simformer.network import SimFormer

FILE = "simformer.pt"
PARTS = ("network", "similarity", "classes", "novel")


def save(
    folder: Path,
    network: dict[str, Tensor],
    *,
    similarity: dict[str, Tensor] | None,
    classes: Sequence[str],
    novel: Sequence[int],
) -> None:
    """Write a network's weights to FILE in a folder.

    Args:
        similarity: SimNet's; None where it has not learned.
        classes: names. novel: places of the novel ones.
    """
    state = {"network": network, "similarity": similarity, "classes": list(classes), "novel": list(novel)}
    save_checkpoint(folder / FILE, state)


def load(path: Path, config: Config, device: torch.device) -> Predictor:
    """The network that a file holds, in evaluation mode.

    Raises:
        MalError: the file is absent or cannot be read.
        WeightsError: it is of a network with other settings.
    """
    state = load_checkpoint(path, parts=PARTS)
    network = SimFormer(config.encoder, config.simformer.network, classes=len(state["classes"]), load=False)
    try:
        network.load_state_dict(state["network"])
    except RuntimeError as error:
        raise WeightsError(
            f"{path} was trained with other settings than this run has: {str(error).splitlines()[0]}; give those that "
            "it was trained with, or train again"
        ) from error
    dtype = network_dtype(config.train.precision, device)
    allow_tf32(device, dtype)
    return Predictor(network.eval().to(device), device, dtype)
