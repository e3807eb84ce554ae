"""Labelers: whatever turns boxes into masks.

`mal` learns them; the baselines below need an image and its boxes only. `gt` copies human masks (the upper bound).
"""

from collections.abc import Callable

import numpy as np

from mal.errors import NotBuiltYet
from mal.labelers import box, ellipse, grabcut

ImageLabeler = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]  # (H, W, 3) uint8, (N, 4) xywh → N × (H, W) bool
BASELINES: dict[str, ImageLabeler] = {"box": box.masks, "ellipse": ellipse.masks, "grabcut": grabcut.masks}
BUILT = ("mal", *BASELINES, "gt", "none")


def require_built(name: str) -> None:
    """Refuse a labeler that the schema knows and this version does not have.

    Raises:
        NotBuiltYet.
    """
    if name not in BUILT:
        raise NotBuiltYet(f"labeler={name} is not built yet; built: {', '.join(BUILT)}")
