"""AttentionShift on a file of one's own: the network of a labeler.pt labels its points."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.context import Json
from mal.data.annotations import CocoDict, file_name
from mal.engine.findings import STOPS, Finding, number, some
from mal.methods import point_files
from mal.methods.labelling import ShardLabeler
from mal.methods.point_files import holds
from mal.methods.spec import OwnFiles
from mal.methods.weights import usable


def wrote(state: Any) -> bool:
    """Whether that is a network of AttentionShift's, as its training leaves one."""
    return holds(state, "network")


def look(state: Json, config: Config, coco: CocoDict) -> list[Finding]:
    """What `point_files.look` finds, and images with more objects than there are tokens (`STOPS`).

    Args:
        state: as `wrote` accepts it.
    """
    most = config.attentionshift.tokens.count
    found = point_files.look(state, coco)
    counts = Counter(each["image_id"] for each in coco["annotations"] if not each.get("iscrowd"))
    crowded = [f"{file_name(image)} with {n}" for image in coco["images"] if (n := counts[image["id"]]) > most]
    if crowded:
        found.append(
            Finding(
                STOPS,
                f"{number(len(crowded), 'image has', 'images have')} more objects than this labeler has tokens, one "
                f"for each of at most {most} ({some(crowded)}); label the objects in several files, or train with "
                f"attentionshift.tokens.count={max(counts.values())}",
            )
        )
    return found


def labeler(state: Json, config: Config, device: torch.device, _: CocoDict, path: Path) -> ShardLabeler:
    """
    Raises:
        ConfigError: the weights are not those of the network that the config describes, or no numbers.
    """
    from mal.methods.attentionshift import label
    from mal.methods.attentionshift.checkpoint import build

    trained = usable(lambda: build(state, config, device, path=path), path)
    return label.labeler(trained, config, device)


OWN_FILES = OwnFiles(wrote, labeler, look=look)
