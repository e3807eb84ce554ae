"""The two-label mean field as Triton kernels: several iterations per launch, the state kept on the chip.

`crf.mean_field` is the reference and says what is computed. An image is cut into tiles that overlap. A program takes
one tile through `iterations` iterations by itself: with each of them the outermost pixels of the tile, whose
neighbours it does not know, become worthless, and it writes back the inner part alone. What its threads must read of
one another goes through a few pages of memory that no other program touches, and so stays in the cache next to them.
"""

import triton
import triton.language as tl
from torch import Tensor

from mal.methods.mal.config import CrfConfig

TILE_ROWS, TILE_COLUMNS = 32, 128
WARPS = 16
PER_LAUNCH = 8  # iterations; more cost more overlap, fewer more launches


def two_label(masks: Tensor, images: Tensor, inside: Tensor, config: CrfConfig, *, valid: Tensor | None) -> Tensor:
    """What `mal.methods.mal.crf.mean_field` gives with `form="two_label"`.

    Every iteration is done: only the host could stop where the labels have settled, and it would have to wait for them.

    Args:
        masks: (B, H, W) float32 in [0, 1]. images: (B, 3, H, W) float32.
        inside: (B, H, W) float32, the box. valid: (B, H, W) bool.

    Returns:
        (B, H, W) bool.
    """
    count, height, width = masks.shape
    half, step = config.kernel // 2, config.dilation
    reach = half * step
    iterations = max(1, min(PER_LAUNCH, (TILE_ROWS - 1) // (2 * reach) if reach else PER_LAUNCH))
    tile = _tile(height, width, halo=iterations * reach)
    grid = (count * tile.down * tile.across,)
    weights = masks.new_empty(count, config.kernel**2, height, width)
    seen = masks.new_ones(count, height, width) if valid is None else valid.float()
    state, spare = masks.contiguous(), [masks.new_empty(masks.shape) for _ in range(2)]
    # zeros: log 1, so that what lies beyond a tile is finite
    pages = masks.new_zeros(grid[0], 2, 2, tile.rows + 2 * reach, tile.columns + 2 * reach)
    shape = {"height": height, "width": width, "HALF": half, "STEP": step, "CENTRE": config.centre}
    blocks = triton.cdiv(height * width, 1024)
    _weigh[(count * blocks,)](
        images.contiguous(),
        seen,
        weights,
        blocks,
        config.omega,
        1 / (2 * config.zeta**2),
        **shape,
        BLOCK=1024,
        enable_fp_fusion=True,
    )
    inside = inside.contiguous()
    for turn, done in enumerate(range(0, config.iterations, iterations)):
        following = spare[turn % 2]
        _iterate[grid](
            state,
            following,
            weights,
            inside,
            pages,
            tile.down,
            tile.across,
            min(iterations, config.iterations - done),
            FIRST=done == 0,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            HALO_ROWS=tile.halo_rows,
            HALO_COLUMNS=tile.halo_columns,
            **shape,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
        state = following
    return state > 0.5


class _tile:  # noqa: N801
    """How an image is cut: tiles of `rows` × `columns`, `down` × `across` of them, and how far they overlap."""

    def __init__(self, height: int, width: int, *, halo: int) -> None:
        self.rows, self.columns = TILE_ROWS, TILE_COLUMNS
        if width <= TILE_COLUMNS:  # no cut from top to bottom: the space goes into rows
            self.columns = triton.next_power_of_2(width)
            self.rows = TILE_ROWS * TILE_COLUMNS // self.columns
        self.halo_rows = 0 if height <= self.rows else halo
        self.halo_columns = 0 if width <= self.columns else halo
        self.down = triton.cdiv(height, self.rows - 2 * self.halo_rows)
        self.across = triton.cdiv(width, self.columns - 2 * self.halo_columns)


@triton.jit(do_not_specialize=["height", "width", "blocks"])
def _weigh(images, seen, weights, blocks, omega, scale, height, width, HALF: tl.constexpr, STEP: tl.constexpr,
           CENTRE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """K_ij = ω·exp(−|I_i − I_j|² / 2ζ²) of Eq. 4, one plane an offset; 0 where the neighbour is not seen."""
    SIDE: tl.constexpr = 2 * HALF + 1
    image = tl.program_id(0) // blocks
    pixel = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    area = height * width
    there = pixel < area
    row, column = pixel // width, pixel % width
    mine = images + image * 3 * area + pixel
    red = tl.load(mine, mask=there, other=0.0)
    green = tl.load(mine + area, mask=there, other=0.0)
    blue = tl.load(mine + 2 * area, mask=there, other=0.0)
    for place in tl.static_range(SIDE * SIDE):
        down = (place // SIDE - HALF) * STEP
        right = (place % SIDE - HALF) * STEP
        known = there & (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
        other = mine + down * width + right
        apart = red - tl.load(other, mask=known, other=0.0)
        distance = apart * apart
        apart = green - tl.load(other + area, mask=known, other=0.0)
        distance += apart * apart
        apart = blue - tl.load(other + 2 * area, mask=known, other=0.0)
        distance += apart * apart
        counted = tl.load(seen + image * area + pixel + down * width + right, mask=known, other=0.0)
        weight = omega * tl.exp(-distance * scale) * counted
        if (not CENTRE) and place == SIDE * SIDE // 2:
            weight = tl.zeros_like(weight)
        tl.store(weights + (image * SIDE * SIDE + place) * area + pixel, weight, mask=there)


@triton.jit(do_not_specialize=["height", "width", "down", "across", "count"])
def _iterate(state, following, weights, inside, pages, down, across, count, FIRST: tl.constexpr, ROWS: tl.constexpr,
             COLUMNS: tl.constexpr, HALO_ROWS: tl.constexpr, HALO_COLUMNS: tl.constexpr, height, width,
             HALF: tl.constexpr, STEP: tl.constexpr, CENTRE: tl.constexpr):  # fmt: skip
    """`count` iterations of one tile: q of `state`, or masks where FIRST, to `following`."""
    SIDE: tl.constexpr = 2 * HALF + 1
    REACH: tl.constexpr = HALF * STEP
    PITCH: tl.constexpr = COLUMNS + 2 * REACH
    PAGE: tl.constexpr = (ROWS + 2 * REACH) * PITCH
    program = tl.program_id(0)
    image, tile = program // (down * across), program % (down * across)
    index = tl.arange(0, ROWS * COLUMNS)
    local_row, local_column = index // COLUMNS, index % COLUMNS
    row = (tile // across) * (ROWS - 2 * HALO_ROWS) - HALO_ROWS + local_row
    column = (tile % across) * (COLUMNS - 2 * HALO_COLUMNS) - HALO_COLUMNS + local_column
    there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    area = height * width
    pixel = row * width + column
    q = tl.load(state + image * area + pixel, mask=there, other=0.5)
    box = tl.load(inside + image * area + pixel, mask=there, other=0.0)
    if FIRST:
        q = tl.minimum(tl.maximum(q * box, 0.1), 0.9)
    page = pages + program * 4 * PAGE + (local_row + REACH) * PITCH + local_column + REACH
    held: tl.tuple = ()  # weights, in registers for all iterations
    for place in tl.static_range(SIDE * SIDE):
        weight = tl.load(weights + (image * SIDE * SIDE + place) * area + pixel, mask=there, other=0.0)
        held = held + (weight,)  # noqa: RUF005 (Triton knows no unpacking)
    for iteration in range(count):
        now = page + (iteration % 2) * 2 * PAGE  # two pairs of pages, so that one barrier is enough
        tl.store(now, tl.log(q))
        tl.store(now + PAGE, tl.log(1 - q))
        tl.debug_barrier()
        foreground = tl.zeros_like(q)
        background = tl.zeros_like(q)
        for place in tl.static_range(SIDE * SIDE):
            if CENTRE or place != SIDE * SIDE // 2:
                shift = (place // SIDE - HALF) * STEP * PITCH + (place % SIDE - HALF) * STEP
                foreground += held[place] * tl.load(now + shift)
                background += held[place] * tl.load(now + PAGE + shift)
        foreground = tl.exp(foreground) * box
        q = foreground / (foreground + tl.exp(background) + 1e-6)
        q = tl.minimum(tl.maximum(q, 0.1), 0.9)
    kept = there & (local_row >= HALO_ROWS) & (local_row < ROWS - HALO_ROWS)
    kept = kept & (local_column >= HALO_COLUMNS) & (local_column < COLUMNS - HALO_COLUMNS)
    tl.store(following + image * area + pixel, q, mask=kept)
