"""Boxes that came out filled and flagged: how many, why, and whether anything else is left."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

EMPTY = "the mask is empty"


def flag_reasons(annotations: Iterable[dict[str, Any]]) -> Counter[str]:
    """How often each reason stands in the flagged annotations of a label file."""
    return Counter(str(a.get("flag_reason") or "no reason given") for a in annotations if a.get("flagged"))


def flag_sentence(annotations: list[dict[str, Any]], view: str = "boxes") -> str | None:
    """What to say of the flagged annotations of a label file; None where there are none.

    Args:
        view: what they were labelled from, `boxes`, `points` or `expressions`.
    """
    reasons = flag_reasons(annotations)
    flagged, total = sum(reasons.values()), len(annotations)
    if not flagged:
        return None
    why = "; ".join(f"{count} because {reason}" for reason, count in reasons.most_common())
    if view == "points" and flagged == total:
        return (
            f"none of the {total} objects got a mask: each has the pixels of its points alone and is flagged ({why}); "
            "check that the points are in pixels, [x, y]"
        )
    if view == "points":
        return (
            f"{flagged} of {total} objects got no mask of their own: they have the pixels of their points alone and "
            f"are flagged ({why})"
        )
    if view == "expressions" and flagged == total:
        empty = reasons.most_common(1)[0][0] == EMPTY
        advice = "; no prediction lies in its box, so train longer, or on texts and images like these" if empty else ""
        return f"none of the {total} objects got a mask: all have the filled box and are flagged ({why}){advice}"
    if flagged == total:
        return (
            f"none of the {total} boxes got a mask: all are filled and flagged ({why}); check that the boxes are in "
            "pixels, [x, y, width, height] (python -m mal.check)"
        )
    return f"{flagged} of {total} boxes got no mask of their own: they are filled and flagged ({why})"


def all_flagged(annotations: list[dict[str, Any]]) -> bool:
    """Whether a label file holds filled boxes and nothing else."""
    return bool(annotations) and all(annotation.get("flagged") for annotation in annotations)
