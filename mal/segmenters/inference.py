"""From a checkpoint and a COCO file to COCO results: what every backend's `load` and `predict` share."""

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mal import ranks
from mal.annotations import read_images
from mal.errors import WeightsError
from mal.images import load_for
from mal.progress import Progress
from mal.runtime import load_checkpoint
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.data import resize
from mal.segmenters.weights import check_weights

Json = dict[str, Any]
Detect = Callable[[list[Json], list[Tensor]], list[Json]]  # a batch's image entries and resized images → COCO results


def predict_images(
    *, annotations: Path, images: Path, config: SegmenterConfig, detect: Detect, progress: str, whole: bool = False
) -> list[Json]:
    """Detections on every image of a COCO file (its annotations are not looked at), by rising image id.

    Several processes take turns at the batches; each returns everything.

    Args:
        annotations: the COCO file. images: folder of its images.
        config: `test.batch` images are read at a time, resized as `scale` has it for the test.
        detect: entries of the file and (3, h, w) uint8 RGB images, on the CPU → their results, in pixels of the
            original images, the entries' order kept. Called in inference mode.
        progress: what the bar says.
        whole: `detect` gets images as they are stored, and resizes them itself.

    Raises:
        AnnotationError, ImageError.
    """
    short, long = config.scale.test_short_side, config.scale.test_long_side
    entries = sorted(read_images(annotations), key=lambda image: image["id"])
    batches = [entries[start : start + config.test.batch] for start in range(0, len(entries), config.test.batch)]
    mine = batches[ranks.rank() :: ranks.size()]
    found: list[list[Json]] = []
    with Progress(progress, total=sum(map(len, mine)), unit="image") as bar:
        for batch in mine:
            stored = (load_for(entry, images) for entry in batch)
            inputs = [image if whole else resize(image, short=short, long=long) for image in stored]
            with torch.inference_mode():
                found.append(detect(batch, inputs))
            bar.advance(len(batch))
    turns = zip_longest(*ranks.gather(found), fillvalue=[])  # the first batch of each process, the second of each, …
    return [result for turn in turns for results in turn for result in results]


def load_trained(
    checkpoint: Path, *, config: SegmenterConfig, build: Callable[[int], nn.Module]
) -> tuple[nn.Module, list[int]]:
    """A trained segmenter on the CPU, in evaluation mode, and the category id of each of its labels, from label 1.

    Args:
        checkpoint: what `loop.train` wrote.
        config: named in the error.
        build: number of classes, the background not counted → the model the weights go into.

    Raises:
        WeightsError: the checkpoint is of another segmenter.
    """
    state = load_checkpoint(checkpoint)
    check_weights(state, config, checkpoint=checkpoint)
    model = build(state["classes"])
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise WeightsError(
            f"{checkpoint} was trained with other settings than segmenter={config.name} has now: {error}; "
            "predict with the settings it was trained with, or train again"
        ) from error
    categories = state["category_ids"] if state["classes"] == len(state["category_ids"]) else [1]
    return model.eval(), categories
