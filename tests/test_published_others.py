"""SOLOv2s, cascades and Mask2Formers of public zoos, from state dicts of their layout, compute what theirs would."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mal.errors import WeightsError
from mal.segmenters import mask2former, solov2
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.mask2former.model import SWINS
from mal.segmenters.published.mmdetection_mask2former import merged
from mal.segmenters.rcnn import cascade
from mal.segmenters.solov2.head import with_coordinates
from tests import published_layouts as layouts
from tests.published_layouts import Shapes, drawn, hollow, mmdetection_body, mmdetection_solov2
from tests.test_published_rcnn import given, identified

X101 = {"groups": 64, "group_width": 4}
AUTHORS, MMCLS = ("dwconv", "pwconv1", "pwconv2"), ("depthwise_conv", "pointwise_conv1", "pointwise_conv2")
SMALL, BASE = (96, (3, 3, 27, 3)), (128, (3, 3, 27, 3))


def loaded(module: Any, config: SegmenterConfig, state: dict[str, Tensor], *, classes: int = 80) -> Any:
    """Our segmenter with these weights, each of which must have its place and its shape."""
    with torch.device("meta"):
        model = module.build(config, classes=classes, load=False)
    model.load_state_dict(state, assign=True)
    return model.eval()


def wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.double() for key, value in tensors.items()}


# --- SOLOv2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "depth", "kind", "deformable"),
    [("solov2_r50", 50, {}, False), ("solov2_r101_dcn", 101, {}, True), ("solov2_x101_dcn", 101, X101, True)],
)
def test_each_solov2_of_mmdetection_fills_ours(name: str, depth: int, kind: dict[str, int], deformable: bool) -> None:
    body = mmdetection_body(depth, offsets=27 if deformable else 0, **kind)
    fitted, state = identified(given(name), hollow(mmdetection_solov2(body, 80, deformable=deformable)))
    model = loaded(solov2, fitted, state)
    assert hasattr(model.mask_features.out[0], "sampling") == deformable
    assert fitted.weights == "converted"


def test_a_light_solov2_is_refused() -> None:
    tensors = hollow(mmdetection_solov2(mmdetection_body(50), 80, deformable=False))
    light = {key: value for key, value in tensors.items() if ".cls_convs.3." not in key}
    with pytest.raises(
        WeightsError, match=r"missing: mask_head\.cls_convs\.3\.conv\.weight.*not one of the light ones"
    ):
        identified(given("solov2_r50"), light)


@pytest.fixture(scope="module")
def solo() -> tuple[Any, dict[str, Tensor]]:
    tensors = drawn(mmdetection_solov2(mmdetection_body(50), 80, deformable=False), scale=0.05)
    fitted, state = identified(given("solov2_r50", "grid.cells=[6,5,4,3,2]"), tensors)
    return loaded(solov2, fitted, state).double(), wide(tensors)


def conv_module(x: Tensor, tensors: dict[str, Tensor], name: str, *, padding: int) -> Tensor:
    """Convolution, group norm of 32 groups, ReLU (mmcv's ConvModule)."""
    y = F.conv2d(x, tensors[f"{name}.conv.weight"], padding=padding)
    return F.group_norm(y, 32, tensors[f"{name}.gn.weight"], tensors[f"{name}.gn.bias"]).relu()


def test_solov2s_branches_are_theirs(solo: tuple[Any, dict[str, Tensor]]) -> None:
    model, tensors = solo
    level = torch.randn(1, 256, 20, 24, dtype=torch.float64)
    kernel = F.interpolate(with_coordinates(level), size=(6, 6), mode="bilinear")
    category = kernel[:, :-2]
    for number in range(4):
        kernel = conv_module(kernel, tensors, f"mask_head.kernel_convs.{number}", padding=1)
        category = conv_module(category, tensors, f"mask_head.cls_convs.{number}", padding=1)
    kernel, category = (
        F.conv2d(x, tensors[f"mask_head.{name}.weight"], tensors[f"mask_head.{name}.bias"], padding=1)
        for x, name in ((kernel, "conv_kernel"), (category, "conv_cls"))
    )
    with torch.inference_mode():
        kernels, logits = model.grid_head([level] * 5)
    torch.testing.assert_close(kernels[0, : 6 * 6], kernel[0].flatten(1).T)
    torch.testing.assert_close(logits[0, : 6 * 6], category[0].flatten(1).T)


def test_solov2s_mask_features_are_theirs(solo: tuple[Any, dict[str, Tensor]]) -> None:
    model, tensors = solo
    at = "mask_head.mask_feature_head"
    maps = [torch.randn(1, 256, 32 // 2**level, 64 // 2**level, dtype=torch.float64) for level in range(4)]
    total = conv_module(maps[0], tensors, f"{at}.convs_all_levels.0.conv0", padding=1)
    for level in (1, 2, 3):
        x = with_coordinates(maps[3]) if level == 3 else maps[level]
        for number in range(level):
            x = conv_module(x, tensors, f"{at}.convs_all_levels.{level}.conv{number}", padding=1)
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + x
    theirs = conv_module(total, tensors, f"{at}.conv_pred", padding=0)
    with torch.inference_mode():
        torch.testing.assert_close(model.mask_features(maps), theirs)


# --- Cascade Mask R-CNN ----------------------------------------------------------------------------------------------


def cascade_shapes(size: tuple[int, tuple[int, ...]], names: tuple[str, str, str], *, boxes: int = 80) -> Shapes:
    width, depths = size
    widths = tuple(width * 2**stage for stage in range(4))
    return layouts.cascade_mask_rcnn(layouts.convnext(width, depths, names=names), widths, 80, boxes=boxes)


@pytest.mark.parametrize("boxes", [80, 1])
@pytest.mark.parametrize(
    ("name", "size", "names"),
    [
        ("cascade_convnext_s", SMALL, AUTHORS),
        ("cascade_convnext_s", SMALL, MMCLS),
        ("cascade_convnext_b", BASE, AUTHORS),
    ],
)
def test_each_cascade_on_convnext_fills_ours(
    name: str, size: tuple[int, tuple[int, ...]], names: tuple[str, str, str], boxes: int
) -> None:
    fitted, state = identified(given(name), hollow(cascade_shapes(size, names, boxes=boxes)))
    loaded(cascade, fitted, state)
    assert fitted.cascade.box_per_class == (boxes == 80)
    assert (fitted.heads.samples, fitted.proposals.exact_anchors) == (0, True)


def test_a_cascade_on_another_convnext_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"is a model on convnext_base, but segmenter=cascade_convnext_s runs on"):
        identified(given("cascade_convnext_s"), hollow(cascade_shapes(BASE, AUTHORS)))


@pytest.fixture(scope="module")
def cascaded() -> tuple[Any, dict[str, Tensor]]:
    tensors = drawn(cascade_shapes((96, (3, 3, 9, 3)), AUTHORS), scale=0.02)
    fitted, state = identified(given("cascade_convnext_s", "pyramid.name=convnext_tiny.fb_in1k"), tensors)
    return loaded(cascade, fitted, state).double(), wide(tensors)


def layer_norm(x: Tensor, tensors: dict[str, Tensor], name: str) -> Tensor:
    """Over the channels of (B, C, h, w), as ConvNeXt has it."""
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    return scaled * tensors[f"{name}.weight"][:, None, None] + tensors[f"{name}.bias"][:, None, None]


def test_a_convnext_computes_the_same_maps(cascaded: tuple[Any, dict[str, Tensor]]) -> None:
    model, tensors = cascaded
    x = images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    maps = []
    for stage, depth in enumerate((3, 3, 9, 3)):
        at = f"backbone.downsample_layers.{stage}"
        if stage == 0:
            x = layer_norm(
                F.conv2d(x, tensors[f"{at}.0.weight"], tensors[f"{at}.0.bias"], stride=4), tensors, f"{at}.1"
            )
        else:
            x = layer_norm(x, tensors, f"{at}.0")
            x = F.conv2d(x, tensors[f"{at}.1.weight"], tensors[f"{at}.1.bias"], stride=2)
        for block in range(depth):
            at = f"backbone.stages.{stage}.{block}"
            weight, bias = tensors[f"{at}.dwconv.weight"], tensors[f"{at}.dwconv.bias"]
            y = layer_norm(F.conv2d(x, weight, bias, padding=3, groups=x.shape[1]), tensors, f"{at}.norm")
            y = y.permute(0, 2, 3, 1)
            for number in (1, 2):
                y = y @ tensors[f"{at}.pwconv{number}.weight"].T + tensors[f"{at}.pwconv{number}.bias"]
                y = F.gelu(y) if number == 1 else y
            x = x + (y * tensors[f"{at}.gamma"]).permute(0, 3, 1, 2)
        maps.append(layer_norm(x, tensors, f"backbone.norm{stage}"))
    with torch.inference_mode():
        body = model.backbone
        mine = [norm(level) for norm, level in zip(body.map_norms, body.body(images), strict=True)]
    for own, theirs in zip(mine, maps, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_stage_of_the_cascade_scores_the_same_classes_and_boxes(
    cascaded: tuple[Any, dict[str, Tensor]], stage: int
) -> None:
    model, tensors = cascaded
    at, x = f"roi_head.bbox_head.{stage}", torch.randn(2, 256, 7, 7, dtype=torch.float64)
    mine = model.roi_heads.stages[stage]
    with torch.inference_mode():
        scores, deltas = mine.box_predictor(mine.box_head(x))
    for number in range(4):
        name = f"{at}.shared_convs.{number}"
        mean, variance, weight, bias = (
            tensors[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.conv2d(x, tensors[f"{name}.conv.weight"], padding=1)
        x = ((x - mean) / (variance + 1e-5).sqrt() * weight + bias).relu()
    x = (x.flatten(1) @ tensors[f"{at}.shared_fcs.0.weight"].T + tensors[f"{at}.shared_fcs.0.bias"]).relu()
    theirs, boxes = (
        x @ tensors[f"{at}.{name}.weight"].T + tensors[f"{at}.{name}.bias"] for name in ("fc_cls", "fc_reg")
    )
    torch.testing.assert_close(scores, theirs.roll(1, dims=1))
    torch.testing.assert_close(deltas, boxes)


# --- Mask2Former -----------------------------------------------------------------------------------------------------

REAL = {"width": 256, "queries": 100, "pixel_layers": 6, "layers": 9}
LITTLE = {"width": 32, "queries": 6, "pixel_layers": 2, "layers": 3}
LITTLE_SWIN = {"embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
CHANGES = ["width=32", "count=6", "pixel_layers=2", "layers=3", "pixel_feed_forward=48", "feed_forward=48"]


def renamed_hidden(shapes: Shapes, pixels: int, decoder: int) -> Shapes:
    """Feed-forward parts of two widths: the pixel decoder's, and the transformer decoder's."""

    def width(key: str) -> int:
        return pixels if ".pixel_decoder." in key else decoder

    return {key: tuple(width(key) if side == -1 else side for side in shape) for key, shape in shapes.items()}


def published_shapes(library: str, sizes: dict[str, object], *, pixels: int, decoder: int, **numbers: int) -> Shapes:
    describe = {"authors": layouts.mask2former, "mmdetection": layouts.mmdetection_mask2former}[library]
    return renamed_hidden(describe(sizes, 80, hidden=-1, **numbers), pixels, decoder)


@pytest.mark.parametrize("library", ["authors", "mmdetection"])
@pytest.mark.parametrize("size", ["swin_tiny", "swin_small", "swin_base", "swin_large"])
def test_each_mask2former_fills_ours(library: str, size: str) -> None:
    numbers = REAL | ({"queries": 200} if size == "swin_large" else {})
    tensors = hollow(published_shapes(library, SWINS[size][1], pixels=1024, decoder=2048, **numbers))
    config = given("mask2former_swin_s", f"pyramid.name={size}", f"queries.count={numbers['queries']}")
    _, state = identified(config, tensors)
    loaded(mask2former, config, {**state, "network.criterion.empty_weight": torch.ones(81)})


def test_another_swin_and_a_panoptic_model_are_refused() -> None:
    tensors = hollow(published_shapes("authors", SWINS["swin_tiny"][1], pixels=1024, decoder=2048, **REAL))
    with pytest.raises(WeightsError, match=r"is a Mask2Former on swin_tiny, but segmenter=mask2former_swin_s runs on"):
        identified(given("mask2former_swin_s"), tensors)
    panoptic = tensors | {"sem_seg_head.predictor.class_embed.weight": torch.zeros(134, 256)}
    with pytest.raises(WeightsError, match="knows 133 categories"):
        identified(given("mask2former_swin_s"), panoptic)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> SegmenterConfig:
    monkeypatch.setitem(SWINS, "swin_small", ("no/such-model", LITTLE_SWIN))
    return given("mask2former_swin_s", *(f"queries.{change}" for change in CHANGES))


def test_merged_pixels_are_swins() -> None:
    """torch's unfold gives channel by channel the pixels (0, 0), (0, 1), (1, 0), (1, 1) of each 2 × 2; Swin's authors
    give one pixel after the other, (0, 0), (1, 0), (0, 1), (1, 1)."""
    x, weight = torch.randn(1, 5, 4, 6, dtype=torch.float64), torch.randn(7, 20, dtype=torch.float64)
    theirs = F.unfold(x, kernel_size=2, stride=2)[0].T @ weight.T
    nhwc = x.permute(0, 2, 3, 1)
    parts = [nhwc[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    ours = torch.cat(parts, dim=-1).flatten(0, 2) @ merged(weight).T
    torch.testing.assert_close(ours, theirs)


def test_both_publishers_files_of_one_model_become_the_same(little: SegmenterConfig) -> None:
    """The same weights under both publishers' names and in both orders: Swin's, checked above, is where they differ."""
    authors = drawn(published_shapes("authors", LITTLE_SWIN, pixels=48, decoder=48, **LITTLE))
    shapes = published_shapes("mmdetection", LITTLE_SWIN, pixels=48, decoder=48, **LITTLE)
    theirs = {key: authors[as_authors(key)] for key in shapes}
    for key in theirs:
        if ".downsample." in key:  # as MMDetection's swin_converter reorders the authors' weights
            pixels = theirs[key].unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
            theirs[key] = pixels.transpose(-1, -2).flatten(-2)
    assert {key: value.shape for key, value in theirs.items()} == shapes
    mine, other = identified(little, authors)[1], identified(little, theirs)[1]
    assert all(torch.equal(mine[key], other[key]) for key in mine)
    older = {as_version_2(key): value for key, value in theirs.items()}
    assert older.keys() != theirs.keys()
    again = identified(little, older)[1]
    assert all(torch.equal(mine[key], again[key]) for key in mine)


def test_projections_are_split_as_torch_joins_them(little: SegmenterConfig) -> None:
    """Query, key and value, in this order: torch's own attention with the file's tensors gives what ours does."""
    tensors = drawn(published_shapes("authors", LITTLE_SWIN, pixels=48, decoder=48, **LITTLE), scale=0.3)
    _, state = identified(little, tensors)
    model = loaded(mask2former, little, {**state, "network.criterion.empty_weight": torch.ones(81)})
    at = "sem_seg_head.predictor.transformer_self_attention_layers.1.self_attn"
    theirs = torch.nn.MultiheadAttention(32, 8, batch_first=True).eval()
    theirs.load_state_dict({key.removeprefix(f"{at}."): v for key, v in tensors.items() if key.startswith(at)})
    own = model.network.model.transformer_module.decoder.layers[1].self_attn
    x = torch.randn(1, 5, 32)
    q, k, v = (getattr(own, f"{name}_proj")(x).view(1, 5, 8, 4).transpose(1, 2) for name in "qkv")
    with torch.inference_mode():
        mixed = own.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed, theirs(x, x, x, need_weights=False)[0])
    block = "backbone.layers.2.blocks.1.attn.qkv.weight"
    prefix = next(key for key in state if re.search(r"layers\.2\.blocks\.1\.attention.*q(_proj|uery)\.weight", key))
    assert torch.equal(state[prefix], tensors[block][:48])  # rows run over (3, heads, width of a head)


def as_authors(key: str) -> str:
    """MMDetection's name → the authors'."""
    for theirs, authors in (
        (r"^backbone\.stages", "backbone.layers"),
        (r"patch_embed\.projection", "patch_embed.proj"),
        (r"attn\.w_msa", "attn"),
        (r"^(backbone.*)ffn\.layers\.0\.0", r"\1mlp.fc1"),
        (r"^(backbone.*)ffn\.layers\.1", r"\1mlp.fc2"),
        (r"panoptic_head\.pixel_decoder\.input_convs\.(\d)\.conv", r"sem_seg_head.pixel_decoder.input_proj.\1.0"),
        (r"panoptic_head\.pixel_decoder\.input_convs\.(\d)\.gn", r"sem_seg_head.pixel_decoder.input_proj.\1.1"),
        (r"panoptic_head\.pixel_decoder\.level_encoding\.weight", "sem_seg_head.pixel_decoder.transformer.level_embed"),
        (r"panoptic_head\.pixel_decoder\.encoder", "sem_seg_head.pixel_decoder.transformer.encoder"),
        (r"(pixel_decoder.*)ffn\.layers\.0\.0", r"\1linear1"),
        (r"(pixel_decoder.*)ffn\.layers\.1", r"\1linear2"),
        (r"(pixel_decoder.*)norms\.0", r"\1norm1"),
        (r"(pixel_decoder.*)norms\.1", r"\1norm2"),
        (r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.conv", "sem_seg_head.pixel_decoder.adapter_1"),
        (r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.gn", "sem_seg_head.pixel_decoder.adapter_1.norm"),
        (r"panoptic_head\.pixel_decoder\.output_convs\.0\.conv", "sem_seg_head.pixel_decoder.layer_1"),
        (r"panoptic_head\.pixel_decoder\.output_convs\.0\.gn", "sem_seg_head.pixel_decoder.layer_1.norm"),
        (r"panoptic_head\.pixel_decoder\.mask_feature\b", "sem_seg_head.pixel_decoder.mask_features"),
        (r"panoptic_head\.transformer_decoder\.post_norm", "sem_seg_head.predictor.decoder_norm"),
        (r"panoptic_head\.transformer_decoder\.layers\.(\d)\.self_attn\.attn",
         r"sem_seg_head.predictor.transformer_self_attention_layers.\1.self_attn"),
        (r"panoptic_head\.transformer_decoder\.layers\.(\d)\.cross_attn\.attn",
         r"sem_seg_head.predictor.transformer_cross_attention_layers.\1.multihead_attn"),
        (r"panoptic_head\.transformer_decoder\.layers\.(\d)\.norms\.0",  # after looking at the image, which comes first
         r"sem_seg_head.predictor.transformer_cross_attention_layers.\1.norm"),
        (r"panoptic_head\.transformer_decoder\.layers\.(\d)\.norms\.1",
         r"sem_seg_head.predictor.transformer_self_attention_layers.\1.norm"),
        (r"panoptic_head\.transformer_decoder\.layers\.(\d)\.norms\.2",
         r"sem_seg_head.predictor.transformer_ffn_layers.\1.norm"),
        (r"panoptic_head\.transformer_decoder\.layers\.(\d)\.ffn\.layers\.0\.0",
         r"sem_seg_head.predictor.transformer_ffn_layers.\1.linear1"),
        (r"panoptic_head\.transformer_decoder\.layers\.(\d)\.ffn\.layers\.1",
         r"sem_seg_head.predictor.transformer_ffn_layers.\1.linear2"),
        (r"panoptic_head\.(query_embed|query_feat|level_embed)", r"sem_seg_head.predictor.\1"),
        (r"panoptic_head\.cls_embed", "sem_seg_head.predictor.class_embed"),
        (r"panoptic_head\.mask_embed\.0", "sem_seg_head.predictor.mask_embed.layers.0"),
        (r"panoptic_head\.mask_embed\.2", "sem_seg_head.predictor.mask_embed.layers.1"),
        (r"panoptic_head\.mask_embed\.4", "sem_seg_head.predictor.mask_embed.layers.2"),
    ):  # fmt: skip
        key = re.sub(theirs, authors, key)
    return key


def as_version_2(key: str) -> str:
    """MMDetection 3's name → version 2's: a layer's attentions are a list, and so is its one feed-forward part."""
    if ".transformer_decoder." in key:
        key = key.replace(".cross_attn.", ".attentions.0.").replace(".self_attn.", ".attentions.1.")
    elif ".pixel_decoder.encoder." in key:
        key = key.replace(".self_attn.", ".attentions.0.")
    return key if key.startswith("backbone.") else key.replace(".ffn.", ".ffns.0.")
