"""From a network to class maps of whole images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.engine.precision import autocast
from mal.methods.simformer.augment import MULTIPLE
from mal.methods.simformer.network import Outputs, SimFormer, semantic_scores
from mal.segmenters.data import resize


@dataclass
class Predictor:
    """A network in evaluation mode, and what it computes in."""

    network: SimFormer
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def scores(self, image: Tensor, short_sides: Sequence[int], *, long_side: int, flip: bool = False) -> Tensor:
        """How much each pixel is of each class: Σ_q p_q(c) · σ(m_q), "nothing" dropped; see `averaged`.

        Returns:
            (C, height, width) float32 on the device.
        """
        return averaged(image, short_sides, self._of_one, long_side=long_side, flip=flip)

    def class_map(self, image: Tensor, short_sides: Sequence[int], *, long_side: int) -> np.ndarray:
        """The class of the highest score at each pixel: uint8 (height, width)."""
        return self.scores(image, short_sides, long_side=long_side).argmax(dim=0).to(torch.uint8).cpu().numpy()

    def outputs(self, image: Tensor) -> tuple[Outputs, tuple[int, int]]:
        """What the network says of an image (3, h, w) uint8 as it is, in float32, and the padded image's (H, W)."""
        whole = padded_input(image.to(self.device), self.network.backbone.mean)
        with autocast(self.device, self.dtype):
            found = self.network(whole[None])
        return found.float(), (int(whole.shape[-2]), int(whole.shape[-1]))

    def _of_one(self, image: Tensor) -> Tensor:
        outputs, size = self.outputs(image)
        masks = F.interpolate(outputs.masks[-1], size=size, mode="bilinear", align_corners=False)
        return semantic_scores(outputs.classes[-1], masks)[0, :, : image.shape[-2], : image.shape[-1]]


def averaged(
    image: Tensor, short_sides: Sequence[int], of_one: Callable[[Tensor], Tensor], *, long_side: int, flip: bool
) -> Tensor:
    """Maps of an image, averaged over sizes and mirror images.

    Args:
        image: (3, height, width) uint8 RGB.
        short_sides: sizes in which it is shown; smaller where the long side would exceed `long_side`. Pixels.
        of_one: (3, h, w) uint8 → maps (C, h, w).
        flip: show each size flipped, too.

    Returns:
        (C, height, width).
    """
    size, found = (int(image.shape[-2]), int(image.shape[-1])), []
    for short in short_sides:
        shown = resize(image, short=short, long=long_side)
        maps = [of_one(shown), *([of_one(shown.flip(-1)).flip(-1)] if flip else [])]
        found += [F.interpolate(each[None], size=size, mode="bilinear", align_corners=False)[0] for each in maps]
    return torch.stack(found).mean(dim=0) if len(found) > 1 else found[0]


def padded_input(image: Tensor, fill: tuple[float, ...]) -> Tensor:
    """(3, h, w) uint8 → (3, H, W) in [0, 1], of multiples of 32; the padding, at the right and below, is what the
    network's normalisation makes 0 of."""
    height, width = int(image.shape[-2]), int(image.shape[-1])
    rows, columns = (-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
    whole = torch.tensor(fill, dtype=torch.float32, device=image.device)[:, None, None].repeat(1, rows, columns)
    whole[:, :height, :width] = image.float() / 255
    return whole
