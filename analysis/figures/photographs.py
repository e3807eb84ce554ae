"""Images that figures show: where they lie, which of them may be passed on, who made them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from analysis.drawing import load_pixels
from analysis.figures.results import LeftOut, Results, read_json
from analysis.images import Licence, by_id, licence_of
from analysis.records import Json, Record
from mal.data.image_names import file_name


@dataclass(frozen=True)
class Photographs:
    """The images of a split that may be shown.

    Attributes:
        records: their entries by id. folder: where their files lie. humans: the human annotations by id;
            class maps have none.
        licences: what the annotation file says of each image's rights, by id.
        hidden: how many images of the split may not be passed on, and are left out for that.
        absent: how many have no file here: published results come with a part of the procedural images.
    """

    records: dict[int, Json]
    folder: Path
    humans: dict[int, Json]
    licences: dict[int, Licence]
    drawn: bool
    hidden: int
    absent: int = 0

    def pixels(self, image: int) -> np.ndarray:
        """(H, W, 3) in [0, 1].

        Raises:
            LeftOut: the file is absent or is no image.
        """
        try:
            return load_pixels(self.records[image], self.folder)
        except OSError as error:
            raise LeftOut(f"image {image} cannot be read ({type(error).__name__})") from error

    def notes(self) -> tuple[str, ...]:
        """What is said of the images that are left out."""
        said = []
        if self.hidden:
            said.append(f"{self.hidden} photographs whose licence forbids to pass them on, or that state none")
        if self.absent:
            said.append(f"{self.absent} images whose files are not here")
        return tuple(said)

    def attribution(self, images: Iterable[int]) -> str:
        """Who made the photographs shown; procedural images nobody did."""
        if self.drawn:
            return ""
        lines = []
        for image in dict.fromkeys(images):
            licence = self.licences[image]
            lines.append(f"image {image}: {licence.credit or f'not to be passed on ({licence.name})'}")
        return "\n\nPhotographs:\n" + "\n".join(lines)


def photographs(results: Results, record: Record) -> Photographs:
    """The images that a result is about, and of which figures may show; procedural ones always.

    Raises:
        LeftOut: they are not on this machine, or none of them may be shown.
    """
    found = results.pictures(record)
    coco = read_json(found.annotations)
    if not isinstance(coco, dict) or "images" not in coco or not {"annotations", "classes"} & coco.keys():
        raise LeftOut(f"{found.annotations.name} lists no images and annotations")
    images, named = coco["images"], by_id(coco.get("licenses", []))
    rights = {image["id"]: licence_of(image, named) for image in images}
    everything = found.drawn or not results.redistributable
    kept = [image for image in images if everything or rights[image["id"]].free]
    if not kept:
        raise LeftOut(f"none of the {len(images)} photographs states a licence to pass it on")
    here = [image for image in kept if (found.images / file_name(image)).is_file()]
    if not here:
        raise LeftOut(f"none of its {len(kept)} images has its file in the folder they came from")
    hidden, absent = len(images) - len(kept), len(kept) - len(here)
    return Photographs(
        by_id(here),
        found.images,
        by_id(coco.get("annotations", [])),
        rights,
        drawn=found.drawn,
        hidden=hidden,
        absent=absent,
    )


def fit(pixels: np.ndarray, side: int) -> np.ndarray:
    """Shrink an image (H, W, 3) in [0, 1], or a mask (H, W) bool, to at most so many pixels a side; never enlarge."""
    height, width = pixels.shape[:2]
    share = side / max(height, width)
    if share >= 1:
        return pixels
    size = (max(1, round(width * share)), max(1, round(height * share)))
    if pixels.dtype == bool:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
    return np.asarray(Image.fromarray((pixels * 255).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)) / 255


def tint(pixels: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Mix a colour into the pixels of a mask. pixels (H, W, 3) in [0, 1], mask (H, W) bool."""
    return np.where(mask[..., None], 0.55 * pixels + 0.45 * colour, pixels)


def draw_masks(axes: Axes, picture: np.ndarray, masks: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """A picture (H, W, 3) in [0, 1] with masks (H, W) bool, each in its colour; later ones lie on top."""
    for mask, colour in masks:
        picture = tint(picture, mask, colour)
    axes.imshow(picture)
    for mask, colour in masks:
        outline(axes, mask, colour)


def outline(axes: Axes, mask: np.ndarray, colour: np.ndarray) -> None:
    """Draw the contour of a mask (H, W) bool in a colour, on white so that it shows on any ground."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(float)  # closed where the mask reaches the border
    lines, columns = (np.arange(-1, length + 1) for length in mask.shape)
    for colours, width in (("white", 1.3), (tuple(colour), 0.8)):
        axes.contour(columns, lines, padded, levels=[0.5], colors=[colours], linewidths=width)
    axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def frame(axes: Axes) -> None:
    """Axes that hold a picture: no ticks, no lines; labels stay."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
