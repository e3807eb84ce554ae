"""Stages that every run starts from: procedural images, and the views of a split that methods read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mal.data import parts, scenes, shapes, shapes12
from mal.data.annotations import CocoDict, check_images, only_images, read, write
from mal.data.box_checks import is_left_over
from mal.data.class_maps import class_list, write_class_maps
from mal.data.config import DataConfig, SemanticConfig, ShapesConfig
from mal.data.expressions import OR_TEMPLATES, WRITE_THEM
from mal.data.semantic import FILE, SemanticFile, map_name, read_semantic, write_map, write_semantic
from mal.data.sources import Split, unreadable
from mal.data.views import VIEWS
from mal.engine import ranks
from mal.engine.files import read_json
from mal.engine.findings import number
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.store import Fingerprints
from mal.errors import AnnotationError

Json = dict[str, Any]
DRAWN = {"shapes": shapes, "parts": parts, "shapes12": shapes12, "scenes": scenes}  # data.shapes.kind → who draws it


def draw_shapes(options: ShapesConfig, split: str, columns: Json) -> Stage:
    """Procedural images with exact masks."""
    count = options.train_images if split == "train" else options.val_images
    drawing: Json = {"images": count, "size": options.size, "seed": options.seed, "split": split}
    # results of shapes are older than there being a choice
    settings = drawing if options.kind == "shapes" else {**drawing, "kind": options.kind}

    def work(workdir: Workdir) -> Result:
        DRAWN[options.kind].generate(workdir.folder, **drawing)
        return Result({"annotations": len(read_json(workdir.folder / "annotations.json")["annotations"])}, {"": count})

    return Stage(f"shapes_{split}", 1, settings, work, columns=columns)


def view(
    split: Split,
    name: str,
    columns: Json,
    *,
    skip_unreadable: bool,
    workers: int,
    points: str,
    expressions: str = "file",
) -> Stage:
    """What a method may see of a split, as a file of its own: what it cannot read, it cannot cheat with.

    Args:
        name: of `views.VIEWS`; the file is called so, too.
        skip_unreadable: images that cannot be decoded are listed in the file, instead of stopping the run later.
        workers: threads that look for those.
        points: how they are drawn for the view of that name (`points.points_only`).
        expressions: where those of the view of that name come from (`expressions.expressions_only`).
    """
    kinds = {"points": points, "expressions": expressions}
    options = {"kind": kinds[name], "source": str(split.annotations)} if name in kinds else {}

    def work(workdir: Workdir) -> Result:
        # whether its masks will do is the census's matter
        coco = VIEWS[name](read(split.annotations, masks=False, boxes=name != "points"), **options)
        if name == "expressions" and not _seen(coco, name):
            objects = number(len(coco["annotations"]), "object")
            fault = f"none of its {objects} has a referring expression; {OR_TEMPLATES}"
            if expressions == "templates":
                fault = (
                    f"no template is true of one of its objects alone; {WRITE_THEM}, with data.expressions.kind=file"
                )
            raise AnnotationError(f"{split.annotations}: {fault}")
        check_images(coco, split.images)
        bad = unreadable(coco, split.images, workers=workers) if skip_unreadable else []
        write(workdir.folder / f"{name}.json", {**coco, "unreadable_images": bad} if bad else coco)
        places = {"annotations": str(split.annotations.resolve()), "images": str(split.images.resolve())}
        metrics: dict[str, float] = {name: _seen(coco, name), "unreadable_images": len(bad)}
        return Result(metrics, {"": len(coco["images"])}, places if split.drawn is None else {})

    settings: Json = {"skip_unreadable": skip_unreadable}
    if name == "points" and points != "inside":  # results of that kind are older than there being a choice
        settings["points"] = points
    if name == "expressions" and expressions != "file":
        settings["expressions"] = expressions
    version = 2 if name == "points" else 1  # they hold several points each
    return Stage(f"{name}_{split.name}", version, settings, work, split.inputs, dict(split.sources), columns)


def _seen(coco: CocoDict, name: str) -> int:
    """How many boxes, objects with points, or expressions a view holds."""
    if name == "expressions":
        return sum(len(annotation["expressions"]) for annotation in coco["annotations"])
    return len(coco["annotations"])


def class_names(split: Split, data: DataConfig, fingerprints: Fingerprints) -> list[str]:
    """The classes of a split's class maps, known before they are made; a file is read for them once.

    Raises:
        AnnotationError: see `class_list` and `read_semantic`.
    """
    ground, groups = data.semantic.ground, data.semantic.groups
    if split.drawn is not None:
        categories = [{"id": place, "name": name} for place, name in enumerate(DRAWN[data.shapes.kind].CATEGORIES, 1)]
        return class_list({"categories": categories}, ground=ground, groups=groups)[0]
    content = dict(split.sources)["annotations"]
    if data.format == "maps":
        return fingerprints.derived("map-classes-1", content, lambda: list(read_semantic(split.annotations).classes))
    return fingerprints.derived(
        f"classes-1-{ground}-{groups}",
        content,
        lambda: class_list(read(split.annotations, masks=False, boxes=False), ground=ground, groups=groups)[0],
    )


def class_maps(split: Split, columns: Json, options: SemanticConfig, *, form: str) -> Stage:
    """Which class each pixel of a split's images is of: `semantic.FILE` and its maps.

    Args:
        form: of the split's annotations, `data.format`: instances, or maps, which are checked and copied.
    """
    settings: Json = {"form": "maps"} if form == "maps" else {"ground": options.ground, "groups": options.groups}

    def work(workdir: Workdir) -> Result:
        if form == "maps":
            written = _copied(read_semantic(split.annotations), workdir.folder)
        else:
            coco = read(split.annotations, masks=True, boxes=False)
            check_images(coco, split.images)
            written = write_class_maps(workdir.folder / FILE, coco, ground=options.ground, groups=options.groups)
        places = {"annotations": str(split.annotations.resolve()), "images": str(split.images.resolve())}
        counts = {"": len(written.images)}
        return Result({"classes": len(written.classes)}, counts, places if split.drawn is None else {})

    return Stage(f"semantic_{split.name}", 1, settings, work, split.inputs, dict(split.sources), columns)


def _copied(maps: SemanticFile, folder: Path) -> SemanticFile:
    """Class maps of a user's in a folder of the store, each of them checked; unlabelled ones for images that have
    tags alone."""
    images = tuple(replace(image, map=map_name(index)) for index, image in enumerate(maps.images))
    for index, image in enumerate(maps.images):
        write_map(folder / map_name(index), maps.map_of(image))
    written = replace(maps, images=images, folder=folder)
    write_semantic(folder / FILE, written)
    return written


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
