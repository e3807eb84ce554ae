"""How long a training takes by what is published of its kind, for time limits where there is no earlier run.

Everything is in seconds of one V100 and rather too much: the programs they were measured with are slower than this one.
A cluster's `speed` says how much faster its GPUs are.
"""

from mal.config import Config
from mal.data.annotations import read
from mal.data.remembered import remembered
from mal.data.rois import usable
from mal.data.sources import Split
from mal.engine.files import digest
from mal.engine.graph import Stage
from mal.engine.store import Fingerprints
from mal.methods.mal.train import total_steps
from mal.request import Graph
from mal.segmenters.data import TrainingSet
from mal.segmenters.optimizer import run_length

# Phase 1: an RoI of a training step, ViT-B at 512². The paper: 23 h on eight V100 for COCO, 10 epochs of the 55 % of
# its 860,001 boxes that pass the area filter: 23 · 3600 · 8 / (10 · .55 · 860,001) = .14. LVIS's 35 h come to
# .144, if as large a share of its 1,270,141 boxes passes.
ROI_SECONDS = 0.14
# Other encoders by the size that their names end with: ViT-S takes .6 of ViT-B's step on an H100 (results/bench), ViT-L
# has 3.5 times its multiplications.
ENCODERS = {"_s": 0.6, "_b": 1.0, "_l": 3.5}

# Phase 2: an image of a training step, which is half of the seconds that eight V100 need for sixteen.
IMAGE_SECONDS = {
    # MMDetection's MODEL_ZOO.md of 2018 (090d052d): .690, .825, .972 and 1.302 s per step
    "mask_rcnn_r50": 0.345,
    "mask_rcnn_r101": 0.413,
    "mask_rcnn_x101_32x4d": 0.486,
    "mask_rcnn_x101_64x4d": 0.651,
    # the same page's Cascade Mask R-CNN R-50, .910, by the multiplications of ConvNeXt's Table 3: 827 and 964 to 739
    "cascade_convnext_s": 0.51,
    "cascade_convnext_b": 0.59,
    # AdelaiDet's README: R-50 25 h, R-101 30 h for 36 epochs on eight V100; X-101-64x4d to R-101 as in Mask R-CNN
    "solov2_r50": 0.17,
    "solov2_r101_dcn": 0.205,
    "solov2_x101_dcn": 0.324,
    # its authors: R-50 "around 3 days on 8 V100 GPUs for 50 epochs", .354; Swin-S has 313 GFLOPs to R-50's 226
    "mask2former_swin_s": 0.49,
}
DEFORMABLE = 1.2  # MMDetection's metafiles: inference 1.05 and 1.15 times as long


def v100_seconds(stage: Stage, row: Config, graph: Graph) -> float | None:
    """What a training takes on one V100; None for other stages, and where nothing is published of its kind.

    Args:
        stage: of the graph of `row`.

    Raises:
        MalError: a file of annotations is not there or changes meanwhile.
    """
    if stage.name == "train_labeler":
        return _labeler(row, graph)
    if stage.name == "train_segmenter":
        return _segmenter(row, graph)
    return None


def _labeler(row: Config, graph: Graph) -> float | None:
    if row.train.steps is None and graph.context.labeler_train.drawn is not None:
        return None  # how many boxes will be drawn, nobody knows yet
    boxes = 0 if row.train.steps is not None else _boxes(graph.context.labeler_train, row, graph.context.fingerprints)
    rois = total_steps(row, boxes) * row.train.batch
    size = ENCODERS.get(row.encoder.name[-2:], 1.0)
    return rois * ROI_SECONDS * size * (row.roi.size / 512) ** 2


def _segmenter(row: Config, graph: Graph) -> float | None:
    image, schedule = IMAGE_SECONDS.get(row.segmenter.name), row.segmenter.schedule
    split = graph.context.train
    if image is None or (schedule.steps is None and split.drawn is not None):
        return None
    images = 0.0 if schedule.steps is not None else _images(split, row, graph.context.fingerprints)
    shown = run_length(schedule, images=images) * schedule.batch
    return shown * image * (DEFORMABLE if row.segmenter.dcn else 1)


def _boxes(split: Split, row: Config, fingerprints: Fingerprints) -> int:
    """The boxes of a file that a labeler learns from in an epoch; counted once."""

    def count() -> int:
        return sum(usable(it, row.roi, training=True) for it in read(split.annotations, masks=False)["annotations"])

    what = [row.roi.min_side, row.roi.min_area, row.roi.max_area]
    return int(remembered(f"epoch-boxes-{digest(what)[:8]}", 1, [split.annotations], count, fingerprints))


def _images(split: Split, row: Config, fingerprints: Fingerprints) -> float:
    """The images of a file that an epoch of a segmenter shows, repeats included, on average; counted once."""
    schedule, agnostic = row.segmenter.schedule, row.data.class_agnostic

    def count() -> float:
        coco = read(split.annotations, masks=False)
        found = TrainingSet(
            coco, images=split.images, scale=row.segmenter.scale, seed=0, masks=False, class_agnostic=agnostic
        )
        repeats = found.repeat_factors(schedule.repeat_threshold, schedule.repeat_rounding)
        return float(len(found) if repeats is None else repeats.sum())

    what = [schedule.repeat_threshold, schedule.repeat_rounding, agnostic]
    return float(remembered(f"epoch-images-{digest(what)[:8]}", 1, [split.annotations], count, fingerprints))
