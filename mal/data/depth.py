"""Pixels of more than 8 bits a channel → 8 bits, by a rule that is stated, and said where the file leaves it open."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mal.engine.notes import first_time, say_once
from mal.errors import ImageError

FULL = 65535  # largest value of 16 bits
BITS = (8, 10, 12, 14, 16)  # that cameras and scanners give
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _LARGEST_SAMPLE = 258, 262, 339, 341  # TIFF's tags
_DARK, _LOST = 64, 16  # of the upper 8 of 16 bits: values below are a dark image, or what is left of a lost one


class Samples(NamedTuple):
    """What a file says about its pixels' values, before they are decoded."""

    deep: bool  # 16 bits a channel, of which Pillow keeps the upper 8 of a colour image
    stated: int | None  # the largest value a pixel can have, where the file says so
    wide: bool  # grey of 16 bits, although Pillow calls it 32-bit
    signed: bool  # 16 bits, some of them negative
    inverted: bool  # 0 is white


def samples(image: Image.Image) -> Samples:
    """What the header of a file says; the image is open and not yet decoded."""
    tiles = getattr(image, "tile", ())  # of a file: how Pillow will decode each part
    first = tiles[0].args if tiles else ()
    arguments = first if isinstance(first, tuple) else (first,)
    deep = any(isinstance(argument, str) and ";16" in argument for argument in arguments)
    if image.format == "PPM" and image.mode == "I":  # Pillow scales its maximum to 65535
        stated = None if deep or FULL in arguments else FULL  # 65535 is what writers of any 16-bit array state
        return Samples(deep=deep, stated=stated, wide=True, signed=False, inverted=False)
    tags = getattr(image, "tag_v2", None) or {}
    bits, largest = (_number(tags.get(tag)) for tag in (_BITS_PER_SAMPLE, _LARGEST_SAMPLE))
    stated = (1 << bits) - 1 if 8 < bits < 16 else None
    if 0 < largest < FULL:  # some programs write the largest of this image: the bits it takes are everyone's
        stated = (1 << largest.bit_length()) - 1
    return Samples(
        deep=deep,
        stated=stated,
        wide=False,
        signed=bits == 16 and _number(tags.get(_SAMPLE_FORMAT)) == 2,
        inverted=tags.get(_PHOTOMETRIC) == 0,
    )


def grey(image: Image.Image, about: Samples, path: str | Path) -> np.ndarray:
    """16-bit grey → uint8 (H, W). From 0 to the largest value that the file states. Where it states none, the fewest
    of 8, 10, 12, 14 or 16 bits that hold the image's largest value are taken for the range: 12 bits of a camera in a
    file of 16 are black otherwise. That is said once, and so is a second range in the same command.

    Raises:
        ImageError: a pixel is larger than the file says that pixels can be.
    """
    values = np.asarray(image)
    if values.dtype != np.uint16:
        values = values.astype(np.uint16)
    largest = int(values.max())
    if about.stated is not None and largest > about.stated:
        raise ImageError(
            f"{path} says that its pixels go up to {about.stated}, and one is {largest}; correct the file's header, or "
            "save it with 8 bits a channel"
        )
    top = about.stated or _range(largest, path)
    table = ((np.arange(top + 1) * 255 + top // 2) // top).astype(np.uint8)
    found = (table[::-1] if about.inverted else table)[values]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        found[values == transparent] = 255  # white, as transparent pixels of any image
    return found


def check_colour(image: Image.Image, path: str | Path) -> None:
    """Look at what Pillow kept of colours of 16 bits: the upper 8.

    Raises:
        ImageError: nothing is in them; the colours lie in the lower bits.
    """
    colours = image.convert("RGB") if image.mode in ("LA", "RGBA") else image
    extrema = colours.getextrema()
    largest = max(high for _, high in extrema) if isinstance(extrema[0], tuple) else extrema[1]
    if 0 < largest < _LOST:
        raise ImageError(
            f"{path} has colours of 16 bits that use the lower 12 at most, as cameras of 12 bits give them: read as 16 "
            "they are black; save it with 8 bits a channel, or with values up to 65535"
        )
    if 0 < largest < _DARK:
        say_once(
            f"{path} has colours of 16 bits whose upper bits are empty, so it is dark; if its values are those of a "
            "camera of 14 bits, save it with 8 bits a channel, or with values up to 65535",
            about="dark colours",
        )


def _range(largest: int, path: str | Path) -> int:
    """The range for an image whose file states none, said once for each."""
    if largest == 0:
        return FULL
    bits = next(bits for bits in BITS if largest < 1 << bits)
    others = [other for other in BITS if other != bits and not first_time(f"bits {other}", mark=False)]
    if first_time(f"bits {bits}"):
        if bits < BITS[-1]:
            say_once(
                f"{path} has grey of 16 bits and no value above {largest}: taken for {bits} bits, "
                f"0 … {(1 << bits) - 1}; images like it are read likewise (a file can state its range: TIFF by "
                "SMaxSampleValue, PGM by its maximum)"
            )
        if others:
            say_once(
                f"{path} is read as {bits} bits and images before it as {others[0]}, because of their largest values: "
                "their brightness cannot be compared; if they are of one camera, save all with 8 bits a channel, by "
                "one rule",
                about="several ranges",
            )
    return (1 << bits) - 1


def _number(value: object) -> int:
    """A TIFF tag as a whole number; of several, as for the channels, the largest; 0 where there is none."""
    try:
        return int(max(value)) if isinstance(value, tuple) else int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return 0
