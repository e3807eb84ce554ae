"""Mask2Former (Cheng et al., 2022) on any size of Swin, or on a tiny ResNet from scratch, by transformers."""

from torch import Tensor, nn

from mal.segmenters.config import OptimizerConfig, SegmenterConfig
from mal.segmenters.data import Sample
from mal.segmenters.mask2former.model import Mask2Former, load_swin
from mal.segmenters.mask2former.results import detections
from mal.segmenters.network import Detect, Json, Network
from mal.segmenters.optimizer import Factors


def detector(model: nn.Module, *, categories: list[int], config: SegmenterConfig) -> Detect:
    """See `Network.detector`; categories are those of the labels from 0. A `bbox` is the extent of its mask."""
    assert isinstance(model, Mask2Former)

    def detect(entries: list[Json], inputs: list[Tensor]) -> list[Json]:
        pixels = model.batch(inputs)
        class_logits, mask_logits = model(pixels)[-1]
        results: list[Json] = []
        for index, (entry, image) in enumerate(zip(entries, inputs, strict=True)):
            found = detections(
                class_logits[index],
                mask_logits[index],
                padded=(pixels.shape[-2], pixels.shape[-1]),
                size=(image.shape[-2], image.shape[-1]),
                original=(entry["height"], entry["width"]),
                limit=config.test.max_detections,
                threshold=config.test.mask_threshold,
            )
            results += [
                {"image_id": int(entry["id"]), "category_id": categories[item.pop("label")], **item}
                for item in found
                if item["score"] > config.test.score
            ]
        return results

    return detect


def build(config: SegmenterConfig, *, classes: int, load: bool = True) -> Mask2Former:
    """The untrained model; `classes` does not count the background.

    Args:
        load: fill in the backbone's starting weights; false when a trained segmenter's weights will follow.

    Raises:
        ConfigError, WeightsError.
    """
    model = Mask2Former(config, classes=classes)
    if load and config.pyramid.kind == "swin" and (config.pretrained or config.checkpoint is not None):
        load_swin(model, config)
    return model


def losses(model: nn.Module, batch: list[Sample]) -> dict[str, Tensor]:
    """The losses of a batch: classes, masks, dice."""
    assert isinstance(model, Mask2Former)
    batch = [sample.to(model.mean.device) for sample in batch]
    pixels = model.batch([sample.image for sample in batch])
    masks, labels = targets(batch, height=pixels.shape[-2], width=pixels.shape[-1])
    return model.losses(model(pixels), [mask.float() for mask in masks], labels)


def targets(batch: list[Sample], *, height: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """Masks (n, height, width) uint8 and labels (n,) from 0, an image.

    To Mask2Former an object is its mask: what has none here is no target. That is a pseudo-label that found nothing, or
    an object of whose box, but not of whose mask, the jitter's window shows something.
    """
    masks, labels = [], []
    for sample in batch:
        seen = sample.masks.bool().flatten(1).any(dim=1)
        down, across = sample.masks.shape[1:]
        masks.append(nn.functional.pad(sample.masks[seen], (0, width - across, 0, height - down)))
        labels.append(sample.labels[seen] - 1)
    return masks, labels


def factors(config: OptimizerConfig) -> Factors:
    """× learning rate (less for the backbone) and × weight decay (none for biases, norms and embeddings)."""

    def rates(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        embedding = name.endswith(("_embedder.weight", "queries_features.weight", "level_embed", "level_embed.weight"))
        spared = parameter.ndim <= 1 or embedding or name.endswith("relative_position_bias_table")
        return config.backbone if ".pixel_level_module.encoder." in name else 1.0, float(not spared)

    return rates


def lowered_parts(_config: SegmenterConfig) -> list[str]:
    """The submodules that may run in lower precision: all. The pixel decoder keeps float32, as the authors have it."""
    return [""]


NETWORK = Network(build, losses, detector, lowered_parts, factors)
