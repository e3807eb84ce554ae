"""Step 8: prototypes that lie on the object, alike ones merged, are its parts; each has a key-point."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mal.methods.attentionshift.config.steps import PartsConfig
from mal.methods.attentionshift.similarity import cosines, patch_rows, unit

TIE = 1e-6  # patches this close to a part map's maximum are peaks too: rounding separates equal ones by less


@dataclass
class Parts:
    """The parts of one instance, the largest first."""

    prototypes: Tensor  # (P, C)
    maps: Tensor  # (P, h, w): cosine to the prototype on the whole image, not below 0
    peaks: Tensor  # (P, 2): x, y in pixels, the centre of the patch of the highest cosine
    inside: Tensor  # (P,) bool: the peak lies in the instance's box

    @property
    def key_points(self) -> Tensor:
        """(p, 2) x, y in pixels: the peaks that lie in the box."""
        return self.peaks[self.inside]


def find_parts(
    features: Tensor,
    prototypes: Tensor,
    core: Tensor,
    boxes: Tensor,
    *,
    patch: int,
    config: PartsConfig,
    filtered: bool = True,
) -> list[Parts]:
    """Parts of each instance.

    Args:
        features: (C, h, w).
        prototypes: (n, K, C) of step 7.
        core: (n, h, w) in 0…1, E of step 7.
        boxes: (n, 4) xyxy in pixels.
        filtered: False leaves out filter and merging, as Table 1's K-Means without a star does.
    """
    units = unit(patch_rows(features))
    groups = list(prototypes)
    if filtered:
        similar = (cosines(prototypes, units) > config.similar).to(core)
        covered = (similar @ core.flatten(1)[..., None])[..., 0] / similar.sum(2).clamp(min=1)
        groups = [merged(each[on], config.merge) for each, on in zip(groups, covered >= config.inside, strict=True)]
    if not groups:
        return []
    together = torch.cat(groups)
    maps = cosines(together, units).clamp(min=0)
    areas = (maps > config.area).sum(1)
    peaks = _peaks(maps, features.shape[2], patch)
    found, first = [], 0
    for group, box in zip(groups, boxes, strict=True):
        largest = first + areas[first : first + len(group)].argsort(descending=True, stable=True)[: config.most]
        own = peaks[largest]
        within = ((own >= box[:2]) & (own <= box[2:])).all(1)
        found.append(Parts(together[largest], maps[largest].unflatten(1, features.shape[1:]), own, within))
        first += len(group)
    return found


def merged(prototypes: Tensor, threshold: float) -> Tensor:
    """(K, C) → (P, C): in order, each is averaged with all later ones of at least this cosine, which then go."""
    units = unit(prototypes)
    alike = (units @ units.T >= threshold).triu()
    alike.fill_diagonal_(True)  # its cosine to itself may round below a threshold of 1
    first: list[int] = []
    gone = np.zeros(len(prototypes), np.bool_)
    for i, group in enumerate(alike.cpu().numpy()):
        if not gone[i]:
            first.append(i)
            gone |= group
    share = alike[first].to(prototypes)
    return share @ prototypes / share.sum(1, keepdim=True)


def _peaks(maps: Tensor, width: int, patch: int) -> Tensor:
    """(P, h·w) → (P, 2): the mean x, y of the centres of the highest patches."""
    highest = (maps >= maps.amax(1, keepdim=True) - TIE).to(maps)
    cells = torch.arange(maps.shape[1], device=maps.device)
    centres = (torch.stack([cells % width, cells // width], 1).to(maps) + 0.5) * patch
    return highest @ centres / highest.sum(1, keepdim=True)
