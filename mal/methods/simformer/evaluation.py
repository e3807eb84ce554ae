"""What class maps are worth: mean IoU over novel, base and all classes, with intervals over images."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from mal.context import Context
from mal.data.semantic import FILE, IGNORED, SemanticFile, read_semantic
from mal.engine.files import atomic_write, write_json
from mal.engine.graph import Result, Stage, Workdir
from mal.metrics.masks import select_images
from mal.metrics.semantic import ClassCounts, Measured, confusion, iou, miou_interval


def miou(context: Context, segmented: Stage, truth: Stage, novel: dict[str, tuple[int, ...]]) -> Stage:
    """IoU of the validation images' class maps.

    iou.npz has the pixels by image and class: `image_ids` (n,), `tp`, `gt`, `pred` (n, C), `novel`; classes.json the
    IoU of each class.

    Args:
        novel: name → classes whose mean is taken: "novel", and "subset" where there is one.
    """
    config = context.config
    resampling = {"resamples": config.evaluate.bootstrap, "seed": config.seed}
    which = config.data.val_images
    found = {"images": which, **resampling, **{name: list(classes) for name, classes in novel.items()}}

    def work(workdir: Workdir) -> Result:
        predicted, true = (read_semantic(workdir.inputs[name] / FILE) for name in ("maps", "data"))
        kept = {image.id for image in scored(true, which).images}
        pairs = [pair for pair in zip(predicted.images, true.images, strict=True) if pair[1].id in kept]
        number = len(true.classes)
        each = [confusion(true.map_of(real), predicted.map_of(made), number) for made, real in pairs]
        counts = ClassCounts(*(np.stack(part) for part in zip(*each, strict=True)))
        ids = np.array([real.id for _, real in pairs])
        with atomic_write(workdir.folder / "iou.npz", "wb") as file:
            np.savez_compressed(file, image_ids=ids, novel=np.array(novel["novel"]), **counts._asdict())
        by_class = iou(*(part.sum(axis=0) for part in counts))
        pixels = counts.gt.sum(axis=0)
        table = [
            {
                "class": place,
                "name": name,
                "novel": place in novel["novel"],
                "iou": None if math.isnan(by_class[place]) else float(by_class[place]),
                "pixels": int(pixels[place]),
            }
            for place, name in enumerate(true.classes)
        ]
        write_json(workdir.folder / "classes.json", table, indent=1)
        base = tuple(place for place in range(number) if place not in novel["novel"])
        metrics: dict[str, float] = {}
        for name, classes in {**novel, "base": base, "": (*range(number),)}.items():
            interval = miou_interval(Measured(ids, counts, classes), **resampling)
            title = f"{name}_miou".removeprefix("_")
            ends = {title: interval.value, f"{title}_low": interval.low, f"{title}_high": interval.high}
            metrics |= ends if math.isfinite(interval.value) else {}
        return Result(metrics, {"": len(ids)})

    inputs = {"maps": segmented, "data": truth}
    return Stage("miou_val", 1, found, work, inputs, columns=segmented.columns)


def scored(semantic: SemanticFile, which: str) -> SemanticFile:
    """The images that results are of: see `select_images`."""
    chosen = select_images({"images": [image.entry for image in semantic.images], "annotations": []}, which)
    kept = {image["id"] for image in chosen["images"]}
    return replace(semantic, images=tuple(image for image in semantic.images if image.id in kept))


def pseudo_quality(pseudo: Path, truth: Path, novel: tuple[int, ...]) -> dict[str, float]:
    """What pseudo-labels know of truly novel pixels.

    Args:
        pseudo, truth: FILEs of the same images.
        novel: the classes.

    Returns:
        share_kept of the novel pixels that have a label, share_right of those with one that have the right one; neither
        where the truth has no novel pixels, such as where novel classes are known by tags alone.
    """
    made, true = read_semantic(pseudo), read_semantic(truth)
    number, labelled, right = 0, 0, 0
    for mine, theirs in zip(made.images, true.images, strict=True):
        found, real = made.map_of(mine), true.map_of(theirs)
        hidden = np.isin(real, novel)
        number += int(hidden.sum())
        labelled += int((hidden & (found != IGNORED)).sum())
        right += int((hidden & (found == real)).sum())
    if number == 0:
        return {}
    return {"share_kept": labelled / number, "share_right": right / max(1, labelled)}
