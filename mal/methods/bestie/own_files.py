"""BESTIE on a file of one's own: the network of a labeler.pt labels its points."""

from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.context import Json
from mal.data.annotations import CocoDict
from mal.methods.labelling import ShardLabeler
from mal.methods.point_files import holds, look
from mal.methods.spec import OwnFiles
from mal.methods.weights import usable


def wrote(state: Any) -> bool:
    """Whether that is an instance network of BESTIE's, as its training leaves one."""
    return holds(state, "bestie")


def labeler(state: Json, config: Config, device: torch.device, _: CocoDict, path: Path) -> ShardLabeler:
    """
    Raises:
        ConfigError: the weights are not those of the network that the config describes, or no numbers.
    """
    from mal.methods.bestie import label
    from mal.methods.bestie.checkpoint import build
    from mal.methods.bestie.network import InstanceNetwork

    trained = usable(lambda: build(state, config, device, path=path, kind=InstanceNetwork), path)
    return label.labeler(trained, config)


OWN_FILES = OwnFiles(wrote, labeler, look=lambda state, _, coco: look(state, coco))
