"""Step 3: one candidate box per rollout depth from an instance's map; and the patches that a box covers."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from mal.methods.attentionshift.config.steps import BoxesConfig
from mal.methods.attentionshift.scaling import min_max


def candidate_boxes(maps: Tensor, points: Tensor, *, patch: int, config: BoxesConfig) -> Tensor:
    """The extent of each map's large components, or that extent made symmetrical about the point.

    A map's pixels ≥ `threshold` of its range fall into 8-connected components; those of at least `keep` times the
    largest one's pixels count. A constant map has none: the point's patch stands for it.

    Args:
        maps: (D, n, H, W), one pixel each.
        points: (n, 2), x, y in pixels.
        patch: side of a patch in pixels.

    Returns:
        (D, n, 4) xyxy. `min_max`: indices of the outermost pixels, inclusive. `expand`: per axis the side farther from
        the point, and its mirror image, cut at 0 and at the map's width and height.
    """
    height, width = maps.shape[-2:]
    masks = (min_max(maps) >= config.threshold).cpu().numpy().view(np.uint8)
    # a constant map is all below or, with threshold 0, all above: neither says where the object is
    constant = (maps.amax((-2, -1)) == maps.amin((-2, -1))).cpu().numpy()
    found = np.zeros((*maps.shape[:2], 4))
    for i, (x, y) in enumerate(points.tolist()):
        left, top = int(x) // patch * patch, int(y) // patch * patch
        own = left, top, min(left + patch, width) - 1, min(top + patch, height) - 1
        for k in range(len(maps)):
            found[k, i] = own if constant[k, i] else _extent(masks[k, i], config.keep)
    extents = torch.as_tensor(found, dtype=maps.dtype, device=maps.device)
    return extents if config.mode == "min_max" else _mirrored(extents, points.to(extents), width, height)


def cells_inside(boxes: Tensor, size: Sequence[int], *, patch: int) -> Tensor:
    """(n, 4) xyxy in pixels → (n, h, w) bool: patches ⌊box / patch⌋, both ends included.

    Args:
        size: h, w.
    """
    x0, y0, x1, y1 = (boxes / patch).floor()[:, :, None].unbind(1)
    rows, columns = (torch.arange(length, device=boxes.device) for length in size)
    return ((rows >= y0) & (rows <= y1))[:, :, None] & ((columns >= x0) & (columns <= x1))[:, None]


def _extent(mask: np.ndarray, keep: float) -> np.ndarray:
    """(H, W) of 0 and 1, not all 0 → the outermost pixels, xyxy inclusive, of its large components."""
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    if count > 2:
        area = np.bincount(labels.ravel())
        area[0] = 0  # what is below the threshold
        large = area >= max(1, keep * area.max())
        mask = large.view(np.uint8)[labels]
    left, top, width, height = cv2.boundingRect(mask)
    return np.array([left, top, left + width - 1, top + height - 1])


def _mirrored(extents: Tensor, points: Tensor, width: int, height: int) -> Tensor:
    reach = torch.maximum((points - extents[..., :2]).abs(), (extents[..., 2:] - points).abs())
    edge = points.new_tensor([width, height])
    return torch.cat([(points - reach).clamp(min=0), torch.minimum(points + reach, edge)], -1)
