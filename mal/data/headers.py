"""What the header of an image file says, without its pixels: about a millisecond per image, not a decoding."""

import errno
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mal.data.depth import samples
from mal.data.image_names import file_name
from mal.data.orientations import QUARTERS, orientation_of, stored_size
from mal.engine.findings import some

THREADS = 8
ABSENT = "there is no such file"


class Header(NamedTuple):
    """Size as stored, and the EXIF orientation, 1 to 8."""

    width: int
    height: int
    orientation: int


def read_header(path: Path) -> Header | str:
    """A file's header; where it cannot be read, the reason."""
    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F") and not samples(image).wide:  # as `images.load` refuses it
                return "its pixels have 32 bits or are signed or fractions; save it with 8 or 16 bits a channel"
            orientation = orientation_of(image)
            return Header(*stored_size(image, orientation), orientation)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except Image.DecompressionBombError:
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, too many to work on"
    except Exception as error:  # Pillow raises a dozen kinds for a broken file
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            return ABSENT
        return getattr(error, "strerror", None) or "it is not an image that can be read"


def read_headers(images: Iterable[dict[str, Any]], folder: Path) -> list[tuple[dict[str, Any], Header | str]]:
    """Image entries and their files' headers, in order, read by several threads."""
    entries = list(images)
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as threads:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded here
        found = threads.map(read_header, (folder / file_name(e) for e in entries))
        return list(zip(entries, found, strict=True))


def size_fits(entry: dict[str, Any], header: Header) -> bool:
    """Whether a file has the annotated size, as stored or after a quarter turn that its header asks for."""
    size, annotated = (header.width, header.height), (entry["width"], entry["height"])
    return size == annotated or (header.orientation in QUARTERS and size[::-1] == annotated)


def is_ambiguous(entry: dict[str, Any], header: Header) -> bool:
    """Whether a viewer turns or mirrors the image and the annotated size cannot tell if the boxes were drawn before or
    after it: orientations 2 to 4, and 5 to 8 of a square image. Such images are taken as they are stored."""
    if header.orientation == 1 or (header.width, header.height) != (entry["width"], entry["height"]):
        return False
    return header.orientation not in QUARTERS or header.width == header.height


def lies_on_its_side(entry: dict[str, Any], header: Header) -> bool:
    """Whether a viewer makes a quarter turn that the annotated size says was not made: the boxes are of the stored
    image, and whoever reads it sees it lie on its side."""
    size, annotated = (header.width, header.height), (entry["width"], entry["height"])
    return header.orientation in QUARTERS and size == annotated and header.width != header.height


def turned_sentence(
    read: list[tuple[dict[str, Any], Header | str]], *, texts: bool = False, sized: bool = True
) -> str | None:
    """What to say of images whose boxes may have been drawn on another view than the stored one; None without any.

    Args:
        texts: whether something is said of objects, such as "on the left", which is another side in another view.
        sized: whether the sizes were written with the boxes, and tell on which view these were drawn.
    """
    known = [(entry, header) for entry, header in read if isinstance(header, Header)]
    turned = [
        file_name(entry)
        for entry, header in known
        if is_ambiguous(entry, header) or (not sized and header.orientation != 1)
    ]
    lying = [file_name(entry) for entry, header in known if texts and lies_on_its_side(entry, header)]
    said = []
    if turned:
        said.append(
            f"{len(turned)} of {len(read)} images looked at are turned or mirrored by their EXIF tag ({some(turned)}), "
            f"and {'the size does not tell' if sized else 'nothing tells'} whether their boxes are: the pixels are "
            "taken as they are stored. If the boxes were drawn on the turned view, as browsers and most tools show it, "
            "store the images as they are seen (for instance with mogrify -auto-orient)"
        )
    if lying:
        said.append(
            f"{len(lying)} of {len(read)} images looked at are annotated as they are stored, and viewers turn them by "
            f"a quarter ({some(lying)}): left in a text is then not left in the pixels. Store the images as they are "
            "seen (for instance with mogrify -auto-orient), and turn their boxes and masks, too"
        )
    return ". Also, ".join(said) or None
