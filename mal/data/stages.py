"""Stages that every run starts from: procedural images, and the views of a split that methods read."""

from pathlib import Path
from typing import Any

from mal.data import parts, shapes, shapes12
from mal.data.annotations import CocoDict, check_images, only_images, read, write
from mal.data.box_checks import is_left_over
from mal.data.config import ShapesConfig
from mal.data.sources import Split, unreadable
from mal.data.views import VIEWS
from mal.engine import ranks
from mal.engine.files import read_json
from mal.engine.graph import Result, Stage, Workdir

Json = dict[str, Any]
DRAWN = {  # data.shapes.kind → who draws it
    "shapes": shapes.generate,
    "parts": parts.generate,
    "shapes12": shapes12.generate,
}


def draw_shapes(options: ShapesConfig, split: str, columns: Json) -> Stage:
    """Procedural images with exact masks."""
    count = options.train_images if split == "train" else options.val_images
    drawing: Json = {"images": count, "size": options.size, "seed": options.seed, "split": split}
    # results of shapes are older than there being a choice
    settings = drawing if options.kind == "shapes" else {**drawing, "kind": options.kind}

    def work(workdir: Workdir) -> Result:
        DRAWN[options.kind](workdir.folder, **drawing)
        return Result({"annotations": len(read_json(workdir.folder / "annotations.json")["annotations"])}, {"": count})

    return Stage(f"shapes_{split}", 1, settings, work, columns=columns)


def view(split: Split, name: str, columns: Json, *, skip_unreadable: bool, workers: int, points: str) -> Stage:
    """What a method may see of a split, as a file of its own: what it cannot read, it cannot cheat with.

    Args:
        name: of `views.VIEWS`; the file is called so, too.
        skip_unreadable: images that cannot be decoded are listed in the file, instead of stopping the run later.
        workers: threads that look for those.
        points: how they are drawn for the view of that name (`points.points_only`).
    """
    drawing = {"kind": points, "source": str(split.annotations)} if name == "points" else {}

    def work(workdir: Workdir) -> Result:
        # whether its masks will do is the census's matter
        coco = VIEWS[name](read(split.annotations, masks=False, boxes=not drawing), **drawing)
        check_images(coco, split.images)
        bad = unreadable(coco, split.images, workers=workers) if skip_unreadable else []
        write(workdir.folder / f"{name}.json", {**coco, "unreadable_images": bad} if bad else coco)
        places = {"annotations": str(split.annotations.resolve()), "images": str(split.images.resolve())}
        metrics: dict[str, float] = {name: len(coco["annotations"]), "unreadable_images": len(bad)}
        return Result(metrics, {"": len(coco["images"])}, places if split.drawn is None else {})

    settings: Json = {"skip_unreadable": skip_unreadable}
    if drawing and points != "inside":  # results of that kind are older than there being a choice
        settings["points"] = points
    version = 2 if name == "points" else 1  # they hold several points each
    return Stage(f"{name}_{split.name}", version, settings, work, split.inputs, dict(split.sources), columns)


def readable(split: Split, workdir: Workdir, labels: Path | None = None) -> Path:
    """A split's annotations, or their labels, as a file without the images that `data.on_bad_image=skip` skips: AP
    does not count them. Of human ones, without what tools leave behind: no mask, and a box of no area."""
    annotations = split.annotations if labels is None else labels
    boxes = workdir.inputs.get("boxes")
    bad = unreadable_images(read_json(boxes / "boxes.json")) if boxes else set()
    empty = labels is None and split.census is not None and split.census.left_over > 0
    if not bad and not empty:
        return annotations
    coco = without_images(read(annotations, masks=False), bad)
    kept = [a for a in coco["annotations"] if not (empty and is_left_over(a))]
    file = workdir.folder / "readable.json"
    ranks.on_first(lambda: write(file, {**coco, "annotations": kept}))
    return file


def unreadable_images(seen: CocoDict) -> set[int]:
    """The ids of the images that `data.on_bad_image=skip` found unreadable, as a view lists them."""
    return set(seen.get("unreadable_images", ()))


def without_images(coco: CocoDict, bad: set[int]) -> CocoDict:
    """A file without some of its images, by their ids, and without what is annotated on them."""
    return only_images(coco, {image["id"] for image in coco["images"]} - bad) if bad else coco
