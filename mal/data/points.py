"""The points view: one to many points for each object, as a file gives them or drawn from the human mask."""

from collections.abc import Callable
from typing import Any

from mal.data.box_checks import is_absent
from mal.data.drawn_points import drawn_point
from mal.data.own_points import Point, own_points
from mal.engine.faults import Fault, Problem, describe
from mal.engine.findings import number, say, some
from mal.errors import AnnotationError

KEPT = ("id", "image_id", "category_id", "iscrowd")


def points_only(
    coco: dict[str, Any], *, kind: str = "inside", source: str = "the file", tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """The points view: of each annotation its id, image, category, whether it is a crowd, and its points.

    An object's own points come first; where it has none, one is drawn from its mask (`box_centre`: from its box).

    Args:
        coco: a COCO file that `annotations.read` gave, with points or masks.
        kind: how points are drawn: `box_centre`, or of `drawn_points.PROTOCOLS`.
        source: the file's name, for the errors.
        tell: takes what is odd and yet usable; by default it goes to standard error, as a note on the file.

    Returns:
        A new file. Annotations keep their order and have `points`, all of them in their order, and `point`, the first.
        Objects for which `quasi_centre` has no point are absent, and their ids listed in `without_point`.

    Raises:
        AnnotationError: points that are none of their image, objects with neither points nor a mask, or no object left.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    annotations, problems, without, drawn = [], [], [], 0
    for annotation in coco["annotations"]:
        height, width = sizes[annotation["image_id"]]
        found = own_points(annotation, height=height, width=width)
        if isinstance(found, list) and not found:
            drawn += 1
            found = _drawn(annotation, kind, height=height, width=width)
        if isinstance(found, Fault):
            problems.append(Problem(found.kind, "annotations", str(annotation["id"]), found.text))
        elif not found:
            without.append(annotation["id"])
        else:
            points = [list(point) for point in found]
            kept = {key: annotation[key] for key in KEPT if key in annotation}
            annotations.append({**kept, "point": points[0], "points": points})
    if problems:
        raise AnnotationError(describe(problems, source))
    if not annotations:
        raise AnnotationError(f"{source}: by data.points.kind={kind} no object has a point; choose another kind")
    view: dict[str, Any] = {key: coco[key] for key in ("info", "licenses", "images", "categories") if key in coco}
    view |= {"annotations": annotations} | ({"without_point": without} if without else {})
    for remark in _remarks(view, kind, drawn=drawn, total=len(coco["annotations"])):
        tell(remark) if tell is not None else say(source, remark)
    return view


def _drawn(annotation: dict[str, Any], kind: str, *, height: int, width: int) -> list[Point] | Fault:
    key = annotation["id"]
    needed = "bbox" if kind == "box_centre" else "segmentation"
    if is_absent(annotation.get(needed)) or annotation.get("bbox") is None:
        lacks = "a box to draw one" if needed == "bbox" else "a mask to draw one"
        hidden = ", for none of its keypoints is visible," if annotation.get("keypoints") else ""
        text = f"annotation {key} has neither a point{hidden} nor {lacks} from; give it"
        return Fault("neither a point nor a mask", f'{text} "point": [x, y] in pixels')
    try:
        point = drawn_point(annotation, kind, height=height, width=width)
    except AnnotationError as error:
        return Fault("a mask that no point can be drawn from", f"annotation {key}: {error}")
    return [] if point is None else [point]


def _remarks(view: dict[str, Any], kind: str, *, drawn: int, total: int) -> list[str]:
    """What is odd about the points of a file, and yet usable."""

    def of(count: int, total: int) -> str:
        return f"{count} of {number(total, 'object')} {'has' if count == 1 else 'have'}"

    said = []
    if 0 < drawn < total:
        said.append(
            f"{of(drawn, total)} no point of their own; theirs are drawn from the masks (data.points.kind={kind})"
        )
    if without := len(view.get("without_point", ())):
        said.append(
            f"{of(without, total)} no mask so near to the centre of the box that data.points.kind={kind} had a point "
            "for it: no method sees these, and nothing is compared with their masks"
        )
    places: dict[tuple[Any, ...], int] = {}
    same = []
    for annotation in view["annotations"]:
        first = places.setdefault((annotation["image_id"], *annotation["point"]), annotation["id"])
        same += [f"{first} and {annotation['id']}"] if first != annotation["id"] else []
    if same:
        said.append(
            f"{of(len(same), total)} the point of another one on the same image (annotations {some(same)}): all are "
            "kept; remove those that are there twice"
        )
    return said
