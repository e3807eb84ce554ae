"""Weights of a file in the network that they are for, or a sentence about them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from mal.errors import ConfigError, WeightsError

LONGEST = 300  # characters of what torch says, which lists every key


class HasNetwork(Protocol):
    """What methods make of a file."""

    @property
    def network(self) -> Any: ...


Trained = TypeVar("Trained", bound=HasNetwork)


def fit(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights that the file at `path` holds.

    Raises:
        WeightsError: they are of a network with other settings.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = shorten(" ".join(str(error).split()), LONGEST, placeholder=" …")
        raise WeightsError(
            f"{path} was trained with other settings than this run has: {first}; give those that it was trained with, "
            "or train again"
        ) from error


def usable(build: Callable[[], Trained], path: Path) -> Trained:
    """What `build` makes of the file at `path`, one's own.

    Raises:
        ConfigError: the weights are not those of the network that the file describes, or no numbers.
    """
    try:
        trained = build()
    except WeightsError as error:
        raise ConfigError(
            f"the weights in {path} do not fit the network that it describes; copy the labeler.pt again"
        ) from error
    if not all(weight.isfinite().all() for weight in trained.network.parameters()):
        raise ConfigError(f"weights in {path} are NaN or infinite; copy the labeler.pt again, or learn anew")
    return trained
