"""Mean-field refinement of soft masks by colour similarity of neighbouring pixels (Eq. 3, Eq. 4 and Algorithm 1)."""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.errors import ConfigError
from mal.methods.mal.config import CrfConfig

LOW, HIGH = 0.1, 0.9  # q is kept inside: a label is never certain, so neighbours can always overrule it
EPSILON = 1e-6
CHECK_EVERY = 10  # iterations between looks for a fixed point


@torch.no_grad()
def mean_field(
    masks: Tensor, images: Tensor, boxes: Tensor, config: CrfConfig, *, valid: Tensor | None = None
) -> Tensor:
    """Refine soft masks into hard ones.

    Two labels compete (`form="two_label"`, the released program's update, used with the paper's constants by
    `recipe=paper`): q₀ = clamp(m·box, .1, .9); then a_y = exp(Σ_j K_ij log q_y(j)) for y in {foreground,
    background}, a_fg ·= box, q = clamp(a_fg / (a_fg + a_bg + 1e-6), .1, .9), repeated; at last q > .5.
    `form="literal"` is Algorithm 1 as printed: l ← clamp(l + Σ_j K_ij l_j, 0, 1) with |I_i − I_j| not squared; it
    only ever grows. Neighbours outside the image weigh nothing; nothing outside the box becomes foreground.

    Args:
        masks: (B, H, W) in [0, 1], the mean of student and teacher (mᵃ).
        images: (B, 3, H, W) RGB normalised by ImageNet's mean and standard deviation.
        boxes: (B, H, W) bool, or in [0, 1]: how much of a pixel the box covers.
        valid: (B, H, W) bool, pixels that count (`border=constant` pads with pixels that do not); all where left out.

    Returns:
        (B, H, W) bool.
    """
    with torch.autocast(masks.device.type, enabled=False):
        masks, images, inside = masks.float(), images.float(), boxes.float()
        if backend(config, masks.device) == "triton":
            from mal.methods.mal.crf_triton import two_label  # of Linux alone

            return two_label(masks, images, inside, config, valid=valid) & (inside > 0)
        kernel = pairwise_kernel(images, config, valid=valid)
        refine = _two_label if config.form == "two_label" else _literal
        # the batch goes last: a shifted view then still has long runs of memory, which a CPU adds twice as fast
        masks, kernel, inside = (maps.movedim(0, -1).contiguous() for maps in (masks, kernel, inside))
        return refine(masks, kernel, inside, config).movedim(-1, 0) & (boxes > 0)


def backend(config: CrfConfig, device: torch.device) -> str:
    """Which code computes the mean field: `torch` or `triton`.

    Raises:
        ConfigError: Triton is asked for where there is no GPU, or it is not installed.
    """
    fits = device.type == "cuda" and config.form == "two_label" and find_spec("triton") is not None
    if config.backend == "triton" and not fits:
        raise ConfigError(
            f"crf.backend=triton needs a GPU and the package triton, and this is {device}; use crf.backend=auto"
        )
    return "triton" if fits and config.backend != "torch" else "torch"


def pairwise_kernel(images: Tensor, config: CrfConfig, *, valid: Tensor | None = None) -> Tensor:
    """K_ij = ω·exp(−|I_i − I_j|² / 2ζ²) of Eq. 4 for every pixel i and neighbour j.

    Args:
        images: (B, 3, H, W).
        valid: (B, H, W) bool, pixels that lie in the image; all where left out.

    Returns:
        (B, N, H, W), one channel an offset of `offsets(config)`; 0 where the neighbour lies outside the image.
    """
    reach = _reach(config)
    padded = F.pad(images, (reach, reach, reach, reach))
    counted = images.new_ones(1, *images.shape[-2:]) if valid is None else valid.float()
    seen = F.pad(counted, (reach, reach, reach, reach))
    weights = []
    for offset in offsets(config):
        distance = (images - _shifted(padded, offset, reach)).square().sum(dim=1)
        if config.form == "literal":
            distance = distance.sqrt()
        weight = config.omega * torch.exp(-distance / (2 * config.zeta**2))
        weights.append(weight * _shifted(seen, offset, reach))
    return torch.stack(weights, dim=1)


def offsets(config: CrfConfig) -> list[tuple[int, int]]:
    """(dy, dx) of the neighbourhood 𝒩(i): a kernel × kernel square, with or without its centre."""
    half = config.kernel // 2
    span = range(-half * config.dilation, half * config.dilation + 1, config.dilation)
    return [(dy, dx) for dy in span for dx in span if config.centre or (dy, dx) != (0, 0)]


def _two_label(masks: Tensor, kernel: Tensor, inside: Tensor, config: CrfConfig) -> Tensor:
    """Masks (H, W, B), kernel (N, H, W, B) and boxes (H, W, B) → labels (H, W, B) bool."""
    q = (masks * inside).clamp_(LOW, HIGH)
    previous = torch.empty_like(q)
    messages = q.new_empty(2, *q.shape)
    neighbours = _Neighbours(kernel, config, fields=2)
    for iteration in range(config.iterations):
        messages[0] = q
        torch.sub(1, q, out=messages[1])
        foreground, background = neighbours.sums_(messages.log_()).exp_()
        foreground *= inside
        previous, q = q, torch.add(foreground, background, out=previous).add_(EPSILON)
        torch.div(foreground, q, out=q).clamp_(LOW, HIGH)
        if _settled(q, previous, iteration):
            break
    return q > 0.5


def _literal(masks: Tensor, kernel: Tensor, inside: Tensor, config: CrfConfig) -> Tensor:
    labels = masks * inside
    neighbours = _Neighbours(kernel, config, fields=1)
    for iteration in range(config.iterations):
        grown = neighbours.sums_(labels[None].clone())[0]
        previous, labels = labels, ((labels + grown) * inside).clamp_(0, 1)
        if _settled(labels, previous, iteration):
            break
    return labels > 0.5


class _Neighbours:
    """Σ_j K_ij·field_j over the neighbourhood, into memory that is taken once."""

    def __init__(self, kernel: Tensor, config: CrfConfig, *, fields: int) -> None:
        """kernel: (N, H, W, B) by `offsets(config)`."""
        self.kernel = kernel
        _, height, width, batch = kernel.shape
        reach = _reach(config)
        padded = kernel.new_zeros(fields, height + 2 * reach, width + 2 * reach, batch)
        self.inner = padded[:, reach : reach + height, reach : reach + width]
        self.shifted = [
            padded[:, reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in offsets(config)
        ]

    def sums_(self, fields: Tensor) -> Tensor:
        """Replace fields (L, H, W, B) by their sums over the neighbours."""
        self.inner.copy_(fields)
        fields.zero_()
        for weights, field in zip(self.kernel, self.shifted, strict=True):
            fields.addcmul_(weights, field)
        return fields


def _settled(now: Tensor, before: Tensor, iteration: int) -> bool:
    """At a fixed point every further iteration returns the same bits, so stopping changes nothing."""
    return iteration % CHECK_EVERY == CHECK_EVERY - 1 and torch.equal(now, before)


def _shifted(padded: Tensor, offset: tuple[int, int], reach: int) -> Tensor:
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    top, left = reach + offset[0], reach + offset[1]
    return padded[..., top : top + height, left : left + width]


def _reach(config: CrfConfig) -> int:
    return config.kernel // 2 * config.dilation
