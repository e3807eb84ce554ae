"""BESTIE on a file of one's own: the network of a labeler.pt labels its points."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.context import Json
from mal.data.annotations import CocoDict
from mal.engine.findings import NOTE, STOPS, Finding, number, some
from mal.errors import ConfigError, WeightsError
from mal.methods.bestie.categories import Categories
from mal.methods.labelling import ShardLabeler
from mal.methods.spec import OwnFiles

NAMED = 10  # categories that a message names, of the file's and of the labeler's each


def wrote(state: Any) -> bool:
    """Whether that is an instance network of BESTIE's, as its training leaves one."""
    parts = {"config": str, "bestie": dict, "categories": dict}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in parts.items()):
        return False
    found = state["categories"]
    lists = all(isinstance(found.get(name), list) for name in ("ids", "names"))
    return lists and found.keys() <= {each.name for each in fields(Categories)}


def look(state: Json, _: Config, coco: CocoDict) -> list[Finding]:
    """What of a points view the network cannot label (`STOPS`), and what else its user may not expect (`NOTE`).

    Args:
        state: as `wrote` accepts it.
    """
    learned, objects, found = Categories(**state["categories"]), coco["annotations"], []
    if unknown := learned.unknown(coco):
        kinds = some((f"{name} ({count})" for name, count in unknown.most_common()), most=NAMED)
        found.append(
            Finding(
                STOPS,
                f"{sum(unknown.values())} of its {number(len(objects), 'object')} are of "
                f"{number(len(unknown), 'category', 'categories')} that this labeler did not learn: {kinds}; it "
                f"learned {some(learned.names, most=NAMED)}: rename the file's categories to these, or train on them",
            )
        )
    if several := sum(len(each["points"]) > 1 for each in objects):
        have = number(several, "object has", "objects have")
        found.append(Finding(NOTE, f"{have} several points: a mask is made from the first, the others are not read"))
    if crowds := sum(bool(each.get("iscrowd")) for each in objects):
        text = f"{number(crowds, 'crowd')} (iscrowd 1): a point does not tell what belongs to one, so it gets no mask"
        found.append(Finding(NOTE, text))
    return found


def labeler(state: Json, config: Config, device: torch.device, _: CocoDict, path: Path) -> ShardLabeler:
    """
    Raises:
        ConfigError: the weights are not those of the network that the config describes, or no numbers.
    """
    from mal.methods.bestie import label
    from mal.methods.bestie.checkpoint import build
    from mal.methods.bestie.network import InstanceNetwork

    try:
        trained = build(state, config, device, path=path, kind=InstanceNetwork)
    except WeightsError as error:
        raise ConfigError(
            f"the weights in {path} do not fit the network that it describes; copy the labeler.pt again"
        ) from error
    if not all(weight.isfinite().all() for weight in trained.network.parameters()):
        raise ConfigError(f"weights in {path} are NaN or infinite; copy the labeler.pt again, or learn anew")
    return label.labeler(trained, config)


OWN_FILES = OwnFiles(wrote, labeler, look=look)
