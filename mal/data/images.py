"""Image files → pixels. Every kind of image becomes 8-bit RGB by a stated rule, or is an error; none is guessed at."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mal.data.depth import Samples, check_colour, grey, samples
from mal.data.image_names import file_name
from mal.data.orientations import QUARTERS, orientation_of, stored, stored_size, upright
from mal.data.transparency import on_white
from mal.errors import ImageError


def load(path: str | Path) -> Tensor:
    """The pixels of an image file as they are stored: no EXIF rotation.

    - grey, palette, 1-bit, CMYK: as Pillow converts them (no colour profiles);
    - alpha, or a transparent colour: composited over white, as a viewer on a light page shows it, so that the colours
      which hide under full transparency do not turn up;
    - 16-bit grey: 0 to the largest value that the file states, else to that of the 8, 10, 12, 14 or 16 bits that its
      values take, becomes 0 … 255 (`depth.grey`, which says so);
    - 16-bit colour: the upper 8 bits;
    - several frames: the first.

    Returns:
        uint8 (3, H, W), RGB, 0 … 255; a view of an (H, W, 3) array, so its strides are channels-last.

    Raises:
        ImageError: the file is absent, is no image, is cut off, is too large, or holds values without a known range
            (32-bit, floating point, signed, colours in the lower bits of 16).
    """
    with _opened(path) as file:
        about, orientation = samples(file), orientation_of(file)
        return _rgb(_decoded(file, orientation, path), about, path)


def load_upright(path: str | Path) -> tuple[Tensor, int]:
    """The pixels of an image file as viewers show them, after its EXIF rotation, and the tag's value.

    Returns:
        uint8 (3, H, W), as `load`; 1 (as stored) to 8.

    Raises:
        ImageError: as `load`.
    """
    with _opened(path) as file:
        about, orientation = samples(file), orientation_of(file)
        return _rgb(upright(_decoded(file, orientation, path), orientation), about, path), orientation


def load_for(image: dict[str, Any], folder: Path) -> Tensor:
    """The pixels of an annotated image, at the size and turn that its annotations are drawn on.

    The annotation's width and height decide. Where the stored size matches, the stored pixels are taken (COCO's
    convention; EXIF turns by 180°, mirror images and turned square images, which size cannot tell, included). Where
    only the size after the EXIF rotation matches, it is applied. Anything else is an error.

    Args:
        image: an entry of a COCO file's `images`.
        folder: what its `file_name` is relative to.

    Returns:
        uint8 (3, height, width), as `load`.

    Raises:
        ImageError: as `load`, or the size is not the annotation's.
    """
    path = folder / file_name(image)
    with _opened(path) as file:
        about, orientation = samples(file), orientation_of(file)
        turned = _turned(file, orientation, image, path)
        pixels = _decoded(file, orientation, path)
        return _rgb(upright(pixels, orientation) if turned else pixels, about, path)


def check_size(image: dict[str, Any], folder: Path) -> None:
    """Compare an image's annotated size with its file's header, for work that does not need the pixels.

    Raises:
        ImageError: as `load_for`, but for damage behind the header.
    """
    path = folder / file_name(image)
    with _opened(path) as file:
        _turned(file, orientation_of(file), image, path)


def _turned(file: Image.Image, orientation: int, image: dict[str, Any], path: Path) -> bool:
    """Whether an opened file has the annotated size after its EXIF rotation only; an error where it never has."""
    size, annotated = stored_size(file, orientation), (image["width"], image["height"])
    if size == annotated:
        return False
    turns = orientation in QUARTERS
    if turns and size[::-1] == annotated:
        return True
    raise ImageError(
        f"{path} is {_size(size)} pixels{' and its EXIF tag turns it by a quarter' if turns else ''}, but "
        f"image {image['id']} of the annotations is {_size(annotated)} (width x height); "
        f"{_size_advice(size, annotated)}"
    )


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file whose header is read and whose pixels are not."""
    with ExitStack() as files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # up to twice its limit is our business
                # by its name Pillow would map an uncompressed TIFF into memory, one that it turns at a wrong size
                file = files.enter_context(Path(path).open("rb"))
                image = files.enter_context(Image.open(file))
        except Exception as error:
            raise _open_error(error, path) from error
        yield image


def _decoded(file: Image.Image, orientation: int, path: str | Path) -> Image.Image:
    """The pixels of an opened file, as stored; whatever Pillow says about a bad one becomes an ImageError."""
    try:
        file.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for a broken file
        raise _damaged(error, path) from error
    return stored(file, orientation)


def _rgb(image: Image.Image, about: Samples, path: str | Path) -> Tensor:
    if about.wide or image.mode.startswith("I;16"):
        return torch.from_numpy(np.repeat(grey(image, about, path)[:, :, None], 3, axis=2)).permute(2, 0, 1)
    if image.mode in ("I", "F"):
        kind = "signed 16-bit" if about.signed else "32-bit integer" if image.mode == "I" else "floating-point"
        raise ImageError(f"{path} has {kind} pixels, whose range is not known; save it with 8 or 16 bits a channel")
    if about.deep:
        check_colour(image, path)
    image = on_white(image)
    if image.mode != "RGB":
        try:
            image = image.convert("RGB")
        except ValueError as error:
            raise ImageError(f"{path} has colours of kind {image.mode} ({error}); save it as RGB") from error
    # np.array copies, which np.asarray does not: torch warns about arrays that cannot be written
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _open_error(error: Exception, path: str | Path) -> Exception:
    """What to raise when a file does not open as an image."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ImageError(f"there is no image at {path}; check the image folder and the annotation's file_name")
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return ImageError(f"{path} has more than {limit:,} pixels, too many to work on; cut it into tiles or shrink it")
    if isinstance(error, UnidentifiedImageError):
        if Path(path).stat().st_size == 0:
            return ImageError(f"{path} is an empty file; copy or download it again")
        return ImageError(f"{path} is not an image that can be read; save it as JPEG or PNG, or remove it")
    if isinstance(error, OSError) and error.errno is not None:
        return ImageError(f"cannot open the image {path} ({error.strerror}); check the file and its rights")
    return _damaged(error, path)


def _damaged(error: Exception, path: str | Path) -> ImageError:
    return ImageError(f"{path} is cut off or damaged ({error}); copy or download it again")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _size_advice(stored: tuple[int, int], annotated: tuple[int, int]) -> str:
    if stored == annotated[::-1]:
        return "width and height seem swapped: correct them in the annotations, or turn the image"
    return "give the image that was annotated, or scale the annotations to this one"
