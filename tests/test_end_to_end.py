"""The commands of the README, as a user types them, at smoke scale."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mal.data.annotations import read, strip, write
from tests.few_photographs import few_photographs
from tests.test_collect import HEADER

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def command(*arguments: str, store: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python experiments/run.py` at smoke scale with a store of its own."""
    done = subprocess.run(
        [sys.executable, "experiments/run.py", *arguments, "profile=smoke", f"store={store}", "tracking=none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that one whole run has filled."""
    root = tmp_path_factory.mktemp("store") / "runs"
    found = command(store=root)
    for words in ("MAL", "inscribed ellipse", "GrabCut", "trained on", "human masks", "retention", "sheet.png"):
        assert words in found.stdout
    return root


def records(store: Path) -> dict[str, dict]:
    return {f"{p.parent.parent.name}/{p.parent.name}": json.loads(p.read_text()) for p in store.glob("*/*/run.json")}


def test_a_second_run_computes_nothing(store):
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/*/run.json")}
    assert "22 stages, 22 of them done" in command(store=store).stdout
    assert {path: path.stat().st_mtime_ns for path in store.glob("*/*/run.json")} == before


def test_dry_run_lists_stages_keys_and_what_is_done(store):
    lines = command("dry_run=true", "seed=5", store=store).stdout.splitlines()
    states = {line.split()[-2]: line.startswith("done") for line in lines if line.startswith(("done", "to do"))}
    assert states["shapes_train"]
    assert not states["train_labeler"]
    assert set(states) >= {"boxes_val", "label_train", "quality_val", "train_segmenter", "ap_val", "retention"}


def test_every_record_names_what_it_came_from(store):
    for address, record in records(store).items():
        assert address == f"{record['stage']}/{record['key']}"
        assert record["status"] == "done"
        assert record["provenance"]["packages"]["torch"]
        assert all(parent in records(store) for parent in record["inputs"].values())


def test_rows_of_a_sweep_share_the_supervised_segmenter(store):
    said = command("-m", "labeler=ellipse,box", store=store).stdout
    ahead = next(line for line in said.splitlines() if line.startswith("2 rows: "))
    assert "rest takes about" in ahead, "said before the first row, from the run before"
    supervisions = [r["columns"]["supervision"] for r in records(store).values() if r["stage"] == "train_segmenter"]
    assert sorted(supervisions) == ["human", "pseudo", "pseudo", "pseudo"]


def test_phase_1_never_sees_a_mask(store):
    for path in store.glob("boxes_*/*/boxes.json"):
        assert "segmentation" not in path.read_text()
        assert '"area"' not in path.read_text()


def test_an_unreachable_encoder_fails_before_any_work(tmp_path):
    found = command("encoder=deit_s", store=tmp_path / "runs", check=False)
    assert found.returncode != 0
    assert "encoder.checkpoint=FILE" in found.stderr
    assert "encoder.pretrained=false" in found.stderr
    assert not list(tmp_path.glob("runs/*/*/run.json"))


def test_a_sweep_over_encoders_works_as_the_user_wrote_it(tmp_path):
    command(
        "-m",
        "encoder=timm",
        "encoder.name=vit_tiny_patch16_224,resnet18",
        "encoder.pretrained=false",
        "segmenter=none",
        "compare=[]",
        "train.steps=1",
        store=tmp_path / "runs",
    )
    names = {r["columns"]["encoder"] for r in records(tmp_path / "runs").values() if r["stage"] == "train_labeler"}
    assert names == {"vit_tiny_patch16_224", "resnet18"}


def test_boxes_of_ones_own_are_trained_on_and_labelled(store, tmp_path):
    drawn = next(store.glob("shapes_train/*"))
    shutil.copytree(drawn / "images", tmp_path / "photos")
    write(tmp_path / "boxes.json", strip(read(drawn / "annotations.json", masks=False)))
    own = [f"data.train.annotations={tmp_path / 'boxes.json'}", f"data.train.images={tmp_path / 'photos'}"]
    found = command("data=coco", *own, store=tmp_path / "runs")
    assert "has boxes only" in found.stdout
    checkpoint = next((tmp_path / "runs").glob("train_labeler/*/labeler.pt"))
    labelled = subprocess.run(
        [sys.executable, "-m", "mal.label", "--images", tmp_path / "photos", "--boxes", tmp_path / "boxes.json",
         "--checkpoint", checkpoint, "--out", tmp_path / "masks.json", "--preview", "4"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert labelled.returncode == 0, labelled.stderr
    boxes, masks = read(tmp_path / "boxes.json", masks=False), read(tmp_path / "masks.json", masks=True)
    assert [a["id"] for a in masks["annotations"]] == [a["id"] for a in boxes["annotations"]]
    assert (tmp_path / "masks_preview.png").stat().st_size > 10_000


def test_a_truncated_photograph_is_named_or_skipped_and_counted(store, tmp_path):
    drawn = next(store.glob("shapes_train/*"))
    shutil.copytree(drawn / "images", tmp_path / "photos")
    broken = tmp_path / "photos" / "000003.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    own = [f"data.train.annotations={drawn / 'annotations.json'}", f"data.train.images={tmp_path / 'photos'}"]
    found = command("data=coco", *own, "segmenter=none", store=tmp_path / "runs", check=False)
    assert found.returncode != 0
    assert "000003.png" in found.stderr
    command("data=coco", *own, "segmenter=none", "data.on_bad_image=skip", store=tmp_path / "runs")
    boxes = next(
        r for r in records(tmp_path / "runs").values() if r["stage"] == "boxes_train" and r["config"]["skip_unreadable"]
    )
    assert boxes["metrics"]["unreadable_images"]["value"] == 1
    labels = json.loads(next((tmp_path / "runs").glob("label_train/*/labels.json")).read_text())
    assert len(labels["annotations"]) == len(read(drawn / "annotations.json", masks=True)["annotations"])


def test_a_wrong_setting_is_a_sentence_and_a_failure(tmp_path):
    for setting, words in (
        ("roi.theta=-1", "roi.theta"),
        ("roi.thta=1", "thta"),
        ("decoder.query.heads=0", "decoder.query.heads=0"),
    ):
        found = command(setting, store=tmp_path / "runs", check=False)
        assert found.returncode != 0
        assert words in found.stderr


def test_photographs_go_the_whole_way(tmp_path, coco_mini, mobilenet_weights):
    found = command(
        "data=coco_mini", f"data.root={coco_mini}", "encoder=mobilenetv2", f"encoder.checkpoint={mobilenet_weights}",
        "roi.size=64", "train.steps=2", "compare=[ellipse]", "segmenter.test.max_detections=5",
        *few_photographs("coco_mini", tmp_path, count=40, splits=["train"]), store=tmp_path / "runs",
    )  # fmt: skip
    assert "855 instances" in found.stdout
    ellipse = [
        r["metrics"]["iou"]["value"]
        for r in records(tmp_path / "runs").values()
        if r["stage"] == "quality_val" and r["columns"]["labeler"] == "ellipse"
    ]
    assert ellipse == [pytest.approx(0.639, abs=0.001)]  # docs/method/mal.md's reference point


def test_the_collected_frame_has_the_columns_of_the_contract(store):
    found = subprocess.run(
        [sys.executable, "-m", "analysis.collect", "--store", store, "--csv", "-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[0] == HEADER
