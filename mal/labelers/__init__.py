"""Labelers: whatever turns boxes into masks.

`mal` learns them; the baselines below need an image and its boxes only, and `sam` pre-trained weights besides. `gt`
copies human masks (the upper bound), `file` another program's; `none` makes none.
"""

from collections.abc import Callable

import numpy as np

from mal.labelers import box, ellipse, grabcut
from mal.mask_windows import MaskWindow

ImageLabeler = Callable[[np.ndarray, np.ndarray], list[MaskWindow]]  # (H, W, 3) uint8, (N, 4) xywh → N masks
BASELINES: dict[str, ImageLabeler] = {"box": box.masks, "ellipse": ellipse.masks, "grabcut": grabcut.masks}
