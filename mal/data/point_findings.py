"""Points that are in other units than pixels, as far as a file shows it."""

import math

from mal.data.annotation_checks import CocoDict
from mal.data.box_findings import CHANCE, PER_CENT, RELATIVE
from mal.engine.findings import MISLEADS, STOPS, Finding


def point_findings(coco: CocoDict) -> list[Finding]:
    """What is suspicious about the points of a points view.

    All within a pixel of the corner are shares of the image. All within 100 of it are per cent where points anywhere
    in their images would lie so with a probability of less than `CHANCE`.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    points = {(each["image_id"], *point) for each in coco["annotations"] for point in each["points"]}
    used = [sizes[image_id] for image_id, *_ in points]
    largest = max(max(x, y) for _, x, y in points)
    what = f"all {len(points)} points" if len(points) > 1 else "the only point"
    lie = "lie" if len(points) > 1 else "lies"
    if largest <= RELATIVE and min(min(size) for size in used) > 10 * RELATIVE:
        text = (
            f"{what} of its objects {lie} within a pixel of the image's corner, as shares of the image (0 to 1) do; "
            "multiply x by the image's width and y by its height"
        )
        return [Finding(STOPS, text)]
    log_chance = sum(math.log(min(1, 100 / width) * min(1, 100 / height)) for width, height in used)
    if largest > PER_CENT or log_chance >= math.log(CHANCE):
        return []
    text = (
        f"{what} of its objects {lie} within 100 pixels of the image's corner, as per cent of the image do; if so, "
        "multiply x by the image's width ÷ 100 and y by its height ÷ 100"
    )
    return [Finding(MISLEADS, text)]
