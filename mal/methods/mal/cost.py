"""How long MAL's training takes by what is published of it, for time limits where there is no earlier run.

In seconds of one V100, and rather too much: the authors' program was slower than this one.
"""

from mal.config import Config
from mal.context import Context
from mal.data.annotations import read
from mal.data.remembered import remembered
from mal.data.rois import usable
from mal.data.sources import Split
from mal.engine.files import digest
from mal.engine.store import Fingerprints
from mal.methods.mal.train import total_steps

# An RoI of a training step, ViT-B at 512². The paper: 23 h on eight V100 for COCO, 10 epochs of the 55 % of its 860,001
# boxes that pass the area filter: 23 · 3600 · 8 / (10 · .55 · 860,001) = .14. LVIS's 35 h come to .144, if as large a
# share of its 1,270,141 boxes passes.
ROI_SECONDS = 0.14
# Other encoders by the size that their names end with: ViT-S takes .6 of ViT-B's step on an H100 (results/bench), ViT-L
# has 3.5 times its multiplications.
ENCODERS = {"_s": 0.6, "_b": 1.0, "_l": 3.5}


def v100_seconds(config: Config, context: Context) -> float | None:
    """What the training takes on one V100; None where the boxes are not drawn yet, so that nobody knows how many.

    Raises:
        MalError: the file of annotations is not there or changes meanwhile.
    """
    split, boxes = context.labeler_train, 0
    if config.train.steps is None:
        if split.drawn is not None:
            return None
        boxes = _boxes(split, config, context.fingerprints)
    rois = total_steps(config, boxes) * config.train.batch
    size = ENCODERS.get(config.encoder.name[-2:], 1.0)
    return rois * ROI_SECONDS * size * (config.roi.size / 512) ** 2


def _boxes(split: Split, config: Config, fingerprints: Fingerprints) -> int:
    """The boxes of a file that are learned from in an epoch; counted once."""

    def count() -> int:
        return sum(usable(it, config.roi, training=True) for it in read(split.annotations, masks=False)["annotations"])

    what = [config.roi.min_side, config.roi.min_area, config.roi.max_area]
    return int(remembered(f"epoch-boxes-{digest(what)[:8]}", 1, [split.annotations], count, fingerprints))
