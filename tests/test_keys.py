"""What is part of a result's identity, and what is not: how the work is done."""

import json
from pathlib import Path

import pytest
import torch

from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.request import Graph

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"
CPU = torch.device("cpu")
HOW = ["train.workers=3", "train.compile=true", "crf.backend=torch", "label.batch=7", "segmenter.running.workers=2"]


def keys(compose, store: Path, *overrides: str) -> dict[str, str]:
    config = compose("data=shapes", "tracking=none", f"store={store}", *overrides)
    graph = Graph(config, Store(store), CPU)
    return {
        f"{s.name} {s.columns.get('labeler')} {s.columns.get('supervision')}": s.key for s in in_order(graph.targets())
    }


@pytest.mark.parametrize("how", HOW)
def test_how_the_work_is_done_changes_no_key(compose, tmp_path: Path, how: str) -> None:
    assert keys(compose, tmp_path, "profile=smoke", how) == keys(compose, tmp_path, "profile=smoke")


def published(stage: str) -> set[str]:
    return {path.parent.name for path in PUBLISHED.glob(f"{stage}/*/run.json")}


TRAINED = ("train_segmenter None human", "detect_val mal pseudo", "retention mal pseudo")


def test_the_demo_has_the_keys_of_the_published_one(compose, tmp_path: Path) -> None:
    """A setting that is added must not give a result that exists another name."""
    found = keys(compose, tmp_path)
    for name in ("train_labeler mal None", "label_val mal None", "quality_val mal None", *TRAINED):
        assert found[name] in published(name.split()[0]), name


def test_a_segmenter_that_starts_as_before_has_the_keys_it_had(compose, tmp_path: Path) -> None:
    """Its results were published until 2026-11-27, before `segmenter.heads.start` was a setting."""
    former = ("heads.start=torchvision", "heads.mask_targets=share", "proposals.exact_anchors=false")
    found = keys(compose, tmp_path, *(f"segmenter.{setting}" for setting in former))
    assert [found[stage] for stage in TRAINED] == ["853f9d3406669ccd", "2f4abf6a0f843a58", "094f25bc20367f94"]


READ_THE_START = {
    ("segmenter=mask_rcnn_tiny",): True,
    ("segmenter=cascade_tiny",): True,
    ("segmenter=solov2_tiny",): False,
    ("segmenter=mask2former_tiny",): False,
    ("segmenter=mask_rcnn_tiny", "segmenter.backend=detectron2"): False,
    ("segmenter=cascade_tiny", "segmenter.backend=detectron2"): False,
}


@pytest.mark.parametrize(("overrides", "reads"), READ_THE_START.items())
def test_the_start_of_heads_is_part_of_the_keys_of_those_that_read_it(
    compose, tmp_path: Path, overrides: tuple[str, ...], reads: bool
) -> None:
    found = {}
    for start in ("mmdetection", "detectron2", "torchvision"):
        config = compose("data=shapes", f"store={tmp_path}", *overrides, f"segmenter.heads.start={start}")
        stage = Graph(config, Store(tmp_path), CPU).segmenters.train(None)
        found[start] = stage.key
    assert len(set(found.values())) == (3 if reads else 1)
    assert not mentions(stage.config, "segmenter.heads.start")  # the last, torchvision's, is the former one


def mentions(settings: dict, path: str) -> bool:
    *parents, name = path.split(".")
    for parent in parents:
        settings = settings.get(parent, {})
    return name in settings


def test_a_swin_trained_with_a_spoilt_teacher_has_another_key(compose, tmp_path: Path) -> None:
    swins = [
        path.parent.name
        for path in PUBLISHED.glob("train_labeler/*/run.json")
        if "whole_numbers" not in (encoder := json.loads(path.read_text())["config"]["encoder"])
        and "swin" in encoder["timm"]
    ]
    found = keys(compose, tmp_path, "encoder=swin_nano", "segmenter=none")
    assert found["train_labeler mal None"] not in swins
