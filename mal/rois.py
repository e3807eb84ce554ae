"""Images and boxes → batches of RoI crops. Each image is decoded once an epoch, however many boxes it has."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mal import boxes
from mal.augment import DRAWS as PHOTOMETRIC_DRAWS
from mal.config import RoiConfig
from mal.errors import AnnotationError
from mal.images import load_for
from mal.runtime import numpy_generator

PREFETCH = 3  # batches prepared ahead
Annotation = dict[str, Any]
Image = dict[str, Any]
Loader = Callable[[Image, Path], Tensor]
Made = TypeVar("Made")
Item = TypeVar("Item")


@dataclass
class RoiBatch:
    """Crops of B boxes and what is needed to bring masks back."""

    pixels: Tensor  # (B, 3, S, S) uint8 RGB, mirrored where `flipped`
    windows: Tensor  # (B, 4) int64 crop windows in the image (see mal.boxes)
    spans: Tensor  # (B, 4) int64 whole pixels of the box in the image
    images: Tensor  # (B, 4) int64: 0, 0, width, height
    sizes: Tensor  # (B,) int64: 0, 1, 2 for S, M, L
    flipped: Tensor  # (B,) bool
    padded: Tensor  # (B,) bool: pixels beyond the image's border do not count (border=constant)
    draws: Tensor  # (B, 12) uniform numbers for the photometrics
    ids: Tensor  # (B,) int64 annotation ids

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Self:
        """The same batch on another device. What Python decides by (sizes, draws, ids) stays on the CPU."""
        moved = ("pixels", "windows", "spans", "images", "flipped", "padded")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in moved})

    def split(self, parts: int) -> list[Self]:
        """Equal consecutive parts (micro-batches)."""
        chunks = [getattr(self, f.name).chunk(parts) for f in fields(self)]
        return [type(self)(*part) for part in zip(*chunks, strict=True)]

    def box_lines(self, cells: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of a cells × cells grid that the box crosses: two (B, cells) bool."""
        return self._lines(self.spans, cells)

    def valid_lines(self, cells: int) -> tuple[Tensor, Tensor]:
        """Rows and columns whose pixels count: two (B, cells) bool, all True unless `border=constant`."""
        rows, columns = self._lines(self.images, cells)
        return rows | ~self.padded[:, None], columns | ~self.padded[:, None]

    def _lines(self, rectangles: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        rows, columns = boxes.grid_inside(self.windows, rectangles, cells)
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


def assemble(
    crops: list[Tensor],
    annotations: list[Annotation],
    image_sizes: Tensor,
    *,
    windows: Tensor,
    config: RoiConfig,
    flipped: Tensor | None = None,
    draws: Tensor | None = None,
) -> RoiBatch:
    """Stack crops and the geometry that belongs to them. image_sizes: (B, 2) height, width."""
    count = len(annotations)
    xywh = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).reshape(-1, 4)
    return RoiBatch(
        pixels=torch.stack(crops),
        windows=windows,
        spans=boxes.spans(xywh, image_sizes),
        images=torch.cat([torch.zeros_like(image_sizes), image_sizes.flip(1)], dim=1),
        sizes=boxes.size_index(xywh[:, 2] * xywh[:, 3]),
        flipped=torch.zeros(count, dtype=torch.bool) if flipped is None else flipped,
        padded=torch.full((count,), config.border == "constant"),
        draws=torch.zeros(count, PHOTOMETRIC_DRAWS) if draws is None else draws,
        ids=torch.tensor([a["id"] for a in annotations]),
    )


def label_windows(annotations: list[Annotation], image_sizes: Tensor, config: RoiConfig) -> Tensor:
    """Fixed windows around boxes, for labelling. (B, 4) int64."""
    xywh = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).reshape(-1, 4)
    windows = boxes.expand_fixed(xywh, config.label_expansion)
    return boxes.clip_windows(windows, image_sizes) if config.border == "clip" else windows


class TrainingRois:
    """An endless, reproducible stream of training RoIs.

    Epoch e visits the images in an order drawn from (seed, e), in pools of `pool_images`; the boxes of a pool are
    shuffled together, so a batch mixes boxes of many images while each image is decoded once. Step t takes positions
    [t·batch, (t + 1)·batch) of the concatenated epochs, so every step is full and a resumed run continues at the same
    RoI. Crop, flip and photometric draws follow (seed, epoch, annotation), never the worker.

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
        self._by_id = {image["id"]: image for image in coco["images"]}
        self._boxes: dict[int, list[Annotation]] = {}
        unreadable = set(coco.get("unreadable_images", ()))
        for annotation in coco["annotations"]:
            if usable(annotation, config, training=True) and annotation["image_id"] not in unreadable:
                self._boxes.setdefault(annotation["image_id"], []).append(annotation)
        self.count = sum(map(len, self._boxes.values()))
        if not self.count:
            raise AnnotationError(
                f"none of {len(coco['annotations'])} boxes passes the training filter (w, h > {config.min_side:g}, "
                f"{config.min_area:g} < w·h < {config.max_area:g}); lower roi.min_area or give larger boxes"
            )

    def order(self, epoch: int) -> list[list[Annotation]]:
        """The boxes of an epoch, pool by pool."""
        draw = numpy_generator(self.seed, "order", epoch)
        images = draw.permutation(sorted(self._boxes)).tolist()
        pools = []
        for start in range(0, len(images), self.pool_images):
            pool = [a for image_id in images[start : start + self.pool_images] for a in self._boxes[image_id]]
            pools.append([pool[i] for i in draw.permutation(len(pool))])
        return pools

    def batches(self, first_step: int, last_step: int, *, part: slice = slice(None)) -> Iterator[RoiBatch]:
        """Batches of steps [first_step, last_step), or that `part` of each, prepared ahead in threads."""
        stream = self._stream(first_step * self.batch)
        items = ([next(stream) for _ in range(self.batch)][part] for _ in range(first_step, last_step))
        for rois in _prefetch(self._roi, items, workers=self.workers):
            yield self._collate(rois)

    def _stream(self, position: int) -> Iterator[tuple[Annotation, int, "_Decoded"]]:
        epoch, skip = divmod(position, self.count)
        while True:
            for pool in self.order(epoch):
                todo, skip = pool[skip:], max(0, skip - len(pool))
                uses = Counter(a["image_id"] for a in todo)
                decoded = {i: _Decoded(self._by_id[i], self.folder, self.loader, n) for i, n in uses.items()}
                for annotation in todo:
                    yield annotation, epoch, decoded[annotation["image_id"]]
            epoch += 1

    def _roi(self, annotation: Annotation, epoch: int, image: "_Decoded") -> tuple[Tensor, dict[str, Any]]:
        config = self.config
        draws = torch.from_numpy(
            numpy_generator(self.seed, "roi", epoch, annotation["id"]).random(boxes.DRAWS + 1 + PHOTOMETRIC_DRAWS)
        )
        xywh = torch.tensor([annotation["bbox"]], dtype=torch.float64)
        window = boxes.expand(xywh, draws[None, : boxes.DRAWS], theta=config.theta, form=config.expansion)
        image_size = torch.tensor([[image.record["height"], image.record["width"]]])
        if config.border == "clip":
            window = boxes.clip_windows(window, image_size)
        crop = cut(image.take(), window[0].tolist(), size=config.size, border=config.border)
        flipped = bool(draws[boxes.DRAWS] < config.flip)
        return crop.flip(-1) if flipped else crop, {
            "annotation": annotation,
            "window": window,
            "image_size": image_size,
            "flipped": flipped,
            "draws": draws[boxes.DRAWS + 1 :],
        }

    def _collate(self, rois: list[tuple[Tensor, dict[str, Any]]]) -> RoiBatch:
        about = [roi[1] for roi in rois]
        return assemble(
            [roi[0] for roi in rois],
            [a["annotation"] for a in about],
            torch.cat([a["image_size"] for a in about]),
            windows=torch.cat([a["window"] for a in about]),
            config=self.config,
            flipped=torch.tensor([a["flipped"] for a in about]),
            draws=torch.stack([a["draws"] for a in about]).float(),
        )


def labelling_batches(
    coco: dict[str, Any], folder: Path, *, config: RoiConfig, batch: int, workers: int, loader: Loader = load_for
) -> Iterator[tuple[list[Annotation], RoiBatch]]:
    """Every box that passes the labelling filter once, in file order by image, with its fixed window.

    Yields:
        The annotations of a batch and their crops; the last batch may be smaller.
    """
    by_image: dict[int, list[Annotation]] = {}
    for annotation in coco["annotations"]:
        if usable(annotation, config, training=False):
            by_image.setdefault(annotation["image_id"], []).append(annotation)
    records = {image["id"]: image for image in coco["images"]}

    def stream() -> Iterator[tuple[Annotation, _Decoded]]:
        for image_id, annotations in by_image.items():
            decoded = _Decoded(records[image_id], folder, loader, len(annotations))
            yield from ((annotation, decoded) for annotation in annotations)

    def roi(annotation: Annotation, image: _Decoded) -> tuple[Annotation, Tensor, Tensor, Tensor]:
        image_size = torch.tensor([[image.record["height"], image.record["width"]]])
        window = label_windows([annotation], image_size, config)
        crop = cut(image.take(), window[0].tolist(), size=config.size, border=config.border)
        return annotation, crop, image_size, window

    for rois in _prefetch(roi, _chunks(stream(), batch), workers=workers):
        annotations, crops, image_sizes, windows = zip(*rois, strict=True)
        yield (
            list(annotations),
            assemble(list(crops), list(annotations), torch.cat(image_sizes), windows=torch.cat(windows), config=config),
        )


def _prefetch(
    make: Callable[..., Made], batches: Iterable[list[tuple[Any, ...]]], *, workers: int
) -> Iterator[list[Made]]:
    """Apply `make` to the items of each batch in threads, PREFETCH batches ahead; order is kept."""
    pending: deque[list[Future[Made]]] = deque()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        try:
            for batch in batches:
                pending.append([threads.submit(make, *item) for item in batch])
                if len(pending) == PREFETCH:
                    yield [future.result() for future in pending.popleft()]
            while pending:
                yield [future.result() for future in pending.popleft()]
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class _Decoded:
    """One image, decoded by the first thread that needs it and dropped after its last box."""

    def __init__(self, record: Image, folder: Path, loader: Loader, uses: int) -> None:
        self.record, self._folder, self._loader, self._uses = record, folder, loader, uses
        self._lock = threading.Lock()
        self._pixels: Tensor | None = None

    def take(self) -> Tensor:
        with self._lock:
            pixels = self._loader(self.record, self._folder) if self._pixels is None else self._pixels
            self._uses -= 1
            self._pixels = pixels if self._uses > 0 else None
            return pixels
