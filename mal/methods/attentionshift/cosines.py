"""How alike the last map's features are, of an instance and its surroundings, of instances of one class and of several:
Figure 1 of the supplement, of which the text gives no definition (inferred).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mal.config import Config
from mal.data.annotations import CocoDict, annotations_by_image, decode_mask
from mal.engine.progress import Progress
from mal.errors import MalError
from mal.methods.attentionshift.checkpoint import Trained
from mal.methods.attentionshift.data import objects_of
from mal.methods.attentionshift.known import as_shown, samples

Floats = NDArray[np.float64]
INSIDE = 0.5  # share of what the image shows of a patch, above which the patch is an instance's


@dataclass(frozen=True)
class Features:
    """Of one image.

    Attributes:
        labels: (n,) of the instances that have a patch.
        instances: (n, C) unit, the mean features of their patches.
        background: (C,) unit, of the patches that hold nothing of any object; None where there is no such patch.
    """

    labels: NDArray[np.int64]
    instances: Floats
    background: Floats | None


def cosines(found: Sequence[Features]) -> dict[str, float]:
    """Mean cosines, in [-1, 1]: `background` of instances with their own image's background, `between` of pairs of
    instances of two classes and `within` of pairs of one class, both over all images; only those for which there is a
    pair.
    """
    own = [each.instances @ each.background for each in found if each.background is not None]
    labels = np.concatenate([each.labels for each in found])
    instances = np.concatenate([each.instances for each in found])
    sums = np.stack([instances[labels == label].sum(axis=0) for label in np.unique(labels)])
    counts = np.array([np.count_nonzero(labels == label) for label in np.unique(labels)])
    alike = (np.square(sums).sum(axis=1) - counts).sum()  # of ordered pairs; an instance with itself has 1
    all_pairs = np.square(sums.sum(axis=0)).sum() - len(labels)
    pairs_alike = (counts * (counts - 1)).sum()
    pairs = len(labels) * (len(labels) - 1) - pairs_alike
    means = {}
    if sum(map(len, own)):
        means["background"] = float(np.concatenate(own).mean())
    if pairs:
        means["between"] = float((all_pairs - alike) / pairs)
    if pairs_alike:
        means["within"] = float(alike / pairs_alike)
    return means


def features_of(
    features: Floats, labels: NDArray[np.int64], masks: NDArray[np.bool_], others: NDArray[np.bool_], *, patch: int
) -> Features:
    """
    Args:
        features: (C, h, w) of the image's patches, of which the last rows and columns may be padding.
        labels: (n,) of the instances. masks: (n, H, W) of them in pixels as the network is shown them, H <= h·patch.
        others: (H, W), what belongs to further objects, such as crowds.
    """
    seen = _share(np.ones(others.shape, dtype=bool), features, patch)  # of each patch, by the image
    vectors = [_unit(features, _share(mask, features, patch) > INSIDE * seen) for mask in masks]
    kept = [vector is not None for vector in vectors]
    instances = np.array([vector for vector in vectors if vector is not None]).reshape(-1, len(features))
    taken = np.ones((features.shape[1] * patch, features.shape[2] * patch), dtype=bool)  # padding is no background
    taken[: others.shape[0], : others.shape[1]] = others | masks.any(axis=0)
    background = _unit(features, _share(taken, features, patch) == 0)
    return Features(labels[kept], instances, background)


def feature_cosines(
    trained: Trained, config: Config, points: CocoDict, human: CocoDict, images: Path, device: torch.device
) -> tuple[dict[str, float], int]:
    """`cosines` of a network on the images of a points view, and of how many instances they are.

    Args:
        human: the same file with its masks. Objects without one are left out, as is the background of their images.

    Raises:
        MalError: no instance has a mask that fills most of a patch.
    """
    found = list(_per_image(trained, config, points, human, images, device))
    count = sum(len(each.labels) for each in found)
    if not count:
        raise MalError(
            "no object of the validation images has a mask that fills most of a patch: no features to compare; "
            "set larger attentionshift.scale.test_short_sides"
        )
    return cosines(found), count


@torch.inference_mode()
def _per_image(
    trained: Trained, config: Config, points: CocoDict, human: CocoDict, images: Path, device: torch.device
) -> Iterator[Features]:
    by_image, network = annotations_by_image(human), trained.network
    total = len(objects_of(points, most=config.attentionshift.tokens.count))
    with Progress("features", total=total, unit="image") as bar:
        for entry, annotations, sample in samples(trained, config, points, images, device):
            bar.advance()
            size, labels = sample.points.size, sample.points.labels.tolist()
            label = {a["id"]: one for a, one in zip(annotations, labels, strict=True)}
            masks = {
                a["id"]: as_shown(decode_mask(a["segmentation"], height=entry["height"], width=entry["width"]), size)
                for a in by_image[entry["id"]]
                if a.get("segmentation")
            }
            own = [identity for identity in label if identity in masks]
            # where an object has no mask, nothing tells what is background
            others = np.full(size, bool(label.keys() - masks.keys()))
            for identity in masks.keys() - label.keys():
                others |= masks[identity]
            features = network.features(network.see([sample.image]), 0, sample.points).double().cpu().numpy()
            yield features_of(
                features,
                np.array([label[identity] for identity in own], dtype=np.int64),
                np.array([masks[identity] for identity in own], dtype=bool).reshape(-1, *size),
                others,
                patch=network.vit.patch,
            )


def _share(mask: NDArray[np.bool_], features: Floats, patch: int) -> Floats:
    """(h, w): the share of each patch that a mask of pixels covers; what is beyond the mask counts as uncovered."""
    rows, columns = features.shape[1:]
    whole = np.zeros((rows * patch, columns * patch))
    whole[: mask.shape[0], : mask.shape[1]] = mask
    return whole.reshape(rows, patch, columns, patch).mean(axis=(1, 3))


def _unit(features: Floats, chosen: NDArray[np.bool_]) -> Floats | None:
    """(C,) the mean of the chosen patches, of length 1; None of none, or where it is 0."""
    if not chosen.any():
        return None
    mean = features[:, chosen].mean(axis=1)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 0 else None
