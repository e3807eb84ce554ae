"""What is part of a result's identity, and what is not: how the work is done."""

import json
from pathlib import Path

import pytest
import torch

from mal.graph import in_order
from mal.stages import Graph
from mal.store import Store

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


def test_the_demo_has_the_keys_of_the_published_one(compose, tmp_path: Path) -> None:
    """A setting that is added must not give a result that exists another name."""
    found = keys(compose, tmp_path)
    for name in ("train_labeler mal None", "label_val mal None", "quality_val mal None", "train_segmenter None human",
                 "detect_val mal pseudo", "retention mal pseudo"):  # fmt: skip
        assert found[name] in published(name.split()[0]), name


def test_a_swin_trained_with_a_spoilt_teacher_has_another_key(compose, tmp_path: Path) -> None:
    swins = [
        path.parent.name
        for path in PUBLISHED.glob("train_labeler/*/run.json")
        if "whole_numbers" not in (encoder := json.loads(path.read_text())["config"]["encoder"])
        and "swin" in encoder["timm"]
    ]
    found = keys(compose, tmp_path, "encoder=swin_nano", "segmenter=none")
    assert found["train_labeler mal None"] not in swins
