"""Point-modulated cross-attention: each head of each query looks near a point of its own (Partial-RES, PMCA)."""

import torch
from torch import Tensor, nn

from mal.methods.partialres.attention import wide
from mal.methods.partialres.feed_forward import perceptron

SOFTNESS = 8  # what squared distances are divided by


class PointModulation(nn.Module):
    """From a query's state, for each head, a centre c = σ(o_c) · (w, h) in cells of the valid part and a scale s ∈ R².

    Args:
        width: d; the layers have d, d/2, d/4 and 4 · heads channels.
        start: `xavier`: of the last layer, whose bias is 0; `zero`: both are 0. At s = 0 every gradient is 0 then, as
            s enters squared and all else is multiplied by it, so that it never learns (R's intention).
    """

    def __init__(self, width: int, heads: int, *, start: str) -> None:
        super().__init__()
        self.layers = perceptron([width, width // 2, width // 4, 4 * heads])
        if start == "zero":
            nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, states: Tensor, grid: tuple[int, int], cells: Tensor, others: int) -> Tensor:
        """(B, heads, L, h · w + others) float32 bias of the logits.

        Args:
            states: (B, L, d). grid: rows and columns.
            cells: (B, 2) valid columns and rows.
            others: keys behind those of the image, whose logits stay.
        """
        found = self.layers(states)
        with torch.autocast(states.device.type, enabled=False):
            found = wide(found).unflatten(-1, (-1, 4)).transpose(1, 2)  # (B, heads, L, 4)
            centres, scales = found[..., :2].sigmoid() * cells[:, None, None].to(found), found[..., 2:]
            return torch.cat([modulation(centres, scales, grid), found.new_zeros(*found.shape[:-1], others)], dim=-1)


def modulation(centres: Tensor, scales: Tensor, grid: tuple[int, int]) -> Tensor:
    """−[(c_x − g_x − ½)² s_x² + (c_y − g_y − ½)² s_y²] / 8 of each cell g, row by row: (…, h · w).

    Args:
        centres: (…, 2) x and y in cells. scales: (…, 2) of x and y.
    """

    def axis(which: int, count: int) -> Tensor:
        middles = torch.arange(count, device=centres.device, dtype=centres.dtype) + 0.5
        distances = (centres[..., which, None] - middles) * scales[..., which, None]
        return distances.square() / -SOFTNESS

    rows, columns = grid
    return (axis(1, rows)[..., :, None] + axis(0, columns)[..., None, :]).flatten(-2)
