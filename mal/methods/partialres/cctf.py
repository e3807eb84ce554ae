"""Co-content teacher forcing: a coordinate's embedding plus the mean of the memory along the line it points to."""

from typing import NamedTuple

import torch
from torch import Tensor

NONE, X, Y = -1, 0, 1  # axes of tokens


class Lines(NamedTuple):
    """Means over the lines of a memory's image part.

    Attributes:
        means: (B, w + h + 1, d): of each column, of each row, and zeros.
        grid: rows and columns.
        kind: `matched` | `transposed`.
    """

    means: Tensor
    grid: tuple[int, int]
    kind: str


def lines(image: Tensor, padding: Tensor, kind: str) -> Lines:
    """
    Args:
        image: (B, h, w, d), with its gradient.
        padding: (B, h, w) bool. `matched` leaves these cells out, and a line of nothing else is 0; `transposed`, as R
            has it, takes them in.
    """
    seen = (~padding if kind == "matched" else torch.ones_like(padding)).to(image)
    image = image * seen[..., None]
    columns = image.sum(1) / seen.sum(1).clamp(min=1)[..., None]
    rows = image.sum(2) / seen.sum(2).clamp(min=1)[..., None]
    nothing = image.new_zeros(len(image), 1, image.shape[-1])
    return Lines(torch.cat([columns, rows, nothing], dim=1), (image.shape[1], image.shape[2]), kind)


def content(tokens: Tensor, axes: Tensor, of: Lines, bins: int) -> Tensor:
    """(B, L, d) what is added to the tokens' embeddings.

    `matched`: a token of x adds the mean of the column that its bin's centre lies in, one of y that of the row; END
    adds nothing. `transposed` (R): x adds row ⌊q/bins · (h − 1)⌋, y the column, END the last.

    Args:
        tokens: (B, L) int64. axes: (B, L) X, Y, or NONE, which adds nothing.
        bins: number of bins; END has this number.
    """
    rows, columns = of.grid
    nothing = torch.full_like(tokens, columns + rows)
    if of.kind == "matched":
        column, row = ((2 * tokens + 1) * count // (2 * bins) for count in (columns, rows))
        of_x, of_y, silent = column, columns + row, tokens >= bins
    else:
        column, row = (tokens * (count - 1) // bins for count in (columns, rows))
        of_x, of_y, silent = columns + row, column, tokens > bins
    places = torch.where(axes == X, of_x, of_y).where(axes != NONE, nothing).where(~silent, nothing)
    return of.means.gather(1, places[..., None].expand(-1, -1, of.means.shape[-1]))
