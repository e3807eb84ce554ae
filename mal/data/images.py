"""Image files → pixels. Every kind of image becomes 8-bit RGB by a stated rule, or is an error; none is guessed at."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mal.data.depth import Samples, check_colour, grey, samples
from mal.data.headers import ORIENTATION, QUARTERS
from mal.data.image_names import file_name
from mal.errors import ImageError

_TO_STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # orientation → from what a viewer shows
    1: lambda shown: shown,
    2: np.fliplr,
    3: lambda shown: np.rot90(shown, 2),
    4: np.flipud,
    5: lambda shown: shown.swapaxes(0, 1),
    6: np.rot90,
    7: lambda shown: np.rot90(shown, 2).swapaxes(0, 1),
    8: lambda shown: np.rot90(shown, -1),
}


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
    with _opened(path) as image:
        about = samples(image)
        return _rgb(_decoded(image, path), about, path)


def load_upright(path: str | Path) -> tuple[Tensor, int]:
    """The pixels of an image file as viewers show them, after its EXIF rotation, and the tag's value.

    Returns:
        uint8 (3, H, W), as `load`; 1 (as stored) to 8.

    Raises:
        ImageError: as `load`.
    """
    with _opened(path) as image:
        about = samples(image)
        pixels = _decoded(image, path)
        orientation = _orientation(image, path)
        return _rgb(ImageOps.exif_transpose(pixels) if orientation > 1 else pixels, about, path), orientation


def as_stored(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """What is known of the pixels of an upright image (H, W, …), in the order in which its file stores them.

    Args:
        orientation: of the file, as `load_upright` gives it.
    """
    return _TO_STORED[orientation](values)


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
    with _opened(path) as stored:
        about, turned = samples(stored), _turned(stored, image, path)
        pixels = _decoded(stored, path)
        return _rgb(ImageOps.exif_transpose(pixels) if turned else pixels, about, path)


def check_size(image: dict[str, Any], folder: Path) -> None:
    """Compare an image's annotated size with its file's header, for work that does not need the pixels.

    Raises:
        ImageError: as `load_for`, but for damage behind the header.
    """
    path = folder / file_name(image)
    with _opened(path) as stored:
        _turned(stored, image, path)


def _turned(stored: Image.Image, image: dict[str, Any], path: Path) -> bool:
    """Whether an opened image has its annotated size after its EXIF rotation only; an error where it never has."""
    size, annotated = stored.size, (image["width"], image["height"])
    if size == annotated:
        return False
    turns = _orientation(stored, path) in QUARTERS
    if turns and size[::-1] == annotated:
        return True
    raise ImageError(
        f"{path} is {_size(size)} pixels{' and its EXIF tag turns it by a quarter' if turns else ''}, but "
        f"image {image['id']} of the annotations is {_size(annotated)} (width x height); "
        f"{_size_advice(size, annotated)}"
    )


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image whose header is read and whose pixels are not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # up to twice its limit is our business
            image = Image.open(path)
    except Exception as error:
        raise _open_error(error, path) from error
    with image:
        yield image


def _decoded(image: Image.Image, path: str | Path) -> Image.Image:
    """The same image with its pixels; whatever Pillow says about a bad file becomes an ImageError."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for a broken file
        raise _damaged(error, path) from error
    return image


def _orientation(image: Image.Image, path: str | Path) -> int:
    """1 to 8, by an EXIF tag; 1 without one, or with one of no meaning. A PNG may have it behind the pixels."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
        return found if found in _TO_STORED else 1
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(error, path) from error


def _rgb(image: Image.Image, about: Samples, path: str | Path) -> Tensor:
    if about.wide or image.mode.startswith("I;16"):
        return torch.from_numpy(np.repeat(grey(image, about, path)[:, :, None], 3, axis=2)).permute(2, 0, 1)
    if image.mode in ("I", "F"):
        kind = "signed 16-bit" if about.signed else "32-bit integer" if image.mode == "I" else "floating-point"
        raise ImageError(f"{path} has {kind} pixels, whose range is not known; save it with 8 or 16 bits a channel")
    if about.deep:
        check_colour(image, path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
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
