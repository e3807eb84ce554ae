"""The ViT with point tokens: timm's own arithmetic, tokens that see all, attention that can be trusted."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mal.encoders.attention import attention_maps
from mal.encoders.config import EncoderConfig
from mal.encoders.encoder import Encoder
from mal.errors import ConfigError, WeightsError
from mal.methods.attentionshift.config.network import StemConfig, TokensConfig
from mal.methods.attentionshift.encoder import PointViT, _spread
from mal.methods.attentionshift.stem import Stem, stem_path

SHAPE = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
TINY = EncoderConfig(name="tiny", timm="vit_tiny_patch16_224", pretrained=False, options=SHAPE)
TOKENS = TokensConfig(count=4, blocks=[1, 2, 3, 3])
STEM = StemConfig(
    timm="mobilenetv2_100",
    pretrained=False,
    checkpoint="shipped",
    options={"pad_type": "same"},
    mean=[0.5] * 3,
    std=[0.5] * 3,
)


def vit(tokens: TokensConfig = TOKENS, encoder: EncoderConfig = TINY, side: int = 32) -> PointViT:
    torch.manual_seed(0)
    network = PointViT(encoder, tokens, image_size=(side, side))
    for parameter in network.parameters():  # biases and norms start at 0 and 1, which would hide a mistake
        nn.init.normal_(parameter, std=0.3)
    return network.double().eval()


def images(height: int = 32, width: int = 32, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_without_point_tokens_the_last_map_is_timms_before_its_norm() -> None:
    network = vit(replace(TOKENS, count=1))
    network.config.count = 0
    network.tokens = network.token_positions = nn.Parameter(torch.empty(1, 0, 24, dtype=torch.float64))
    seen, own = network(images(), depth=3), network.vit
    mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (network.mean, network.std))
    theirs = own.forward_intermediates((images() - mean) / std, indices=[0, 1, 2], norm=False, intermediates_only=True)
    for ours, expected in zip(seen.maps, [*theirs, theirs[-1]], strict=True):
        torch.testing.assert_close(ours, expected)


def test_attention_is_the_mean_over_heads_of_what_timm_computes() -> None:
    torch.manual_seed(0)
    encoder = Encoder(TINY, image_size=32).double()
    network = vit(replace(TOKENS, count=1))
    network.vit.load_state_dict({k: v for k, v in encoder.backbone.state_dict().items() if not k.startswith("norm.")})
    network.config.count = 0
    network.tokens = network.token_positions = nn.Parameter(torch.empty(1, 0, 24, dtype=torch.float64))
    expected = attention_maps(encoder, images(), [1, 2, 3])
    for ours, layer in zip(network(images(), depth=3).attention, (1, 2, 3), strict=True):
        torch.testing.assert_close(ours, expected[layer].mean(dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mixing", [True, False])
def test_attention_moves_values_as_it_says(mixing: bool) -> None:
    """Block 1 by hand, head by head, from its own softmax; with mixing off patches and class keep their own values."""
    network = vit(replace(TOKENS, patch_mixing=mixing))
    block = network.vit.blocks[0]
    x = torch.cat([network._patches(images(), (4, 4)), network._points(2)], dim=1)
    y = block.norm1(x)
    query, key, value = block.attn.qkv(y).chunk(3, dim=-1)
    looks = []
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 8**0.5
        if not mixing:
            scores[:, :17] = -torch.inf
            scores[:, range(17), range(17)] = 0
        looks.append(scores.softmax(dim=-1))
    moved = torch.cat([look @ value[..., 8 * h : 8 * h + 8] for h, look in enumerate(looks)], dim=-1)
    x = x + block.attn.proj(moved)
    x = x + block.mlp(block.norm2(x))
    seen = network(images(), depth=3)
    torch.testing.assert_close(seen.maps[0], x[:, 1:17].transpose(1, 2).unflatten(2, (4, 4)))
    torch.testing.assert_close(seen.attention[0].double(), torch.stack(looks).mean(dim=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen.attention[0].sum(dim=-1), torch.ones(2, 21))


def test_only_the_last_blocks_show_their_attention_and_nothing_flows_through_it() -> None:
    seen = vit()(images(), depth=2)
    assert [tuple(each.shape) for each in seen.attention] == [(2, 21, 21)] * 2
    assert not any(each.requires_grad for each in seen.attention)
    assert seen.tokens.shape == (2, 4, 24)
    assert seen.tokens.requires_grad


def test_positions_are_resized_bicubically_to_other_images() -> None:
    network = vit()
    nn.init.zeros_(network.vit.patch_embed.proj.weight)
    nn.init.zeros_(network.vit.patch_embed.proj.bias)
    patches = network._patches(images(48, 16), (6, 2))[:, 1:]
    grid = network.vit.pos_embed[0, 1:].T.unflatten(1, (4, 4))[None]
    expected = F.interpolate(grid, size=(6, 2), mode="bicubic", align_corners=False)[0].flatten(1).T
    torch.testing.assert_close(patches[0], expected)


def test_the_shipped_stem_stacks_the_cells_of_a_patch_and_stays_as_loaded() -> None:
    torch.manual_seed(0)
    stem = Stem(STEM, patch=16, channels=10).train()
    before = {key: value.clone() for key, value in stem.body.state_dict().items()}
    out = stem(images(64, 96).float())
    out.sum().backward()
    assert out.shape == (2, 4 * 6, 10)
    assert all(torch.equal(before[key], value) for key, value in stem.body.state_dict().items())
    assert all(parameter.grad is None for parameter in stem.body.parameters())
    assert stem.linear.weight.grad is not None
    (cells,) = stem.body.forward_intermediates(
        (images(64, 96).float() - 0.5) / 0.5, indices=[stem.index], intermediates_only=True
    )
    width, normed = cells.shape[1], F.batch_norm(cells, None, None, training=True)
    second = normed[0, :, 0:2, 2:4].reshape(width * 4)  # the second patch of the first row: channel by channel
    torch.testing.assert_close(out[0, 1], stem.linear(second), rtol=1e-4, atol=1e-5)


def test_the_shipped_stem_is_the_first_stages_of_the_published_weights(shared_data) -> None:
    from safetensors.torch import load_file

    whole = load_file(shared_data.parent / "weights" / "mobilenetv2_100_same_in1k.safetensors")
    for key, value in load_file(stem_path("shipped")).items():
        torch.testing.assert_close(value.float(), whole[key].float(), rtol=1e-3, atol=1e-4)


def test_what_cannot_carry_point_tokens_is_refused(tmp_path) -> None:
    swin = EncoderConfig(name="swin", timm="swin_tiny_patch4_window7_224", pretrained=False)
    with pytest.raises(ConfigError, match="no plain ViT with one class token"):
        PointViT(swin, TOKENS, image_size=(224, 224))
    with pytest.raises(ConfigError, match=r"blocks=\[1, 2, 3, 4\]"):
        PointViT(TINY, replace(TOKENS, blocks=[1, 2, 3, 4]), image_size=(32, 32))
    with pytest.raises(ConfigError, match="stride=5"):
        Stem(replace(STEM, stride=5), patch=16, channels=8)
    torch.save({"conv_stem.weight": torch.zeros(1)}, tmp_path / "half.pt")
    with pytest.raises(WeightsError, match="do not fit the stem's network"):
        Stem(replace(STEM, checkpoint=str(tmp_path / "half.pt")), patch=16, channels=8)


def test_a_masked_autoencoders_file_gives_the_vit_its_encoder(tmp_path) -> None:
    donor = PointViT(TINY, TOKENS, image_size=(32, 32)).vit
    norm = {"norm.weight": torch.ones(24), "norm.bias": torch.zeros(24)}
    state = {**donor.state_dict(), **norm, "mask_token": torch.zeros(1, 1, 8), "decoder_norm.weight": torch.ones(8)}
    torch.save({"model": state}, tmp_path / "mae.pt")
    network = PointViT(replace(TINY, checkpoint=str(tmp_path / "mae.pt")), TOKENS, image_size=(32, 32))
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in network.vit.state_dict().items())
    torch.save({"model": {k: v for k, v in state.items() if "blocks.2" not in k}}, tmp_path / "short.pt")
    with pytest.raises(WeightsError, match=r"missing: blocks\.2"):
        PointViT(replace(TINY, checkpoint=str(tmp_path / "short.pt")), TOKENS, image_size=(32, 32))


def test_tokens_that_begin_as_places_look_at_the_patches_around_them() -> None:
    wide = replace(TINY, options={"patch_size": 8, "embed_dim": 96, "depth": 2, "num_heads": 4})
    tokens = TokensConfig(count=9, blocks=[1, 1, 2, 2], begin="places")
    torch.manual_seed(0)
    network = PointViT(wide, tokens, image_size=(96, 96))
    grey = torch.full((1, 3, 96, 96), 0.5)
    look = network(grey, depth=2).attention[0][0, -9:, 1:145].unflatten(1, (12, 12))
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    for index, each in enumerate(look):
        row, column = (2, 6, 10)[index // 3], (2, 6, 10)[index % 3]
        near = ((rows - row).abs() <= 2) & ((columns - column).abs() <= 2)
        assert each[near].mean() > 2 * each[~near].mean()
        assert near.flatten()[each.argmax()]


def test_places_are_spread_over_grids_of_any_shape() -> None:
    for count, grid in ((1, (3, 5)), (20, (12, 12)), (60, (4, 20)), (7, (2, 2))):
        rows, columns = _spread(count, grid)
        assert len(rows) == len(columns) == count
        assert ((rows >= 0) & (rows < grid[0]) & (columns >= 0) & (columns < grid[1])).all()
    rows, columns = _spread(4, (12, 8))
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(3, 2), (3, 6), (9, 2), (9, 6)]


def test_a_trained_network_is_rebuilt_without_the_files_it_started_from(tmp_path) -> None:
    gone = replace(TOKENS, stem=replace(STEM, checkpoint=str(tmp_path / "gone.safetensors")))
    PointViT(TINY, gone, image_size=(32, 32), load=False)
    with pytest.raises(WeightsError, match=r"tokens\.stem\.checkpoint=.*no such file"):
        PointViT(TINY, gone, image_size=(32, 32))


def test_an_encoder_published_as_a_file_is_not_silently_another(compose) -> None:
    config = compose("labeler=attentionshift", "encoder=mae_s", "data=shapes").encoder
    with pytest.raises(WeightsError, match="encoder=mae_s are published as a file"):
        PointViT(config, TOKENS, image_size=(224, 224))
