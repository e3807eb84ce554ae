"""RoIAlign over a feature pyramid, fast on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign


class RoiPool(MultiScaleRoIAlign):
    """RoIAlign (He et al., 2017) from the pyramid level that fits an RoI's size (FPN, Eq. 1).

    The numbers are torchvision's, which also does the work on a GPU. On a CPU its backward pass
    took a quarter of a training step of a small model; there, each cell is taken as a weighted sum of rows of one
    table of all pixels of all levels (`embedding_bag`), which is seven times as fast.

    Args:
        names: keys of the levels, from the finest.
        strides: of each level, powers of two.
        cells: side of the grid of cells.
        samples: each cell averages samples × samples points, interpolated bilinearly.
        canonical_side: an RoI of this side, in pixels, is read from the stride-16 level.
    """

    def __init__(
        self, names: list[str], *, strides: tuple[int, ...], cells: int, samples: int, canonical_side: int
    ) -> None:
        super().__init__(names, cells, samples, canonical_scale=canonical_side, canonical_level=4)
        self.names, self.strides, self.cells, self.samples = names, strides, cells, samples
        self.canonical_side = canonical_side

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """maps: (B, C, h, w) a level; boxes: (n, 4) xyxy in image pixels, an image. Returns (Σn, C, cells, cells)."""
        levels = [maps[name] for name in self.names]
        if levels[0].device.type != "cpu":
            return super().forward(maps, boxes, image_shapes)
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
        scaled = rois / torch.tensor(self.strides)[level, None]
        side = (scaled[:, 2:] - scaled[:, :2]).clamp(min=1)  # RoIAlign's rule for RoIs below a pixel
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
        finest = torch.tensor(self.strides[0]).log2()
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
