"""The losses of classes and masks over all decoder layers, each of which is matched alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mal.engine import ranks
from mal.engine.runtime import sent
from mal.methods.simformer.config.losses import LossesConfig
from mal.methods.simformer.losses import cls_loss, complement_loss, mask_loss
from mal.methods.simformer.matching import assign, matching_costs
from mal.methods.simformer.network import Outputs
from mal.methods.simformer.targets import Targets, by_emptiness, targets_of


@dataclass
class Found:
    """The matches of one image in one layer: queries (m,) and the targets (m,) that they are to find; on the CPU."""

    queries: Tensor
    columns: Tensor


def criterion(
    outputs: Outputs,
    labels: Tensor,
    inside: Tensor,
    base: Sequence[Sequence[int]],
    tags: Sequence[Sequence[int]],
    config: LossesConfig,
) -> dict[str, Tensor]:
    """ClsLoss, MaskLoss and CompLoss, weighted and summed over the layers: "cls", "mask", "complement".

    Of several processes each divides by what all have on average. A GPU is waited for once, when all costs of matching
    leave it (with `base_lost=novel` once an image besides).

    Args:
        outputs: in float32 whatever the network computes in, or double.
        labels: (B, H, W) integers: base classes, and 255 where unlabelled and on padding.
        inside: (B, H, W) bool: the image, no padding.
        base: the classes of each image's labels, ascending.
        tags: the novel classes of each image.
    """
    size = (int(outputs.masks[0].shape[-2]), int(outputs.masks[0].shape[-1]))
    targets: list[Targets] = []
    orders: list[Tensor | None] = []
    for each, known, novel in zip(labels, base, tags, strict=True):
        own, order = targets_of(each, known, novel), None
        if config.base_lost == "novel":
            own, order = by_emptiness(own, size)
        targets.append(own)
        orders.append(order)
    found = matches(outputs, targets, orders, config)
    truths = torch.cat([own.masks for own in targets])
    with torch.autocast(labels.device.type, enabled=False):
        layers = [
            _layer(classes, masks, targets, truths, matched, inside, config)
            for classes, masks, matched in zip(outputs.classes, outputs.masks, found, strict=True)
        ]
    return {name: torch.stack([layer[name] for layer in layers]).sum() for name in layers[0]}


def matches(
    outputs: Outputs, targets: list[Targets], orders: list[Tensor | None], config: LossesConfig
) -> list[list[Found]]:
    """Per layer and image; all costs leave a GPU at once.

    Args:
        orders: per image, of which target each column's cost is; None: of its own (see `by_emptiness`).
    """
    costs = []
    for image, (own, order) in enumerate(zip(targets, orders, strict=True)):
        classes = torch.stack([layer[image] for layer in outputs.classes])
        masks = torch.stack([layer[image] for layer in outputs.masks])
        of = own
        if order is not None:
            of = Targets(own.labels[order], own.masks[sent(order, own.masks.device)], own.base)
        costs.append(matching_costs(classes, masks, of, config))
    there = torch.cat([each.flatten() for each in costs]).cpu().split([each.numel() for each in costs])
    by_image = [
        [Found(*assign(layer)) for layer in each.view(on_device.shape)]
        for each, on_device in zip(there, costs, strict=True)
    ]
    return [list(layer) for layer in zip(*by_image, strict=True)]


def _layer(
    classes: Tensor,
    masks: Tensor,
    targets: list[Targets],
    truths: Tensor,
    found: list[Found],
    inside: Tensor,
    config: LossesConfig,
) -> dict[str, Tensor]:
    """
    Args:
        truths: the targets' masks of all images in one.
        found: per image.
    """
    (images, queries), nothing, device = classes.shape[:2], classes.shape[-1] - 1, classes.device
    wanted = torch.full((images, queries), nothing)
    base_queries, novel_queries = [], []  # that are matched, numbered through the batch
    columns, first = [], 0  # of the truths
    for image, (own, matched) in enumerate(zip(targets, found, strict=True)):
        wanted[image, matched.queries] = own.labels[matched.columns]
        novel, numbers = matched.columns >= own.base, image * queries + matched.queries
        base_queries.append(numbers[~novel])
        novel_queries.append(numbers[novel])
        columns.append(first + matched.columns[~novel])
        first += len(own.labels)
    wanted = sent(wanted, device)

    logits, objects = masks.flatten(0, 1), sum(own.base for own in targets)
    of_base, of_truths = logits[sent(torch.cat(base_queries), device)], truths[sent(torch.cat(columns), device)]
    mask = mask_loss(of_base, of_truths, config, count=objects)

    complements = []
    if config.complement:
        of_novel = logits[sent(torch.cat(novel_queries), device)].split([len(each) for each in novel_queries])
        complements = [
            complement_loss(each, own.masks, real, config)
            for each, own, real in zip(of_novel, targets, inside, strict=True)
            if len(each)
        ]
    complement = torch.stack(complements).mean() if complements else masks.sum() * 0

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
