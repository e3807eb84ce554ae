"""Sweeps on this machine: what they say beforehand, and what they do when a row ends badly."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mal.data import shapes

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def sweep(*overrides: object, store: Path) -> subprocess.CompletedProcess[str]:
    always = ["-m", "profile=smoke", "segmenter=none", "compare=[]", "tracking=none", f"store={store}"]
    return subprocess.run(
        [sys.executable, "experiments/run.py", *always, *map(str, overrides)], cwd=ROOT, capture_output=True, text=True
    )


def test_a_request_to_stop_stops_the_sweep_not_a_row(tmp_path: Path) -> None:
    found = sweep("seed=0,1", "train.stop_after=1", store=tmp_path)
    assert found.returncode != 0
    assert found.stderr.count("error: stopped") == 1
    assert len(list(tmp_path.glob("train_labeler/*"))) == 1


def test_a_row_that_fails_is_named_at_once_and_the_others_go_on(tmp_path: Path) -> None:
    shapes.generate(tmp_path / "drawn", images=6, size=64, seed=0, split="train")
    shutil.copytree(tmp_path / "drawn" / "images", tmp_path / "damaged")
    for path in (tmp_path / "damaged").glob("*.png"):
        path.write_bytes(path.read_bytes()[:200])
    found = sweep(
        "data=coco",
        f"data.train.annotations={tmp_path}/drawn/annotations.json",
        f"data.train.images={tmp_path}/damaged,{tmp_path}/drawn/images",
        store=tmp_path / "runs",
    )
    assert found.returncode != 0, "the sweep did not succeed, and says so"
    assert f"row 1 failed (data.train.images={tmp_path}/damaged): error: " in found.stderr
    assert "next row" in found.stderr
    assert len(list((tmp_path / "runs").glob("label_train/*/run.json"))) == 1
