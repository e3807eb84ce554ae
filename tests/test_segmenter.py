"""Phase 2 trains on what it is told to, resumes to the bit, and speaks COCO."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from mal import segmenters
from mal.data.annotations import decode_mask, encode_mask, read
from mal.engine.precision import network_dtype
from mal.errors import AnnotationError, ConfigError, MalError, Stopped, TrainingError, WeightsError
from mal.metrics.ap import average_precision
from mal.segmenters import inference, loop, training
from mal.segmenters.backends import BACKENDS
from mal.segmenters.config import OptimizerConfig, ScheduleConfig, SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.data import TrainingSet, instances, order, resized
from mal.segmenters.optimizer import learning_rate, run_length
from mal.segmenters.precision import lower_precision
from mal.segmenters.pyramids import build_pyramid
from mal.segmenters.rcnn import mask_rcnn
from mal.segmenters.rcnn.parts import coco_results

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
MENU = sorted(path.stem for path in (CONF / "segmenter").glob("*.yaml"))
CPU = torch.device("cpu")
SIDE = 64


@cache
def menu(name: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+segmenter={name}"]).segmenter


def composed(name: str, *overrides: str) -> SegmenterConfig:
    changes = OmegaConf.from_dotlist(list(overrides))
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SegmenterConfig), menu(name), changes))
    assert isinstance(config, SegmenterConfig)
    return config


def tiny(*overrides: str) -> SegmenterConfig:
    """mask_rcnn_tiny on images of 64 pixels, as small as it gets."""
    return composed(
        "mask_rcnn_tiny",
        "pyramid.widths=[16,16,24,24]",
        "pyramid.channels=16",
        "heads.box_width=32",
        "heads.mask_widths=[16]",
        "scale.short_sides=[48,64]",
        "scale.test_short_side=64",
        "schedule.batch=2",
        "schedule.epochs=null",
        "schedule.steps=6",
        *overrides,
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four images with two flat ellipses each, a crowd and a sliver: annotations.json and images/."""
    return make_dataset(tmp_path / "data", images=4)


def make_dataset(folder: Path, *, images: int) -> Path:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "warm"}, {"id": 8, "name": "cold"}],
    }

    def add(image: int, category: int, mask: np.ndarray, bbox: list[float], **more: int) -> None:
        entry = {"id": len(coco["annotations"]) + 1, "image_id": image, "category_id": category, "bbox": bbox}
        more = {"iscrowd": 0, "area": int(mask.sum())} | more
        coco["annotations"].append(entry | more | {"segmentation": encode_mask(mask)})

    for number in range(images):
        image = 10 + number
        pixels = rng.integers(90, 130, (SIDE, SIDE, 3)).astype(np.uint8)
        for half, category in enumerate(rng.permutation([3, 8])):
            w, h = rng.integers(16, 28, 2).tolist()
            x, y = int(rng.integers(1, 31 - w)) + 32 * half, int(rng.integers(1, SIDE - h))
            rows, columns = np.arange(SIDE)[:, None] + 0.5, np.arange(SIDE)[None] + 0.5
            mask = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
            pixels[mask] = (220, 60, 30) if category == 3 else (30, 60, 220)
            add(image, int(category), mask, [x, y, w, h])
        everywhere = np.ones((SIDE, SIDE), dtype=bool)
        add(image, 3, everywhere, [0, 0, SIDE, SIDE], iscrowd=1)
        sliver = np.zeros((SIDE, SIDE), dtype=bool)
        sliver[5, 5] = True
        add(image, 8, sliver, [5.2, 5.0, 0.5, 1.0])
        cv2.imwrite(str(folder / "images" / f"{image}.png"), pixels[:, :, ::-1])
        coco["images"].append({"id": image, "file_name": f"{image}.png", "height": SIDE, "width": SIDE})
    (folder / "annotations.json").write_text(json.dumps(coco))
    return folder


def edited(dataset: Path, edit: Callable[[dict[str, Any]], None], name: str = "edited.json") -> Path:
    coco = json.loads((dataset / "annotations.json").read_text())
    edit(coco)
    (dataset / name).write_text(json.dumps(coco))
    return dataset / name


def training_set(dataset: Path, annotations: Path | None = None, **changes: Any) -> TrainingSet:
    arguments: dict[str, Any] = {"scale": tiny().scale, "seed": 0, "masks": True, "class_agnostic": False}
    coco = read(annotations or dataset / "annotations.json", masks=True)
    return TrainingSet(coco, images=dataset / "images", **(arguments | changes))


def train(dataset: Path, folder: Path, config: SegmenterConfig, *, seed: int = 0) -> None:
    training.train(
        annotations=dataset / "annotations.json",
        images=dataset / "images",
        config=config,
        seed=seed,
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


# --- the menu ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MENU)
def test_every_name_on_the_menu_composes_and_names_its_backend(name: str) -> None:
    config = composed(name)
    check(config)
    assert config.name == name
    assert config.backend == segmenters.SEGMENTERS.get(name, "none")


PUBLISHED = {  # what MMDetection's configs, and ConvNeXt's own, say: names of these → their settings
    ("mask_rcnn_r50", "mask_rcnn_r101", "mask_rcnn_x101_32x4d", "mask_rcnn_x101_64x4d"): {
        "pyramid.norm": "affine",
        "pyramid.fpn_start": "xavier",
        "proposals.after_nms": [1000, 1000],
        "proposals.box_beta": 0,
        "heads.start": "mmdetection",
        "heads.samples": 0,
        "heads.box_beta": 0,
        "heads.mask_targets": "binary",
    },
    ("cascade_convnext_s", "cascade_convnext_b"): {
        "pyramid.fpn_start": "xavier",
        "proposals.after_nms": [2000, 1000],
        "proposals.box_beta": 1 / 9,
        "heads.start": "mmdetection",
        "heads.samples": 0,
        "heads.mask_targets": "binary",
        "cascade.box_per_class": True,
    },
    ("solov2_r50", "solov2_r101_dcn", "solov2_x101_dcn"): {
        "pyramid.norm": "affine",
        "pyramid.frozen_stages": 2,
        "pyramid.fpn_start": "xavier",
        "grid.mask_targets": "binary",
    },
}


@pytest.mark.parametrize(("names", "settings"), PUBLISHED.items())
def test_segmenters_of_the_paper_have_the_settings_of_the_published_configs(
    names: tuple[str, ...], settings: dict[str, Any]
) -> None:
    for name in names:
        config = composed(name)
        assert {key: attrgetter(key)(config) for key in settings} == settings, name


def test_the_menu_holds_every_segmenter_of_the_paper() -> None:
    assert set(MENU) == {*segmenters.SEGMENTERS, "none"}


def test_the_mask_head_is_left_out_by_either_spelling() -> None:
    assert composed("mask_rcnn_tiny").mask_head is True
    assert [composed("mask_rcnn_tiny", f"mask_head={word}").mask_head for word in ("none", "false")] == [False, False]


def test_what_is_built_is_found_and_what_is_unknown_is_named() -> None:
    for name in segmenters.SEGMENTERS:
        module = import_module(BACKENDS[composed(name).backend].module)
        assert segmenters.find(composed(name)) is module.NETWORK
    assert segmenters.find(composed("mask_rcnn_r50", "dcn=true")) is mask_rcnn.NETWORK
    with pytest.raises(ConfigError, match="mask2former_swin_s has no deformable convolutions"):
        segmenters.find(composed("mask2former_swin_s", "dcn=true"))
    with pytest.raises(ConfigError, match="segmenter=none trains nothing"):
        segmenters.find(composed("none"))
    with pytest.raises(ConfigError, match=r"segmenter\.name=yolo is unknown"):
        segmenters.find(composed("mask_rcnn_tiny", "name=yolo"))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("optimizer.name=lion", "segmenter.optimizer.name=lion is unknown; choose one of sgd, adamw"),
        ("scale.flip=2", "segmenter.scale.flip=2.0 is out of range; choose a value from 0 to 1"),
        ("schedule.steps=5", "set exactly one of segmenter.schedule.epochs and segmenter.schedule.steps"),
        ("schedule.epochs=0", "the length must be positive"),
        ("schedule.milestones=[8,11]", "must be shares of the run"),
        ("optimizer.clip=0", "must be positive, or null"),
        ("proposals.anchors=[[8],[16]]", "segmenter.proposals.anchors=[[8], [16]] must be a list of 5"),
        ("proposals.anchors=[[8],[16],[32],[64],[64,128]]", "each level needs as many sides"),
        ("mask_head=conv", "segmenter.mask_head=conv is unknown; choose true, or none for boxes alone"),
        ("dcn=true", "segmenter.dcn=true needs a ResNet or ResNeXt, and segmenter.pyramid.kind=tiny is none"),
        ("optimizer.layer_decay=.7", "segmenter.optimizer.layer_decay=0.7 needs AdamW and timm's ConvNeXt; set 1"),
        ("scale.crop_sides=[600,384]", "must be the shorter, then the longer"),
        ("scale.short_sides=[]", "must be a list of at least one positive number"),
    ],
)
def test_a_value_that_makes_no_sense_fails_before_any_work(override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        check(composed("mask_rcnn_tiny", override))


# --- data ----------------------------------------------------------------------------------------------------------


def test_crowds_and_slivers_and_images_without_objects_are_left_out(dataset: Path) -> None:
    def edit(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            if annotation["image_id"] == 11:
                annotation["iscrowd"] = 1

    entries = instances(read(edited(dataset, edit), masks=True))
    assert [image["id"] for image, _ in entries] == [10, 12, 13]
    assert all(len(annotations) == 2 for _, annotations in entries)

    def all_crowds(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            annotation["iscrowd"] = 1

    with pytest.raises(AnnotationError, match="nothing to train on"):
        instances(read(edited(dataset, all_crowds), masks=True))


def test_two_supervisions_see_the_same_but_for_the_masks(dataset: Path) -> None:
    rng = np.random.default_rng(1)

    def pseudo(coco: dict[str, Any]) -> None:
        for number, annotation in enumerate(coco["annotations"]):
            mask = rng.random((SIDE, SIDE)) < 0.3
            annotation["segmentation"] = encode_mask(mask & (number != 1))  # the second one is empty
            annotation["area"] = int(mask.sum())

    human, other = training_set(dataset), training_set(dataset, edited(dataset, pseudo))
    positions = list(order(len(human), seed=5, first=0, stop=12))
    assert positions == list(order(len(other), seed=5, first=0, stop=12))
    for at in positions:
        first, second = human[at], other[at]
        assert first.image_id == second.image_id
        for name in ("image", "boxes_xyxy", "labels"):
            torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=0, atol=0)
        assert first.masks.shape == second.masks.shape
        assert not torch.equal(first.masks, second.masks)
    empty = next(other[at] for at in positions if at[1] == 0)
    assert empty.masks.shape[0] == 2
    assert empty.masks[1].sum() == 0


def test_flipped_and_resized_masks_stay_in_their_boxes(dataset: Path) -> None:
    samples = training_set(dataset)
    seen = set()
    for epoch in range(12):
        sample = samples[epoch, 0]
        seen.add((sample.image.shape[-1], bool(sample.boxes_xyxy[0, 0] > sample.image.shape[-1] / 2)))
        for box, mask, label in zip(sample.boxes_xyxy, sample.masks, sample.labels, strict=True):
            rows, columns = mask.nonzero().unbind(1)
            extent = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (extent - box).abs().max() <= 1
            red, _, blue = sample.image[:, mask.bool()].float().mean(dim=1).tolist()
            assert (red > blue) == (label == 1)
    assert {side for side, _ in seen} == {48, 64}
    assert {flipped for _, flipped in seen} == {False, True}


def test_a_sample_does_not_depend_on_what_was_asked_for_before(dataset: Path) -> None:
    samples = training_set(dataset)
    expected = samples[3, 2]
    for at in [(0, 0), (3, 1), (2, 2)]:
        samples[at]
    again = samples[3, 2]
    assert torch.equal(expected.image, again.image)
    assert torch.equal(expected.masks, again.masks)


def test_class_agnostic_training_has_one_label(dataset: Path) -> None:
    samples = training_set(dataset, class_agnostic=True)
    assert samples.classes == 1
    assert samples[0, 0].labels.tolist() == [1, 1]


def test_each_epoch_shows_each_image_once_and_a_resume_goes_on_in_the_middle() -> None:
    whole = list(order(7, seed=3, first=0, stop=28))
    for epoch in range(4):
        assert sorted(index for e, index in whole if e == epoch) == list(range(7))
    assert [index for _, index in whole[:7]] != [index for _, index in whole[7:14]]
    assert list(order(7, seed=3, first=10, stop=28)) == whole[10:]
    assert list(order(7, seed=4, first=0, stop=28)) != whole


def test_resizing_keeps_the_aspect_and_bounds_the_long_side() -> None:
    assert resized(480, 640, short=800, long=1333) == (800, 1067)
    assert resized(640, 480, short=800, long=1333) == (1067, 800)
    assert resized(200, 1000, short=800, long=1333) == (267, 1333)


# --- schedule ------------------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_drops_at_the_milestones() -> None:
    optimizer = OptimizerConfig(lr=0.02, base_batch=16)
    schedule = ScheduleConfig(batch=8, warmup=0.1, warmup_start=0.001)
    rates = [learning_rate_at(step, optimizer, schedule) for step in (0, 60, 120, 799, 800, 1099, 1100)]
    peak = 0.02 * 8 / 16
    assert rates == pytest.approx(
        [peak * 0.001, peak * (0.001 + 0.999 / 2), peak, peak, peak / 10, peak / 10, peak / 100]
    )


def test_the_cosine_ends_where_it_is_told_to() -> None:
    optimizer, schedule = OptimizerConfig(lr=1.0), ScheduleConfig(batch=16, shape="cosine", final=0.2)
    rates = [learning_rate_at(step, optimizer, schedule) for step in (0, 600, 1200)]
    assert rates == pytest.approx([1, 0.6, 0.2])


def learning_rate_at(step: int, optimizer: OptimizerConfig, schedule: ScheduleConfig) -> float:
    return learning_rate(step, total=1200, optimizer=optimizer, schedule=schedule)


def test_the_length_of_a_run_is_images_over_batch_times_epochs() -> None:
    assert run_length(ScheduleConfig(batch=16, epochs=12), images=117_266) == 87_950
    assert run_length(ScheduleConfig(batch=16, epochs=None, steps=7), images=100) == 7


# --- training ------------------------------------------------------------------------------------------------------


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


def test_an_interrupted_run_ends_in_the_same_bits(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("running.checkpoint_steps=3", "running.log_steps=2")
    train(dataset, tmp_path / "whole", config)
    real, calls = loop._step, []

    def dies_at_the_fifth(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(*arguments, **named)

    monkeypatch.setattr(loop, "_step", dies_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "cut", config)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    lines = (tmp_path / "cut" / "curves.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    with (tmp_path / "cut" / "curves.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # as a kill in mid-write leaves it
    monkeypatch.undo()
    train(dataset, tmp_path / "cut", config)
    first, second = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("whole", "cut"))
    assert same(first, second)
    assert (tmp_path / "whole" / "curves.jsonl").read_text() == (tmp_path / "cut" / "curves.jsonl").read_text()
    assert (tmp_path / "cut" / "checkpoint.pt").exists(), "it goes once there is a record"


def test_a_segmenter_cut_short_is_trained_from_its_checkpoint_and_a_whole_one_is_kept(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kill between segmenter.pt and its record, or a disk that lost the end of it."""
    config, file = tiny("schedule.steps=2", "running.checkpoint_steps=1"), tmp_path / "segmenter.pt"
    train(dataset, tmp_path, config)
    whole, data = torch.load(file, weights_only=True), file.read_bytes()
    file.write_bytes(data[:-5000])
    train(dataset, tmp_path, config)
    assert "segmenter.pt is not a readable checkpoint" in capsys.readouterr().err
    assert same(torch.load(file, weights_only=True), whole)
    (tmp_path / "checkpoint.pt").unlink()
    monkeypatch.setattr(loop, "_step", None)  # a step would fail
    train(dataset, tmp_path, config)
    torch.save({"step": 1, "model": {}}, tmp_path / "checkpoint.pt")
    file.unlink()
    with pytest.raises(MalError, match=r"checkpoint\.pt .*delete it, and the same command trains from the start"):
        train(dataset, tmp_path, config)


def test_a_termination_notice_writes_a_checkpoint_and_the_run_goes_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("running.log_steps=2")
    train(dataset, tmp_path / "whole", config)
    real = loop._step

    def noticed_in_the_third(run: loop.Run, *rest: Any, **named: Any) -> None:
        real(run, *rest, **named)
        if run.trainer.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "_step", noticed_in_the_third)
    with pytest.raises(Stopped, match=r"after segmenter step 3 of .* \(SIGTERM\)"):
        train(dataset, tmp_path / "cut", config)
    monkeypatch.undo()
    train(dataset, tmp_path / "cut", config)
    first, second = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("whole", "cut"))
    assert same(first, second)


KILLED = """
import sys, torch
from pathlib import Path
from tests.test_segmenter import tiny, train
torch.set_num_threads(1)
train(Path(sys.argv[1]), Path(sys.argv[2]), tiny("schedule.steps=16", "running.checkpoint_steps=2"))
"""


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bits(dataset: Path, tmp_path: Path) -> None:
    config = tiny("schedule.steps=16", "running.checkpoint_steps=2")
    train(dataset, tmp_path / "whole", config)
    folder = tmp_path / "killed"
    kills, last = 0, -1.0
    while kills < 3 and not (folder / "segmenter.pt").exists():
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(dataset), str(folder)], cwd=Path(__file__).parents[1], stderr=-3
        )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            checkpoint = folder / "checkpoint.pt"
            if checkpoint.exists() and checkpoint.stat().st_mtime > last:
                last = checkpoint.stat().st_mtime
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
            time.sleep(0.002)
        process.wait()
    assert kills == 3
    train(dataset, folder, config)
    first, second = (torch.load(path / "segmenter.pt", weights_only=True) for path in (tmp_path / "whole", folder))
    assert same(first, second)


def test_a_seed_decides_everything(dataset: Path, tmp_path: Path) -> None:
    config = tiny("schedule.steps=2", "running.log_steps=1")
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        train(dataset, tmp_path / name, config, seed=seed)
    curves = {name: (tmp_path / name / "curves.jsonl").read_text() for name in ("one", "again", "two")}
    assert curves["one"] == curves["again"]
    assert curves["one"] != curves["two"]


def test_a_finished_run_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "run", tiny("schedule.steps=1"))
    written = (tmp_path / "run" / "segmenter.pt").stat().st_mtime_ns
    train(dataset, tmp_path / "run", tiny("schedule.steps=1"))
    assert (tmp_path / "run" / "segmenter.pt").stat().st_mtime_ns == written


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_images(dataset: Path, tmp_path: Path) -> None:
    config = tiny("optimizer.name=sgd", "optimizer.lr=100", "optimizer.clip=null", "schedule.warmup=0")
    with pytest.raises(TrainingError, match=r"image ids \[1\d, 1\d\].*Lower segmenter.optimizer.lr"):
        train(dataset, tmp_path / "run", config)
    noted = json.loads((tmp_path / "run" / "not_finite.json").read_text())
    assert set(noted["image_ids"]) <= {10, 11, 12, 13}
    assert not (tmp_path / "run" / "segmenter.pt").exists()


def test_bf16_hands_on_boxes_in_full_precision() -> None:
    torch.manual_seed(0)
    plain = mask_rcnn.build(tiny(), classes=2).eval()
    images = [torch.rand(3, 64, 64)]
    with torch.inference_mode():
        expected = plain.backbone(images[0][None])
        parts = mask_rcnn.lowered_parts(tiny())
        lower = lower_precision(deepcopy(plain), parts, dtype=torch.bfloat16, device=CPU)
        maps = lower.backbone(images[0][None])
        proposals = [p["boxes"] for p in lower(images)]
    assert all(value.dtype == torch.float32 for value in maps.values())
    assert all(proposal.dtype == torch.float32 for proposal in proposals)
    difference = max((maps[name] - expected[name]).abs().max().item() for name in maps)
    assert 0 < difference < 0.1 * max(value.abs().max().item() for value in expected.values())
    auto = lower_precision(deepcopy(plain), parts, dtype=network_dtype("auto", CPU), device=CPU)
    with torch.inference_mode():
        assert torch.equal(auto.backbone(images[0][None])["0"], expected["0"])  # a CPU keeps float32


@pytest.mark.slow
def test_it_learns_four_images_by_heart(dataset: Path, tmp_path: Path) -> None:
    config = tiny("schedule.batch=4", "schedule.steps=220", "scale.short_sides=[64]", "pyramid.channels=32")
    config.heads.mask_widths, config.pyramid.widths = [32, 32], [16, 32, 32, 32]
    train(dataset, tmp_path / "run", config)
    human = read(dataset / "annotations.json", masks=True)
    human["annotations"] = [annotation for annotation in human["annotations"] if annotation["area"] > 1]  # no slivers
    metrics, _ = average_precision(human, predict(dataset, tmp_path / "run", config))
    assert metrics["ap50"] > 0.95
    assert metrics["ap"] > 0.8


# --- prediction ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(dataset, run folder) of a few steps: bad predictions, but predictions."""
    folder = tmp_path_factory.mktemp("trained")
    data = make_dataset(folder / "data", images=4)
    train(data, folder / "run", tiny())
    return data, folder / "run"


def test_predictions_open_in_pycocotools(trained: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    dataset, run = trained
    config = tiny("test.score=0", "test.max_detections=7", "test.batch=3")
    results = json.loads(json.dumps(predict(dataset, run, config)))
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
        assert min(x, y) >= 0
        assert w > 0 < h
        assert max(x + w, y + h) <= SIDE + 1e-3
        mask = decode_mask(result["segmentation"], height=SIDE, width=SIDE)
        rows, columns = mask.nonzero()
        if len(rows):
            assert columns.min() >= math.floor(x) - 1
            assert rows.max() <= math.ceil(y + h)
    strict = predict(dataset, run, tiny("test.score=0.4"))
    assert all(result["score"] > 0.4 for result in strict)


def test_the_same_checkpoint_predicts_the_same_whatever_the_batch(trained: tuple[Path, Path]) -> None:
    first, again = (predict(*trained, tiny("test.score=0.2", "test.batch=2")) for _ in range(2))
    assert first == again
    alone = predict(*trained, tiny("test.score=0.2", "test.batch=1"))
    assert len(alone) == len(first)
    np.testing.assert_allclose([r["score"] for r in alone], [r["score"] for r in first], rtol=1e-4)


def test_detections_come_back_in_the_pixels_of_the_original() -> None:
    entry = {"id": 5, "height": 60, "width": 120}
    found = {  # in the image at half its height and a third of its width: (30, 40)
        "boxes": torch.tensor([[4.0, 5.0, 12.0, 20.0]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.75]),
        "masks": torch.cat([torch.ones(1, 1, 28, 14), torch.zeros(1, 1, 28, 14)], dim=3),  # the left half
    }
    [result] = coco_results(entry, (30, 40), found, [3, 8], tiny())
    assert result["bbox"] == pytest.approx([12, 10, 24, 30])
    assert (result["image_id"], result["category_id"], result["score"]) == (5, 8, 0.75)
    rows, columns = decode_mask(result["segmentation"], height=60, width=120).nonzero()
    # torchvision's pasting rounds a box to whole pixels, both ends included
    assert (rows.min(), rows.max()) == pytest.approx((10, 39), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((12, 23), abs=1)


def test_a_detector_without_masks_trains_on_boxes_alone(dataset: Path, tmp_path: Path) -> None:
    def strip(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            del annotation["segmentation"]

    edited(dataset, strip, "annotations.json")
    config = tiny("mask_head=none", "schedule.steps=2", "test.score=0")
    train(dataset, tmp_path / "run", config)
    results = predict(dataset, tmp_path / "run", config)
    assert results
    assert all("segmentation" not in result for result in results)


def test_one_class_for_all_predicts_category_one(dataset: Path, tmp_path: Path) -> None:
    config = tiny("class_agnostic=true", "schedule.steps=2", "test.score=0")
    train(dataset, tmp_path / "run", config)
    assert {result["category_id"] for result in predict(dataset, tmp_path / "run", config)} == {1}


# --- weights -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_other_settings_is_refused(trained: tuple[Path, Path]) -> None:
    with pytest.raises(WeightsError, match="trained with other settings"):
        predict(*trained, tiny("heads.box_width=48"))


@pytest.mark.parametrize("name", ["resnet", "timm"])
def test_a_weights_file_is_loaded_whole_or_refused(name: str, tmp_path: Path) -> None:
    kind = {"resnet": "mask_rcnn_r50", "timm": "mask_rcnn_timm"}[name]
    small = ["pyramid.name=resnet18", "pretrained=false", "pyramid.channels=16"]
    source = build_pyramid(composed(kind, *small), load=True).body.model
    head = {"fc.weight": torch.zeros(1001, 512), "fc.bias": torch.zeros(1001)}
    state = {
        key: torch.randn_like(value) if value.is_floating_point() else value
        for key, value in source.state_dict().items()
    }
    torch.save({"state_dict": state | head}, tmp_path / "whole.pth")
    config = composed(kind, *small, f"checkpoint={tmp_path / 'whole.pth'}")
    loaded = build_pyramid(config, load=True).body.model.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)

    partial = {key: value for key, value in state.items() if key != "layer3.0.conv1.weight"} | {"extra": torch.ones(1)}
    partial["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(partial, tmp_path / "partial.pth")
    config.checkpoint = str(tmp_path / "partial.pth")
    with pytest.raises(WeightsError) as error:
        build_pyramid(config, load=True)
    sentence = str(error.value)
    assert "missing: layer3.0.conv1.weight" in sentence
    assert "unexpected: extra" in sentence
    assert "conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)" in sentence
    assert "segmenter.checkpoint=FILE" in sentence


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not weights")
    for path, complaint in (("absent.pth", "there is no such file"), ("text.pth", "is not a readable weights file")):
        with pytest.raises(WeightsError, match=complaint):
            build_pyramid(composed("mask_rcnn_r50", f"checkpoint={tmp_path / path}"), load=True)


@pytest.mark.parametrize("name", ["mask_rcnn_r50", "mask_rcnn_timm"])
def test_unreachable_weights_name_the_two_ways_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(WeightsError) as error:
        build_pyramid(composed(name), load=True)
    assert "no route to host" in str(error.value)
    assert "segmenter.checkpoint=FILE" in str(error.value)
    assert "segmenter.pretrained=false" in str(error.value)


def test_loaded_batch_norms_stay_as_they_are_and_early_stages_too(tmp_path: Path) -> None:
    options = ["pyramid.name=resnet18", "pyramid.channels=16"]
    scratch = build_pyramid(composed("mask_rcnn_r50", *options, "pretrained=false"), load=True)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in scratch.modules())
    torch.save(scratch.body.model.state_dict(), tmp_path / "w.pth")
    options += ["pyramid.norm=frozen", f"checkpoint={tmp_path / 'w.pth'}"]
    loaded = build_pyramid(composed("mask_rcnn_r50", *options), load=True)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in loaded.body.modules())
    trained = {name.split(".")[0] for name, p in loaded.body.model.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenetv2_100", {}),
        ("convnext_atto", {}),
        ("swin_tiny_patch4_window7_224", {"strict_img_size": False}),
        ("resnet10t", {}),
    ],
)
def test_timm_pyramids_give_five_strides(name: str, options: dict[str, Any]) -> None:
    config = composed("mask_rcnn_timm", f"pyramid.name={name}", "pretrained=false", "pyramid.channels=8")
    config.pyramid.options = options
    maps = build_pyramid(config, load=True).eval()(torch.zeros(1, 3, 96, 64))
    assert [tuple(value.shape) for value in maps.values()] == [
        (1, 8, 96 // stride, 64 // stride) if stride < 64 else (1, 8, 2, 1) for stride in (4, 8, 16, 32, 64)
    ]


def test_a_model_without_a_pyramid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a feature pyramid needs \[4, 8, 16, 32\]"):
        build_pyramid(composed("mask_rcnn_timm", "pyramid.name=deit_tiny_patch16_224", "pretrained=false"), load=True)
    with pytest.raises(ConfigError, match="cannot be built by timm"):
        build_pyramid(composed("mask_rcnn_timm", "pyramid.name=resnet51", "pretrained=false"), load=True)
    with pytest.raises(ConfigError, match="resnet51 is unknown; choose one of resnet101"):
        build_pyramid(composed("mask_rcnn_r50", "pyramid.name=resnet51", "pretrained=false"), load=True)
