"""What a file's points or expressions would do to a run, before one is started."""

from typing import Any

from mal.data.expressions import expressions_only, words
from mal.data.point_findings import point_findings
from mal.data.points import points_only
from mal.engine.findings import NOTE, STOPS, Finding, number, some
from mal.errors import AnnotationError

Seen = tuple[str, list[Finding]]  # what a file has of it, in words, and what was found


def look_at_points(coco: dict[str, Any]) -> Seen:
    """Of a file that `annotations.read` gave with `points`."""
    said: list[str] = []
    try:
        view = points_only(coco, tell=said.append)
    except AnnotationError as error:
        return "no points", [Finding(STOPS, str(error).removeprefix("the file: "))]
    objects = view["annotations"]
    counted = f"{number(len(objects), 'object')} with a point"
    if several := sum(len(each["points"]) > 1 for each in objects):
        counted += f", {several} of them with more than one"
    if bare := len(coco["images"]) - len({each["image_id"] for each in objects}):
        said.append(f"{bare} of {number(len(coco['images']), 'image')} without an object: nothing is learned from them")
    return counted, [*point_findings(view), *(Finding(NOTE, text) for text in said)]


def look_at_expressions(coco: dict[str, Any]) -> Seen:
    """Of a file that `annotations.read` gave with boxes."""
    said: list[str] = []
    try:
        view = expressions_only(coco, tell=said.append)
    except AnnotationError as error:
        return "no expressions", [Finding(STOPS, str(error).removeprefix("the file: "))]
    meant = [each for each in view["annotations"] if each["expressions"]]
    if not meant:
        text = 'no object has an expression; write "expressions": ["the red star", ...] into its annotation'
        return "no expressions", [Finding(STOPS, text)]
    count = sum(len(each["expressions"]) for each in meant)
    if bare := len(view["annotations"]) - len(meant):
        said.append(f"{number(bare, 'object has', 'objects have')} no expression: nothing is learned from them")
    said += _ambiguous(meant)
    return f"{number(count, 'expression')} of {number(len(meant), 'object')}", [Finding(NOTE, text) for text in said]


LOOKS = {"points": look_at_points, "expressions": look_at_expressions}  # by view


def _ambiguous(objects: list[dict[str, Any]]) -> list[str]:
    """That expressions are said of several objects of an image, if some are."""
    meant: dict[tuple[Any, ...], set[int]] = {}
    for each in objects:
        for text in each["expressions"]:
            meant.setdefault((each["image_id"], *words(text)), set()).add(each["id"])
    several = [(text, sorted(ids)) for (_, *text), ids in meant.items() if len(ids) > 1]
    if not several:
        return []
    shown = some([f"{' '.join(text)!r} of {', '.join(map(str, ids))}" for text, ids in several])
    what = number(len(several), "expression is", "expressions are")
    return [f"{what} said of several objects of one image ({shown}): nothing tells which of them is meant"]
