"""What masks, and the segmenters trained on them, are worth: mask quality, AP and retention, for any method."""

import math

from mal.context import Context, Json
from mal.data.annotations import CocoDict, read
from mal.data.sources import Split
from mal.data.stages import readable
from mal.engine.files import read_json, write_csv, write_json
from mal.engine.graph import Result, Stage, Workdir
from mal.metrics import bootstrap
from mal.metrics.ap import average_precision
from mal.metrics.masks import mask_quality, select_images
from mal.metrics.matches import MatchArrays
from mal.metrics.voc import voc_map, voc_matches

HUMAN_MASKS = "human masks"  # a retention's denominator where no published file stands for a segmenter trained on them


def quality(context: Context, split: Split, labels: Stage) -> Stage:
    """IoU of the masks against human ones."""
    which = context.config.data.val_images if split.name == "val" else "all"

    def work(workdir: Workdir) -> Result:
        predicted = read_json(workdir.inputs["labels"] / "labels.json")
        human, unseen = select_images(split.human(), which), set(predicted.get("without_point", ()))
        compared = [annotation for annotation in human["annotations"] if annotation["id"] not in unseen]
        metrics, instances = mask_quality(predicted, {**human, "annotations": compared})
        write_csv(workdir.folder / "instances.csv", instances)
        counts = {
            name: int(metrics[f"n{name.removeprefix('iou')}"])
            for name in metrics
            if f"n{name.removeprefix('iou')}" in metrics
        }
        return Result({k: v for k, v in metrics.items() if not k.startswith("n")}, {"": int(metrics["n"]), **counts})

    inputs = {"labels": labels, **split.inputs}
    return Stage(f"quality_{split.name}", 1, {"images": which}, work, inputs, dict(split.sources), labels.columns)


def score(context: Context, predictions: Stage, *, columns: Json | None = None, own: bool = False) -> Stage:
    """AP of masks and boxes, and the per-image matches behind it.

    Args:
        columns: what a table says of it beside what it says of the predictions.
        own: they are of a method's own detector, which has masks whatever the segmenter has; with VOC's mAP.
    """
    config = context.config
    split, which = context.required_val, config.data.val_images
    agnostic, limit = config.data.class_agnostic, config.segmenter.test.max_detections
    settings = {"images": which, "class_agnostic": agnostic, "max_detections": limit}
    federated = config.data.format == "lvis"
    settings |= {"federated": True} if federated else {}
    masks = own or bool(config.segmenter.mask_head)
    voc = {"resamples": config.evaluate.bootstrap, "seed": config.seed}
    settings |= {"voc": voc} if own or (config.evaluate.voc and masks) else {}
    kinds = (("segm", "mask"), ("bbox", "box")) if masks else (("bbox", "box"),)

    def work(workdir: Workdir) -> Result:
        human = select_images(read(readable(split, workdir), masks=masks), which)
        kept = {image["id"] for image in human["images"]}
        listed = {category["id"] for category in human["categories"]}
        # a category that only the training images list has no object there: nothing learned it
        results = [
            r
            for r in read_json(workdir.inputs["predictions"] / "predictions.json")
            if r["image_id"] in kept and (agnostic or r["category_id"] in listed)
        ]
        metrics: dict[str, float] = {}
        for kind, prefix in kinds:
            figures, matches = average_precision(
                human,
                results,
                iou_type=kind,
                max_detections=limit,
                class_agnostic=agnostic,
                federated=federated,
            )
            matches.save(workdir.folder / f"matches_{kind}.npz")
            metrics |= {f"{prefix}_{name}": value for name, value in figures.items()}
        if "voc" in settings:
            metrics |= _voc(human, results, workdir, class_agnostic=agnostic, **voc)
        return Result(metrics, {"": len(kept)})

    inputs = {"predictions": predictions, **split.inputs, **context.skipped(split)}
    about = {**predictions.columns, **(columns or {})}
    return Stage("own_ap_val" if own else "ap_val", 1, settings, work, inputs, dict(split.sources), about)


def _voc(
    human: CocoDict, results: list[Json], workdir: Workdir, *, class_agnostic: bool, resamples: int, seed: int
) -> dict[str, float]:
    """VOC's mAPs with their bounds; the classes' values go to voc_classes.json, the matches to matches_voc.npz."""
    matches = voc_matches(human, results, class_agnostic=class_agnostic)
    matches.save(workdir.folder / "matches_voc.npz")
    intervals, classes = voc_map(matches, resamples=resamples, seed=seed)
    names = {} if class_agnostic else {category["id"]: category["name"] for category in human["categories"]}
    table = [{"category_id": key, "name": names.get(key, "object"), **values} for key, values in classes.items()]
    write_json(workdir.folder / "voc_classes.json", table)
    bounded = {
        f"mask_{name}{end}": value
        for name, it in intervals.items()
        for end, value in (("", it.value), ("_low", it.low), ("_high", it.high))
    }
    return {name: value for name, value in bounded.items() if math.isfinite(value)}


def retention(context: Context, pseudo: Stage, human: Stage) -> Stage:
    """Mask AP with pseudo-labels ÷ mask AP with human masks, and its paired bootstrap interval over images."""
    settings = {"resamples": context.config.evaluate.bootstrap, "seed": context.config.seed}

    def work(workdir: Workdir) -> Result:
        both = [MatchArrays.load(workdir.inputs[name] / "matches_segm.npz") for name in ("pseudo", "human")]
        interval = bootstrap.retention(*both, resamples=settings["resamples"], seed=settings["seed"])
        figures = {"retention": interval.value, "retention_low": interval.low, "retention_high": interval.high}
        finite = all(map(math.isfinite, figures.values()))  # not where the human-mask AP is 0
        return Result(figures if finite else {}, {"": len(both[0].image_ids)})

    columns = {**pseudo.columns, "denominator": human.columns.get("published_file", HUMAN_MASKS)}
    return Stage("retention", 1, settings, work, {"pseudo": pseudo, "human": human}, columns=columns)
