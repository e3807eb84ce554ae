"""The network of a labeler.pt for a file of one's own, or a sentence about its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mal.errors import ConfigError, WeightsError


class HasNetwork(Protocol):
    """What methods make of a file."""

    @property
    def network(self) -> Any: ...


Trained = TypeVar("Trained", bound=HasNetwork)


def usable(build: Callable[[], Trained], path: Path) -> Trained:
    """What `build` makes of the file at `path`.

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
