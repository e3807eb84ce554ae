"""Labelers: whatever turns boxes into masks.

`mal` learns them; the baselines below need an image and its boxes only, and `sam` pre-trained weights besides. `gt`
copies human masks (the upper bound), `file` another program's; `none` makes none.
"""

from mal.methods.baselines import box, ellipse, grabcut
from mal.methods.labelling import ImageLabeler, ShardLabeler, image_labeler

BASELINES: dict[str, ImageLabeler] = {"box": box.masks, "ellipse": ellipse.masks, "grabcut": grabcut.masks}


def baseline_labeler(name: str) -> ShardLabeler:
    """Label with box, ellipse or grabcut."""
    return image_labeler(BASELINES[name])
