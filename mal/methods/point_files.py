"""Points of one's own for a network that learned from points: whether it is one, and what of a view it cannot label."""

from dataclasses import fields
from typing import Any

from mal.context import Json
from mal.data.annotations import CocoDict
from mal.data.categories import Categories
from mal.engine.findings import NOTE, STOPS, Finding, number, some

NAMED = 10  # categories that a message names, of the file's and of the labeler's each


def holds(state: Any, network: str) -> bool:
    """Whether a labeler.pt holds a network under a name, the categories that it learned, and its config."""
    parts = {"config": str, network: dict, "categories": dict}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in parts.items()):
        return False
    found = state["categories"]
    lists = all(isinstance(found.get(name), list) for name in ("ids", "names"))
    return lists and found.keys() <= {each.name for each in fields(Categories)}


def look(state: Json, coco: CocoDict) -> list[Finding]:
    """What of a points view the network cannot label (`STOPS`), and what else its user may not expect (`NOTE`).

    Args:
        state: as `holds` accepts it.
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
