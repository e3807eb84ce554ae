"""Published segmenters, from files that their own libraries saved, predict what their own libraries predict."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

from mal.config import Config
from mal.data.annotations import decode_mask, encode_mask, read
from mal.data.census import Category, take
from mal.engine.graph import Stage, in_order
from mal.engine.store import Store
from mal.errors import ConfigError, WeightsError
from mal.request import Graph
from mal.run import run
from mal.run_notes import notes_of
from mal.segmenters import inference, published
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.mask2former.model import SWINS, architecture
from mal.segmenters.published import torchvision as of_torchvision
from mal.segmenters.published import transformers as of_transformers
from mal.segmenters.published.zoo import MEASURED_ON, ZOO, Printed, is_measured_on, printed
from tests.published_layouts import drawn, mmdetection_body, mmdetection_mask_rcnn
from tests.test_segmenter import composed

CPU = torch.device("cpu")
SMALL_SWIN = {"embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
SMALL = [
    "segmenter.queries.count=6",
    "segmenter.queries.width=32",
    "segmenter.queries.layers=2",
    "segmenter.queries.pixel_layers=1",
    "segmenter.queries.feed_forward=32",
    "segmenter.queries.pixel_feed_forward=32",
    "segmenter.test.max_detections=6",
]
MASK_RCNN = "mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth"
SKIPPED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # numbers from 1 to 90 that no category of COCO has


def small(*overrides: str) -> SegmenterConfig:
    """mask2former_swin_s with few weights, its published ones to be evaluated."""
    mine = [override.removeprefix("segmenter.") for override in SMALL]
    return composed("mask2former_swin_s", "weights=published", *mine, *overrides)


@pytest.fixture(autouse=True)
def small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SWINS, "swin_small", ("no/such-model", SMALL_SWIN))


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask2Former of 80 classes as transformers saves it: config.json and model.safetensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SWINS, "swin_small", ("no/such-model", SMALL_SWIN))
        torch.manual_seed(0)
        network = Mask2FormerForUniversalSegmentation(architecture(small(), classes=80))
    with torch.no_grad():
        network.class_predictor.weight.mul_(20)  # scores that differ by more than rounding
        network.model.transformer_module.decoder.mask_predictor.mask_embedder.layers[-1].layers[0].weight.mul_(20)
    folder = tmp_path_factory.mktemp("library") / "saved"
    network.save_pretrained(folder)
    return folder


def coco_of(folder: Path, *, height: int, width: int) -> Path:
    """A COCO file of one photograph-like image with a car and a truck: folder/val.json and folder/images."""
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8), (width, height))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / "one.png"), pixels)
    mask = np.zeros((height, width), dtype=bool)
    mask[4:40, 8:50] = True
    shared = {"image_id": 7, "bbox": [8, 4, 42, 36], "area": int(mask.sum()), "segmentation": encode_mask(mask)}
    coco = {
        "images": [{"id": 7, "file_name": "one.png", "height": height, "width": width}],
        "annotations": [{"id": i, "category_id": c, "iscrowd": 0, **shared} for i, c in ((1, 3), (2, 8))],
        "categories": [{"id": number, "name": name} for number, name in published.coco_names().items()],
    }
    (folder / "val.json").write_text(json.dumps(coco))
    return folder


# --- categories ------------------------------------------------------------------------------------------------------


def test_cocos_80_categories_have_90_numbers() -> None:
    assert set(published.coco_names()) == set(range(1, 91)) - SKIPPED
    assert of_torchvision.LABELS == 90
    known = {1: "person", 3: "car", 13: "stop sign", 44: "bottle", 90: "toothbrush"}
    assert {number: published.coco_names()[number] for number in known} == known


def test_cocos_own_file_has_the_same_names(coco_mini: Path) -> None:
    coco = read(coco_mini / "annotations" / "instances_val2017_mini.json", masks=False)
    assert {category["id"]: category["name"] for category in coco["categories"]} == published.coco_names()
    published.check_categories(coco, source="coco_mini")


def test_other_categories_are_refused_and_results_of_unlisted_ones_left_out() -> None:
    coco: dict[str, Any] = {"categories": [{"id": 3, "name": "car"}, {"id": 4, "name": "wheel"}]}
    with pytest.raises(ConfigError, match=r"category 4 of mine\.json is 'wheel' \(COCO: 'motorcycle'\)"):
        published.check_categories(coco, source="mine.json")
    results = [{"category_id": number} for number in (3, 12, 4, 90)]
    assert published.known(results, coco) == [{"category_id": 3}, {"category_id": 4}]


# --- Mask2Former -----------------------------------------------------------------------------------------------------


def test_mask2former_predicts_what_the_library_does(library_folder: Path, tmp_path: Path) -> None:
    config, data = (
        small(f"checkpoint={library_folder}", "scale.test_short_side=384"),
        coco_of(tmp_path, height=384, width=384),
    )
    published.write(config, found=published.identify(config, published.locate(config)), folder=tmp_path)
    results = inference.predict(
        checkpoint=tmp_path / "segmenter.pt",
        annotations=data / "val.json",
        images=data / "images",
        config=config,
        device=CPU,
    )
    network = Mask2FormerForUniversalSegmentation.from_pretrained(library_folder).eval()
    pixels = torch.from_numpy(cv2.imread(str(data / "images" / "one.png"))[:, :, ::-1].copy()).permute(2, 0, 1)
    processor = Mask2FormerImageProcessor(do_resize=False)
    with torch.inference_mode():
        outputs = network(**processor([pixels], return_tensors="pt"))
    [found] = processor.post_process_instance_segmentation(outputs, threshold=0, return_binary_maps=True)
    theirs = sorted(zip(found["segments_info"], found["segmentation"], strict=True), key=lambda item: -item[0]["score"])
    assert len(results) == len(theirs) >= 3
    order = sorted(published.coco_names())
    for mine, (info, mask) in zip(results, theirs, strict=True):
        assert mine["category_id"] == order[info["label_id"]]
        assert mine["score"] == pytest.approx(info["score"], abs=2e-5)
        assert (decode_mask(mine["segmentation"], height=384, width=384) != mask.bool().numpy()).mean() < 1e-3


def test_a_file_or_the_folder_of_it_give_the_same(library_folder: Path, tmp_path: Path) -> None:
    file = library_folder / "model.safetensors"
    assert published.locate(small(f"checkpoint={library_folder}")) == file
    assert published.locate(small(f"checkpoint={file}")) == file
    state = of_transformers.state(small(), file)
    assert (state["classes"], state["category_ids"]) == (80, sorted(published.coco_names()))
    older = {key: value for key, value in load_file(file).items() if ".swin.layernorm." not in key}
    save_file(older, tmp_path / "alone.safetensors")  # no config.json beside it
    again = of_transformers.state(small(), tmp_path / "alone.safetensors")["model"]
    unused = {key for key in again if ".swin.layernorm." in key}
    assert all(torch.equal(again[key], state["model"][key]) for key in again.keys() - unused)


def test_what_does_not_fit_is_listed(library_folder: Path, tmp_path: Path) -> None:
    state = load_file(library_folder / "model.safetensors")
    missing = next(iter(sorted(state)))
    del state[missing]
    save_file(state | {"extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError) as error:
        of_transformers.state(small("queries.count=9"), tmp_path / "model.safetensors")
    sentence = str(error.value)
    assert f"missing: {missing}" in sentence
    assert "unexpected: extra" in sentence
    assert "queries_embedder.weight (6, 32) instead of (9, 32)" in sentence
    with pytest.raises(WeightsError, match=r"config\.json says num_attention_heads=8, but this segmenter has 4"):
        of_transformers.state(small("queries.heads=4"), library_folder / "model.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no such file with model\.safetensors or pytorch_model\.bin"):
        published.locate(small(f"checkpoint={tmp_path / 'empty'}"))


# --- Mask R-CNN ------------------------------------------------------------------------------------------------------


def torchvision_model() -> torch.nn.Module:
    """torchvision's Mask R-CNN with random weights and batch norms whose variances are near their eps."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None)  # its batch norms are frozen
    model = MaskRCNN(backbone, 91, min_size=96, max_size=160, rpn_post_nms_top_n_test=60)
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "running_var"):
                module.running_var.uniform_(1e-5, 3e-5)
                module.weight.copy_(module.running_var.sqrt() * 0.6)
                module.bias.uniform_(-0.1, 0.1)
                module.running_mean.uniform_(-0.01, 0.01)
        model.roi_heads.box_predictor.cls_score.weight.mul_(60)
        model.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(20)
    return model.eval()


@pytest.mark.slow
def test_mask_rcnn_predicts_what_torchvision_does(tmp_path: Path) -> None:
    library, data = torchvision_model(), coco_of(tmp_path, height=180, width=282)
    torch.save(library.state_dict(), tmp_path / "theirs.pth")
    overwrite_eps(library, 0.0)  # as torchvision does with the published weights
    config = composed(
        "mask_rcnn_r50",
        "weights=published",
        f"checkpoint={tmp_path / 'theirs.pth'}",
        "proposals.after_nms=[60,60]",
        "scale.test_short_side=96",
        "scale.test_long_side=160",
    )
    published.write(config, found=published.identify(config, published.locate(config)), folder=tmp_path)
    mine = inference.predict(
        checkpoint=tmp_path / "segmenter.pt",
        annotations=data / "val.json",
        images=data / "images",
        config=config,
        device=CPU,
    )
    pixels = torch.from_numpy(cv2.imread(str(data / "images" / "one.png"))[:, :, ::-1].copy()).permute(2, 0, 1)
    with torch.inference_mode():
        [theirs] = library([pixels.float() / 255])
    assert len(mine) == len(theirs["scores"]) > 10
    assert [result["category_id"] for result in mine] == theirs["labels"].tolist()
    np.testing.assert_allclose([result["score"] for result in mine], theirs["scores"], rtol=1e-3)
    corners = [[x, y, x + w, y + h] for x, y, w, h in (result["bbox"] for result in mine)]
    np.testing.assert_allclose(corners, theirs["boxes"], atol=0.05)
    for result, mask in zip(mine, theirs["masks"][:, 0] >= 0.5, strict=True):
        assert (decode_mask(result["segmentation"], height=180, width=282) != mask.numpy()).mean() < 2e-3

    plain = composed("mask_rcnn_r50", "proposals.after_nms=[60,60]")
    with pytest.raises(WeightsError, match=r"segmenter\.weights=published"):
        inference.load(tmp_path / "segmenter.pt", config=plain, device=CPU)
    with pytest.raises(WeightsError, match=r"do not fit the segmenter mask_rcnn_r50 .*instead of"):
        of_torchvision.state(composed("mask_rcnn_r50", "heads.box_width=512"), tmp_path / "theirs.pth")


# --- what cannot be had ----------------------------------------------------------------------------------------------


def test_unreachable_weights_name_the_file_and_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host\nand a page of advice")

    monkeypatch.setattr(of_transformers, "cached_file", unreachable)
    with pytest.raises(WeightsError) as error:
        published.locate(small())
    sentence = str(error.value)
    assert "facebook/mask2former-swin-small-coco-instance cannot be reached (no route to host)" in sentence
    assert "config.json and model.safetensors into a folder" in sentence
    assert "segmenter.checkpoint=FOLDER" in sentence

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError) as error:
        published.locate(composed("mask_rcnn_r50", "weights=published"))
    assert f"file maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth into {tmp_path / 'checkpoints'}" in str(error.value)
    assert "segmenter.checkpoint=FILE" in str(error.value)
    placed = tmp_path / "checkpoints" / "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"
    placed.parent.mkdir()
    placed.touch()
    assert published.locate(composed("mask_rcnn_r50", "weights=published")) == placed


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mask_rcnn_timm", "torchvision publishes no weights for a Mask R-CNN on convnext_tiny"),
        ("mask2former_tiny", "no weights of segmenter=mask2former_tiny on tiny"),
        ("cascade_tiny", "no weights of segmenter=cascade_tiny are published; choose mask_rcnn_r50"),
    ],
)
def test_a_segmenter_nobody_published_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        published.locate(composed(name, "weights=published"))


def test_every_size_of_swin_has_its_published_model() -> None:
    names = [of_transformers.hub_name(small(f"pyramid.name={name}")) for name in SWINS]
    assert names == [f"facebook/mask2former-swin-{s}-coco-instance" for s in ("tiny", "small", "base", "large")]


# --- the run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def published_run(compose: Callable[..., Config], library_folder: Path, tmp_path: Path) -> Callable[..., Config]:
    """Composes `data=coco segmenter=mask2former_swin_s segmenter.weights=published` on one image of COCO's."""
    data = coco_of(tmp_path / "data", height=64, width=96)

    def build(*overrides: str) -> Config:
        return compose(
            "data=coco", "data.train.annotations=null", f"data.val.annotations={data / 'val.json'}",
            f"data.val.images={data / 'images'}", f"store={tmp_path / 'runs'}", "tracking=none",
            "segmenter=mask2former_swin_s", "segmenter.weights=published", f"segmenter.checkpoint={library_folder}",
            "segmenter.scale.test_short_side=64", *SMALL, *overrides,
        )  # fmt: skip

    return build


def test_one_command_scores_a_published_model_and_trains_nothing(
    published_run: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(published_run())
    stages = sorted(path.parent.parent.name for path in (tmp_path / "runs").glob("*/*/run.json"))
    assert stages == ["ap_val", "boxes_val", "detect_val", "published_segmenter"]
    printed = capsys.readouterr().out
    assert "published weights" in printed
    assert "Segmenter mask2former_swin_s on 1 validation images" in printed
    run(published_run())
    assert "4 stages, 4 of them done" in capsys.readouterr().out


def test_the_key_is_made_of_the_weights(
    published_run: Callable[..., Config], library_folder: Path, tmp_path: Path
) -> None:
    state = load_file(library_folder / "model.safetensors")
    state["class_predictor.bias"] += 1
    save_file(state, tmp_path / "other.safetensors")

    def keys(*overrides: str) -> list[str]:
        config = published_run(*overrides)
        return [stage.key for stage in in_order(Graph(config, Store(config.store), CPU).targets())]

    plain = keys()
    assert (
        keys("seed=3", "segmenter.optimizer.lr=1", f"segmenter.checkpoint={library_folder / 'model.safetensors'}")
        == plain
    )
    other = keys(f"segmenter.checkpoint={tmp_path / 'other.safetensors'}")
    assert [first == second for first, second in zip(plain, other, strict=True)] == [True, False, False, False]


def test_data_that_is_not_cocos_is_refused_before_any_work(
    published_run: Callable[..., Config], compose: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="set data=coco"):
        run(
            compose(
                "segmenter=mask_rcnn_r50", "segmenter.weights=published", f"store={tmp_path / 'runs'}", "tracking=none"
            )
        )
    config = published_run()
    coco = json.loads(Path(str(config.data.val.annotations)).read_text())
    coco["categories"][0]["name"] = "robot"
    Path(str(config.data.val.annotations)).write_text(json.dumps(coco))
    with pytest.raises(ConfigError, match=r"category 1 of .*val\.json is 'robot' \(COCO: 'person'\)"):
        run(config)
    assert not list(tmp_path.rglob("run.json"))


# --- a published segmenter in place of one trained on human masks ----------------------------------------------------


@pytest.fixture
def both_segmenters(compose: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """Composes a run that trains mask2former_swin_s on labels and on human masks, of one image, for one step."""
    data = coco_of(tmp_path / "data", height=64, width=96)
    files = [f"data.{split}.{part}" for split in ("train", "val") for part in ("annotations", "images")]
    paths = [f"{name}={data / ('val.json' if name.endswith('annotations') else 'images')}" for name in files]

    def build(*overrides: str) -> Config:
        return compose(
            "data=coco", *paths, f"store={tmp_path / 'runs'}", "tracking=none", "profile=smoke", "labeler=gt",
            "segmenter=mask2former_swin_s", "segmenter.pretrained=false", "segmenter.scale.short_sides=[64]",
            "segmenter.scale.test_short_side=64", "segmenter.scale.jitter=[]", "segmenter.schedule.epochs=null",
            "segmenter.schedule.steps=1", "segmenter.schedule.batch=1", "segmenter.queries.points=64",
            "segmenter.precision=fp32", *SMALL, *overrides,
        )  # fmt: skip

    return build


def test_training_on_labels_is_the_same_beside_a_published_segmenter(
    both_segmenters: Callable[..., Config], library_folder: Path
) -> None:
    def keys(config: Config) -> dict[str, str]:
        stages = in_order(Graph(config, Store(config.store), CPU).targets())
        return {f"{stage.name} {stage.columns.get('supervision')}": stage.key for stage in stages}

    with_file = keys(both_segmenters(f"segmenter.human_checkpoint={library_folder}"))
    without = keys(both_segmenters())
    assert "train_segmenter human" in without
    assert "train_segmenter human" not in with_file
    assert with_file["train_segmenter pseudo"] == without["train_segmenter pseudo"]
    alone = keys(both_segmenters("segmenter.weights=published", f"segmenter.checkpoint={library_folder}"))
    assert with_file["detect_val published"] == alone["detect_val published"]


@pytest.mark.slow
def test_retention_divides_by_the_published_segmenters_ap(
    both_segmenters: Callable[..., Config], library_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(both_segmenters(f"segmenter.human_checkpoint={library_folder}"))
    stages = [path.parent.parent.name for path in (tmp_path / "runs").glob("*/*/run.json")]
    assert stages.count("train_segmenter") == 1
    assert stages.count("published_segmenter") == stages.count("retention") == 1
    printed = capsys.readouterr().out
    assert "no segmenter is trained on human masks; transformers' Mask2Former stands for it" in printed
    [ratio] = (tmp_path / "runs").glob("retention/*/run.json")
    assert json.loads(ratio.read_text())["columns"]["denominator"] == "saved/model.safetensors"
    assert "published weights saved/model.safetensors" in printed
    assert "divided by the AP of" in printed  # the run's own closing table


def test_a_retention_says_what_it_is_divided_by_and_keeps_its_key(
    both_segmenters: Callable[..., Config], library_folder: Path
) -> None:
    def ratio(*overrides: str) -> Stage:
        config = both_segmenters(*overrides)
        stages = in_order(Graph(config, Store(config.store), CPU).targets())
        return next(stage for stage in stages if stage.name == "retention")

    trained = ratio()
    assert trained.columns["denominator"] == "human masks"
    assert ratio(f"segmenter.human_checkpoint={library_folder}").columns["denominator"] == "saved/model.safetensors"
    assert dataclasses.replace(trained, columns={}).key == trained.key


def test_two_published_segmenters_at_once_are_refused(library_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"segmenter\.weights=published trains none"):
        check(composed("mask_rcnn_r50", f"human_checkpoint={library_folder}", "weights=published"))


def test_a_detector_without_masks_is_trained_beside_rows_that_have_a_published_segmenter(
    compose: Callable[..., Config], tmp_path: Path
) -> None:
    """Table 7 sweeps over segmenter.mask_head: the file serves rows with masks and changes nothing in the others."""

    def graph(*overrides: str) -> Graph:
        config = compose(
            "data=shapes", f"store={tmp_path}", "tracking=none", "segmenter=mask_rcnn_tiny", "compare=[]", *overrides
        )
        check(config.segmenter)
        return Graph(config, Store(config.store), CPU)

    alone, beside = graph("segmenter.mask_head=none"), graph("segmenter.mask_head=none", "segmenter.human_checkpoint=f")
    assert [stage.key for stage in in_order(beside.targets())] == [stage.key for stage in in_order(alone.targets())]
    [note] = set(notes_of(beside)) - set(notes_of(alone))
    assert note.startswith("segmenter.human_checkpoint=f has nothing to do without masks")
    beside.check()
    with pytest.raises(ConfigError, match=r"segmenter\.human_checkpoint=f is measured on COCO's validation images"):
        graph("segmenter.human_checkpoint=f").targets()


# --- a downloaded file -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_downloaded_file_is_evaluated_beside_its_printed_ap(
    compose: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From MMDetection's layout to AP in one command; where its name says which model it is, and the data are those of
    the printed AP, the table has both."""
    monkeypatch.setitem(MEASURED_ON, "COCO", (1, 2, 80))
    data, name = coco_of(tmp_path / "data", height=64, width=96), MASK_RCNN
    weights = drawn(mmdetection_mask_rcnn(mmdetection_body(50), 80), scale=0.02)
    torch.save({"meta": {"config": "model = dict()"}, "state_dict": weights}, tmp_path / name)

    def build(*overrides: str) -> Config:
        return compose(
            "data=coco", "data.train.annotations=null", f"data.val.annotations={data / 'val.json'}",
            f"data.val.images={data / 'images'}", f"store={tmp_path / 'runs'}", "tracking=none",
            "segmenter=mask_rcnn_r50", "segmenter.weights=published", f"segmenter.checkpoint={tmp_path / name}",
            "segmenter.scale.test_short_side=64", "segmenter.test.score=0.001", *overrides,
        )  # fmt: skip

    run(build())
    assert f"published weights {name} (printed mask AP .347)" in capsys.readouterr().out
    [record] = (tmp_path / "runs").glob("detect_val/*/run.json")
    assert json.loads(record.read_text())["metrics"]["predictions"]["value"] > 0
    run(build())
    assert "4 stages, 4 of them done" in capsys.readouterr().out
    with pytest.raises(WeightsError, match=r"is MMDetection's Mask R-CNN, and segmenter=solov2_r50 is none"):
        run(build("segmenter=solov2_r50"))


@pytest.mark.parametrize(
    ("counts", "overrides", "there"),
    [
        ((1, 2, 80), (), True),
        (None, (), False),  # one image of COCO's is not val2017
        ((1, 2, 80), ("data.val_images=even",), False),
        ((1, 2, 80), ("data.class_agnostic=true",), False),
        ((1, 2, 80), ("data.on_bad_image=skip",), False),
    ],
)
def test_a_printed_ap_is_said_where_it_was_measured_alone(
    published_run: Callable[..., Config],
    both_segmenters: Callable[..., Config],
    library_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int, int, int] | None,
    overrides: tuple[str, ...],
    there: bool,
) -> None:
    model = next(model for model in ZOO if model.segmenter == "mask2former_swin_s")
    monkeypatch.setattr(published, "printed", lambda _: model)
    if counts is not None:
        monkeypatch.setitem(MEASURED_ON, "COCO", counts)
    alone = published_run(*overrides)
    beside = both_segmenters(f"segmenter.human_checkpoint={library_folder}", *overrides)
    for config in (alone, beside):
        graph = Graph(config, Store(config.store), CPU)
        stages = [stage for stage in in_order(graph.targets()) if stage.columns.get("supervision") == "published"]
        said = {stage.name: stage.columns.get("printed_mask_ap") for stage in stages}
        assert said == {"published_segmenter": None, "detect_val": None, "ap_val": model.mask_ap if there else None}
    [note] = [note for note in notes_of(graph) if "human_checkpoint" in note]
    assert model.name in note
    assert (f"mask AP {model.mask_ap}" in note) == there


def test_a_printed_ap_is_of_all_of_val2017_or_of_lvis_v1s_val_by_its_own_protocol(tmp_path: Path) -> None:
    """COCO's val2017 has 5,000 images and 36,781 annotations, LVIS v1's val 19,809 and 244,707."""
    coco, lvis = printed(Path(MASK_RCNN)), printed(Path("mask_rcnn_r50_fpn_sample1e-3_mstrain_1x_lvis_v1-aa78ac3d.pth"))
    assert coco is not None
    assert lvis is not None
    file = take(read(coco_of(tmp_path, height=64, width=96) / "val.json", masks=False))

    def found(model: Printed, images: int, annotations: int, categories: int, *, federated: bool) -> bool:
        listed = [Category(number, str(number), 1) for number in range(categories)]
        census = dataclasses.replace(file, images=images, annotations=annotations, categories=listed)
        return is_measured_on(model, census, federated=federated)

    assert found(coco, 5000, 36781, 80, federated=False)
    assert found(lvis, 19809, 244707, 1203, federated=True)
    assert not found(coco, 5000, 36780, 80, federated=False)
    assert not found(coco, 218, 1838, 80, federated=False)
    assert not found(coco, 118287, 860001, 80, federated=False)
    assert not found(coco, 5000, 36781, 79, federated=False)
    assert not found(coco, 5000, 36781, 80, federated=True)
    assert not found(lvis, 19809, 244707, 1203, federated=False)
    assert not found(lvis, 5000, 36781, 80, federated=False)
    assert not is_measured_on(coco, None, federated=False)


def test_what_must_be_downloaded_is_named_with_its_printed_ap() -> None:
    with pytest.raises(ConfigError) as error:
        published.locate(composed("mask_rcnn_x101_64x4d", "weights=published"))
    sentence = str(error.value)
    assert "torchvision publishes no weights" in sentence
    assert "mask AP 38.4, box AP 42.8 on COCO" in sentence
    assert "mask AP 25.8, box AP 27.2 on LVIS v1" in sentence
    assert "https://download.openmmlab.com/mmdetection/v2.0/lvis/" in sentence
    with pytest.raises(ConfigError, match=r"give a file with segmenter\.checkpoint=FILE: MMDetection's solov2_r50_"):
        published.locate(composed("solov2_r50", "weights=published"))


def test_every_row_of_the_zoo_is_a_segmenter_here_with_a_file_of_its_own() -> None:
    assert len({model.file for model in ZOO}) == len(ZOO)
    for segmenter, changes in {(model.segmenter, model.changes) for model in ZOO}:
        composed(segmenter, *(part.removeprefix("segmenter.") for part in changes.split()))
    for model in ZOO:
        assert printed(Path("anywhere") / model.file) is model
        assert 20 < model.mask_ap < 60
    assert printed(Path("mine.pth")) is None


# --- LVIS ------------------------------------------------------------------------------------------------------------


def test_a_model_of_lvis_is_not_measured_on_other_categories() -> None:
    coco: dict[str, Any] = {"categories": [{"id": 3, "name": "car"}]}
    with pytest.raises(ConfigError, match=r"knows the 1203 categories of LVIS v1, but mine\.json lists 1"):
        published.check_categories(coco, source="mine.json", classes=1203)


def test_lvis_v1s_own_categories_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order of the file; a name or a number that differs does not."""
    listed: list[dict[str, Any]] = [{"id": number, "name": f"name {number}"} for number in range(1, 1204)]
    text = "\n".join(f"{c['id']} {c['name']}" for c in listed)
    monkeypatch.setattr(published, "LVIS_NAMES", hashlib.sha256(text.encode()).hexdigest())
    published.check_categories({"categories": listed[::-1]}, source="lvis", classes=1203)
    with pytest.raises(ConfigError, match="LVIS v1"):
        published.check_categories({"categories": [*listed[:-1], {"id": 1203, "name": "x"}]}, source="x", classes=1203)
