"""The one door to `analysis`: the tables, pictures and pages with which a run or a command ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analysis.review.ranking import LIMIT
from analysis.summary import summary

__all__ = [
    "LIMIT",
    "can_be_shown",
    "class_colours",
    "draw_attention",
    "draw_class_maps",
    "draw_expressions",
    "draw_sheet",
    "shown_beside",
    "summary",
    "write_review",
]


def class_colours(classes: int) -> np.ndarray:
    """Those of the figures' class maps; see analysis/figures/class_maps.py. uint8 (256, 3), by class."""
    from analysis.figures.class_maps import palette  # matplotlib, which a dry run need not wait for

    return (palette(classes) * 255).round().astype(np.uint8)


def draw_attention(arrays: Path, out: Path) -> Path:
    """See analysis/figures/attention.py."""
    from analysis.figures import attention  # matplotlib, which a dry run need not wait for

    return attention.draw_attention(arrays, out)


def draw_class_maps(store: Path, records: list[dict[str, Any]], out: Path) -> str:
    """See analysis/figures/class_maps.py. Where the picture is, or why there is none."""
    from analysis.figures import class_maps  # matplotlib again

    return _or_why_not(lambda: class_maps.draw_class_maps(store, records, out))


def draw_expressions(store: Path, records: list[dict[str, Any]], out: Path) -> str:
    """See analysis/figures/referring_sheet.py. Where the picture is, or why there is none."""
    from analysis.figures import referring_sheet  # matplotlib again

    return _or_why_not(lambda: referring_sheet.draw_expressions(store, records, out))


def _or_why_not(draw: Callable[[], Path]) -> str:
    from analysis.figures.results import LeftOut

    try:
        return str(draw())
    except LeftOut as error:
        return f"none: {error}"


def draw_sheet(
    labels: Path, images: Path, *, human: Path | None, out: Path, examples: int = 10, shows: str = "boxes"
) -> Path:
    """See analysis/sheet.py."""
    from analysis import sheet  # matplotlib again

    return sheet.draw_sheet(labels, images, human=human, out=out, examples=examples, shows=shows)


def can_be_shown(annotation: dict[str, Any]) -> bool:
    """See analysis/sheet.py."""
    from analysis import sheet  # matplotlib again

    return sheet.can_be_shown(annotation)


def shown_beside(view: str) -> str:
    """What a sheet shows beside masks that were made from a view (`mal.data.views`): its points, or the boxes and the
    expressions if there are some."""
    return view if view in ("points", "expressions") else "boxes"


def write_review(labels: Path, images: Path, out: Path, limit: int | None = LIMIT) -> Path:
    """See analysis/review/page.py."""
    from analysis.review import page  # the reader of masks loads matplotlib

    return page.write_review(labels, images, out, limit)
