"""The losses of classes and masks over all decoder layers, each of which is matched alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mal.engine import ranks
from mal.methods.simformer.config.losses import LossesConfig
from mal.methods.simformer.losses import cls_loss, complement_loss, mask_loss
from mal.methods.simformer.matching import assign, matching_costs
from mal.methods.simformer.network import Outputs
from mal.methods.simformer.targets import Targets, by_emptiness, targets_of


@dataclass
class Found:
    """The matches of one image in one layer: queries (m,) and the targets (m,) that they are to find."""

    queries: Tensor
    columns: Tensor


def criterion(
    outputs: Outputs, labels: Tensor, inside: Tensor, tags: Sequence[Sequence[int]], config: LossesConfig
) -> dict[str, Tensor]:
    """ClsLoss, MaskLoss and CompLoss, weighted and summed over the layers: "cls", "mask", "complement".

    Of several processes each divides by what all have on average.

    Args:
        outputs: in float32 whatever the network computes in, or double.
        labels: (B, H, W) integers: base classes, and 255 where unlabelled and on padding.
        inside: (B, H, W) bool: the image, no padding.
        tags: the novel classes of each image.
    """
    size = (int(outputs.masks[0].shape[-2]), int(outputs.masks[0].shape[-1]))
    targets, orders = [], []
    for each, novel in zip(labels, tags, strict=True):
        own, order = targets_of(each, novel), None
        if config.base_lost == "novel":
            own, order = by_emptiness(own, size)
        targets.append(own)
        orders.append(order)
    found = matches(outputs, targets, orders, config)
    with torch.autocast(labels.device.type, enabled=False):
        layers = [
            _layer(classes, masks, targets, matched, inside, config)
            for classes, masks, matched in zip(outputs.classes, outputs.masks, found, strict=True)
        ]
    return {name: torch.stack([layer[name] for layer in layers]).sum() for name in layers[0]}


def matches(
    outputs: Outputs, targets: list[Targets], orders: list[Tensor | None], config: LossesConfig
) -> list[list[Found]]:
    """Per layer and image, all layers of an image at once: each leaves a GPU a single time.

    Args:
        orders: per image, of which target each column's cost is; None: of its own (see `by_emptiness`).
    """
    by_image = []
    for image, (own, order) in enumerate(zip(targets, orders, strict=True)):
        classes = torch.stack([layer[image] for layer in outputs.classes])
        masks = torch.stack([layer[image] for layer in outputs.masks])
        of = own if order is None else Targets(own.labels[order], own.novel, own.masks[order])
        costs = matching_costs(classes, masks, of, config).cpu()
        by_image.append([Found(*(each.to(classes.device) for each in assign(layer))) for layer in costs])
    return [list(layer) for layer in zip(*by_image, strict=True)]


def _layer(
    classes: Tensor,
    masks: Tensor,
    targets: list[Targets],
    found: list[Found],
    inside: Tensor,
    config: LossesConfig,
) -> dict[str, Tensor]:
    nothing = classes.shape[-1] - 1
    wanted = torch.full(classes.shape[:2], nothing, device=classes.device)
    logits, truths, complements = [], [], []
    for image, (own, matched) in enumerate(zip(targets, found, strict=True)):
        wanted[image, matched.queries] = own.labels[matched.columns]
        novel = own.novel[matched.columns]
        logits.append(masks[image, matched.queries[~novel]])
        truths.append(own.masks[matched.columns[~novel]])
        if config.complement and len(queries := matched.queries[novel]):
            complements.append(complement_loss(masks[image, queries], own.masks, inside[image], config))
    objects = sum(int((~own.novel).sum()) for own in targets)
    mask = mask_loss(torch.cat(logits), torch.cat(truths), config, count=objects)
    complement = torch.stack(complements).mean() if complements else masks.sum() * 0
    device = classes.device
    weights = {
        "cls": ranks.weight(torch.where(wanted == nothing, config.nothing, 1.0).sum(), device=device),
        "mask": ranks.weight(objects, device=device),
        "complement": ranks.weight(len(complements), device=device),
    }
    cls = cls_loss(classes, wanted, nothing=config.nothing)
    return {
        "cls": weights["cls"] * config.classes * cls,
        "mask": weights["mask"] * mask,
        "complement": weights["complement"] * config.complement * complement,
    }
