"""The tidy table: what a store holds, no more, no less, and always in the same order."""

import csv
import io
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.collect import COLUMNS, collect, main
from analysis.records import UnreadableRecordError

HEADER = (
    "profile,data,labeler,recipe,encoder,decoder,theta,key_points,taught_by,split,novel,pairs,points,complement,student,"
    "pseudo,model,text,percent,start,cctf,pmca,task,threshold,contour_points,steps,"
    "segmenter,supervision,seed,stage,metric,value,n,key,commit,denominator,published_file,printed_mask_ap"
)


def _record(stage: str, key: str, metrics: dict[str, Any], **columns: Any) -> dict[str, Any]:
    names = HEADER.partition(",stage,")[0].split(",")
    return {
        "stage": stage,
        "key": key,
        "version": 1,
        "status": "done",
        "columns": {**dict.fromkeys(names), "profile": "demo", "data": "shapes", "seed": 0, **columns},
        "config": {},
        "inputs": {},
        "sources": {},
        "metrics": metrics,
        "provenance": {"commit": "c0ffee"},
        "seconds": 1.0,
        "memory": {},
        "started": "2026-11-20T10:00:00+00:00",
        "finished": "2026-11-20T10:00:01+00:00",
    }


def _write(root: Path, record: dict[str, Any]) -> Path:
    path = root / record["stage"] / record["key"] / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three finished stages, and what else lies about in a store."""
    root = tmp_path / "runs"
    mal = {"labeler": "mal", "recipe": "paper", "encoder": "deit_s", "decoder": "attention"}
    _write(root, _record("quality_val", "b" * 16, {"iou": {"value": 0.75, "n": 40}}, theta=0.6, **mal))
    metrics = {"iou_small": {"value": None, "n": 0}, "iou": {"value": 0.7, "n": 40}}
    _write(root, _record("quality_val", "a" * 16, metrics, theta=1.2, **mal))
    _write(
        root,
        _record("ap", "c" * 16, {"ap": {"value": 0.25, "n": 12}}, segmenter="maskrcnn", supervision="human", seed=10),
    )
    _write(root, {**_record("train", "d" * 16, {"loss": {"value": 1.0, "n": 1}}), "status": "failed"})
    (root / "train" / ("e" * 16)).mkdir()  # half done: no run.json
    (root / "fingerprints.json").write_text("{}")
    return root


EXPECTED = f"""{HEADER}
demo,shapes,,,,,,,,,,,,,,,,,,,,,,,,,maskrcnn,human,10,ap,ap,0.25,12,cccccccccccccccc,c0ffee,,,
demo,shapes,mal,paper,deit_s,attention,0.6,,,,,,,,,,,,,,,,,,,,,,0,quality_val,iou,0.75,40,bbbbbbbbbbbbbbbb,c0ffee,,,
demo,shapes,mal,paper,deit_s,attention,1.2,,,,,,,,,,,,,,,,,,,,,,0,quality_val,iou,0.7,40,aaaaaaaaaaaaaaaa,c0ffee,,,
demo,shapes,mal,paper,deit_s,attention,1.2,,,,,,,,,,,,,,,,,,,,,,0,quality_val,iou_small,,0,aaaaaaaaaaaaaaaa,c0ffee,,,
"""


def test_the_columns_are_those_scripts_rely_on() -> None:
    assert ",".join(COLUMNS) == HEADER


def test_each_metric_of_each_finished_stage_is_one_row_in_fixed_order(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", str(store), "--csv", "-"]) == 0
    printed = capsys.readouterr()
    assert printed.out == EXPECTED
    assert printed.err == ""


def test_yes_and_no_and_counts_are_columns_too(tmp_path: Path) -> None:
    weak = {"labeler": "simformer", "split": "S1", "novel": 43, "points": 100, "supervision": "weak"}
    for key, complement in (("a", True), ("b", False), ("c", None)):
        record = _record("miou_val", key * 16, {"miou": {"value": 0.3, "n": 9}}, complement=complement, **weak)
        _write(tmp_path, record)
    frame = collect(tmp_path)
    assert frame["complement"].tolist() == [pd.NA, False, True]
    assert frame["novel"].tolist() == [43, 43, 43]
    assert frame["points"].dtype == pd.Int64Dtype()


def test_a_file_gets_the_same_as_the_screen(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(store), "--csv", str(tmp_path / "table.csv")]) == 0
    assert (tmp_path / "table.csv").read_text() == EXPECTED
    assert capsys.readouterr().out == ""


def test_numbers_are_numbers_and_what_is_missing_is_missing(store: Path) -> None:
    frame = collect(store)
    assert list(frame["seed"]) == [10, 0, 0, 0]
    assert frame["theta"].tolist()[1:] == [0.6, 1.2, 1.2]
    assert math.isnan(frame["theta"][0])
    assert frame["value"].sum() == pytest.approx(1.7)
    assert frame["n"].dtype == frame["seed"].dtype == pd.Int64Dtype()
    assert list(frame["encoder"].isna()) == [True, False, False, False]


def test_the_order_of_the_files_on_disk_does_not_matter(store: Path, tmp_path: Path) -> None:
    records = [json.loads(path.read_text()) for path in store.glob("*/*/run.json")]
    for seed in range(5):
        random.Random(seed).shuffle(records)
        for record in records:
            record["metrics"] = dict(reversed(record["metrics"].items()))
            _write(tmp_path / str(seed), record)
        pd.testing.assert_frame_equal(collect(tmp_path / str(seed)), collect(store))


def test_seeds_sort_as_numbers(tmp_path: Path) -> None:
    for seed in (10, 9, 100, 1):
        _write(tmp_path, _record("ap", f"{seed:016}", {"ap": {"value": 0.5, "n": 1}}, seed=seed))
    assert list(collect(tmp_path)["seed"]) == [1, 9, 10, 100]


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_store_gives_the_header_and_names_the_command_that_fills_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    if there:
        (tmp_path / "runs").mkdir()
    assert main(["--store", str(tmp_path / "runs"), "--csv", "-"]) == 0
    printed = capsys.readouterr()
    assert printed.out == HEADER + "\n"
    assert "make demo" in printed.err
    assert str(tmp_path / "runs") in printed.err


def _without(name: str) -> str:
    record = _record("ap", "f" * 16, {})
    del record[name]
    return json.dumps(record)


BROKEN = {
    "cut short": ('{"stage": "ap", "metr', "is not whole JSON"),
    "empty": ("", "is not whole JSON"),
    "a list": ("[]", "holds a list"),
    "not text": ("\ud800", "is not whole JSON"),
    "NaN": ('{"value": NaN}', "NaN is no JSON number"),
    "no status": (_without("status"), "no usable 'status'"),
    "no columns": (_without("columns"), "no usable 'columns'"),
    "no metrics": (_without("metrics"), "no usable 'metrics'"),
    "metric without value": (json.dumps(_record("ap", "f" * 16, {"ap": {"n": 1}})), "metric ap has no value"),
    "text for a value": (json.dumps(_record("ap", "f" * 16, {"ap": {"value": "1"}})), "has value '1'"),
    "part of a count": (json.dumps(_record("ap", "f" * 16, {"ap": {"value": 1, "n": 0.5}})), "n 0.5"),
    "text for a seed": (json.dumps(_record("ap", "f" * 16, {}, seed="0")), "column seed is '0'"),
    "text for yes or no": (json.dumps(_record("ap", "f" * 16, {}, complement="yes")), "'yes', which is no boolean"),
    "yes for a number": (json.dumps(_record("ap", "f" * 16, {}, novel=True)), "column novel is True"),
    "unknown column": (json.dumps(_record("ap", "f" * 16, {}, colour="red")), "unknown columns colour"),
    "another's record": (json.dumps(_record("ap", "0" * 16, {})), "not of its own folder"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_record_is_named_and_nothing_is_printed_in_its_stead(
    store: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = store / "ap" / ("f" * 16) / "run.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    assert main(["--store", str(store), "--csv", "-"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(path) in printed.err
    assert message in printed.err
    assert "--skip-broken" in printed.err

    assert main(["--store", str(store), "--csv", "-", "--skip-broken"]) == 0
    printed = capsys.readouterr()
    assert printed.out == EXPECTED
    assert printed.err.startswith(f"left out: {path}")


def test_many_broken_records_are_one_sentence(store: Path) -> None:
    for path in store.glob("*/*/run.json"):
        path.write_text("{")
    with pytest.raises(UnreadableRecordError, match=r"ap/c+/run\.json .* \(and 3 more like it\)"):
        collect(store)


def test_a_place_that_cannot_be_written_is_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = store / "absent" / "table.csv"
    assert main(["--store", str(store), "--csv", str(target)]) == 1
    assert f"cannot write {target}" in capsys.readouterr().err


def test_without_csv_a_table_for_the_eye_has_every_column(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == COLUMNS
    assert len(lines) == 5


def test_the_command_needs_no_torch(store: Path) -> None:
    """It runs where only pandas is."""
    script = "import sys, analysis.collect as c; c.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", script, "--store", str(store), "--csv", "-"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert list(csv.DictReader(io.StringIO(done.stdout))) == list(csv.DictReader(io.StringIO(EXPECTED)))
