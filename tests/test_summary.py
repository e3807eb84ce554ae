"""Tables from hand-written records: each number stands where it belongs; nothing is claimed that was not measured."""

import json
from typing import Any

import pytest

from analysis.summary import AP, QUALITY, main, summary
from analysis.summary_cells import table

Record = dict[str, Any]
MAL = {"labeler": "mal", "recipe": "best", "encoder": "vit_nano", "decoder": "attention", "theta": 1.2}
HUMAN = {"supervision": "human"}


def record(
    stage: str, key: str, metrics: dict[str, float], *, n: int = 100, inputs: Any = None, **columns: Any
) -> Record:
    return {
        "stage": stage,
        "key": key,
        "status": "done",
        "columns": {"profile": "demo", "data": "shapes", "seed": 0, **columns},
        "config": {},
        "inputs": inputs or {},
        "metrics": {name: {"value": value, "n": n} for name, value in metrics.items()},
        "seconds": 90.0,
    }


def quality(key: str, start: float, stage: str = "quality_val", **columns: Any) -> Record:
    return record(stage, key, {name: start + i / 100 for i, name in enumerate(QUALITY)}, n=41, **columns)


def score(key: str, mask_ap: float, **columns: Any) -> Record:
    figures = {name: mask_ap + i / 100 for i, name in enumerate(AP)}
    return record("ap_val", key, figures, n=17, segmenter="mask_rcnn_tiny", **columns)


def retention(key: str, pseudo: str, human: str, value: float | None, **columns: Any) -> Record:
    metrics = (
        {} if value is None else {"retention": value, "retention_low": value - 0.1, "retention_high": value + 0.05}
    )
    inputs = {"pseudo": f"ap_val/{pseudo}", "human": f"ap_val/{human}"}
    return record("retention", key, metrics, inputs=inputs, **columns)


def labeler(seed: int = 0, steps: float = 1000.0) -> Record:
    made = record("train_labeler", f"l{seed}", {"steps": steps}, **{**MAL, "seed": seed})
    return made | {"config": {"train": {"batch": 32}, "roi": {"size": 64}}}


def segmenter(**schedule: Any) -> Record:
    made = record("train_segmenter", "s0", {}, segmenter="mask_rcnn_tiny", **HUMAN)
    return made | {"config": {"segmenter": {"schedule": {"steps": None, "epochs": 8.0, "batch": 8} | schedule}}}


def parsed(text: str, first: str) -> dict[str, dict[str, str]]:
    """The table whose first heading is `first`: first cell → heading → cell. Checks that it is valid Markdown."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first}"))
    assert lines[start - 1] == ""  # without a blank line before it, it would be part of a paragraph
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:] if line.startswith("|")]
    header, rule = rows[0], rows[1]
    rows = rows[2:]
    assert all(set(cell) <= {"-", ":"} and cell.count("-") >= 1 for cell in rule)
    assert all(len(row) == len(header) for row in rows)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_mask_quality_has_a_row_a_labeler_and_its_numbers_under_their_names():
    text = summary([quality("a", 0.5, labeler="box"), quality("b", 0.7, **MAL), quality("c", 0.6, labeler="ellipse")])
    found = parsed(text, "labeler")
    assert list(found) == ["MAL", "filled box", "inscribed ellipse"]  # MAL first, whatever the order of the records
    for name, start in (("MAL", 0.7), ("filled box", 0.5), ("inscribed ellipse", 0.6)):
        assert list(found[name]) == ["labeler", *QUALITY.values()]
        assert [found[name][title] for title in QUALITY.values()] == [
            f"{start + i / 100:.3f}" for i in range(len(QUALITY))
        ]
    assert "validation images (41 instances)" in text


def test_flagged_masks_are_counted_and_the_others_have_an_iou_of_their_own():
    some = quality("a", 0.5, **MAL)
    some["metrics"]["iou_own"] = {"value": 0.25, "n": 30}
    found = parsed(summary([some, quality("b", 0.5, labeler="ellipse")]), "labeler")
    assert [*found["MAL"]] == ["labeler", *QUALITY.values(), "flagged", "IoU of the others"]
    assert (found["MAL"]["flagged"], found["MAL"]["IoU of the others"]) == ("11", "0.250")
    assert found["inscribed ellipse"]["flagged"] == "-"
    assert found["MAL"]["IoU"] == "0.500"


def test_a_size_without_instances_has_a_dash():
    made = quality("a", 0.5, **MAL)
    del made["metrics"]["iou_L"]
    assert parsed(summary([made]), "labeler")["MAL"]["L"] == "-"


def test_training_and_validation_images_have_tables_of_their_own():
    text = summary([quality("a", 0.5, "quality_train", **MAL), quality("b", 0.7, **MAL)])
    validation, training = text.split("Mask quality on the training images (41 instances)")
    assert "0.700" in validation
    assert "0.700" not in training
    assert "0.500" in training


def test_retention_stands_in_the_row_of_the_pseudo_labels():
    records = [
        score("p", 0.3, **MAL, supervision="pseudo"),
        score("h", 0.4, **HUMAN),
        retention("r", "p", "h", 0.75, **MAL),
        segmenter(),
    ]
    text = summary(records)
    found = parsed(text, "trained on")
    assert list(found) == ["human masks", "MAL masks"]
    assert [found["MAL masks"][title] for title in AP.values()] == ["0.300", "0.310", "0.320", "0.330"]
    assert found["MAL masks"]["retention [95 % interval]"] == "75.0% [65.0%, 80.0%]"
    assert found["human masks"]["mask AP"] == "0.400"
    assert found["human masks"]["retention [95 % interval]"] == "-"
    assert "Segmenter mask_rcnn_tiny (8 epochs of 8 images per step) on 17 validation images" in text


def test_a_schedule_in_steps_says_so():
    text = summary([score("h", 0.4, **HUMAN), segmenter(steps=500, epochs=None)])
    assert "mask_rcnn_tiny (500 steps of 8 images per step)" in text


def test_every_supervision_is_divided_by_its_own_human_one():
    records = [
        score("h0", 0.4, **HUMAN, seed=0),
        score("h1", 0.1, **HUMAN, seed=1),
        score("p0", 0.3, **MAL, supervision="pseudo"),
        score("p1", 0.3, **{**MAL, "seed": 1}, supervision="pseudo"),
        retention("r0", "p0", "h0", 0.75, **MAL),
        retention("r1", "p1", "h1", 3.0, **{**MAL, "seed": 1}),
    ]
    lines = [line for line in summary(records).splitlines() if line.startswith("| MAL masks")]
    assert "75.0%" in lines[0]
    assert "too weak to divide by (human < 0.2)" in lines[1]
    assert "%" not in lines[1]


@pytest.mark.parametrize(("data", "weakest"), [("shapes", 0.2), ("coco_mini", 0.15)])
def test_human_ap_below_the_limit_is_too_weak_to_divide_by(data, weakest):
    def cell(human: float) -> str:
        records = [
            score("p", human / 2, **MAL, supervision="pseudo", data=data),
            score("h", human, **HUMAN, data=data),
            retention("r", "p", "h", 0.5, **MAL, data=data),
        ]
        return parsed(summary(records), "trained on")["MAL masks"]["retention [95 % interval]"]

    assert cell(weakest - 0.001) == f"too weak to divide by (human < {weakest:g})"
    assert cell(weakest) == "50.0% [40.0%, 55.0%]"


def test_no_ratio_is_shown_without_its_parts():
    pseudo, human = score("p", 0.3, **MAL, supervision="pseudo"), score("h", 0.4, **HUMAN)

    def cell(*records: Record) -> str:
        return parsed(summary(records), "trained on")["MAL masks"]["retention [95 % interval]"]

    assert cell(pseudo, human) == "-"  # not computed
    assert cell(pseudo, retention("r", "p", "h", 0.75, **MAL)) == "the AP with human masks is missing"
    assert cell(pseudo, human, retention("r", "p", "h", None, **MAL)) == "without a finite interval"


def test_a_human_ap_computed_under_another_profile_serves_all():
    """Keys do not hold the profile: a detector that two profiles ask for is trained, and recorded, under one."""
    records = [
        score("h", 0.4, **HUMAN, profile="mini"),
        score("p", 0.3, **MAL, supervision="pseudo"),
        retention("r", "p", "h", 0.75, **MAL),
    ]
    assert "75.0% [65.0%, 80.0%]" in summary(records)


def test_copied_human_masks_are_not_called_human_supervision():
    found = parsed(
        summary([score("h", 0.4, **HUMAN), score("g", 0.4, labeler="gt", supervision="pseudo")]), "trained on"
    )
    assert list(found) == ["human masks", "human masks, copied"]


@pytest.mark.parametrize(
    ("setting", "values", "shown"),
    [
        ("seed", (10, 2), ["2", "10"]),
        ("encoder", ("vit_nano", "deit_s"), ["deit_s", "vit_nano"]),
        ("theta", (1.2, 0.6), ["0.6", "1.2"]),
        ("recipe", ("released", "paper"), ["paper", "released"]),
    ],
)
def test_settings_that_differ_are_columns_and_order_the_rows(setting, values, shown):
    records = [quality(f"q{value}", 0.5, **{**MAL, setting: value}) for value in values]
    lines = summary(records).splitlines()
    header = next(line for line in lines if line.startswith("| labeler"))
    column = [cell.strip() for cell in header.split("|")].index(setting)
    assert column == 2
    assert [line.split("|")[column].strip() for line in lines if line.startswith("| MAL")] == shown


def test_settings_that_only_tell_labelers_apart_are_no_columns():
    text = summary([quality("a", 0.5, labeler="box"), quality("b", 0.7, **MAL)])
    assert list(parsed(text, "labeler")["MAL"]) == ["labeler", *QUALITY.values()]
    text = summary([score("b", 0.1, labeler="box", supervision="pseudo"), score("m", 0.3, **MAL, supervision="pseudo")])
    assert list(parsed(text, "trained on")) == ["MAL masks", "filled box masks"]


def test_records_that_differ_in_nothing_that_has_a_column_show_their_keys():
    found = summary([quality("0123456789abcdef", 0.5, **MAL), quality("fedcba9876543210", 0.6, **MAL)])
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in found.splitlines() if line.startswith("| MAL")]
    assert rows == [["MAL", "01234567", "0.500"], ["MAL", "fedcba98", "0.600"]]


def test_profiles_and_data_sets_are_not_mixed():
    text = summary(
        [quality("a", 0.5, **MAL), quality("b", 0.6, **MAL, data="coco_mini"), quality("c", 0.7, **MAL, profile="mini")]
    )
    starts = [line for line in text.splitlines() if line.startswith("profile ")]
    assert starts == [
        "profile demo, data coco_mini: no labeler trained",
        "profile demo, data shapes: no labeler trained",
        "profile mini, data shapes: no labeler trained",
    ]
    assert [text.index(n) for n in ("0.600", "0.500", "0.700")] == sorted(
        text.index(n) for n in ("0.600", "0.500", "0.700")
    )


def test_the_labelers_schedule_is_said():
    text = summary([labeler(0), labeler(1, 500), quality("a", 0.5, **MAL)])
    assert "encoder vit_nano, recipe best, 1000 steps of 32 RoIs at 64², seed 0, 1.5 min; " in text
    assert "500 steps of 32 RoIs at 64², seed 1" in text


@pytest.mark.parametrize(
    ("profile", "data", "comparable"),
    [("demo", "shapes", False), ("mini", "coco_mini", False), ("paper", "coco", True), ("paper", "shapes", False)],
)
def test_only_the_papers_scale_and_data_are_comparable_with_its_numbers(profile, data, comparable):
    text = summary([quality("a", 0.5, **MAL, profile=profile, data=data)])
    assert ("Not comparable with the paper's numbers" in text) != comparable


def test_a_narrow_column_keeps_a_valid_rule():
    lines = table(["a", "b"], [["x", "-"]]).splitlines()
    assert lines == ["| a   |   b |", "| --- | --: |", "| x   |   - |"]
    assert table(["a", "b"], []).splitlines()[1] == "| --- | --: |"


def test_a_bar_in_a_cell_does_not_end_it():
    assert table(["a", "b"], [["x|y", "1"]]).splitlines()[2] == "| x\\|y |   1 |"


def store_of(root, *records: Record):
    for entry in records:
        path = root / entry["stage"] / entry["key"] / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(entry))
    return root


def test_the_command_prints_the_finished_records_of_a_store(tmp_path, capsys):
    half = quality("b", 0.9, labeler="box") | {"status": "running"}
    assert main(["--store", str(store_of(tmp_path, quality("a", 0.5, **MAL), half))]) == 0
    printed = capsys.readouterr().out
    assert list(parsed(printed, "labeler")) == ["MAL"]


def test_an_empty_store_and_a_broken_record_are_sentences(tmp_path, capsys):
    assert main(["--store", str(tmp_path)]) == 1
    assert "make demo" in capsys.readouterr().err
    path = store_of(tmp_path, quality("a", 0.5, **MAL)) / "quality_val" / "a" / "run.json"
    path.write_text("{")
    assert main(["--store", str(tmp_path)]) == 1
    assert f"error: {path} cannot be read" in capsys.readouterr().err
