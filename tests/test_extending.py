"""docs/extending.md works as it is written: its files are put into a copy of the repository, and its commands run."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with all that the page adds."""
    copy = tmp_path_factory.mktemp("extended") / "suite"
    for folder in ("mal", "analysis", "slurm", "experiments"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "experiments" / "conf" / "local.yaml").unlink(missing_ok=True)
    shutil.copytree(ROOT / "slurm" / "hydra_plugins", copy / "hydra_plugins")  # as an installation has them
    shutil.copytree(ROOT / "results" / "paper", copy / "results" / "paper")
    for kind, name, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        file = copy / name
        if kind == "diff":
            changed(file, text)
        else:
            assert not file.exists(), f"{name} is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return copy


def changed(file: Path, diff: str) -> None:
    """Replace the lines of a diff that go by those that come, line by line or, where more come, as a whole."""
    whole = file.read_text(encoding="utf-8")
    gone = [line[1:] for line in diff.splitlines() if line.startswith("-")]
    come = [line[1:] for line in diff.splitlines() if line.startswith("+")]
    pairs = list(zip(gone, come, strict=True)) if len(gone) == len(come) else [("\n".join(gone), "\n".join(come))]
    for before, after in pairs:
        assert whole.count(f"{before}\n") == 1, f"{file} has no line {before!r}"
        whole = whole.replace(f"{before}\n", f"{after}\n")
    file.write_text(whole, encoding="utf-8")


def run(copy: Path, *overrides: str) -> str:
    done = subprocess.run(
        [sys.executable, "experiments/run.py", "profile=smoke", "tracking=none", "compare=[]", *overrides],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_an_encoder_is_one_file(extended: Path) -> None:
    printed = run(extended, "encoder=resnet_nano", "segmenter=none", "store=runs/encoder")
    assert "| MAL" in printed
    (record,) = (extended / "runs" / "encoder" / "train_labeler").glob("*/run.json")
    assert json.loads(record.read_text())["columns"]["encoder"] == "resnet_nano"


@pytest.mark.slow
def test_a_method_is_a_folder_and_a_line(extended: Path) -> None:
    printed = run(extended, "labeler=square", "store=runs/square")
    assert re.search(r"^\| square +\| +0\.\d+", printed, re.MULTILINE)
    assert re.search(r"^\| square masks +\|", printed, re.MULTILINE), "a segmenter was trained on them"
    store = extended / "runs" / "square"
    (points,) = store.glob("points_train/*/points.json")
    (labels,) = store.glob("label_train/*/labels.json")
    seen = json.loads(points.read_text())["annotations"]
    assert all(
        annotation.keys() <= {"id", "image_id", "category_id", "iscrowd", "point", "points"} for annotation in seen
    )
    labelled = json.loads(labels.read_text())["annotations"]
    assert len(labelled) == len(seen)
    for annotation in labelled:
        x, y, width, height = annotation["bbox"]
        assert x <= annotation["point"][0] <= x + width
        assert y <= annotation["point"][1] <= y + height


@pytest.mark.slow
def test_a_segmenter_is_a_module_a_record_and_a_config(extended: Path) -> None:
    printed = run(extended, "labeler=ellipse", "segmenter=mask_rcnn_flat", "store=runs/flat")
    assert "Segmenter mask_rcnn_flat" in printed
    trained = list((extended / "runs" / "flat" / "train_segmenter").glob("*/run.json"))
    assert len(trained) == 2
    settings = json.loads(trained[0].read_text())["config"]["segmenter"]
    assert settings["backend"] == "flat"
    assert settings["heads"]["mask_targets"] == "binary"


def test_a_table_is_one_file(extended: Path) -> None:
    command = ["-m", "analysis.tables", "--store", str(ROOT / "results" / "published"), "--out", "here"]
    done = subprocess.run(
        [sys.executable, *command, "--table", "car_parts_masks"],
        cwd=extended, env={**os.environ, "PYTHONPATH": str(extended)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 4
    with (extended / "here" / "tables" / "car_parts_masks.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["labeler"] for row in rows] == ["MAL", "inscribed ellipse", "GrabCut", "filled box"]
    paths = (ROOT / "results" / "published" / "quality_val").glob("*/run.json")
    records = [record for path in paths if (record := json.loads(path.read_text()))["columns"]["data"] == "car_parts"]
    measured = {record["columns"]["labeler"]: record["metrics"] for record in records}
    for row, labeler in zip(rows, ("mal", "ellipse", "grabcut", "box"), strict=True):
        assert row["n"] == "811 masks"
        for heading, metric in (("mask IoU", "iou"), ("boundary IoU", "boundary_iou")):
            value = 100 * measured[labeler][metric]["value"]
            low, high = json.loads(row[f"{heading}, 95 % interval"])
            assert row[heading] == f"{value:.1f}"
            assert low < value < high < low + 6


def test_the_page_names_files_that_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = [PAGE.parent / link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links
    assert [str(link) for link in links if not link.exists()] == []
