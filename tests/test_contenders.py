"""The settings of the suite's own runs: a sweep over one thing is comparable, a sweep over two is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.compare.changes import by_changes
from analysis.compare.contenders import contenders
from analysis.compare.resampled import ComparisonError
from analysis.records import Record
from mal.config import Config
from mal.engine.graph import Stage, in_order
from mal.engine.store import Store
from mal.request import Graph

DEMO = ("profile=demo", "data=shapes", "segmenter=none", "compare=[box,ellipse]")


def as_record(stage: Stage) -> Record:
    inputs = {name: f"{other.name}/{other.key}" for name, other in stage.inputs.items()}
    columns = {"profile": "demo", "data": "shapes", **stage.columns}
    return {
        "stage": stage.name, "key": stage.key, "version": stage.version, "config": stage.config, "inputs": inputs,
        "sources": stage.sources, "columns": columns,
    }  # fmt: skip


@pytest.fixture
def runs(compose: Callable[..., Config], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The contenders among the records that some runs would leave."""

    def build(*rows: str, by: str, stage: str = "quality_val", base: tuple[str, ...] = DEMO) -> dict[str, Any]:
        known = {}
        for row in rows:
            graph = Graph(compose(*base, *row.split()), Store(tmp_path / "runs"), torch.device("cpu"))
            for one in in_order(graph.targets()):
                known[f"{one.name}/{one.key}"] = as_record(one)
        records = [r for r in known.values() if r["stage"] == stage]
        return by_changes(records, known) if by == "changes" else contenders(records, known, by=by)

    return build


def test_encoders_are_alike_in_all_but_themselves_and_the_seed(runs: Callable[..., dict[str, Any]]) -> None:
    rows = ["encoder=vit_nano", "encoder=convnext_nano", "encoder=swin_nano seed=1", "encoder=vit_nano seed=1"]
    found = runs(*rows, by="encoder")
    assert {name: list(group) for name, group in found.items()} == {
        "convnext_nano": [0], "swin_nano": [1], "vit_nano": [0, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("decoder", ["decoder=attention", "decoder=fc", "decoder=fcn", "decoder=query"]),
        ("theta", ["roi.theta=0.6", "roi.theta=1.2"]),
        ("recipe", ["recipe=best", "recipe=paper", "recipe=released"]),
    ],
)
def test_a_sweep_over_one_setting_is_comparable(runs: Callable[..., dict[str, Any]], by: str, rows: list[str]) -> None:
    assert len(runs(*rows, by=by)) == len(rows)


def test_labelers_are_alike_in_the_data_alone(runs: Callable[..., dict[str, Any]]) -> None:
    assert list(runs("seed=0", "seed=1", by="labeler")) == ["box", "ellipse", "mal"]


@pytest.mark.parametrize(
    ("by", "rows", "named"),
    [
        (
            "encoder",
            ["encoder=vit_nano", "encoder=swin_nano train.steps=80"],
            r"train_labeler\.train\.steps \(80, 800\)",
        ),
        ("encoder", ["encoder=vit_nano", "encoder=swin_nano encoder.fuse=false"], r"train_labeler\.encoder\.fuse"),
        ("encoder", ["encoder=vit_nano", "encoder=swin_nano loss.crf_weight=1"], r"train_labeler\.loss\.crf_weight"),
        ("encoder", ["encoder=vit_nano", "encoder=swin_nano label.flip=false"], r"label_val\.label\.flip"),
        ("theta", ["roi.theta=0.6", "roi.theta=1.2 decoder=fcn"], r"decoder \(attention, fcn\)"),
        ("recipe", ["recipe=best", "recipe=paper roi.size=96"], r"train_labeler\.roi\.size \(64, 96\)"),
        ("labeler", ["seed=0", "data.shapes.val_images=50"], r"shapes_val\.images \(100, 50\)"),
    ],
)
def test_what_differs_besides_is_named(
    runs: Callable[..., dict[str, Any]], by: str, rows: list[str], named: str
) -> None:
    with pytest.raises(ComparisonError, match=named):
        runs(*rows, by=by)


def test_clustering_scores_and_segmenters_are_alike_likewise(runs: Callable[..., dict[str, Any]]) -> None:
    rows = ["encoder=vit_nano", "encoder=swin_nano"]
    base = ("profile=demo", "data=shapes", "segmenter=mask_rcnn_tiny", "clustering.enabled=true", "compare=[]")
    assert list(runs(*rows, by="encoder", stage="clustering_val", base=base)) == ["swin_nano", "vit_nano"]
    assert list(runs(*rows, by="encoder", stage="retention", base=base)) == ["swin_nano", "vit_nano"]


def test_ablations_are_named_by_what_they_change(runs: Callable[..., dict[str, Any]]) -> None:
    rows = ["seed=0", "seed=1", "crf.zeta=0.1", "crf.zeta=0.1 seed=1", "crf.zeta=1", "roi.border=clip"]
    rows += ["decoder=fc", "recipe=paper", "label.threshold=[.1,.1,.1]", "crf.zeta=0.1 loss.crf_weight=1"]
    found = runs(*rows, by="changes", base=(*DEMO[:3], "compare=[]"))
    assert list(found) == [
        "nothing",
        "crf.zeta=0.1",
        "crf.zeta=1",
        "crf.zeta=0.1; loss.crf_weight=1",
        "decoder=fc",
        "label.threshold=[0.1, 0.1, 0.1]",
        "recipe=paper",
        "roi.border=clip",
    ]
    assert list(found["nothing"]) == list(found["crf.zeta=0.1"]) == [0, 1]


def test_other_labelers_stand_among_the_ablations(runs: Callable[..., dict[str, Any]]) -> None:
    found = runs("seed=0", "roi.theta=0.6", "roi.theta=1", by="changes")
    assert list(found) == ["nothing", "labeler=box", "labeler=ellipse", "roi.theta=0.6", "roi.theta=1"]


def test_results_of_one_menu_entry_that_differ_in_what_comes_with_it_say_so(
    runs: Callable[..., dict[str, Any]],
) -> None:
    found = runs("seed=0", "roi.theta=1", "decoder=fc", "decoder=fc decoder.fc.hidden=64", "decoder=fcn", by="changes")
    assert [name for name in found if name.startswith("decoder")] == [
        "decoder=fc (decoder.fc.hidden=512)",
        "decoder=fc (decoder.fc.hidden=64)",
        "decoder=fcn",
    ]
