"""A trained network in a file, and out of it again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from mal.config import Config
from mal.engine.precision import allow_tf32, network_dtype
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.methods.partialres.lessons import rec_parts
from mal.methods.partialres.network import PartialRes
from mal.methods.partialres.query import QueryNetwork
from mal.methods.partialres.text.lexicon import Lexicon, restored
from mal.methods.weights import fit

FILE = "labeler.pt"
RAW, EMA = "partialres", "ema"  # the network's weights, and their running average
PARTS = ("config", RAW, EMA, "words", "task")
WEIGHTS = {"raw": RAW, "ema": EMA}

Network = PartialRes | QueryNetwork


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, the words that it knows, and the settings that it was built by."""

    network: Network
    lexicon: Lexicon
    config: Config
    dtype: torch.dtype  # what its passes compute in, see `mal.engine.precision.autocast`


def build(
    config: Config,
    *,
    lexicon: Lexicon,
    rec: bool = False,
    load: bool = True,
) -> Network:
    """The network that the settings describe, of `partialres.network.model`.

    Args:
        lexicon: of the words that it reads.
        rec: of the training of boxes that one of masks starts from, with the parts that `lessons.rec_parts` names. A
            `taskwise` network learns both at once and has no such training.
        load: see `Encoders`.

    Raises:
        ConfigError, WeightsError.
    """
    settings = config.partialres
    if settings.network.model == "query":
        return QueryNetwork(config, lexicon=lexicon, load=load, boxes_only=rec)
    parts = rec_parts(settings.parts) if rec else settings.parts
    return PartialRes(config, lexicon=lexicon, parts=parts, load=load, boxes_only=rec)


def save(
    path: Path, *, config: Config, raw: dict[str, Tensor], ema: dict[str, Tensor], lexicon: Lexicon, task: str
) -> None:
    """Write what it takes to use a network without its run.

    Args:
        raw: the network's state. ema: its average's, names and shapes alike.
        task: what it learned, one of `sequences.TASKS`.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    save_checkpoint(path, {"config": text, RAW: raw, EMA: ema, "words": lexicon.plain(), "task": task})


def load(path: Path, config: Config, device: torch.device, *, weights: str = "ema", rec: bool = False) -> Trained:
    """The network of a file, in evaluation mode on a device.

    Args:
        weights: `ema` | `raw`. rec: see `build`.

    Raises:
        MalError: the file is absent or cannot be read.
        WeightsError: it is of a network with other settings.
    """
    return trained(load_checkpoint(path, parts=PARTS), config, device, path=path, weights=weights, rec=rec)


def trained(
    state: dict[str, Any],
    config: Config,
    device: torch.device,
    *,
    path: Path,
    weights: str = "ema",
    rec: bool = False,
) -> Trained:
    """The network of what the file at `path` holds, as `own_files.wrote` accepts it.

    Raises:
        WeightsError: it is of a network with other settings.
    """
    lexicon = restored(state["words"])
    network = build(config, lexicon=lexicon, rec=rec, load=False)
    fit(network, state[WEIGHTS[weights]], path)
    dtype = network_dtype(config.train.precision, device)
    allow_tf32(device, dtype)
    return Trained(network.eval().to(device), lexicon, config, dtype)
