"""Mask R-CNNs of MMDetection's and detectron2's zoos, from state dicts of their layout, compute what theirs would."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal.errors import WeightsError
from mal.segmenters import published
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published.files import Weights
from mal.segmenters.published.mmdetection import about
from mal.segmenters.published.resnets import ours_deformed
from mal.segmenters.rcnn import mask_rcnn
from mal.segmenters.rcnn.parts import ExactAnchors
from tests.published_layouts import (
    detectron2_mask_rcnn,
    drawn,
    hollow,
    mmdetection_body,
    mmdetection_mask_rcnn,
)
from tests.test_segmenter import composed

X101_32X4D, X101_64X4D = {"groups": 32, "group_width": 4}, {"groups": 64, "group_width": 4}
NAME = "mask_rcnn_r50_fpn_1x_coco.pth"
X101_32X8D = {"groups": 32, "group_width": 8}


def given(name: str, *overrides: str) -> SegmenterConfig:
    """A segmenter whose published weights are a file."""
    return composed(name, "weights=published", "checkpoint=file", *overrides)


def identified(config: SegmenterConfig, tensors: dict[str, Tensor], name: str = NAME, text: str = "") -> Any:
    """(fitted config, our state dict) of weights of that layout; a fault is a WeightsError."""
    weights = Weights(Path(name), tensors, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "read", lambda *_, **__: weights)
        found = published.identify(config, Path(name))
    fitted = found.fitted(config)
    return fitted, found.layout.convert("converted")(fitted, weights, found.facts)


def hollow_model(config: SegmenterConfig, state: dict[str, Tensor], *, classes: int = 80) -> Any:
    """Our segmenter with these weights, each of which must have its place and its shape."""
    with torch.device("meta"):
        model = mask_rcnn.build(config, classes=classes, load=False)
    model.load_state_dict(state, assign=True)
    return model


# --- every weight finds its place ------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [80, 1203])
@pytest.mark.parametrize(
    ("name", "depth", "kind"),
    [
        ("mask_rcnn_r50", 50, {}),
        ("mask_rcnn_r101", 101, {}),
        ("mask_rcnn_x101_32x4d", 101, X101_32X4D),
        ("mask_rcnn_x101_64x4d", 101, X101_64X4D),
    ],
)
def test_each_mask_rcnn_of_mmdetection_fills_ours(name: str, depth: int, kind: dict[str, int], classes: int) -> None:
    config, tensors = given(name), hollow(mmdetection_mask_rcnn(mmdetection_body(depth, **kind), classes))
    fitted, state = identified(config, tensors)
    hollow_model(fitted, state, classes=classes)
    assert fitted.weights == "converted"
    assert fitted.proposals.exact_anchors
    assert (fitted.heads.samples, fitted.heads.aligned) == (0, True)
    assert (fitted.pyramid.mean, fitted.pyramid.std) == (config.pyramid.mean, config.pyramid.std)


@pytest.mark.parametrize(
    ("name", "depth", "kind", "changes", "early"),
    [
        ("mask_rcnn_r50", 50, {}, [], True),
        ("mask_rcnn_r101", 101, {}, [], True),
        ("mask_rcnn_r101", 101, X101_32X8D, ["pyramid.name=resnext101_32x8d"], False),
    ],
)
def test_each_mask_rcnn_of_detectron2_fills_ours(
    name: str, depth: int, kind: dict[str, int], changes: list[str], early: bool
) -> None:
    tensors = hollow(detectron2_mask_rcnn(depth, 80, **kind))
    fitted, state = identified(given(name, *changes), tensors)
    own = hollow_model(fitted, state)
    block = own.backbone.body.model.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == (((2, 2), (1, 1)) if early else ((1, 1), (2, 2)))
    assert own.backbone.body.model.layer1[0].conv1.stride == (1, 1)
    assert block.downsample[0].stride == (2, 2)
    old = tensors | {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.zeros(3, 1, 1)}
    old |= {f"proposal_generator.anchor_generator.cell_anchors.{level}": torch.zeros(3, 4) for level in range(5)}
    assert identified(given(name, *changes), old)[1].keys() == state.keys()


@pytest.mark.parametrize(
    ("offsets", "offset_name"), [(27, "conv2.conv_offset"), (18, "conv2.conv_offset"), (18, "conv2_offset")]
)
def test_deformable_mask_rcnns_fill_ours(offsets: int, offset_name: str) -> None:
    body = mmdetection_body(50, offsets=offsets, offset_name=offset_name)
    tensors = hollow(mmdetection_mask_rcnn(body, 80))
    fitted, state = identified(given("mask_rcnn_r50", "dcn=true"), tensors)
    hollow_model(fitted, state)
    with pytest.raises(WeightsError, match=r"has deformable convolutions; set segmenter\.dcn=true"):
        identified(given("mask_rcnn_r50"), tensors)


# --- and computes what it computed there -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mmdetection() -> dict[str, Tensor]:
    return drawn(mmdetection_mask_rcnn(mmdetection_body(50), 80), scale=0.02)


@pytest.fixture(scope="module")
def detectron2() -> dict[str, Tensor]:
    return drawn(detectron2_mask_rcnn(50, 80), scale=0.02)


def built(tensors: dict[str, Tensor], *overrides: str, name: str = NAME, text: str = "") -> tuple[Any, SegmenterConfig]:
    config, state = identified(given("mask_rcnn_r50", *overrides), tensors, name, text)
    return hollow_model(config, state).eval().double(), config


def linear(x: Tensor, tensors: dict[str, Tensor], name: str) -> Tensor:
    return x @ tensors[f"{name}.weight"].double().T + tensors[f"{name}.bias"].double()


@pytest.mark.parametrize(
    ("library", "hidden", "scores", "deltas"),
    [
        ("mmdetection", "roi_head.bbox_head.shared_fcs.{}", "roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"),
        (
            "detectron2",
            "roi_heads.box_head.fc{}",
            "roi_heads.box_predictor.cls_score",
            "roi_heads.box_predictor.bbox_pred",
        ),
    ],
)
def test_the_box_head_scores_the_same_classes_and_boxes(
    request: pytest.FixtureRequest, library: str, hidden: str, scores: str, deltas: str
) -> None:
    """Pooled maps are flattened channel by channel; theirs end with the background, ours begin with it."""
    tensors = request.getfixturevalue(library)
    model, _ = built(tensors)
    pooled = torch.randn(3, 256, 7, 7, dtype=torch.float64)
    first = 0 if library == "mmdetection" else 1
    x = pooled.reshape(3, 256 * 49)
    for number in (first, first + 1):
        x = linear(x, tensors, hidden.format(number)).relu()
    theirs_scores, theirs_deltas = linear(x, tensors, scores), linear(x, tensors, deltas).view(3, 80, 4)
    with torch.inference_mode():
        mine_scores, mine_deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    torch.testing.assert_close(mine_scores, theirs_scores.roll(1, dims=1))
    torch.testing.assert_close(mine_deltas.view(3, 81, 4)[:, 1:], theirs_deltas)


@pytest.mark.parametrize(
    ("library", "convolutions", "up", "out"),
    [
        (
            "mmdetection",
            "roi_head.mask_head.convs.{}.conv",
            "roi_head.mask_head.upsample",
            "roi_head.mask_head.conv_logits",
        ),
        ("detectron2", "roi_heads.mask_head.mask_fcn{}", "roi_heads.mask_head.deconv", "roi_heads.mask_head.predictor"),
    ],
)
def test_the_mask_head_draws_the_same_masks(
    request: pytest.FixtureRequest, library: str, convolutions: str, up: str, out: str
) -> None:
    tensors = request.getfixturevalue(library)
    model, _ = built(tensors)
    x = pooled = torch.randn(2, 256, 14, 14, dtype=torch.float64)
    first = 0 if library == "mmdetection" else 1
    wide = {key: value.double() for key, value in tensors.items()}
    for number in range(first, first + 4):
        at = convolutions.format(number)
        x = F.conv2d(x, wide[f"{at}.weight"], wide[f"{at}.bias"], padding=1).relu()
    # a transposed convolution of stride 2 and side 2 writes a 2 × 2 block for each pixel
    blocks = torch.einsum("bihw,iokl->bohkwl", x, wide[f"{up}.weight"])
    x = (blocks.reshape(2, 256, 28, 28) + wide[f"{up}.bias"][:, None, None]).relu()
    theirs = torch.einsum("bchw,kc->bkhw", x, wide[f"{out}.weight"][:, :, 0, 0]) + wide[f"{out}.bias"][:, None, None]
    with torch.inference_mode():
        mine = model.roi_heads.mask_predictor(model.roi_heads.mask_head(pooled))
    torch.testing.assert_close(mine[:, 1:], theirs)  # label 1 is their class 0


def stem(tensors: dict[str, Tensor], pixels: Tensor, *, convolution: str, norm: str) -> Tensor:
    wide = {key: value.double() for key, value in tensors.items()}
    x = F.conv2d(pixels, wide[f"{convolution}.weight"], stride=2, padding=3)
    mean, variance, weight, bias = (
        wide[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (variance + 1e-5).sqrt() * weight + bias).relu()


def mine_of_stem(model: Any, image: Tensor) -> Tensor:
    prepared, _ = model.transform([image.double() / 255])
    body = model.backbone.body.model
    with torch.inference_mode():
        return body.relu(body.bn1(body.conv1(prepared.tensors.contiguous())))


VERSION_3 = """model = dict(
    backbone=dict(depth=50, norm_cfg=dict(requires_grad=False, type='BN'), style='caffe', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=False,
        mean=[
            103.53,
            116.28,
            123.675,
        ],
        pad_mask=True,
        std=[
            1.0,
            1.0,
            1.0,
        ],
        type='DetDataPreprocessor'))"""
BGR_MEAN = torch.tensor([103.53, 116.28, 123.675], dtype=torch.float64)[:, None, None]


@pytest.mark.parametrize(
    ("library", "name", "text", "bgr"),
    [
        ("detectron2", "model_final_a54504.pkl", "", True),
        ("mmdetection", "mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth", "style='pytorch'", False),
        ("mmdetection", "mask_rcnn_r50_caffe_fpn_1x_coco.pth", "", True),
        ("mmdetection", "renamed.pth", "backbone=dict(style='caffe')", True),
        ("mmdetection", "renamed.pth", VERSION_3, True),
    ],
)
def test_pixels_enter_as_the_publisher_had_them(
    request: pytest.FixtureRequest, library: str, name: str, text: str, bgr: bool
) -> None:
    """Caffe's models take BGR in [0, 255] less its mean, the others RGB, normalised."""
    tensors = request.getfixturevalue(library)
    model, config = built(tensors, name=name, text=text)
    image = torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8)
    if bgr:
        pixels = image.flip(0).double() - BGR_MEAN
    else:
        spread = torch.tensor([57.375, 57.12, 58.395], dtype=torch.float64)[:, None, None].flip(0)
        pixels = (image.double() - BGR_MEAN.flip(0)) / spread
    at = "backbone.bottom_up.stem.conv1" if library == "detectron2" else "backbone.conv1"
    norm = f"{at}.norm" if library == "detectron2" else "backbone.bn1"
    theirs = stem(tensors, pixels[None], convolution=at, norm=norm)
    torch.testing.assert_close(mine_of_stem(model, image), theirs, rtol=1e-6, atol=1e-6)
    assert config.pyramid.stride_in_1x1 == bgr


@pytest.mark.parametrize("stage", [1, 2])
def test_a_bottleneck_of_detectron2_is_ours(detectron2: dict[str, Tensor], stage: int) -> None:
    """Stride in the first convolution; each convolution's own norm."""
    model, _ = built(detectron2)
    wide, stride = {key: value.double() for key, value in detectron2.items()}, 1 if stage == 1 else 2
    at = f"backbone.bottom_up.res{stage + 1}.0"

    def normed(x: Tensor, name: str, **options: Any) -> Tensor:
        y = F.conv2d(x, wide[f"{name}.weight"], **options)
        mean, variance, weight, bias = (
            wide[f"{name}.norm.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = torch.randn(1, 64 if stage == 1 else 256, 8, 8, dtype=torch.float64)
    inner = normed(x, f"{at}.conv1", stride=stride).relu()
    inner = normed(normed(inner, f"{at}.conv2", padding=1).relu(), f"{at}.conv3")
    theirs = (inner + normed(x, f"{at}.shortcut", stride=stride)).relu()
    with torch.inference_mode():
        mine = model.backbone.body.model.get_submodule(f"layer{stage}")[0](x)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("library", ["mmdetection", "detectron2"])
def test_the_region_proposal_head_is_theirs(request: pytest.FixtureRequest, library: str) -> None:
    """Of three anchors at a place each has four deltas in a row."""
    tensors = request.getfixturevalue(library)
    model, _ = built(tensors)
    names = {
        "mmdetection": ("rpn_head.rpn_conv", "rpn_head.rpn_cls", "rpn_head.rpn_reg"),
        "detectron2": tuple(
            f"proposal_generator.rpn_head.{name}" for name in ("conv", "objectness_logits", "anchor_deltas")
        ),
    }[library]
    wide = {key: value.double() for key, value in tensors.items()}
    x = torch.randn(1, 256, 4, 5, dtype=torch.float64)
    hidden = F.conv2d(x, wide[f"{names[0]}.weight"], wide[f"{names[0]}.bias"], padding=1).relu()
    scores, deltas = (F.conv2d(hidden, wide[f"{name}.weight"], wide[f"{name}.bias"]) for name in names[1:])
    with torch.inference_mode():
        [mine_scores], [mine_deltas] = model.rpn.head([x])
    torch.testing.assert_close(mine_scores, scores)
    torch.testing.assert_close(mine_deltas, deltas)


def test_exact_anchors_are_mmdetections() -> None:
    """Around multiples of the stride: √(area) is the side, height / width the ratio, nothing rounded."""
    config = composed("mask_rcnn_r50")
    generator: Any = mask_rcnn.region_proposals(config).anchor_generator
    assert isinstance(generator, ExactAnchors)
    images = type("Images", (), {"tensors": torch.zeros(1, 3, 800, 96), "image_sizes": [(800, 96)]})()
    maps = [torch.zeros(1, 1, -(-800 // stride), -(-96 // stride)) for stride in (4, 8, 16, 32, 64)]
    [anchors] = generator(images, maps)
    expected = []
    for stride, side, map_ in zip((4, 8, 16, 32, 64), (32, 64, 128, 256, 512), maps, strict=True):
        for row in range(map_.shape[-2]):
            for column in range(map_.shape[-1]):
                for ratio in (0.5, 1.0, 2.0):
                    w, h, x, y = side / ratio**0.5, side * ratio**0.5, column * stride, row * stride
                    expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=1e-6, atol=1e-4)
    rounded: Any = mask_rcnn.region_proposals(
        composed("mask_rcnn_r50", "proposals.exact_anchors=false")
    ).anchor_generator
    assert not torch.equal(rounded(images, maps)[0], anchors)


# --- deformable convolutions -----------------------------------------------------------------------------------------


def sampled(x: Tensor, weight: Tensor, offsets: Tensor, strengths: Tensor) -> Tensor:
    """Deformable convolution of side 3, stride 1 and padding 1 as mmcv's kernel has it: tap k = 3i + j of an
    output pixel reads the input at (y − 1 + i + offset[2k], x − 1 + j + offset[2k + 1]), bilinearly, 0 outside."""
    channels, height, width = x.shape
    result = torch.zeros(len(weight), height, width, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            for tap in range(9):
                i, j = divmod(tap, 3)
                y = row - 1 + i + float(offsets[2 * tap, row, column])
                z = column - 1 + j + float(offsets[2 * tap + 1, row, column])
                value = torch.zeros(channels, dtype=x.dtype)
                for yy in (int(np.floor(y)), int(np.floor(y)) + 1):
                    for zz in (int(np.floor(z)), int(np.floor(z)) + 1):
                        if 0 <= yy < height and 0 <= zz < width:
                            value += (1 - abs(y - yy)) * (1 - abs(z - zz)) * x[:, yy, zz]
                result[:, row, column] += strengths[tap, row, column] * (weight[:, :, i, j] @ value)
    return result


@pytest.mark.parametrize("version", [1, 2])
def test_a_deformable_convolution_samples_where_theirs_does(version: int) -> None:
    from mal.segmenters.deformable import DeformableConv

    channels = {1: 18, 2: 27}[version]
    shapes = {"c.weight": (3, 4, 3, 3), "c.conv_offset.weight": (channels, 4, 3, 3), "c.conv_offset.bias": (channels,)}
    tensors = {key: value.double() for key, value in drawn(shapes, scale=0.3).items()}
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    out = F.conv2d(x[None], tensors["c.conv_offset.weight"], tensors["c.conv_offset.bias"], padding=1)[0]
    if version == 2:  # mmcv chunks in three and joins the first two
        first, second, mask = out.chunk(3)
        theirs = sampled(x, tensors["c.weight"], torch.cat([first, second]), mask.sigmoid())
    else:
        theirs = sampled(x, tensors["c.weight"], out, torch.ones(9, 5, 6, dtype=torch.float64))
    ours = ours_deformed(tensors)
    own = DeformableConv(nn.Conv2d(4, 3, 3, padding=1, bias=False)).double()
    own.load_state_dict({key.removeprefix("c.").replace("conv_offset", "sampling"): v for key, v in ours.items()})
    torch.testing.assert_close(own(x[None])[0], theirs)
    assert torch.equal(tensors["c.weight"], drawn(shapes, scale=0.3)["c.weight"].double())  # the file's own stay


# --- files -----------------------------------------------------------------------------------------------------------


def small_dict() -> dict[str, Tensor]:
    return {"backbone.conv1.weight": torch.arange(4.0), "head.bias": torch.ones(2)}


SAVED: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "mmdetection.pth": lambda state, path: torch.save(
        {
            "meta": {"config": "model = dict(style='caffe')", "best": np.float64(0.3), "CLASSES": ("a", "b")},
            "state_dict": state,
        },
        path,
    ),
    "older.pth": lambda state, path: torch.save(
        {"state_dict": state, "meta": {}}, path, _use_new_zipfile_serialization=False
    ),
    "zoo.pkl": lambda state, path: (
        path.write_bytes(
            pickle.dumps(
                {"model": {k: v.numpy() for k, v in state.items()}, "__author__": "Detectron2 Model Zoo"}, protocol=2
            )
        )
        and None
    ),
    "plain.pth": lambda state, path: torch.save(state, path),
}


@pytest.mark.parametrize("name", SAVED)
def test_each_publishers_file_is_read(tmp_path: Path, name: str) -> None:
    from mal.segmenters.published.files import read

    SAVED[name](small_dict(), tmp_path / name)
    weights = read(tmp_path / name)
    assert weights.tensors.keys() == small_dict().keys()
    assert all(torch.equal(weights.tensors[key], value) for key, value in small_dict().items())
    assert ("caffe" in weights.config) == (name == "mmdetection.pth")


class Attack:
    """Unpickled, it would call something."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["evil.pkl", "evil.pth"])
def test_a_file_that_would_run_something_is_refused_and_does_not(tmp_path: Path, name: str) -> None:
    from mal.segmenters.published.files import read

    content = {"model": small_dict(), "extra": Attack(tmp_path / "touched")}
    if name.endswith("pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(WeightsError, match="is not a readable file of published weights"):
        read(tmp_path / name)
    assert not (tmp_path / "touched").exists()


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    from mal.segmenters.published.files import read

    for name, content in (("list.pth", [torch.zeros(1)]), ("text.pth", {"model": {"a": "b"}}), ("empty.pth", {})):
        torch.save(content, tmp_path / name)
        with pytest.raises(WeightsError, match="holds no dictionary of tensors"):
            read(tmp_path / name)
    (tmp_path / "torn.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(3)}})[:-20])
    with pytest.raises(WeightsError, match=r"torn\.pkl is not a readable file"):
        read(tmp_path / "torn.pkl")


# --- the wrong file --------------------------------------------------------------------------------------------------


def test_a_wrong_file_is_named_in_a_sentence() -> None:
    r50 = hollow(mmdetection_mask_rcnn(mmdetection_body(50), 80))
    with pytest.raises(WeightsError, match=r"is a model on resnet50, but segmenter=mask_rcnn_r101 runs on resnet101"):
        identified(given("mask_rcnn_r101"), r50)
    x101 = hollow(mmdetection_mask_rcnn(mmdetection_body(101, **X101_32X4D), 80))
    with pytest.raises(
        WeightsError, match=r"on resnext101_32x4d, but segmenter=mask_rcnn_x101_64x4d runs on resnext101_64x4d"
    ):
        identified(given("mask_rcnn_x101_64x4d"), x101)
    with pytest.raises(
        WeightsError,
        match=r"is MMDetection's Mask R-CNN, and segmenter=solov2_r50 is none; choose one of mask_rcnn_r50",
    ):
        identified(given("solov2_r50"), r50)
    with pytest.raises(
        WeightsError, match=r"knows 1230 categories, which are neither COCO's 80 nor the 1203 of LVIS v1"
    ):
        identified(given("mask_rcnn_r50"), hollow(mmdetection_mask_rcnn(mmdetection_body(50), 1230)))
    with pytest.raises(
        WeightsError, match=r"no published segmenter in a layout known here .*its 1 weights are called a, …"
    ):
        identified(given("mask_rcnn_r50"), {"a": torch.zeros(1)})


def test_a_file_of_another_backbone_is_refused_before_anything_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a labeler is trained for its denominator: what tells the layout is enough to plan with."""
    heads = {"roi_head.bbox_head.fc_cls.weight": torch.zeros(81, 4)}
    heads["roi_head.mask_head.conv_logits.weight"] = torch.zeros(80, 4, 1, 1)
    monkeypatch.setattr(published, "read", lambda file, **_: Weights(file, heads, ""))
    with pytest.raises(WeightsError, match=r"but segmenter=mask_rcnn_r50 runs on resnet50"):
        published.identify(given("mask_rcnn_r50"), Path("mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth"))


def test_keys_that_do_not_fit_are_listed_under_the_publishers_names() -> None:
    tensors = hollow(mmdetection_mask_rcnn(mmdetection_body(50), 80))
    del tensors["backbone.layer1.1.bn2.bias"]
    tensors["roi_head.mask_head.convs.4.conv.weight"] = torch.zeros(1)
    tensors["neck.fpn_convs.0.conv.bias"] = torch.zeros(128)
    with pytest.raises(WeightsError) as error:
        identified(given("mask_rcnn_r50"), tensors)
    sentence = str(error.value)
    assert "missing: backbone.layer1.1.bn2.bias" in sentence
    assert "unexpected: roi_head.mask_head.convs.4.conv.weight" in sentence
    assert "neck.fpn_convs.0.conv.bias (here backbone.fpn.layer_blocks.0.0.bias) (128,) instead of (256,)" in sentence


def test_what_a_model_was_trained_on_decides_its_categories() -> None:
    coco = hollow(mmdetection_mask_rcnn(mmdetection_body(50), 80))
    lvis = hollow(mmdetection_mask_rcnn(mmdetection_body(50), 1203))
    for tensors, ids in ((coco, sorted(published.coco_names())), (lvis, list(range(1, 1204)))):
        weights = Weights(Path("x.pth"), tensors, "")
        facts = {**about(weights), "file": "x.pth"}
        found = published.Found(Path("x.pth"), published.LAYOUTS["mmdetection_mask_rcnn"], facts)
        assert found.category_ids == ids
