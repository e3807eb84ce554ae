"""What was sent to MLflow comes back as the same files, and what cannot be read is said in a sentence."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis import sources
from mal.engine.tracking_address import shown

STORED = {  # stage → its files beside run.json
    "quality_val": ["instances.csv"],
    "ap_val": ["matches_segm.npz", "matches_bbox.npz"],
    "attention_val": ["attention.npz"],
    "train_labeler": ["curves.jsonl"],
}


def write_stage(store: Path, stage: str, key: str = "0123456789abcdef") -> Path:
    folder = store / stage / key
    folder.mkdir(parents=True)
    for name in STORED.get(stage, []):
        if name.endswith(".npz"):
            np.savez_compressed(folder / name, values=np.arange(100.0))
        else:
            (folder / name).write_text('{"step": 1, "loss": 0.5}\n' if name == "curves.jsonl" else "iou\n0.5\n")
    record = {
        "stage": stage, "key": key, "version": 1, "status": "done", "columns": {"data": "shapes", "seed": 0},
        "config": {"a": 1}, "inputs": {}, "sources": {}, "metrics": {"iou": {"value": 0.5, "n": 1}},
        "provenance": {"commit": "c0ffee"}, "started": "2026-11-20T10:00:00+00:00",
        "finished": "2026-11-20T10:00:12+00:00",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record, indent=1))
    return folder


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**kept, **variables}, timeout=300
    )


def send(store: Path, uri: str) -> None:
    result = run("-m", "mal.tracking", "sync", "--store", str(store), "--uri", uri)
    assert result.returncode == 0, result.stderr


def read_back(uri: str, target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: mlflow changes the logging of the one that it is imported in."""
    script = (
        "import argparse, sys; from analysis import sources; from analysis.records import UnreadableRecordError\n"
        "parser = argparse.ArgumentParser(); sources.add_options(parser)\n"
        "try: print(sources.opened(parser.parse_args()))\n"
        "except UnreadableRecordError as error: sys.exit(f'error: {error}')\n"
    )
    return run("-c", script, "--mlflow", uri, "--copy", str(target), *more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small store, and the address of the server that it was sent to."""
    folder = tmp_path_factory.mktemp("mirrored")
    for stage in STORED:
        write_stage(folder / "runs", stage)
    (folder / "runs/train_labeler/0123456789abcdef/labeler.pt").write_bytes(b"weights")
    unfinished = folder / "runs/quality_val/fedcba9876543210"
    unfinished.mkdir()
    (unfinished / "curves.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    send(folder / "runs", f"sqlite:///{folder}/mlflow.db")
    return folder / "runs", f"sqlite:///{folder}/mlflow.db"


def test_what_comes_back_is_what_was_sent_byte_for_byte(mirrored: tuple[Path, str], tmp_path: Path) -> None:
    store, uri = mirrored
    result = read_back(uri, tmp_path / "copy")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path / 'copy'}\n"), result.stderr
    left_behind = {"labeler.pt", "mlflow.json", "mlflow.lock"}
    sent = {name: data for name, data in files(store).items() if Path(name).name not in left_behind}
    sent.pop("quality_val/fedcba9876543210/curves.jsonl")  # not finished
    assert files(tmp_path / "copy") == sent


@pytest.mark.slow
def test_a_second_download_takes_only_what_is_missing(mirrored: tuple[Path, str], tmp_path: Path) -> None:
    _, uri = mirrored
    assert read_back(uri, tmp_path / "copy").returncode == 0
    kept = tmp_path / "copy/quality_val/0123456789abcdef/run.json"
    kept.write_text("kept")
    shutil.rmtree(tmp_path / "copy/ap_val")
    assert read_back(uri, tmp_path / "copy").returncode == 0
    assert kept.read_text() == "kept"
    assert (tmp_path / "copy/ap_val/0123456789abcdef/matches_segm.npz").exists()


@pytest.mark.slow
def test_a_stage_that_was_sent_twice_comes_back_once(tmp_path: Path) -> None:
    folder, uri = write_stage(tmp_path / "runs", "quality_val"), f"sqlite:///{tmp_path}/mlflow.db"
    send(tmp_path / "runs", uri)
    (folder / "mlflow.json").unlink()
    record = json.loads((folder / "run.json").read_text()) | {"finished": "2026-11-21T10:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(record))
    send(tmp_path / "runs", uri)
    assert read_back(uri, tmp_path / "copy").returncode == 0
    found = files(tmp_path / "copy")
    assert found["quality_val/0123456789abcdef/run.json"] == (folder / "run.json").read_bytes()
    assert len(found) == 2


@pytest.mark.slow
def test_a_database_that_was_moved_with_its_artifacts_is_read_where_it_lies(tmp_path: Path) -> None:
    folder = write_stage(tmp_path / "project/runs", "quality_val")
    send(tmp_path / "project/runs", f"sqlite:///{tmp_path}/project/mlflow.db")
    expected = {f"quality_val/{folder.name}/{it}": (folder / it).read_bytes() for it in ("run.json", "instances.csv")}
    (tmp_path / "project").rename(tmp_path / "moved")
    result = read_back(f"sqlite:///{tmp_path}/moved/mlflow.db", tmp_path / "copy")
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "copy") == expected


@pytest.mark.slow
def test_an_experiment_without_results_is_a_sentence_that_says_what_to_do(
    mirrored: tuple[Path, str], tmp_path: Path
) -> None:
    result = read_back(mirrored[1], tmp_path / "copy", "--experiment", "other")
    assert result.returncode == 1
    assert "holds no finished stage in an experiment other; name another with --experiment, or send" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    result = read_back(f"sqlite:///{tmp_path}/absent.db", tmp_path / "copy")
    assert "error: there is no database absent.db" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    result = read_back("http://me:secret@127.0.0.1:9", tmp_path / "copy")
    assert result.stderr == (
        "error: cannot read the tracking server http://…@127.0.0.1:9: it does not answer (Connection refused)\n"
    )


def test_a_folder_is_no_address(tmp_path: Path) -> None:
    assert "is no address of a server; give sqlite:///FILE" in read_back("results/mlruns", tmp_path).stderr


def test_without_mlflow_the_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/mlflow.py").write_text("raise ImportError('none')")
    script = "from analysis.from_mlflow import download; from pathlib import Path; download('http://h', Path('x'))"
    paths = os.pathsep.join([str(tmp_path / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = run("-c", script, PYTHONPATH=paths)
    assert "needs mlflow, which is not installed: pip install mlflow" in result.stderr


def test_a_store_is_read_where_it_lies_and_without_mlflow(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    sources.add_options(parser)
    assert sources.opened(parser.parse_args(["--store", str(tmp_path)])) == tmp_path
    assert sources.opened(parser.parse_args([])) == Path("results/runs")
    with pytest.raises(SystemExit):
        parser.parse_args(["--store", "a", "--mlflow", "http://b"])


@pytest.mark.parametrize("password", ["secret", "se@cret", "se/cret", "se:cret"])
def test_no_part_of_a_password_is_shown(password: str) -> None:
    assert shown(f"http://me:{password}@127.0.0.1:9/path") == "http://…@127.0.0.1:9/path"
