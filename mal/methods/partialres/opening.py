"""The network that a stage's input holds."""

from typing import TYPE_CHECKING

from mal.config import Config
from mal.engine.graph import Workdir

if TYPE_CHECKING:
    from mal.methods.partialres.checkpoint import Trained


def open_trained(workdir: Workdir, config: Config, weights: str, *, rec: bool = False) -> "Trained":
    """On the stage's device, in evaluation mode.

    Args:
        config: of the run. weights: ema | raw. rec: it is that of the training of boxes.
    """
    from mal.methods.partialres.checkpoint import FILE, load

    return load(workdir.inputs["network"] / FILE, config, workdir.device, weights=weights, rec=rec)
