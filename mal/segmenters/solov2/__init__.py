"""SOLOv2 (Wang et al., 2020): every grid cell predicts a kernel, which draws its object's mask from shared features."""

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from mal.encoders.normalise import normalise
from mal.engine import ranks
from mal.losses import dice
from mal.segmenters.config import GridConfig, SegmenterConfig
from mal.segmenters.data import Sample
from mal.segmenters.network import Detect, Json, Network
from mal.segmenters.solov2.head import Outputs, Solov2, dynamic_masks
from mal.segmenters.solov2.results import best_masks, to_results
from mal.segmenters.solov2.targets import mask_targets, owners

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
SMOOTH = 0.001  # added to both sums of the dice, as the released program does
DIVISOR = 32  # pixels: the sides of a batch are multiples of it


def detector(model: nn.Module, *, categories: list[int], config: SegmenterConfig) -> Detect:
    """See `Network.detector`; categories are those of the labels from 1.

    The network sees one image at a time: its grids divide the padded batch, so that beside a larger image it would
    find other objects. A `bbox` is the extent of its mask.
    """
    device = next(model.parameters()).device

    def detect(entries: list[Json], inputs: list[Tensor]) -> list[Json]:
        results: list[Json] = []
        for entry, image in zip(entries, inputs, strict=True):
            kernels, logits, features = model(normalised([image.to(device, non_blocking=True)], config))
            found = best_masks(kernels[0], logits[0], features[0], cells=config.grid.cells, test=config.test)
            results += to_results(found, entry, size=tuple(image.shape[-2:]), categories=categories, test=config.test)
        return results

    return detect


def build(config: SegmenterConfig, *, classes: int, load: bool = True) -> nn.Module:
    """The untrained model; there is no background class. See `build_pyramid` for `load`.

    Raises:
        ConfigError, WeightsError.
    """
    return Solov2(config, classes=classes, load=load).to(memory_format=torch.channels_last)


def lowered_parts(_config: SegmenterConfig) -> list[str]:
    """The submodules that may run in lower precision."""
    return ["backbone", "grid_head", "mask_features"]


def normalised(images: list[Tensor], config: SegmenterConfig) -> Tensor:
    """(3, h, w) uint8 RGB of any sizes → (B, 3, H, W), normalised, zeros right and below, sides multiples of 32."""
    mean, std = tuple(config.pyramid.mean), tuple(config.pyramid.std)
    height, width = (-(-max(image.shape[axis] for image in images) // DIVISOR) * DIVISOR for axis in (-2, -1))
    batch = torch.zeros(len(images), 3, height, width, device=images[0].device)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[-2], : image.shape[-1]] = normalise(image.float() / 255, mean, std)
    return batch.contiguous(memory_format=torch.channels_last)


def losses(model: nn.Module, batch: list[Sample]) -> dict[str, Tensor]:
    """The losses of a batch: focal loss of the categories and dice loss of the masks."""
    assert isinstance(model, Solov2)
    config, device = model.config, next(model.parameters()).device
    batch = [sample.to(device) for sample in batch]
    images = normalised([sample.image for sample in batch], config)
    canvas = (int(images.shape[-2]), int(images.shape[-1]))
    assigned = []
    for sample in batch:
        owner = owners(sample.boxes_xyxy, sample.masks, canvas=canvas, grid=config.grid)
        binary = config.grid.mask_targets == "binary"
        assigned.append((owner, sample.labels, mask_targets(sample.masks, canvas=canvas, binary=binary)))
    return grid_losses(model(images), assigned, grid=config.grid)


def grid_losses(
    outputs: Outputs, assigned: list[tuple[Tensor, Tensor, Tensor]], *, grid: GridConfig
) -> dict[str, Tensor]:
    """Focal loss over all cells ÷ (positive cells + 1), and the mean dice loss of the positive cells, weighted.

    Of several processes each divides by its share of (all positive cells + 1), and of all positive cells.

    Args:
        assigned: by image: owner (cells,) from `owners`; labels (n,) from 1; masks (n, h, w) at stride 4.

    Returns:
        loss_category and loss_mask; the latter is 0 where no cell has an object.
    """
    wanted, one = torch.zeros_like(outputs.logits), outputs.logits.new_ones(())
    parts = [outputs.features.sum()[None] * 0]  # so that a batch without objects has gradients, all zero
    positives = 0
    for image, (owner, labels, masks) in enumerate(assigned):
        cells = (owner >= 0).nonzero()[:, 0]
        objects = owner[cells]
        wanted[image, cells, labels[objects] - 1] = one
        drawn = dynamic_masks(outputs.kernels[image, cells], outputs.features[image]).sigmoid()
        parts.append(dice(drawn.flatten(1), masks[objects].flatten(1), smooth=SMOOTH))
        positives += len(cells)
    category = sigmoid_focal_loss(outputs.logits, wanted, alpha=ALPHA, gamma=GAMMA, reduction="sum")
    device = category.device
    return {
        "loss_category": ranks.weight(positives, device=device, more=1) * (category / (positives + 1)),
        "loss_mask": ranks.weight(positives, device=device) * (grid.dice * torch.cat(parts).sum() / max(positives, 1)),
    }


NETWORK = Network(build, losses, detector, lowered_parts)
