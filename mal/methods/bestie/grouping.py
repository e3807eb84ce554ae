"""From classes, centres and offsets to instances: peaks, and the pixels that point to them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.methods.bestie.config import DetectionConfig
from mal.methods.bestie.places import centres_of_pixels, nearest
from mal.methods.bestie.reading import read_classes


@dataclass
class Seen:
    """What the instance network says of one image; H × W pixels, K classes.

    Attributes:
        classes: (K + 1, H, W) probabilities, the background first.
        centres: (K, H, W). offsets: (2, H, W) x and y in pixels.
    """

    classes: Tensor
    centres: Tensor
    offsets: Tensor


@dataclass
class Instances:
    """Instances of an image, by falling score.

    Attributes:
        masks: (d, H, W) bool, disjoint.
        labels: (d,) int64 from 0. scores: (d,) float32.
    """

    masks: Tensor
    labels: Tensor
    scores: Tensor


def flip_averaged(plain: Seen, mirrored: Seen) -> Seen:
    """The mean of what is said of an image and of its mirror image; a mirrored x points the other way."""
    back = [each.flip(-1) for each in (mirrored.classes, mirrored.centres, mirrored.offsets)]
    back[2] = torch.stack([-back[2][0], back[2][1]])
    both = zip((plain.classes, plain.centres, plain.offsets), back, strict=True)
    return Seen(*((one + other) / 2 for one, other in both))


def peaks(heat: Tensor, *, window: int, least: float) -> Tensor:
    """Pixels that nothing exceeds in the window around them; of equal ones in a window, the first.

    Args:
        heat: (H, W).
        window: its side in pixels, odd; at the border the part inside the image.
        least: a peak is higher.

    Returns:
        (n, 2) int64, row and column, by falling height and then in the order of rows.
    """
    highest = F.max_pool2d(heat[None, None], window, stride=1, padding=window // 2)[0, 0]
    found = ((heat == highest) & (heat > least)).nonzero()
    found = found[heat[found[:, 0], found[:, 1]].sort(descending=True, stable=True).indices]
    kept: list[Tensor] = []
    for place in found.unbind():
        if all(int((place - other).abs().max()) > window // 2 for other in kept):
            kept.append(place)
    return torch.stack(kept) if kept else found[:0]


def instances(seen: Seen, config: DetectionConfig) -> Instances:
    """Peaks of each class's centres among its pixels, each with the pixels of the class that point nearest to it.

    A class without a peak gives nothing. A score is the peak's height, at most 1, × the mean probability of the class
    on the mask; a peak that no pixel points to is dropped.
    """
    class_map = seen.classes.argmax(dim=0)
    height, width = class_map.shape
    pointed = centres_of_pixels(height, width, device=class_map.device) + seen.offsets
    masks, labels, scores = [], [], []
    for label in [int(value) - 1 for value in class_map.unique() if value > 0]:
        own = class_map == label + 1
        heat = torch.where(own, seen.centres[label], -torch.inf)
        found = peaks(heat, window=config.window, least=config.peak)
        if not len(found):
            continue
        which = nearest(pointed[:, own], found.flip(1) + 0.5)
        for index, (row, column) in enumerate(found.tolist()):
            mask = torch.zeros_like(own)
            mask[own] = which == index
            if not mask.any():
                continue
            masks.append(mask)
            labels.append(label)
            scores.append(float(heat[row, column].clamp(max=1) * seen.classes[label + 1][mask].mean()))
    if not masks:
        empty = class_map.new_zeros(0)
        return Instances(class_map.new_zeros(0, height, width, dtype=torch.bool), empty, empty.float())
    order = torch.tensor(scores).sort(descending=True, stable=True).indices[: config.max_detections].tolist()
    chosen = [[values[index] for index in order] for values in (masks, labels, scores)]
    return Instances(torch.stack(chosen[0]), torch.tensor(chosen[1]), torch.tensor(chosen[2]))


def of_points(seen: Seen, xy: Tensor, labels: Tensor, *, reach: float) -> Tensor:
    """The pixels of each known object: those of its class that point nearest to its point among the class's.

    Args:
        xy: (n, 2) points in pixels. labels: (n,) their classes from 0; classes without a point are nobody's.
        reach: see `read_classes`.

    Returns:
        (n, H, W) bool, disjoint; one may be empty.
    """
    present = torch.zeros(len(seen.classes) - 1, dtype=torch.bool, device=xy.device)
    present[labels] = True
    class_map = read_classes(seen.classes, present, xy, labels, reach=reach)
    height, width = class_map.shape
    pointed = centres_of_pixels(height, width, device=xy.device) + seen.offsets
    masks = torch.zeros(len(labels), height, width, dtype=torch.bool, device=xy.device)
    for label in labels.unique().tolist():
        own, objects = class_map == label + 1, (labels == label).nonzero()[:, 0]
        which = nearest(pointed[:, own], xy[objects])
        for index, place in enumerate(objects.tolist()):
            masks[place][own] = which == index
    return masks
