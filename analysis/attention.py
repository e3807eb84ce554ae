"""Figure 5: crops beside what layers of a plain ViT look at. Reads the attention.npz of an attention_val stage."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw_attention(arrays: Path, out: Path) -> Path:
    """Draw a PNG: a row a crop, a column a layer.

    Each map is scaled to its own smallest and largest value, so rows and columns compare in shape only.

    Args:
        arrays: .npz with pixels (n, S, S, 3) uint8, maps (n, layers, h, w), layers (layers,) counted from 1.

    Returns:
        `out`.
    """
    with np.load(arrays) as found:
        pixels, maps, layers = found["pixels"], found["maps"], found["layers"]
    figure = Figure(figsize=(1.9 * (1 + len(layers)), 1.9 * len(pixels) + 0.3), layout="constrained")
    grid = figure.subplots(len(pixels), 1 + len(layers), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, crop, pictures in zip(grid, pixels, maps, strict=True):
        line[0].imshow(crop, interpolation="nearest")
        for axes, picture in zip(line[1:], pictures, strict=True):
            axes.imshow(picture, interpolation="nearest", cmap="viridis")
    for axes, title in zip(grid[0], ["crop", *(f"layer {layer}" for layer in layers)], strict=True):
        axes.set_title(title, fontsize=8)
    figure.savefig(out, dpi=110)
    return out
