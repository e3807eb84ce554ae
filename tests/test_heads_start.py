"""The weights that an R-CNN's new layers start with have the variances that the references give them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mal import segmenters
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.rcnn import mask_rcnn
from tests.small_segmenters import small
from tests.test_segmenter import composed

R_CNNS = [name for name, backend in segmenters.SEGMENTERS.items() if backend in ("torchvision", "cascade")]
CLASSES = 5
STARTS = ("mmdetection", "detectron2", "torchvision")


def built(name: str, *overrides: str) -> Any:
    """The segmenter on a body from scratch; its heads are as the config has them, on a narrower pyramid."""
    config = composed(name, "pyramid.kind=tiny", "pretrained=false", "dcn=false", "pyramid.channels=64", *overrides)
    torch.manual_seed(0)
    return segmenters.find(config).build(config, classes=CLASSES)


def variances(module: str, layer: nn.Module, start: str, fpn_start: str) -> tuple[float, float]:
    """Of a layer's weights and of its biases, by the formulas of the libraries."""
    out, into = layer.weight.shape[:2]
    area = layer.weight.shape[2:].numel()
    uniform = 1 / (3 * into * area)  # torch's own: within ±√(1 / inputs)
    part = module.split(".")[-1]
    if ".fpn." in module:
        return (2 / (area * (into + out)) if fpn_start == "xavier" else 1 / (into * area)), 0
    if module.startswith("rpn."):
        return 0.01**2, 0
    if isinstance(layer, nn.Conv2d) and area == 9:
        return 2 / (out * area), 0
    if part in ("cls_score", "logits", "bbox_pred", "deltas"):
        if start == "torchvision" and part in ("cls_score", "bbox_pred"):
            return uniform, uniform
        return (0.01**2 if part in ("cls_score", "logits") else 0.001**2), 0
    if isinstance(layer, nn.Linear):
        return {"mmdetection": (2 / (into + out), 0), "detectron2": (1 / into, 0)}.get(start, (uniform, uniform))
    torchvisions = start == "torchvision"
    if isinstance(layer, nn.ConvTranspose2d):  # its weight is (in, out, 2, 2)
        return 2 / (4 * out), 1 / (3 * 4 * into) if torchvisions else 0
    assert part == "mask_fcn_logits"
    if start == "detectron2":
        return 0.001**2, 0
    return (2 / (CLASSES + 1), uniform) if torchvisions else (2 / CLASSES, 0)


def assert_variance(values: Tensor, expected: float, *, name: str) -> None:
    if expected == 0:
        assert not values.any(), name
        return
    found = values.double().square().mean().item()
    assert found == pytest.approx(expected, rel=6 * math.sqrt(2 / values.numel())), name


@pytest.mark.parametrize("name", R_CNNS)
def test_every_new_layer_starts_with_the_variance_of_its_formula(name: str) -> None:
    config = composed(name)
    for start in STARTS if name.endswith("_tiny") else ("mmdetection",):
        model = built(name, f"heads.start={start}")
        checked = []
        for module, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and ".body." not in module:
                weights, biases = variances(module, layer, start, config.pyramid.fpn_start)
                assert_variance(layer.weight.detach(), weights, name=f"{start}: {module}")
                if layer.bias is not None:
                    assert_variance(layer.bias.detach(), biases, name=f"{start}: {module}.bias")
                checked.append(module)
        stages = len(config.cascade.ious) if "cascade" in name else 1
        heads = (len(config.cascade.box_convs) + 1 if "cascade" in name else 2) + 2 + len(config.heads.mask_widths) + 2
        assert len(checked) == 8 + 3 + stages * heads


@pytest.mark.parametrize("start", STARTS)
def test_fully_connected_layers_are_uniform_and_scores_normal(start: str) -> None:
    model = built("mask_rcnn_tiny", f"heads.start={start}")
    for layer in (model.roi_heads.box_head.fc6, model.roi_heads.box_head.fc7):
        largest, deviation = layer.weight.abs().max().item(), layer.weight.std().item()
        assert largest == pytest.approx(math.sqrt(3) * deviation, rel=0.02)
    scores = model.roi_heads.box_predictor.cls_score.weight
    assert (scores.abs().max() > 2.5 * scores.std()) is not (start == "torchvision")


@pytest.mark.parametrize(
    ("start", "features", "boxes"),
    [("mmdetection", 0.4808, 0.01538), ("detectron2", 0.3536, 0.01131), ("torchvision", 0.1185, 0.0708)],
)
def test_features_and_boxes_are_as_large_as_the_references(start: str, features: float, boxes: float) -> None:
    """Of rectified normal RoIs, by the head of the published Mask R-CNN. x² = 1/2 on the mean; a layer of inputs n and
    variance v makes it n·v·x², ReLU halves that. A comparison of the libraries found .464 and .015 with a reference's
    start, .124 and .075 with torchvision's."""
    heads = built("mask_rcnn_r50", f"heads.start={start}", "pyramid.channels=256").roi_heads
    torch.manual_seed(1)
    with torch.inference_mode():
        found = heads.box_head(torch.randn(64, 256, 7, 7).relu())
        deltas = heads.box_predictor(found)[1]
    assert found.square().mean().sqrt().item() == pytest.approx(features, rel=0.06)
    assert deltas.square().mean().sqrt().item() == pytest.approx(boxes, rel=0.1)


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny"])
def test_the_same_seed_gives_the_same_bits_and_the_body_does_not_depend_on_the_start(name: str) -> None:
    states = {start: built(name, f"heads.start={start}").state_dict() for start in STARTS}
    again = built(name, "heads.start=mmdetection").state_dict()
    assert all(torch.equal(again[key], value) for key, value in states["mmdetection"].items())
    for start in ("detectron2", "torchvision"):
        apart = {key for key, value in states[start].items() if not torch.equal(value, again[key])}
        assert apart
        assert all(key.startswith("roi_heads.") for key in apart)


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny"])
def test_torchvisions_start_is_what_the_constructors_draw_and_no_more(name: str) -> None:
    """So that runs of before keep their bits."""

    def drawn(config: SegmenterConfig, *, load: bool) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        model = segmenters.find(config).build(config, classes=2, load=load)
        return model.state_dict(), torch.get_rng_state()

    config = small(name, "heads.start=torchvision")
    (plain, before), (started, after) = drawn(config, load=False), drawn(config, load=True)
    assert torch.equal(before, after)
    assert all(torch.equal(plain[key], value) for key, value in started.items())


def test_a_detector_without_masks_starts_too() -> None:
    model = mask_rcnn.build(small("mask_rcnn_tiny", "mask_head=none", "heads.start=detectron2"), classes=2)
    assert not model.roi_heads.box_head.fc6.bias.any()
    assert not model.roi_heads.has_mask()
