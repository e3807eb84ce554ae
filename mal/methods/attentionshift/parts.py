"""Step 8: prototypes that lie on the object, alike ones merged, are its parts; each has a key-point."""

from dataclasses import dataclass

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
    found = []
    for each, inside, box in zip(prototypes, core.flatten(1), boxes, strict=True):
        if filtered:
            similar = cosines(each, units) > config.similar
            covered = (similar * inside).sum(1) / similar.sum(1).clamp(min=1)
            each = merged(each[covered >= config.inside], config.merge)
        maps = cosines(each, units).clamp(min=0)
        areas = (maps > config.area).sum(1)
        most = config.most - (config.counting == "off_by_one")
        largest = areas.argsort(descending=True, stable=True)[:most]
        maps = maps[largest]
        peaks = _peaks(maps, features.shape[2], patch)
        within = ((peaks >= box[:2]) & (peaks <= box[2:])).all(1)
        found.append(Parts(each[largest], maps.unflatten(1, features.shape[1:]), peaks, within))
    return found


def merged(prototypes: Tensor, threshold: float) -> Tensor:
    """(K, C) → (P, C): in order, each is averaged with all later ones of at least this cosine, which then go."""
    alike = (unit(prototypes) @ unit(prototypes).T >= threshold).triu()
    found = []
    gone = torch.zeros(len(prototypes), dtype=torch.bool, device=prototypes.device)
    for i, group in enumerate(alike):
        if not gone[i]:
            group[i] = True  # its cosine to itself may round below a threshold of 1
            found.append(prototypes[group].mean(0))
            gone |= group
    return torch.stack(found) if found else prototypes


def _peaks(maps: Tensor, width: int, patch: int) -> Tensor:
    """(P, h·w) → (P, 2): the mean x, y of the centres of the highest patches."""
    highest = (maps >= maps.amax(1, keepdim=True) - TIE).to(maps)
    cells = torch.arange(maps.shape[1], device=maps.device)
    centres = (torch.stack([cells % width, cells // width], 1).to(maps) + 0.5) * patch
    return highest @ centres / highest.sum(1, keepdim=True)
