"""The trainings that a cluster runs: those of the methods, and a segmenter's with what is published of its time.

Times are in seconds of one V100 and rather too much: the programs they were measured with are slower than this one.
A cluster's `speed` says how much faster its GPUs are.
"""

from mal.config import Config
from mal.context import Context
from mal.data.annotations import read
from mal.data.remembered import remembered
from mal.data.sources import Split
from mal.engine.files import digest
from mal.engine.store import Fingerprints
from mal.methods.registry import METHODS
from mal.methods.spec import Training
from mal.segmenters.data import TrainingSet
from mal.segmenters.optimizer import run_length

# An image of a training step, which is half of the seconds that eight V100 need for sixteen.
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


def trainings() -> dict[str, Training]:
    """Name of a stage → what a cluster knows of it."""
    of_methods = {training.name: training for method in METHODS.values() for training in method.trainings}
    return of_methods | {"train_segmenter": Training("train_segmenter", "segmenter.schedule.batch", segmenter_seconds)}


def segmenter_seconds(row: Config, context: Context) -> float | None:
    """What the training of a segmenter takes on one V100; None where nothing is published of its kind.

    Raises:
        MalError: the file of annotations is not there or changes meanwhile.
    """
    image, schedule = IMAGE_SECONDS.get(row.segmenter.name), row.segmenter.schedule
    split = context.train
    if image is None or (schedule.steps is None and split.drawn is not None):
        return None
    images = 0.0 if schedule.steps is not None else _images(split, row, context.fingerprints)
    shown = run_length(schedule, images=images) * schedule.batch
    return shown * image * (DEFORMABLE if row.segmenter.dcn else 1)


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
