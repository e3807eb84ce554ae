"""What a file's points or expressions would do to a run, before one is started."""

from typing import Any

from mal.data.box_checks import is_absent
from mal.data.expressions import expressions_only
from mal.data.point_findings import point_findings
from mal.data.points import points_only
from mal.engine.findings import MASKS, NOTE, STOPS, Finding, number
from mal.errors import AnnotationError

Seen = tuple[str, list[Finding]]  # what a file has of it, in words, and what was found


def look_at_points(coco: dict[str, Any]) -> Seen:
    """Of a file that `annotations.read` gave with `points`."""
    said: list[str] = []
    try:
        view = points_only(coco, tell=said.append)
    except AnnotationError as error:
        return "no points", [Finding(STOPS, str(error).removeprefix("the file: "))]
    objects = [each for each in view["annotations"] if not each.get("iscrowd", 0)]
    notes = [Finding(NOTE, text) for text in said]
    if not objects:
        text = "all of its objects are crowds (iscrowd 1), of which none is learned"
        return "no points", [Finding(STOPS, text), *notes]
    counted = f"{number(len(objects), 'object')} with a point"
    if several := sum(len(each["points"]) > 1 for each in objects):
        counted += f", {several} of them with more than one"
    if bare := len(coco["images"]) - len({each["image_id"] for each in objects}):
        text = f"{bare} of {number(len(coco['images']), 'image')} without an object: nothing is learned there"
        notes.append(Finding(NOTE, text))
    return counted, [*point_findings(view), *notes]


def look_at_expressions(coco: dict[str, Any]) -> Seen:
    """Of a file that `annotations.read` gave with boxes."""
    said: list[str] = []
    try:
        view = expressions_only(coco, tell=said.append)
    except AnnotationError as error:
        return "no expressions", [Finding(STOPS, str(error).removeprefix("the file: "))]
    objects = [each for each in view["annotations"] if not each.get("iscrowd", 0)]
    meant = [each for each in objects if each["expressions"]]
    notes = [Finding(NOTE, text) for text in said]
    if not meant:
        text = (
            'no object has an expression; write "expressions": ["the red star", ...] into annotations, or let '
            "templates make them of boxes and categories (data.expressions.kind=templates)"
        )
        return "no expressions", [Finding(STOPS, text), *notes]
    if bare := len(objects) - len(meant):
        what = number(bare, "object has", "objects have")
        notes.append(Finding(NOTE, f"{what} no expression: nothing is learned from {'it' if bare == 1 else 'them'}"))
    ids = {each["id"] for each in meant}
    if all(is_absent(each.get("segmentation")) for each in coco["annotations"] if each["id"] in ids):
        text = "no object with an expression has a mask: boxes can be learned from expressions, masks cannot"
        notes.append(Finding(MASKS, text))
    count = sum(len(each["expressions"]) for each in meant)
    return f"{number(count, 'expression')} of {number(len(meant), 'object')}", notes


LOOKS = {"points": look_at_points, "expressions": look_at_expressions}  # by view
