"""Images and boxes → batches of RoI crops."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.data import boxes
from mal.data.config import RoiConfig
from mal.data.images import load_for
from mal.engine.loading import load
from mal.engine.runtime import numpy_generator
from mal.errors import AnnotationError

Annotation = dict[str, Any]
Image = dict[str, Any]
Loader = Callable[[Image, Path], Tensor]
PHOTOMETRIC_DRAWS = 12  # uniform numbers that the photometrics of one crop consume
MOVED = ("pixels", "windows", "spans", "images", "flipped", "padded", "repeats")  # of a batch, to the device


@dataclass
class RoiBatch:
    """Crops of B boxes and what is needed to bring masks back."""

    pixels: Tensor  # (B, 3, S, S) uint8 RGB, mirrored where `flipped`
    windows: Tensor  # (B, 4) int64 crop windows in the image (see mal.data.boxes)
    spans: Tensor  # (B, 4) int64 whole pixels of the box in the image
    images: Tensor  # (B, 4) int64: 0, 0, width, height
    sizes: Tensor  # (B,) int64: 0, 1, 2 for S, M, L
    flipped: Tensor  # (B,) bool
    padded: Tensor  # (B,) bool: pixels beyond the image's border do not count (border=constant)
    repeats: Tensor  # (B,) int64: what of beyond the border counts as the box again, an index into boxes.REPEATS
    draws: Tensor  # (B, 12) uniform numbers for the photometrics
    ids: Tensor  # (B,) int64 annotation ids

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Self:
        """The same batch on another device. What Python decides by (sizes, draws, ids) stays on the CPU."""
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in MOVED})

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, from which `to` a GPU copies while Python goes on."""
        return replace(self, **{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def split(self, parts: int) -> list[Self]:
        """Equal consecutive parts (micro-batches)."""
        chunks = [getattr(self, f.name).chunk(parts) for f in fields(self)]
        return [type(self)(*part) for part in zip(*chunks, strict=True)]

    def filled_up(self, count: int) -> Self:
        """The same rows, repeated to `count` of them."""
        if len(self) == count:
            return self
        rows = torch.arange(count) % len(self)
        return type(self)(*(getattr(self, f.name)[rows.to(getattr(self, f.name).device)] for f in fields(self)))

    def box_lines(self, cells: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of a cells × cells grid that the box crosses: two (B, cells) bool."""
        return self._lines(self.spans, cells, self.repeats)

    def box_mask(self, cells: int, *, form: str) -> Tensor:
        """The box on a cells × cells grid: (B, cells, cells) float32 in [0, 1].

        Args:
            form: `cell`, 1 where a cell's centre lies inside; `fraction`, the mask of the crop's own pixels shrunk
                bilinearly without antialiasing, so that cells on the box's edge hold .5 or .25 (released). Each cell
                looks at the two pixels around its centre: a box one pixel of the crop wide or high that lies between
                them is lost, there as here, and its mask is 0. Its losses then are constants, without a gradient. A box
                within its image fills a third of the crop's sides or more; it takes one that the border has cut off.
        """
        rows, columns = self.box_lines(cells if form == "cell" else self.pixels.shape[-1])
        if form == "fraction":
            rows, columns = (
                F.interpolate(lines[:, None].float(), size=cells, mode="linear", align_corners=False)[:, 0]
                for lines in (rows, columns)
            )
        return rows[:, :, None].float() * columns[:, None, :].float()

    def valid_lines(self, cells: int) -> tuple[Tensor, Tensor]:
        """Rows and columns whose pixels count: two (B, cells) bool, all True unless `border=constant`."""
        rows, columns = self._lines(self.images, cells)
        return rows | ~self.padded[:, None], columns | ~self.padded[:, None]

    def _lines(self, rectangles: Tensor, cells: int, repeats: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows, columns = boxes.grid_inside(self.windows, rectangles, cells, images=self.images, repeats=repeats)
        return rows, torch.where(self.flipped[:, None], columns.flip(1), columns)


def cut(pixels: Tensor, window: Sequence[int], *, size: int, border: str) -> Tensor:
    """Crop a window and resize it to size × size, bicubic with antialiasing, aspect not kept.

    Args:
        pixels: (3, H, W) uint8.

    Returns:
        (3, size, size) uint8.
    """
    x0, y0, x1, y1 = (int(v) for v in window)
    region = boxes.crop(pixels, (x0, y0, x1, y1), border=border)
    return F.interpolate(region[None], size=(size, size), mode="bicubic", antialias=True)[0]


def usable(annotation: Annotation, config: RoiConfig, *, training: bool) -> bool:
    """Whether a box becomes an RoI: w, h > min_side and, for training, min_area < w·h < max_area. Crowds stay in."""
    _, _, width, height = annotation["bbox"]
    if not (width > config.min_side and height > config.min_side):
        return False
    return not training or config.min_area < width * height < config.max_area


def geometry(
    xywh: Tensor, image_sizes: Tensor, windows: Tensor, *, ids: Sequence[int], config: RoiConfig
) -> dict[str, Tensor]:
    """What a RoiBatch of B boxes holds beside its crops, when these are not mirrored.

    Args:
        xywh: (B, 4) float64 boxes. image_sizes: (B, 2) int64 height, width. windows: (B, 4) int64 crop windows.
    """
    count = len(xywh)
    return {
        "windows": windows,
        "spans": boxes.spans(xywh, image_sizes),
        "images": torch.cat([torch.zeros_like(image_sizes), image_sizes.flip(1)], dim=1),
        "sizes": boxes.size_index(xywh[:, 2] * xywh[:, 3]),
        "flipped": torch.zeros(count, dtype=torch.bool),
        "padded": torch.full((count,), config.border == "constant"),
        "repeats": torch.zeros(count, dtype=torch.int64),
        "draws": torch.zeros(count, PHOTOMETRIC_DRAWS),
        "ids": torch.tensor(ids),
    }


def label_windows(xywh: Tensor, image_sizes: Tensor, config: RoiConfig) -> Tensor:
    """Fixed windows around (B, 4) float64 boxes, for labelling. (B, 4) int64."""
    windows = boxes.expand_fixed(xywh, config.label_expansion)
    return boxes.clip_windows(windows, image_sizes) if config.border == "clip" else windows


class TrainingRois:
    """An endless, reproducible stream of training RoIs.

    Epoch e visits the images in an order drawn from (seed, e), in pools of `pool_images`; the boxes of a pool are
    shuffled together, so a batch mixes boxes of many images. Step t takes positions [t·batch, (t + 1)·batch) of the
    concatenated epochs, so every step is full and a resumed run continues at the same RoI. Crop, flip and photometric
    draws follow (seed, epoch, annotation), never the worker. A process that makes batches decodes an image once for
    all its boxes in a pool: one process each image once an epoch, W processes each image up to W times.

    The boxes are arrays, for Python objects would be copied into every process: their reference counts are writes.

    Raises:
        AnnotationError: no box passes the training filter.
    """

    def __init__(
        self,
        coco: dict[str, Any],
        folder: Path,
        *,
        config: RoiConfig,
        batch: int,
        pool_images: int,
        seed: int,
        workers: int = 2,
        loader: Loader = load_for,
    ) -> None:
        self.folder, self.config, self.batch, self.seed = folder, config, batch, seed
        self.pool_images, self.workers, self.loader = pool_images, workers, loader
        unreadable = set(coco.get("unreadable_images", ()))
        chosen = [
            a for a in coco["annotations"] if usable(a, config, training=True) and a["image_id"] not in unreadable
        ]
        self.count = len(chosen)
        if not self.count:
            raise AnnotationError(
                f"none of {len(coco['annotations'])} boxes passes the training filter (w, h > {config.min_side:g}, "
                f"{config.min_area:g} < w·h < {config.max_area:g}); lower roi.min_area or give larger boxes"
            )
        self.ids = np.array([a["id"] for a in chosen])  # (N,) of the boxes, in the order of the file, as the next two
        self._xywh = torch.tensor([a["bbox"] for a in chosen], dtype=torch.float64)
        self._image_ids = np.array([a["image_id"] for a in chosen])
        self._images = {image["id"]: image for image in coco["images"]}
        by_image = np.argsort(self._image_ids, kind="stable")
        found, starts = np.unique(self._image_ids[by_image], return_index=True)
        self._rows = dict(zip(found.tolist(), np.split(by_image, starts[1:]), strict=True))  # by image id, ascending

    def order(self, epoch: int) -> Iterator[np.ndarray]:
        """The boxes of an epoch, pool by pool: places in `ids`."""
        draw = numpy_generator(self.seed, "order", epoch)
        images = draw.permutation(list(self._rows)).tolist()
        for start in range(0, len(images), self.pool_images):
            pool = np.concatenate([self._rows[image_id] for image_id in images[start : start + self.pool_images]])
            yield pool[draw.permutation(len(pool))]

    def batches(
        self, first_step: int, last_step: int, *, part: slice = slice(None), pin: bool = False
    ) -> Iterator[RoiBatch]:
        """Batches of steps [first_step, last_step), or that `part` of each, made ahead by `workers` processes.

        `pin` gives them in page-locked memory, for a GPU.
        """
        places = range(self.batch)[part]

        def make(steps: range, rooms: Iterator[Tensor]) -> Iterator[RoiBatch]:
            return (self._batch(rois, next(rooms)) for rois in self._stream(steps, places))

        shape = (len(places), 3, self.config.size, self.config.size)
        return load(make, range(first_step, last_step), shape=shape, workers=self.workers, pin=pin)

    def _stream(self, steps: range, places: range) -> Iterator[list[tuple[int, int, "_Decoded"]]]:
        """Of each of `steps`, the boxes at `places` of its batch: (place in `ids`, epoch, image)."""
        epoch = steps.start * self.batch // self.count
        position = epoch * self.count
        rois: list[tuple[int, int, _Decoded]] = []
        while True:
            for pool in self.order(epoch):
                steps_of, places_of = np.divmod(np.arange(position, position + len(pool)), self.batch)
                wanted = [
                    s in steps and p in places for s, p in zip(steps_of.tolist(), places_of.tolist(), strict=True)
                ]
                own = pool[wanted]
                image_ids = self._image_ids[own].tolist()
                decoded = {
                    i: _Decoded(self._images[i], self.folder, self.loader, uses)
                    for i, uses in Counter(image_ids).items()
                }
                for row, image_id in zip(own.tolist(), image_ids, strict=True):
                    rois.append((row, epoch, decoded[image_id]))
                    if len(rois) == len(places):
                        yield rois
                        rois = []
                position += len(pool)
                if position >= steps.stop * self.batch:
                    return
            epoch += 1

    def _batch(self, rois: list[tuple[int, int, "_Decoded"]], room: Tensor) -> RoiBatch:
        config = self.config
        rows = [row for row, _, _ in rois]
        ids, xywh = self.ids[rows].tolist(), self._xywh[rows]
        generators = [numpy_generator(self.seed, "roi", epoch, i) for i, (_, epoch, _) in zip(ids, rois, strict=True)]
        draws = torch.from_numpy(np.stack([g.random(boxes.DRAWS + 1 + PHOTOMETRIC_DRAWS) for g in generators]))
        windows = boxes.expand(xywh, draws[:, : boxes.DRAWS], theta=config.theta, form=config.expansion)
        image_sizes = torch.tensor([image.size for _, _, image in rois])
        if config.border == "clip":
            windows = boxes.clip_windows(windows, image_sizes)
        flipped = draws[:, boxes.DRAWS] < config.flip
        for place, (window, flip) in enumerate(zip(windows.tolist(), flipped.tolist(), strict=True)):
            crop = cut(rois[place][2].take(), window, size=config.size, border=config.border)
            room[place] = crop.flip(-1) if flip else crop
        about = geometry(xywh, image_sizes, windows, ids=ids, config=config)
        about |= {"flipped": flipped, "draws": draws[:, boxes.DRAWS + 1 :].float()}
        if config.repeats == "foreground" and config.border in boxes.REPEATS:
            about["repeats"] = torch.full_like(about["repeats"], boxes.REPEATS.index(config.border))
        return RoiBatch(pixels=room, **about)


def labelling_batches(
    coco: dict[str, Any],
    folder: Path,
    *,
    config: RoiConfig,
    batch: int,
    workers: int,
    pin: bool = False,
    loader: Loader = load_for,
) -> Iterator[tuple[list[Annotation], RoiBatch]]:
    """Every box that passes the labelling filter once, in file order by image, with its fixed window.

    Batches are made ahead by `workers` processes; an image is decoded once for its boxes in a batch.

    Yields:
        The annotations of a batch and their crops; the last batch may be smaller.
    """
    by_image: dict[int, list[Annotation]] = {}
    for annotation in coco["annotations"]:
        if usable(annotation, config, training=False):
            by_image.setdefault(annotation["image_id"], []).append(annotation)
    ordered = [annotation for annotations in by_image.values() for annotation in annotations]
    chunks = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    images = {image["id"]: image for image in coco["images"]}

    def make(numbers: range, rooms: Iterator[Tensor]) -> Iterator[RoiBatch]:
        decoded, pixels = None, torch.empty(0)
        for number in numbers:
            chunk, room = chunks[number], next(rooms)
            xywh = torch.tensor([a["bbox"] for a in chunk], dtype=torch.float64)
            records = [images[a["image_id"]] for a in chunk]
            image_sizes = torch.tensor([[record["height"], record["width"]] for record in records])
            windows = label_windows(xywh, image_sizes, config)
            for place, (record, window) in enumerate(zip(records, windows.tolist(), strict=True)):
                if record["id"] != decoded:
                    decoded, pixels = record["id"], loader(record, folder)
                room[place] = cut(pixels, window, size=config.size, border=config.border)
            about = geometry(xywh, image_sizes, windows, ids=[a["id"] for a in chunk], config=config)
            yield RoiBatch(pixels=room[: len(chunk)], **about)

    shape = (min(batch, len(ordered)), 3, config.size, config.size)
    made = load(make, range(len(chunks)), shape=shape, workers=workers, pin=pin)
    yield from zip(chunks, made, strict=True)


class _Decoded:
    """One image, decoded for the first of its boxes and dropped after the last."""

    def __init__(self, record: Image, folder: Path, loader: Loader, uses: int) -> None:
        self.size = (record["height"], record["width"])
        self._record, self._folder, self._loader, self._uses = record, folder, loader, uses
        self._pixels: Tensor | None = None

    def take(self) -> Tensor:
        pixels = self._loader(self._record, self._folder) if self._pixels is None else self._pixels
        self._uses -= 1
        self._pixels = pixels if self._uses > 0 else None
        return pixels
