"""Views of a file, by what a method learns from: what it cannot read, it cannot cheat with."""

from collections.abc import Callable
from typing import Any

from mal.data.expressions import expressions_only
from mal.data.points import points_only
from mal.data.strip import strip

VIEWS: dict[str, Callable[..., dict[str, Any]]] = {  # by what a method learns from: a file → what may be seen of it
    "boxes": strip,
    "points": points_only,
    "expressions": expressions_only,
}
