"""What a page shows of one mask: a small crop of its image, the mask's outline as a path, and what looks doubtful.

Everything is done by box. An image of 100 megapixels with 200 boxes is decoded once and never copied as a whole.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from analysis.records import Json
from mal.data.mask_formats import decode_runs

LONGEST = 160  # pixels of a crop's longer side; larger ones are shrunk
MARGIN = 0.25  # of the box's size, shown around it
FAR = 0.12  # of the box's side: a mask that stays this far from it does not reach it
NARROW, WIDE = 0.25, 0.97  # shares of its box that few objects stay below, or exceed
COVERED = 0.4  # of a box by a smaller one, which often lies in front
PART = 0.02  # of a mask: smaller parts are not counted


@dataclass(frozen=True)
class Window:
    """A crop of an image, in its pixels, half-open, and the size it is shown at."""

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int

    def shown(self, x: float, y: float) -> tuple[float, float]:
        """Image pixels → pixels of the crop as shown."""
        across, down = self.right - self.left, self.bottom - self.top
        return (x - self.left) * self.width / across, (y - self.top) * self.height / down


def window(bbox: list[float], width: int, height: int, *, longest: int = LONGEST) -> Window:
    """The box x, y, w, h and a quarter of its size on each side, within an image of `width` × `height` pixels, shown
    with a longer side of at most `longest`."""
    x, y, w, h = bbox
    left, top = (
        min(max(0, int(start)), side - 1) for start, side in ((x - MARGIN * w, width), (y - MARGIN * h, height))
    )
    right = max(left + 1, min(width, int(x + (1 + MARGIN) * w) + 1))
    bottom = max(top + 1, min(height, int(y + (1 + MARGIN) * h) + 1))
    scale = min(1.0, longest / max(right - left, bottom - top))
    size = [max(1, round(scale * length)) for length in (right - left, bottom - top)]
    return Window(left, top, right, bottom, *size)


def crop_webp(image: Image.Image, part: Window, *, quality: int = 70, method: int = 3) -> str:
    """A window of an image as WebP in base64. quality: 0 to 100. method: effort, 0 to 6."""
    region = image.crop((part.left, part.top, part.right, part.bottom))
    if region.has_transparency_data:
        region = region.convert("RGBA")
        region = Image.alpha_composite(Image.new("RGBA", region.size, "white"), region)
    small = region.convert("RGB").resize((part.width, part.height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=method)
    return base64.b64encode(buffer.getvalue()).decode()


def mask_part(segmentation: Any, record: Json, part: Window) -> np.ndarray:
    """The part of a mask (polygons, or RLE of either kind) that a window shows, at the size it is shown: bool."""
    height = record["height"]
    ends = np.cumsum(decode_runs(segmentation, height=height, width=record["width"]))
    count = len(ends) // 2
    limits = part.left * height, part.right * height  # run lengths count down the columns
    starts = ends[0 : 2 * count : 2].clip(*limits) - limits[0]
    stops = ends[1 : 2 * count : 2].clip(*limits) - limits[0]
    change = np.zeros(limits[1] - limits[0] + 1, dtype=np.int8)
    change[starts[stops > starts]] += 1
    change[stops[stops > starts]] -= 1
    columns = np.cumsum(change[:-1], dtype=np.int8).reshape(-1, height)
    pixels = Image.fromarray(columns.T[part.top : part.bottom].astype(np.uint8) * 255)
    return np.asarray(pixels.resize((part.width, part.height), Image.Resampling.BOX)) > 127


def outline_path(mask: np.ndarray) -> str:
    """The outline of a mask (H, W) bool as an SVG path in its pixels, holes included; along the edges of pixels."""
    finer = max(1, LONGEST // max(mask.shape))  # OpenCV's contours run through the pixels' centres
    fine = np.kron(mask.astype(np.uint8), np.ones((finer, finer), dtype=np.uint8))
    contours, _ = cv2.findContours(np.pad(fine, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    paths = []
    for contour in contours:
        points = (contour[:, 0, :] - 0.5) / finer
        paths.append("M" + "L".join(f"{round(x, 2):g} {round(y, 2):g}" for x, y in points.tolist()) + "Z")
    return "".join(paths)


def reasons(mask: np.ndarray, bbox: list[float], part: Window, covered: float) -> list[str]:
    """What is odd about a mask, in words.

    Args:
        mask: (height, width) bool as shown. bbox: x, y, w, h in pixels of the image. part: the window shown.
        covered: share of the box that one smaller box covers, in [0, 1].
    """
    x, y, w, h = bbox
    (left, top), (right, bottom) = part.shown(x, y), part.shown(x + w, y + h)
    # a tight box touches the object; where the image ends before the box there is nothing to reach
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, part.width), min(bottom, part.height)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return ["nothing of it lies in its box"]
    across, down = max(right - left, 1e-9), max(bottom - top, 1e-9)
    gaps = {
        "left": (columns[0] - left) / across,
        "right": (right - columns[-1] - 1) / across,
        "upper": (rows[0] - top) / down,
        "lower": (bottom - rows[-1] - 1) / down,
    }
    far = [side for side, gap in gaps.items() if gap > FAR]
    found = [f"does not reach the {_listed(far)} side{'s' * (len(far) > 1)} of its box"] if far else []
    share = np.count_nonzero(mask) / max(across * down, 1.0)
    if share < NARROW:
        found.append(f"covers {share:.0%} of its box")
    elif share > WIDE:
        found.append("fills its box")
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    parts = int(np.count_nonzero(stats[1:, cv2.CC_STAT_AREA] > PART * np.count_nonzero(mask)))
    if parts > 1:
        found.append(f"{parts} parts")
    if covered > COVERED:
        found.append(f"a smaller box covers {covered:.0%} of its box")
    return found


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
