"""Where the cells of a memory lie: sine positions over the part of the square that the image fills."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000
SLACK = 1e-4  # of a cell: shares are float32, and w · r need not be whole


def valid_cells(valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 2) int64 columns and rows of the cells that the image fills or begins to fill, at least 1.

    Args:
        valid: (B, 2) width and height of the image as shares of the square.
        grid: rows and columns of the whole square.
    """
    rows, columns = grid
    filled = [
        (valid[:, 0] * columns - SLACK).ceil().clamp(1, columns),
        (valid[:, 1] * rows - SLACK).ceil().clamp(1, rows),
    ]
    return torch.stack(filled, dim=1).long()


def padding_of(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h, w) bool, true outside the image.

    Args:
        cells: see `valid_cells`.
    """
    rows, columns = grid
    right = torch.arange(columns, device=cells.device) >= cells[:, :1]
    below = torch.arange(rows, device=cells.device) >= cells[:, 1:]
    return right[:, None, :] | below[:, :, None]


def sine_positions(cells: Tensor, grid: tuple[int, int], width: int) -> Tensor:
    """(B, h, w, width) float32: the first half of the channels from the row, the second from the column.

    Cell i of n valid ones lies at the angle 2π(i + 1)/n; channels 2k and 2k + 1 of a half of c channels have the sine
    and cosine of it ÷ 10000^(2k/c) (Carion et al., "End-to-End Object Detection with Transformers", 2020).

    Args:
        cells: see `valid_cells`.
        width: a multiple of 4.
    """
    half = width // 2
    rates = TEMPERATURE ** (-torch.arange(0, half, 2, device=cells.device, dtype=torch.float32) / half)

    def axis(count: int, of: Tensor) -> Tensor:
        steps = torch.arange(1, count + 1, device=cells.device, dtype=torch.float32)
        angles = (2 * math.pi * steps / of[:, None])[..., None] * rates
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (B, count, half)

    rows, columns = grid
    down = axis(rows, cells[:, 1])[:, :, None].expand(-1, -1, columns, -1)
    across = axis(columns, cells[:, 0])[:, None].expand(-1, rows, -1, -1)
    return torch.cat([down, across], dim=-1)
