"""The heads that read the last map, against their formulas in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mal.errors import WeightsError
from mal.methods.attentionshift.heads import (
    BoxHead,
    MaskHead,
    MilHead,
    RoiTransformer,
    TokenHeads,
    pooled,
)
from mal.methods.attentionshift.mae_start import start_from_mae
from mal.methods.attentionshift.positions import sincos_positions

CHANNELS, WIDTH, DEPTH, HEADS, SIDE = 12, 16, 2, 4, 6
SIZES = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "side": SIDE}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_weights(module: nn.Module) -> nn.Module:
    """Every parameter away from what it starts as, norms included."""
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=seed) * 0.3)
    return module


def mae_checkpoint(*, width: int = WIDTH, depth: int = DEPTH, side: int = SIDE) -> dict[str, Tensor]:
    """Keys and shapes of a checkpoint of facebookresearch/mae, encoder (one block of it) and decoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, CHANNELS),
        "pos_embed": (1, 1 + side**2, CHANNELS),
        "mask_token": (1, 1, width),
        "decoder_pos_embed": (1, 1 + side**2, width),
        "patch_embed.proj.weight": (CHANNELS, 3, 16, 16),
        "patch_embed.proj.bias": (CHANNELS,),
        "norm.weight": (CHANNELS,),
        "norm.bias": (CHANNELS,),
        "decoder_embed.weight": (width, CHANNELS),
        "decoder_embed.bias": (width,),
        "decoder_norm.weight": (width,),
        "decoder_norm.bias": (width,),
        "decoder_pred.weight": (768, width),
        "decoder_pred.bias": (768,),
    }
    blocks = [("blocks.0.", CHANNELS), *((f"decoder_blocks.{index}.", width) for index in range(depth))]
    for prefix, size in blocks:
        for name, shape in {
            "norm1": (size,),
            "attn.qkv": (3 * size, size),
            "attn.proj": (size, size),
            "norm2": (size,),
            "mlp.fc1": (4 * size, size),
            "mlp.fc2": (size, 4 * size),
        }.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
    return {key: 0.4 * noise(*shape, seed=seed) for seed, (key, shape) in enumerate(shapes.items())}


def layer_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def decoded(state: dict[str, Tensor], cells: Tensor, positions: Tensor, front: Tensor | None = None) -> Tensor:
    """An MAE decoder, from a checkpoint of its own layout: tokens (n, C) of one RoI → (n, width)."""
    x = linear(layer_norm(cells, state, "norm"), state, "decoder_embed")
    x = x + positions[1:] if front is None else torch.cat([front, x]) + positions
    for index in range(DEPTH):
        at = f"decoder_blocks.{index}."
        queries, keys, values = linear(layer_norm(x, state, at + "norm1"), state, at + "attn.qkv").chunk(3, dim=-1)
        heads = []
        for head in range(HEADS):
            own = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = queries[:, own] @ keys[:, own].T / math.sqrt(WIDTH / HEADS)
            heads.append(scores.softmax(dim=-1) @ values[:, own])
        x = x + linear(torch.cat(heads, dim=-1), state, at + "attn.proj")
        hidden = linear(layer_norm(x, state, at + "norm2"), state, at + "mlp.fc1")
        gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        x = x + linear(gelu, state, at + "mlp.fc2")
    return layer_norm(x, state, "decoder_norm")


@pytest.mark.parametrize("learns", [False, True])
def test_pooling_averages_points_read_between_the_middles_of_patches(learns: bool) -> None:
    features, patch, cells = noise(2, 3, 5, 6).requires_grad_(learns), 16, 3
    boxes = [torch.tensor([[7.0, 11, 83, 62]]).double(), torch.tensor([[20.0, 4, 29, 70], [0, 0, 96, 80]]).double()]
    found = pooled(features, boxes, cells=cells, patch=patch)

    def read(map_: Tensor, x: float, y: float) -> Tensor:
        column, row = min(max(x / patch - 0.5, 0), 5), min(max(y / patch - 0.5, 0), 4)
        left, top = min(int(column), 4), min(int(row), 3)
        a, b = column - left, row - top
        upper = map_[:, top, left] * (1 - a) + map_[:, top, left + 1] * a
        return upper * (1 - b) + (map_[:, top + 1, left] * (1 - a) + map_[:, top + 1, left + 1] * a) * b

    rois = [(0, *boxes[0][0].tolist()), *((1, *box) for box in boxes[1].tolist())]
    assert len(found) == len(rois)
    for (image, x0, y0, x1, y1), own in zip(rois, found, strict=True):
        width, height = (x1 - x0) / cells, (y1 - y0) / cells
        across, down = math.ceil(width / patch), math.ceil(height / patch)
        for row in range(cells):
            for column in range(cells):
                points = [
                    read(
                        features[image],
                        x0 + width * (column + (i + 0.5) / across),
                        y0 + height * (row + (j + 0.5) / down),
                    )
                    for i in range(across)
                    for j in range(down)
                ]
                torch.testing.assert_close(own[:, row, column], torch.stack(points).mean(dim=0))


def test_pooling_keeps_coordinates_in_float32_where_the_map_is_in_half_precision() -> None:
    columns = torch.arange(64.0).expand(1, 1, 4, 64)
    box = torch.tensor([[801.0, 16.0, 815.0, 48.0]])
    found = pooled(columns.bfloat16(), [box], cells=1, patch=16)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(808 / 16 - 0.5)


def test_positions_are_sines_and_cosines_of_columns_then_rows() -> None:
    side, width = 5, 24
    found = sincos_positions((side, side), width)
    assert found.shape == (1, 1 + side**2, width)
    assert not found[0, 0].any()
    quarter = width // 4
    for row in range(side):
        for column in range(side):
            expected = [
                of(place / 10_000 ** (index / quarter))
                for place in (column, row)
                for of in (math.sin, math.cos)
                for index in range(quarter)
            ]
            assert found[0, 1 + row * side + column].tolist() == pytest.approx(expected, abs=1e-6)


def cubic(distance: float) -> float:
    """Keys' kernel with a = −¾."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def cubic_weights(places: list[float], count: int) -> Tensor:
    """(places, count): how much of each sample a place between samples takes; beyond the ends the last one repeats."""
    weights = torch.zeros(len(places), count, dtype=torch.float64)
    for index, place in enumerate(places):
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[index, min(max(tap, 0), count - 1)] += cubic(place - tap)
    return weights


@pytest.mark.parametrize("side", [3, 4, 6, 9])
def test_positions_are_resized_bicubically_to_the_cells(side: int) -> None:
    transformer = RoiTransformer(CHANNELS, **SIZES | {"depth": 0}).double()
    nn.init.zeros_(transformer.embed.weight)
    grid = transformer.positions[0, 1:].unflatten(0, (SIDE, SIDE))
    weights = cubic_weights([(i + 0.5) * SIDE / side - 0.5 for i in range(side)], SIDE)
    expected = torch.einsum("ri,cj,ijw->rcw", weights, weights, grid).flatten(0, 1)
    state = {"one.weight": torch.ones(WIDTH).double(), "one.bias": torch.zeros(WIDTH).double()}
    found = transformer(noise(2, CHANNELS, side, side))
    for own in found:
        torch.testing.assert_close(own, layer_norm(expected, state, "one"))


@pytest.mark.parametrize("half", [False, True])
def test_heads_that_start_from_a_masked_autoencoder_compute_what_its_decoder_does(half: bool) -> None:
    state = mae_checkpoint()
    box, mask = BoxHead(CHANNELS, **SIZES).double(), MaskHead(CHANNELS, **SIZES, classes=3, start="small").double()
    assert all(start_from_mae(head.transformer, state, source="mae.pth") for head in (box, mask))
    side = SIDE // 2 if half else SIDE
    cells = noise(2, CHANNELS, side, side, seed=5)
    positions = state["decoder_pos_embed"][0]
    if half:
        weights = cubic_weights([2 * i + 0.5 for i in range(side)], SIDE)
        grid = torch.einsum("ri,cj,ijw->rcw", weights, weights, positions[1:].unflatten(0, (SIDE, SIDE)))
        positions = torch.cat([positions[:1], grid.flatten(0, 1)])
    random_weights(mask.logits)
    found, masks = box(cells), mask(cells)
    up = cubic_weights([i * (side - 1) / (2 * side - 1) for i in range(2 * side)], side)
    for own, vector, logits in zip(cells, found, masks, strict=True):
        tokens = own.flatten(1).T
        torch.testing.assert_close(vector, decoded(state, tokens, positions, box.token[0])[0])
        grid = decoded(state, tokens, positions).unflatten(0, (side, side))
        fine = torch.einsum("ri,cj,ijw->rcw", up, up, grid)
        expected = torch.einsum("kw,rcw->krc", mask.logits.weight[:, :, 0, 0], fine) + mask.logits.bias[:, None, None]
        torch.testing.assert_close(logits, expected)


def test_each_head_has_a_copy_of_its_own() -> None:
    state = mae_checkpoint()
    first, second = (RoiTransformer(CHANNELS, **SIZES).double() for _ in range(2))
    assert start_from_mae(first, state, source="mae.pth")
    assert start_from_mae(second, state, source="mae.pth")
    nn.init.zeros_(first.embed.weight)
    assert torch.equal(second.embed.weight, state["decoder_embed.weight"])
    assert state["decoder_embed.weight"].any()


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        (mae_checkpoint(depth=3), r"unexpected: decoder_blocks\.2\.norm1\.weight"),
        (mae_checkpoint(depth=1), r"missing: decoder_blocks\.1\.norm1\.weight"),
        (mae_checkpoint(width=32), r"of another shape: .*decoder_embed\.weight \(32, 12\) instead of \(16, 12\)"),
        (mae_checkpoint(side=7), r"of another shape: decoder_pos_embed \(1, 50, 16\) instead of \(1, 37, 16\)"),
        ({k: v for k, v in mae_checkpoint().items() if not k.startswith("norm")}, r"missing: norm\.weight, norm\.bias"),
    ],
)
def test_another_decoder_is_refused(state: dict[str, Tensor], complaint: str) -> None:
    transformer = RoiTransformer(CHANNELS, **SIZES)
    before = {key: value.clone() for key, value in transformer.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"mae\.pth do not fit the transformer.*{complaint}.*detector\.width"):
        start_from_mae(transformer, state, source="mae.pth")
    assert all(torch.equal(value, before[key]) for key, value in transformer.state_dict().items())


def test_a_checkpoint_without_a_decoder_leaves_the_heads_as_they_are() -> None:
    transformer = RoiTransformer(CHANNELS, **SIZES)
    before = {key: value.clone() for key, value in transformer.state_dict().items()}
    encoder = {key: value for key, value in mae_checkpoint().items() if not key.startswith("decoder_")}
    assert not start_from_mae(transformer, encoder, source="mae.pth")
    assert all(torch.equal(value, before[key]) for key, value in transformer.state_dict().items())


@pytest.mark.parametrize(("start", "std"), [("kaiming", math.sqrt(2 / 80)), ("small", 0.001)])
def test_class_channels_of_masks_start_as_told(start: str, std: float) -> None:
    torch.manual_seed(0)
    head = MaskHead(CHANNELS, **SIZES | {"width": 64, "depth": 0}, classes=80, start=start)
    assert head.logits.weight.std().item() == pytest.approx(std, rel=0.05)
    assert not head.logits.bias.any()


def test_the_mil_head_is_two_layers_under_two_of_classes() -> None:
    head = MilHead(CHANNELS, classes=4, cells=3, width=5, hidden=8).double()
    random_weights(head)
    state = dict(head.state_dict())
    cells = noise(2, 7, CHANNELS, 3, 3).requires_grad_()
    of_classes, of_boxes = head(cells)
    assert of_classes.shape == of_boxes.shape == (2, 7, 4)
    for instance in range(2):
        for box in range(7):
            tokens = cells[instance, box].flatten(1).T
            x = linear(layer_norm(tokens, state, "norm"), state, "embed").flatten()
            x = linear(linear(x, state, "first").clamp(min=0), state, "second").clamp(min=0)
            torch.testing.assert_close(of_classes[instance, box], linear(x, state, "of_classes"))
            torch.testing.assert_close(of_boxes[instance, box], linear(x, state, "of_boxes"))
    (gradient,) = torch.autograd.grad(of_boxes.sum() + of_classes.sum(), cells)
    assert gradient.flatten(2).abs().sum(dim=2).min() > 0


def test_token_heads_are_perceptrons_of_three_layers_and_places_lie_in_the_image() -> None:
    heads = random_weights(TokenHeads(CHANNELS, classes=4).double())
    state = dict(heads.state_dict())
    tokens = noise(2, 9, CHANNELS)
    classes, places = heads(tokens)

    def perceptron(name: str) -> Tensor:
        x = tokens
        for index in (0, 2):
            x = linear(x, state, f"{name}.{index}").clamp(min=0)
        return linear(x, state, f"{name}.4")

    torch.testing.assert_close(classes, perceptron("classes"))
    torch.testing.assert_close(places, 1 / (1 + (-perceptron("places")).exp()))
    assert classes.shape == (2, 9, 4)
    assert places.shape == (2, 9, 2)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "box": (lambda: BoxHead(CHANNELS, **SIZES), (3, CHANNELS, 4, 4)),
    "mask": (lambda: MaskHead(CHANNELS, **SIZES, classes=3, start="kaiming"), (3, CHANNELS, 4, 4)),
    "mil": (lambda: MilHead(CHANNELS, classes=3, cells=4, width=5, hidden=8), (3, 7, CHANNELS, 4, 4)),
    "tokens": (lambda: TokenHeads(CHANNELS, classes=3), (2, 9, CHANNELS)),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(MODULES))
def test_heads_train_under_autocast(name: str, dtype: torch.dtype) -> None:
    build, shape = MODULES[name]
    module, cells = random_weights(build()), noise(*shape).float()

    def outputs() -> Tensor:
        found = module(cells)
        return torch.cat([each.float().flatten() for each in (found if isinstance(found, tuple) else (found,))])

    exact = outputs()
    with torch.autocast("cpu", dtype=dtype):
        low = outputs()
    scale = exact.abs().max().item()
    torch.testing.assert_close(low, exact, rtol=0, atol=0.03 * scale)
    assert not torch.equal(low, exact)
    direction = noise(len(low), seed=1).float()
    (low / scale * direction).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("name", ["box", "mask"])
def test_an_empty_batch_keeps_every_weight_in_the_sum(name: str) -> None:
    build, shape = MODULES[name]
    module = build()
    found = module(torch.zeros(0, *shape[1:]))
    assert len(found) == 0
    found.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
