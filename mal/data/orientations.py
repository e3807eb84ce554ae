"""How an image file is turned: the EXIF orientation, and what follows from it for its size and pixels.

Pillow gives most files as they are stored and leaves the turn to its callers; TIFFs it turns itself.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

ORIENTATION = 0x0112  # EXIF tag; 1: as stored
QUARTERS = (5, 6, 7, 8)  # orientations that exchange width and height
_UPRIGHT = {  # orientation → what a viewer does
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_STORED = _UPRIGHT | {6: Transpose.ROTATE_90, 8: Transpose.ROTATE_270}  # and what undoes that


def orientation_of(image: Image.Image) -> int:
    """1 to 8, of an opened file; 1 where it has no EXIF tag of that kind, or one that cannot be read or means nothing.

    A PNG may have it behind the pixels, which are decoded then. Of a TIFF it must be asked before they are.
    """
    try:
        found = image.getexif().get(ORIENTATION, 1)
        return int(found) if found in _UPRIGHT else 1
    except MemoryError:
        raise
    except Exception:  # Pillow and broken tags raise a dozen kinds; what is wrong with the pixels, these will tell
        return 1


def stored_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """(width, height) of an opened file's pixels as they are stored."""
    return image.size[::-1] if image.format == "TIFF" and orientation in QUARTERS else image.size


def stored(image: Image.Image, orientation: int) -> Image.Image:
    """The decoded pixels of a file as they are stored."""
    if image.format != "TIFF" or orientation == 1:
        return image
    return image.transpose(_STORED[orientation])


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Pixels as they are stored → as viewers show them."""
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])


def as_stored(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Values per pixel of an upright image, (H, W, …), in the order in which its file stores the pixels."""
    if orientation == 2:
        return np.fliplr(values)
    if orientation == 4:
        return np.flipud(values)
    if orientation in (5, 7):
        turned = values if orientation == 5 else np.rot90(values, 2)
        return turned.swapaxes(0, 1)
    return np.rot90(values, {1: 0, 3: 2, 6: 1, 8: -1}[orientation])
