"""Images that figures show: where they lie, which of them may be passed on, who made them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from analysis.drawing import load_pixels
from analysis.figures.results import LeftOut, Results, by_id, read_json
from analysis.records import Json, Record

# COCO's ids of the licences that let others pass a picture on and change it, and what its files call them
FREE = {
    4: ("Attribution License", "CC BY 2.0"),
    5: ("Attribution-ShareAlike License", "CC BY-SA 2.0"),
    7: ("No known copyright restrictions", "no known copyright restrictions"),
}


@dataclass(frozen=True)
class Photographs:
    """The images of a split that may be shown.

    Attributes:
        records: their entries by id. folder: where their files lie. humans: the human annotations by id.
        hidden: how many images of the split may not be passed on, and are left out for that.
    """

    records: dict[int, Json]
    folder: Path
    humans: dict[int, Json]
    drawn: bool
    hidden: int

    def pixels(self, image: int) -> np.ndarray:
        """(H, W, 3) in [0, 1].

        Raises:
            LeftOut: the file is absent or is no image.
        """
        try:
            return load_pixels(self.records[image], self.folder)
        except (OSError, KeyError) as error:
            raise LeftOut(f"image {image} cannot be read ({type(error).__name__})") from error

    def notes(self) -> tuple[str, ...]:
        """A sentence about the images that are left out."""
        if not self.hidden:
            return ()
        return (f"{self.hidden} photographs whose licence forbids to pass them on, or that state none",)

    def attribution(self, images: Iterable[int]) -> str:
        """Who made the photographs shown; procedural images nobody did."""
        if self.drawn:
            return ""
        lines = []
        for image in dict.fromkeys(images):
            record = self.records[image]
            licence = FREE[record["license"]][1] if self.free(record) else "licence unknown or not free"
            source = record.get("flickr_url") or record.get("coco_url") or "no source stated"
            lines.append(f"image {image}: {source} ({licence})")
        return "\n\nPhotographs:\n" + "\n".join(lines)

    @staticmethod
    def free(record: Json) -> bool:
        """Whether an image's entry carries the mark that `photographs` gives to those that may be passed on."""
        return bool(record.get("free"))


def photographs(results: Results, record: Record) -> Photographs:
    """The images that a result is about, and of which figures may show; procedural ones always.

    Raises:
        LeftOut: they are not on this machine, or none of them may be shown.
    """
    found = results.pictures(record)
    coco = read_json(found.annotations)
    if not isinstance(coco, dict) or not {"images", "annotations"} <= coco.keys():
        raise LeftOut(f"{found.annotations.name} lists no images and annotations")
    named = {entry.get("id"): entry.get("name") for entry in coco.get("licenses") or ()}
    images = [{**image, "free": _is_free(image, named)} for image in coco["images"]]
    kept = images if found.drawn or not results.redistributable else [image for image in images if image["free"]]
    if not kept:
        raise LeftOut(f"none of the {len(images)} photographs states a licence to pass it on")
    return Photographs(by_id(kept), found.images, by_id(coco["annotations"]), found.drawn, len(images) - len(kept))


def _is_free(image: Json, named: dict[int, str]) -> bool:
    """By id and by name: another file's licence 4 may be anything."""
    licence = image.get("license")
    return licence in FREE and named.get(licence) == FREE[licence][0]


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


def even_places(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` ranks at equal steps, the first and the last among them, each once."""
    return sorted(set(np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist())) if count else []
