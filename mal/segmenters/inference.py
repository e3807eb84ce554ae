"""From a checkpoint and a COCO file to COCO results, whatever the backend."""

from contextlib import closing
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mal import segmenters
from mal.data.annotations import read_images
from mal.data.images import load_for
from mal.engine import ranks
from mal.engine.progress import Progress
from mal.engine.runtime import load_checkpoint
from mal.errors import WeightsError
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.data import resize
from mal.segmenters.network import Json
from mal.segmenters.reading import read_ahead
from mal.segmenters.weights import check_weights


def predict(
    *, checkpoint: Path, annotations: Path, images: Path, config: SegmenterConfig, device: torch.device
) -> list[Json]:
    """Detections on every image of a COCO file (its annotations are not looked at), as COCO results.

    Several processes take turns at the batches; each returns everything.

    Args:
        checkpoint: what `training.train` wrote.
        config: `test.batch` images are detected on at a time, resized as `scale` has it for the test;
            `running.workers` processes read ahead.

    Returns:
        image_id, category_id (1 if class-agnostic), score, `bbox` xywh and, with a mask head, `segmentation` as
        compressed RLE, in pixels of the original image; by image id, then falling score.

    Raises:
        AnnotationError, ConfigError, ImageError.
        WeightsError: the checkpoint is of another segmenter.
    """
    network = segmenters.find(config)
    model, categories = load(checkpoint, config=config, device=device)
    detect = network.detector(model, categories=categories, config=config)
    entries = sorted(read_images(annotations), key=lambda image: image["id"])
    batches = [entries[start : start + config.test.batch] for start in range(0, len(entries), config.test.batch)]
    mine = batches[ranks.rank() :: ranks.size()]
    found: list[list[Json]] = []
    shown = _Inputs(images, config, whole=network.resizes_published and config.weights == "published")
    reading = read_ahead(shown, mine, workers=config.running.workers, pin=device.type == "cuda")
    with Progress("predict", total=sum(map(len, mine)), unit="image") as bar, closing(reading):
        for batch, inputs in zip(mine, reading, strict=True):
            with torch.inference_mode():
                found.append(detect(batch, inputs))
            bar.advance(len(batch))
    turns = zip_longest(*ranks.gather(found), fillvalue=[])  # the first batch of each process, the second of each, …
    return [result for turn in turns for results in turn for result in results]


def load(checkpoint: Path, *, config: SegmenterConfig, device: torch.device) -> tuple[nn.Module, list[int]]:
    """A trained segmenter in evaluation mode on the device, and the category id of each of its labels in their order.

    Args:
        checkpoint: what `training.train` wrote.

    Raises:
        ConfigError: see `segmenters.check_built`.
        WeightsError: the checkpoint is of another segmenter.
    """
    network = segmenters.find(config)
    state = load_checkpoint(checkpoint, parts=("model", "classes", "category_ids"))
    check_weights(state, config, checkpoint=checkpoint)
    model = network.build(config, classes=state["classes"], load=False)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise WeightsError(
            f"{checkpoint} was trained with other settings than segmenter={config.name} has now: {error}; "
            "predict with the settings it was trained with, or train again"
        ) from error
    categories = state["category_ids"] if state["classes"] == len(state["category_ids"]) else [1]
    return network.lowered(model.eval().to(device), config, device=device), categories


class _Inputs(Dataset[Tensor]):
    """A COCO file's image entries → what a segmenter is shown, uint8."""

    def __init__(self, images: Path, config: SegmenterConfig, *, whole: bool) -> None:
        self.images, self.scale, self.whole = images, config.scale, whole

    def __getitem__(self, entry: Json) -> Tensor:
        image = load_for(entry, self.images)
        if self.whole:
            return image
        return resize(image, short=self.scale.test_short_side, long=self.scale.test_long_side)
