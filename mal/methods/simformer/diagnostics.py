"""Whether similarities transfer: how well teacher and student tell pairs of hidden novel pixels apart."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mal.config import Config
from mal.data.images import load_for
from mal.data.semantic import MappedImage, SemanticFile
from mal.engine.runtime import load_checkpoint, numpy_generator
from mal.methods.simformer.checkpoint import FILE, load
from mal.methods.simformer.distillation import alike, novel_scores
from mal.methods.simformer.infer import Predictor
from mal.methods.simformer.points import STRIDE
from mal.methods.simformer.similarity import SimNet
from mal.metrics.auc import auc
from mal.segmenters.data import resize


@torch.inference_mode()
def aucs(
    folder: Path, truth: SemanticFile, images: Path, novel: tuple[int, ...], config: Config, device: torch.device
) -> tuple[dict[str, float], int]:
    """AUC of "one class" against "two" over pairs of novel pixels of two images that share a novel class.

    Args:
        folder: of the trained network.
        truth: class maps with nothing hidden.
        images: folder of the image files.

    Returns:
        teacher_auc, where a SimNet has learned, and student_auc, where both kinds of pairs were found; and the number
        of pixel pairs.
    """
    predictor = load(folder / FILE, config, device)
    teacher = _simnet(load_checkpoint(folder / FILE)["similarity"], config.simformer.network.width, device)
    classes = torch.tensor(novel, device=device)
    same: list[np.ndarray] = []
    said: dict[str, list[np.ndarray]] = {"teacher_auc": [], "student_auc": []}
    for pair in image_pairs(truth, novel, count=config.simformer.testing.pairs, seed=config.seed):
        seen = [_at_points(predictor, truth, truth.images[index], images, novel, config) for index in pair]
        (labels, pixels, logits, masks), (others, beyond, their_logits, their_masks) = seen
        if len(labels) * len(others) < 2:  # a batch norm has no statistics of one pair
            continue
        same.append((labels[:, None] == others).flatten())
        left, right = novel_scores(logits, masks, classes), novel_scores(their_logits, their_masks, classes)
        said["student_auc"].append(alike(left, right).flatten().cpu().numpy())
        if teacher is not None:
            said["teacher_auc"].append(teacher(pixels[None], beyond[None]).flatten().cpu().numpy())
    if not same:
        return {}, 0
    equal = np.concatenate(same)
    both = equal.any() and not equal.all()
    figures = {name: auc(np.concatenate(values), equal) for name, values in said.items() if values and both}
    return figures, len(equal)


def image_pairs(truth: SemanticFile, novel: tuple[int, ...], *, count: int, seed: int) -> list[tuple[int, int]]:
    """Up to `count` pairs of images that share a novel class, drawn."""
    there = np.array([np.isin(novel, truth.map_of(image)) for image in truth.images])
    first, second = np.nonzero(np.triu(there.astype(int) @ there.T.astype(int), k=1))
    chosen = numpy_generator(seed, "simformer diagnostics").permutation(len(first))[:count]
    return [(int(first[i]), int(second[i])) for i in sorted(chosen)]


def _at_points(
    predictor: Predictor,
    truth: SemanticFile,
    image: MappedImage,
    images: Path,
    novel: tuple[int, ...],
    config: Config,
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """Of an image's novel pixels, at most J: classes (n,), embeddings (n, C); class logits (Q, C + 1), masks (Q, n)."""
    testing = config.simformer.testing
    shown = resize(load_for(image.entry, images), short=testing.short_side, long=testing.long_side)
    outputs, _ = predictor.outputs(shown)
    height, width = (-(-int(side) // STRIDE) for side in shown.shape[-2:])
    # the middle of a cell in the map of the image as it is stored
    rows = ((np.arange(height) + 0.5) * image.height / height).astype(int)
    columns = ((np.arange(width) + 0.5) * image.width / width).astype(int)
    labels = truth.map_of(image)[rows[:, None], columns]
    places = np.argwhere(np.isin(labels, novel))
    generator = numpy_generator(config.seed, "simformer diagnostics", image.id)
    places = places[generator.permutation(len(places))[: config.simformer.pairs.points]]
    at = (torch.from_numpy(places[:, 0]), torch.from_numpy(places[:, 1]))
    pixels, masks = outputs.pixels[0][:, at[0], at[1]].T, outputs.masks[-1][0][:, at[0], at[1]]
    return labels[tuple(places.T)], pixels, outputs.classes[-1][0], masks


def _simnet(state: dict[str, Tensor] | None, width: int, device: torch.device) -> SimNet | None:
    if state is None:
        return None
    simnet = SimNet(width)
    simnet.load_state_dict(state)
    return simnet.to(device)
