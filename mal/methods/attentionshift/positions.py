"""Fixed positions of the cells of a grid, as masked autoencoders have them."""

import torch
from torch import Tensor


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """(1, 1 + rows · columns, width) float32: zeros for the token in front, then row by row.

    With ω_d = 10000^(−4d / width), d = 0 … width/4 − 1, the cell at column x and row y has
    [sin xω, cos xω, sin yω, cos yω] (He et al., "Masked Autoencoders", 2022, after Vaswani et al., 2017).

    Args:
        grid: rows and columns.
        width: a multiple of 4.
    """
    rates = 10_000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def axis(count: int) -> Tensor:
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (count, width / 2)

    rows, columns = grid
    across = axis(columns).expand(rows, -1, -1)
    cells = torch.cat([across, axis(rows)[:, None].expand(-1, columns, -1)], dim=-1).flatten(0, 1)
    return torch.cat([cells.new_zeros(1, width), cells])[None].float()
