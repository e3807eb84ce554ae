"""RoIAlign over a feature pyramid, fast on a CPU."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign, roi_align


class RoiPool(MultiScaleRoIAlign):
    """RoIAlign (He et al., 2017) from the pyramid level that fits an RoI's size (FPN, Eq. 1).

    The numbers are torchvision's `roi_align`, which also does the work on a GPU. On a CPU its backward pass took a
    quarter of a training step of a small model; there, each cell is taken as a weighted sum of rows of one table of all
    pixels of all levels (`embedding_bag`), which is seven times as fast.

    Args:
        names: keys of the levels, from the finest.
        strides: of each level, powers of two.
        cells: side of the grid of cells.
        samples: each cell averages samples × samples points, interpolated bilinearly; 0: as many along each side as the
            cell has pixels of its map, rounded up. Then torchvision's kernel also works on a CPU.
        canonical_side: an RoI of this side, in pixels, is read from the stride-16 level.
        aligned: a map's pixel i lies at i + 1/2, as MMDetection and detectron2 have it. Otherwise at i, and no RoI is
            smaller than a pixel of its map: torchvision's detectors, with half a pixel between an RoI and what is read.
    """

    def __init__(
        self,
        names: list[str],
        *,
        strides: tuple[int, ...],
        cells: int,
        samples: int,
        canonical_side: int,
        aligned: bool,
    ) -> None:
        super().__init__(names, cells, samples, canonical_scale=canonical_side, canonical_level=4)
        self.names, self.strides, self.cells, self.samples = names, strides, cells, samples
        self.canonical_side, self.aligned = canonical_side, aligned

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], *_: Any) -> Tensor:
        """maps: (B, C, h, w) a level; boxes: (n, 4) xyxy in image pixels, an image. Returns (Σn, C, cells, cells)."""
        levels = [maps[name] for name in self.names]
        by_table = levels[0].device.type == "cpu" and self.samples > 0
        return self.as_table(levels, boxes) if by_table else self.as_torchvision(levels, boxes)

    def as_torchvision(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """By torchvision's kernel, level by level."""
        rois = torch.cat(boxes)
        image = torch.cat([rois.new_full((len(box), 1), index) for index, box in enumerate(boxes)])
        level, numbered = self._level(rois), torch.cat([image, rois], dim=1)
        pooled = levels[0].new_zeros(len(rois), levels[0].shape[1], self.cells, self.cells)
        for index, (map_, stride) in enumerate(zip(levels, self.strides, strict=True)):
            chosen = torch.nonzero(level == index)[:, 0]
            here = roi_align(map_, numbered[chosen], self.cells, 1 / stride, self.samples, self.aligned)
            pooled[chosen] = here.to(pooled.dtype)
        return pooled

    def as_table(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """By weighted sums of rows of a table."""
        table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels])
        rois = torch.cat(boxes)
        image = torch.cat([torch.full((len(box),), index) for index, box in enumerate(boxes)])
        with torch.no_grad():
            rows, weights = self._rows(levels, rois, image)
        pooled = F.embedding_bag(
            rows.flatten(0, 2), table, mode="sum", per_sample_weights=weights.flatten(0, 2).to(table.dtype)
        )
        return pooled.view(len(rois), self.cells, self.cells, table.shape[1]).permute(0, 3, 1, 2)

    def _rows(self, levels: list[Tensor], rois: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table and their weights, both (n, cells, cells, samples² · 4)."""
        level = self._level(rois)
        heights, widths = (torch.tensor([map_.shape[axis] for map_ in levels])[level] for axis in (-2, -1))
        sizes = [map_.shape[0] * map_.shape[-2] * map_.shape[-1] for map_ in levels]
        first = torch.tensor([sum(sizes[:index]) for index in range(len(sizes))])[level] + image * heights * widths
        scaled = rois / torch.tensor(self.strides)[level, None] - (0.5 if self.aligned else 0.0)
        side = scaled[:, 2:] - scaled[:, :2]
        side = side if self.aligned else side.clamp(min=1)
        fractions = (torch.arange(self.cells * self.samples, dtype=rois.dtype) + 0.5) / (self.cells * self.samples)
        x, x_weight = _neighbours(scaled[:, :1] + fractions * side[:, :1], widths)
        y, y_weight = _neighbours(scaled[:, 1:2] + fractions * side[:, 1:], heights)
        rows = first[:, None, None, None, None] + y[:, :, None, :, None] * widths[:, None, None, None, None]
        rows = rows + x[:, None, :, None, :]
        weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :] / self.samples**2
        return self._by_cell(rows), self._by_cell(weights)

    def _by_cell(self, values: Tensor) -> Tensor:
        """(n, cells · s, cells · s, 2, 2) by point → (n, cells, cells, s · s · 4) by cell."""
        cells, samples = self.cells, self.samples
        values = values.view(-1, cells, samples, cells, samples, 4)
        return values.transpose(2, 3).reshape(-1, cells, cells, samples * samples * 4)

    def _level(self, rois: Tensor) -> Tensor:
        """Index of each RoI's level: one coarser each time its side doubles."""
        side = ((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])).sqrt()
        finest = math.log2(self.strides[0])
        level = torch.floor(4 + torch.log2(side / self.canonical_side) + 1e-6) - finest
        return level.clamp(0, len(self.strides) - 1).long()


def _neighbours(position: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """The two pixels around each position along an axis, and their weights; both (n, points, 2).

    Position p lies between pixels floor(p) and floor(p) + 1. Up to a pixel beyond the map the border's pixel counts;
    farther out nothing does.
    """
    last = limit[:, None] - 1
    inside = ((position >= -1) & (position <= last + 1)).to(position.dtype)
    position = position.clamp(min=0).minimum(last.to(position.dtype))
    low = position.long()
    share = position - low
    return torch.stack([low, (low + 1).minimum(last)], dim=-1), torch.stack(
        [(1 - share) * inside, share * inside], dim=-1
    )
