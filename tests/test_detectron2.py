"""detectron2 builds and trains the network that torchvision does; without it a sentence says how to get it."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from test_segmenter import SIDE, composed, edited, make_dataset, same, tiny
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import fastrcnn_loss

from mal import segmenters
from mal.config import Config
from mal.data.annotations import decode_mask, read
from mal.errors import ConfigError, TrainingError, WeightsError
from mal.metrics.ap import average_precision
from mal.run import run
from mal.segmenters import inference, training
from mal.segmenters.backends import BACKENDS
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.data import Sample
from mal.segmenters.deformable import DeformableConv
from mal.segmenters.layer_decay import layer_factors
from mal.segmenters.optimizer import learning_rate
from mal.segmenters.precision import lower_precision
from mal.segmenters.rcnn import cascade, mask_rcnn
from mal.segmenters.rcnn.detectron2_model import lazy_model

CPU = torch.device("cpu")
HOW = r"python -m pip install --no-build-isolation 'git\+https://github\.com/facebookresearch/detectron2'"

pytestmark = [  # detectron2 0.6 is older than these
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]


@pytest.fixture
def detectron2() -> ModuleType:
    """Our backend, where detectron2 is installed."""
    if find_spec("detectron2") is None:
        pytest.skip("detectron2 is not installed: " + HOW.replace("\\", ""))
    return import_module("mal.segmenters.rcnn.detectron2")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", images=4)


def small(*overrides: str) -> SegmenterConfig:
    return tiny("backend=detectron2", *overrides)


def train(dataset: Path, folder: Path, config: SegmenterConfig) -> None:
    training.train(
        annotations=dataset / "annotations.json",
        images=dataset / "images",
        config=config,
        seed=0,
        folder=folder,
        device=CPU,
    )


def predict(dataset: Path, folder: Path, config: SegmenterConfig) -> list[dict[str, Any]]:
    return inference.predict(
        checkpoint=folder / "segmenter.pt",
        annotations=dataset / "annotations.json",
        images=dataset / "images",
        config=config,
        device=CPU,
    )


# --- with and without ----------------------------------------------------------------------------------------------


def test_without_detectron2_the_run_ends_before_any_work_and_says_how_to_get_it(
    compose: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delitem(sys.modules, "mal.segmenters.rcnn.detectron2", raising=False)
    config = compose("segmenter=mask_rcnn_tiny", "segmenter.backend=detectron2", f"store={tmp_path / 'runs'}")
    with pytest.raises(ConfigError, match=HOW):
        run(config)
    assert not (tmp_path / "runs").exists()


def test_a_backend_that_cannot_build_a_segmenter_names_those_that_can() -> None:
    for name, backend, way_out in [
        ("solov2_r50", "detectron2", "use solov2"),
        ("mask2former_swin_s", "detectron2", "use transformers"),
        ("mask_rcnn_r50", "cascade", "use torchvision or detectron2"),
    ]:
        complaint = rf"segmenter\.backend={backend} cannot build segmenter={name}; {way_out}"
        with pytest.raises(ConfigError, match=complaint):
            segmenters.find(composed(name, f"backend={backend}"))


def test_tables_tell_the_backends_apart() -> None:
    assert segmenters.title(composed("mask_rcnn_r50")) == "mask_rcnn_r50"
    assert segmenters.title(composed("solov2_r101_dcn", "dcn=true")) == "solov2_r101_dcn"
    config = composed("mask_rcnn_r50", "dcn=true", "backend=detectron2")
    assert segmenters.title(config) == "mask_rcnn_r50_dcn (detectron2)"


def test_the_config_chooses_the_backend(detectron2: ModuleType) -> None:
    for name in BACKENDS["detectron2"].also:
        assert segmenters.find(composed(name, "backend=detectron2")) is detectron2.NETWORK


# --- the same network ----------------------------------------------------------------------------------------------


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_it_has_as_many_weights_as_torchvisions_but_for_the_background(detectron2: ModuleType) -> None:
    """detectron2 predicts no box and no mask of the background; torchvision does, and ignores them."""
    config = composed("mask_rcnn_tiny")
    torch.manual_seed(0)
    theirs = mask_rcnn.build(config, classes=3)
    torch.manual_seed(0)
    ours = detectron2.build(config, classes=3)
    assert same(dict(ours.backbone.bottom_up.body.state_dict()), dict(theirs.backbone.body.state_dict()))
    assert count(ours.backbone) == count(theirs.backbone)
    assert count(ours.proposal_generator) == count(theirs.rpn)
    background = 4 * (config.heads.box_width + 1) + (config.heads.mask_up_width + 1)
    assert count(theirs.roi_heads) - count(ours.roi_heads) == background


@pytest.fixture
def twins(detectron2: ModuleType) -> tuple[nn.Module, nn.Module]:
    """torchvision's model and detectron2's, with the same weights."""
    config = tiny("heads.mask_widths=[16,24]", "pyramid.fpn_norm=true")
    torch.manual_seed(0)
    theirs, ours = (module.build(config, classes=3).eval() for module in (mask_rcnn, detectron2))
    state, given = theirs.state_dict(), {}
    names = {"backbone.bottom_up.body.": "backbone.body."}
    for level in range(4):
        names[f"backbone.fpn_lateral{level + 2}."] = f"backbone.fpn.inner_blocks.{level}.0."
        names[f"backbone.fpn_output{level + 2}."] = f"backbone.fpn.layer_blocks.{level}.0."
        names[f"backbone.fpn_lateral{level + 2}.norm."] = f"backbone.fpn.inner_blocks.{level}.1."
        names[f"backbone.fpn_output{level + 2}.norm."] = f"backbone.fpn.layer_blocks.{level}.1."
    names |= {
        "proposal_generator.rpn_head.conv.": "rpn.head.conv.0.0.",
        "proposal_generator.rpn_head.objectness_logits.": "rpn.head.cls_logits.",
        "proposal_generator.rpn_head.anchor_deltas.": "rpn.head.bbox_pred.",
        "roi_heads.box_head.fc1.": "roi_heads.box_head.fc6.",
        "roi_heads.box_head.fc2.": "roi_heads.box_head.fc7.",
        "roi_heads.box_predictor.": "roi_heads.box_predictor.",
        "roi_heads.mask_head.mask_fcn1.": "roi_heads.mask_head.0.0.",
        "roi_heads.mask_head.mask_fcn2.": "roi_heads.mask_head.1.0.",
        "roi_heads.mask_head.deconv.": "roi_heads.mask_predictor.conv5_mask.",
        "roi_heads.mask_head.predictor.": "roi_heads.mask_predictor.mask_fcn_logits.",
    }
    for key in ours.state_dict():
        prefix = max((name for name in names if key.startswith(name)), key=len)
        value = state[names[prefix] + key.removeprefix(prefix)]
        if "cls_score" in key:
            value = value.roll(-1, dims=0)  # the background comes last
        elif "bbox_pred" in key:
            value = value[4:]
        elif "mask_head.predictor" in key:
            value = value[1:]
        given[key] = value
    ours.load_state_dict(given)
    return theirs, ours


def test_torchvisions_weights_give_the_same_maps_and_predictions(twins: tuple[nn.Module, nn.Module]) -> None:
    theirs, ours = twins
    images, pooled = torch.randn(2, 3, 64, 96), torch.randn(5, 16, 7, 7)
    with torch.inference_mode():
        expected, maps = list(theirs.backbone(images).values()), list(ours.backbone(images).values())
        assert [tuple(level.shape[-2:]) for level in maps] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
        torch.testing.assert_close(maps, expected)
        torch.testing.assert_close(ours.proposal_generator.rpn_head(maps), theirs.rpn.head(maps))
        scores, boxes = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
        mine = ours.roi_heads.box_predictor(ours.roi_heads.box_head(pooled))
        torch.testing.assert_close(mine, (scores.roll(-1, dims=1), boxes[:, 4:]))
        masks = theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(pooled))
        torch.testing.assert_close(ours.roi_heads.mask_head.layers(pooled), masks[:, 1:])


def test_its_box_losses_turn_linear_where_the_config_says() -> None:
    for name, beta in (("mask_rcnn_tiny", 1 / 9), ("mask_rcnn_r50", 0.0)):
        model = lazy_model(composed(name, "backend=detectron2"), classes=2, body={})
        assert model["proposal_generator"]["smooth_l1_beta"] == beta
        assert model["roi_heads"]["box_predictor"]["smooth_l1_beta"] == beta


def test_anchors_are_torchvisions_before_it_rounds_them(detectron2: ModuleType) -> None:
    config = composed("mask_rcnn_tiny", "proposals.exact_anchors=false")
    theirs = mask_rcnn.build(config, classes=1).rpn.anchor_generator.cell_anchors
    ours = detectron2.build(config, classes=1).proposal_generator.anchor_generator.cell_anchors
    for rounded, exact in zip(theirs, ours, strict=True):
        assert sorted(exact.round().tolist()) == sorted(rounded.tolist())


def test_class_and_box_losses_are_torchvisions(detectron2: ModuleType) -> None:
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    predictor = detectron2.build(tiny(), classes=3).roi_heads.box_predictor
    generator = torch.Generator().manual_seed(0)
    corners, sides = (torch.rand(2, 20, 2, generator=generator) * 30).unbind()
    proposals = torch.cat([corners, corners + sides + 4], dim=1)
    truth = proposals + torch.rand(20, 4, generator=generator)
    classes = torch.randint(0, 4, (20,), generator=generator)  # 3 is the background here
    scores, deltas = torch.randn(20, 4, generator=generator), torch.randn(20, 12, generator=generator)
    instances = Instances((64, 64), proposal_boxes=Boxes(proposals), gt_boxes=Boxes(truth), gt_classes=classes)
    with EventStorage():
        losses = predictor.losses((scores, deltas), [instances])
    targets = BoxCoder((10.0, 10.0, 5.0, 5.0)).encode([truth], [proposals])
    boxes = torch.cat([torch.zeros(20, 4), deltas], dim=1)
    expected = fastrcnn_loss(scores.roll(1, dims=1), boxes, [(classes + 1) % 4], targets)
    torch.testing.assert_close([losses["loss_cls"], losses["loss_box_reg"]], list(expected))


def test_the_cascade_has_our_stages_and_one_mask_head(detectron2: ModuleType) -> None:
    config = composed("cascade_tiny")
    theirs, ours = cascade.build(config, classes=3).roi_heads, detectron2.build(config, classes=3).roi_heads
    for number, stage in enumerate(theirs.ordered()):
        assert count(ours.box_head[number]) == count(stage.box_head)
        assert count(ours.box_predictor[number]) == count(stage.box_predictor)
        assert ours.box_predictor[number].box2box_transform.weights == pytest.approx(stage.box_coder.weights)
        assert ours.proposal_matchers[number].thresholds[1] == config.cascade.ious[number]
    background = config.heads.mask_up_width + 1
    assert count(ours.mask_head) == count(stage.mask_head) + count(stage.mask_predictor) - background


def test_the_stages_of_the_cascade_are_weighed(detectron2: ModuleType) -> None:
    losses = {}
    for weights, box_weight in (((1.0, 1.0, 1.0), 1.0), ((1.0, 0.5, 0.25), 10.0)):
        config = composed("cascade_tiny")
        config.cascade.weights, config.cascade.box_weight = list(weights), box_weight
        torch.manual_seed(0)
        losses[weights] = losses_of(detectron2, detectron2.build(config, classes=2))
    plain, weighed = losses.values()
    assert all(torch.isfinite(loss) for loss in plain.values())
    for stage, weight in enumerate((1.0, 0.5, 0.25)):
        torch.testing.assert_close(weighed[f"loss_cls_stage{stage}"], weight * plain[f"loss_cls_stage{stage}"])
        boxes = f"loss_box_reg_stage{stage}"
        torch.testing.assert_close(weighed[boxes], 10 * weight * plain[boxes])
    torch.testing.assert_close(weighed["loss_mask"], plain["loss_mask"])


def test_layers_train_at_the_rates_they_have_with_torchvision(detectron2: ModuleType) -> None:
    config = composed(
        "mask_rcnn_timm",
        "pyramid.name=convnext_atto",
        "pyramid.channels=8",
        "pretrained=false",
        "optimizer.layer_decay=0.5",
        "optimizer.layers=5",
    )
    theirs = mask_rcnn.build(config, classes=1).backbone.body
    ours, factors = detectron2.build(config, classes=1).backbone.bottom_up.body, detectron2.factors(config.optimizer)
    expected = {
        name: layer_factors(config.optimizer)(f"backbone.body.{name}", parameter)
        for name, parameter in theirs.named_parameters()
    }
    found = {name: factors(f"backbone.bottom_up.body.{name}", parameter) for name, parameter in ours.named_parameters()}
    assert found == expected
    assert len(set(found.values())) > 5


def test_deformable_convolutions_are_in_the_body_and_learn(detectron2: ModuleType) -> None:
    config = composed(
        "mask_rcnn_r50", "backend=detectron2", "pyramid.name=resnet18", "pyramid.channels=16", "pretrained=false"
    )
    config.dcn = True
    model = segmenters.find(config).build(config, classes=2)
    deformed = [module for module in model.modules() if isinstance(module, DeformableConv)]
    assert len(deformed) == 12  # 2 blocks of 2 convolutions in each of stages 3, 4 and 5
    losses = losses_of(detectron2, model)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(module.sampling.weight.grad.abs().max() > 0 for module in deformed)


# --- training ------------------------------------------------------------------------------------------------------


def sample(masks: Tensor | None = None) -> Sample:
    """Noise, with two objects."""
    rng = np.random.default_rng(0)
    boxes = torch.tensor([[4.0, 8.0, 40.0, 50.0], [30.0, 2.0, 62.0, 30.0]])
    if masks is None:
        masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
        masks[0, 8:50, 4:40] = masks[1, 2:30, 30:62] = 1
    image = torch.from_numpy(rng.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8))
    return Sample(image=image, boxes_xyxy=boxes, labels=torch.tensor([2, 1]), masks=masks, image_id=7)


def losses_of(detectron2: ModuleType, model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return detectron2.losses(model.train(), [sample(), sample()])


def test_an_object_with_an_empty_mask_stays_an_object(detectron2: ModuleType) -> None:
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    masks[1, 2:30, 30:62] = 1
    mapped = detectron2.mapped(sample(masks))["instances"]
    assert mapped.image_size == (SIDE, SIDE)
    assert mapped.gt_classes.tolist() == [1, 0]
    assert torch.equal(mapped.gt_boxes.tensor, sample().boxes_xyxy)
    assert torch.equal(mapped.gt_masks.tensor, masks.bool())


@pytest.mark.usefixtures("detectron2")
def test_losses_fall(dataset: Path, tmp_path: Path) -> None:
    config = small("schedule.steps=30", "schedule.batch=4", "scale.short_sides=[64]", "running.log_steps=5")
    train(dataset, tmp_path / "run", config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25, 30]
    assert set(lines[0]) == {"step", "lr", "loss", "cls", "box_reg", "mask", "rpn_cls", "rpn_loc"}
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][k] for k in ("cls", "box_reg", "mask", "rpn_cls", "rpn_loc")))
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    rates = [learning_rate(step, total=30, optimizer=config.optimizer, schedule=config.schedule) for step in (4, 29)]
    assert [lines[0]["lr"], lines[-1]["lr"]] == rates


def test_an_interrupted_run_ends_in_the_same_bits(
    detectron2: ModuleType, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("running.checkpoint_steps=3", "running.log_steps=2")
    train(dataset, tmp_path / "whole", config)
    real, calls = detectron2.SimpleTrainer.run_step, []

    def dies_at_the_fifth(trainer: Any) -> None:
        calls.append(trainer.iter)
        real(trainer)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(detectron2.SimpleTrainer, "run_step", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "cut", config)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    monkeypatch.undo()
    train(dataset, tmp_path / "cut", config)
    first, second = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("whole", "cut"))
    assert same(first, second)
    assert (tmp_path / "whole" / "curves.jsonl").read_text() == (tmp_path / "cut" / "curves.jsonl").read_text()
    assert (tmp_path / "cut" / "checkpoint.pt").exists(), "it goes once there is a record"
    written = (tmp_path / "cut" / "segmenter.pt").stat().st_mtime_ns
    train(dataset, tmp_path / "cut", config)
    assert (tmp_path / "cut" / "segmenter.pt").stat().st_mtime_ns == written


@pytest.mark.usefixtures("detectron2")
def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_images(dataset: Path, tmp_path: Path) -> None:
    config = small("optimizer.name=sgd", "optimizer.lr=100", "optimizer.clip=null", "schedule.warmup=0")
    with pytest.raises(TrainingError, match=r"image ids \[1\d, 1\d\].*Lower segmenter.optimizer.lr"):
        train(dataset, tmp_path / "run", config)
    noted = json.loads((tmp_path / "run" / "not_finite.json").read_text())
    assert set(noted["image_ids"]) <= {10, 11, 12, 13}


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny"])
def test_bf16_hands_on_maps_and_losses_in_full_precision(detectron2: ModuleType, name: str) -> None:
    config = composed(name, "precision=bf16")
    torch.manual_seed(0)
    plain = losses_of(detectron2, detectron2.build(config, classes=2))
    torch.manual_seed(0)
    model = detectron2.build(config, classes=2)
    lower_precision(model, detectron2.lowered_parts(config), dtype=torch.bfloat16, device=CPU)
    lower = losses_of(detectron2, model)
    assert {loss.dtype for loss in lower.values()} == {torch.float32}
    assert all(map_.dtype == torch.float32 for map_ in model.backbone(torch.randn(1, 3, 64, 64)).values())
    for key, loss in lower.items():
        torch.testing.assert_close(loss, plain[key], rtol=0.1, atol=0.02)
    assert lower["loss_mask"] != plain["loss_mask"]


@pytest.mark.slow
@pytest.mark.usefixtures("detectron2")
def test_it_learns_two_images_by_heart(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", images=2)
    config = small("schedule.batch=2", "schedule.steps=220", "scale.short_sides=[64]", "pyramid.channels=32")
    config.heads.mask_widths, config.pyramid.widths = [32, 32], [16, 32, 32, 32]
    train(dataset, tmp_path / "run", config)
    human = read(dataset / "annotations.json", masks=True)
    human["annotations"] = [annotation for annotation in human["annotations"] if annotation["area"] > 1]  # no slivers
    metrics, _ = average_precision(human, predict(dataset, tmp_path / "run", config))
    assert metrics["ap50"] > 0.95
    assert metrics["ap"] > 0.8


# --- prediction ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("detectron2")
def test_predictions_open_in_pycocotools(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    train(dataset, tmp_path / "run", small())
    config = small("test.score=0", "test.max_detections=7", "test.batch=3")
    results = json.loads(json.dumps(predict(dataset, tmp_path / "run", config)))
    truth = COCO(str(dataset / "annotations.json"))
    found = truth.loadRes([{k: v for k, v in result.items() if k != "bbox"} for result in results])
    capfd.readouterr()
    assert found.getImgIds() == truth.getImgIds()
    for image in truth.getImgIds():
        mine = [result for result in results if result["image_id"] == image]
        assert 0 < len(mine) <= 7
        assert [r["score"] for r in mine] == sorted((r["score"] for r in mine), reverse=True)
    for result in results:
        assert result["category_id"] in (3, 8)
        x, y, w, h = result["bbox"]
        assert min(x, y, w, h) >= 0
        assert max(x + w, y + h) <= SIDE + 1e-3
    with pytest.raises(WeightsError, match="trained with other settings"):
        predict(dataset, tmp_path / "run", tiny())  # torchvision's model does not take them


def test_detections_come_back_in_the_pixels_of_the_original(detectron2: ModuleType) -> None:
    from detectron2.structures import Boxes, Instances

    entry = {"id": 5, "height": 60, "width": 120}
    found = Instances((30, 40))  # at half its height and a third of its width
    found.pred_boxes, found.pred_classes = Boxes(torch.tensor([[4.0, 5.0, 12.0, 20.0]])), torch.tensor([1])
    found.scores = torch.tensor([0.75])
    found.pred_masks = torch.cat([torch.ones(1, 1, 28, 14), torch.zeros(1, 1, 28, 14)], dim=3)  # the left half
    [result] = detectron2.coco_results(
        entry, detectron2.detector_postprocess(found, 60, 120, mask_threshold=0.5), categories=[3, 8]
    )
    assert result["bbox"] == pytest.approx([12, 10, 24, 30])
    assert (result["image_id"], result["category_id"], result["score"]) == (5, 8, 0.75)
    rows, columns = decode_mask(result["segmentation"], height=60, width=120).nonzero()
    assert (rows.min(), rows.max()) == (10, 39)
    assert (columns.min(), columns.max()) == (12, 23)


@pytest.mark.usefixtures("detectron2")
def test_a_detector_without_masks_trains_on_boxes_alone(dataset: Path, tmp_path: Path) -> None:
    def strip(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            del annotation["segmentation"]

    edited(dataset, strip, "annotations.json")
    config = small("mask_head=none", "class_agnostic=true", "schedule.steps=2", "test.score=0")
    train(dataset, tmp_path / "run", config)
    results = predict(dataset, tmp_path / "run", config)
    assert {result["category_id"] for result in results} == {1}
    assert all("segmentation" not in result for result in results)
