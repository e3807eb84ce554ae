"""A retention belongs to an AP and what it is divided by: no denominator hides, joins or goes without its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paper_runs import NOWHERE, Runs, made, measured, part
from test_summary import HUMAN, MAL, parsed, retention, score

from analysis.collect import collect
from analysis.denominators import TRAINED, UNKNOWN, denominator, kept_groups, names_of
from analysis.figures.detections import to_show
from analysis.paper.results import Results
from analysis.paper_numbers import load
from analysis.records import address, by_address
from analysis.report.headline import headlines
from analysis.summary import summary

Record = dict[str, Any]
FILE = "mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth"
COLUMN = "divided by the AP of"


def published(key: str, mask_ap: float, file: str = FILE, **more: Any) -> Record:
    return score(key, mask_ap, supervision="published", published_file=file, **more)


def pseudo(key: str, mask_ap: float, seed: int = 0) -> Record:
    return score(key, mask_ap, **{**MAL, "seed": seed}, supervision="pseudo")


def lines(text: str, start: str) -> list[dict[str, str]]:
    """The rows of the first table whose header has a cell `start`, from the header's line on."""
    found = [line for line in text.splitlines() if line.startswith("|")]
    first = next(i for i, line in enumerate(found) if f" {start}" in line)
    header, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in found[first:])
    return [dict(zip(header, row, strict=True)) for row in rows[1:] if len(row) == len(header)]


def two_denominators() -> list[Record]:
    """An AP of .267 over .3 (trained on human masks) and over .6 (a published file)."""
    return [
        score("h", 0.3, **HUMAN),
        published("f", 0.6),
        pseudo("p", 0.267),
        retention("r1", "p", "h", 0.891, **MAL),
        retention("r2", "p", "f", 0.445, **MAL),
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_each_denominator_has_a_line_that_names_it(turned: bool) -> None:
    records = two_denominators()
    text = summary(records[::-1] if turned else records)
    rows = [row for row in lines(text, "retention [95 % interval]") if row["trained on"] == "MAL masks"]
    assert [(row[COLUMN], row["retention [95 % interval]"].split()[0]) for row in rows] == [
        (TRAINED, "89.1%"),
        (FILE, "44.5%"),
    ]
    assert f"published weights {FILE}" in text


def test_a_single_published_denominator_is_named_too() -> None:
    _, file, above, _, ratio = two_denominators()
    found = parsed(summary([file, above, ratio]), "trained on")["MAL masks"]
    assert (found[COLUMN], found["retention [95 % interval]"].split()[0]) == (FILE, "44.5%")


def test_where_all_are_trained_here_no_column_is_added() -> None:
    human, _, above, ratio, _ = two_denominators()
    assert COLUMN not in summary([human, above, ratio])


def seeds(overs: dict[int, list[str]]) -> list[Record]:
    """Seeds of an AP, each over some of: the AP of its own seed on human masks (`human`), a file (F), another (G)."""
    records = [published("F", 0.6, "F.pth"), published("G", 0.5, "G.pth")]
    for seed, names in overs.items():
        records += [pseudo(f"p{seed}", 0.27 + seed / 100, seed), score(f"human{seed}", 0.3, **HUMAN, seed=seed)]
        for name in names:
            below, value = (name, 0.45) if name in "FG" else (f"human{seed}", 0.9)
            ratio = retention(f"r{seed}{name}", f"p{seed}", below, value + seed / 100, **{**MAL, "seed": seed})
            records.append(ratio | {"config": {"resamples": 9, "seed": seed}})
    return records


def test_seeds_over_different_denominators_are_never_pooled() -> None:
    """One seed over human masks, one over a file: they once made a mean and a range of both."""
    text = summary(seeds({0: ["human"], 1: ["F"]}))
    assert "Over seeds" in text  # the human APs' own
    assert not [row for row in lines(text, "retention, likewise") if row["trained on"] == "MAL masks"]


def test_over_seeds_each_denominator_has_its_own_mean() -> None:
    rows = lines(summary(seeds({0: ["human", "F"], 1: ["human", "F"]})), "retention, likewise")
    found = {row[COLUMN]: row["retention, likewise"] for row in rows if row["trained on"] == "MAL masks"}
    assert found == {TRAINED: "90.5% (90.0% … 91.0%)", "F.pth": "45.5% (45.0% … 46.0%)"}


def test_a_seed_not_divided_yet_joins_where_there_is_one_denominator_and_no_other_place() -> None:
    def found(overs: dict[int, list[str]]) -> list[list[tuple[int, str]]]:
        records = seeds(overs)
        scores = [r for r in records if r["stage"] == "ap_val" and r["columns"]["supervision"] == "pseudo"]
        groups = kept_groups(scores, by_address(records))
        return sorted([(one.score["columns"]["seed"], one.over) for one in group] for group in groups)

    assert found({0: ["F"], 1: []}) == [[(0, "F.pth"), (1, "")]]
    assert found({0: ["F"], 1: ["G"], 2: []}) == [[(0, "F.pth")], [(1, "G.pth")], [(2, "")]]


def test_an_ap_over_the_human_aps_of_two_seeds_counts_once_in_the_mean_over_seeds() -> None:
    records = seeds({0: ["human"], 1: ["human"]})
    records.append(retention("cross", "p0", "human1", 0.5, **MAL))
    groups = kept_groups([r for r in records if r["key"] in ("p0", "p1")], by_address(records))
    assert sorted([one.score["key"] for one in group] for group in groups) == [["p0"], ["p0", "p1"]]
    assert len(set(names_of(groups))) == 2


def test_two_files_of_one_name_are_told_apart() -> None:
    records = [pseudo("p", 0.27)]
    for name, digest in (("f", "1" * 64), ("g", "2" * 64)):
        segmenter = {**published(name, 0.0), "stage": "published_segmenter", "sources": {"weights": digest}}
        detected = {
            **published(name, 0.0),
            "stage": "detect_val",
            "inputs": {"segmenter": f"published_segmenter/{name}"},
        }
        records += [segmenter, detected, published(name, 0.6) | {"inputs": {"predictions": f"detect_val/{name}"}}]
        records.append(retention(f"r{name}", "p", name, 0.45, **MAL))
    names = names_of(kept_groups([records[0]], by_address(records)))
    assert len(set(names)) == 2
    assert all(name.startswith(f"{FILE} (") for name in names)


def test_records_older_than_the_column_are_read() -> None:
    known = by_address(two_denominators())
    assert denominator(known["retention/r1"], known) == TRAINED
    assert denominator(known["retention/r2"], known) == FILE
    assert denominator(known["retention/r1"], {}) == UNKNOWN
    newer = known["retention/r2"] | {"columns": {**MAL, "denominator": "new.pth"}}
    assert denominator(newer, {}) == "new.pth"


def test_a_record_with_the_column_and_one_without_it_are_seeds_of_one_thing() -> None:
    records = seeds({0: ["human"], 1: ["human"]})
    records[-1]["columns"] |= {"denominator": TRAINED}
    from analysis.lineage import over_seeds

    assert len(over_seeds([r for r in records if r["stage"] == "retention"], by_address(records))) == 1


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_reports_headline_has_every_denominator() -> None:
    records = two_denominators()
    for record in records:
        record |= {"sources": {}, "provenance": {}}
    [headline] = headlines(by_address(records), NOWHERE)
    assert headline.findings == [
        f"Retention of mask_rcnn_tiny trained on MAL masks, {over}"
        for over in (
            "divided by the AP with human masks: 89.1 % [79.1 %, 94.1 %].",
            f"divided by the AP of {FILE}: 44.5 % [34.5 %, 49.5 %].",
        )
    ]
    [table] = headline.tables
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    found = {row[COLUMN]: row["retention [95 %]"].split()[0] for row in rows if row["trained on"] == "MAL masks"}
    assert found == {TRAINED: "89.1", FILE: "44.5"}
    assert [row["retention [95 %]"] for row in rows if FILE in row["trained on"]] == ["-"]


# --- the paper's tables ----------------------------------------------------------------------------------------------


def published_runs(segmenter: str = "solov2_r50", **more: Any) -> Runs:
    """A segmenter on MAL's masks over itself on human masks (.40) and over a published file (.45, printed as 44.9)."""
    runs = Runs()
    below = runs.pair(segmenter, human=0.4, pseudo=0.36, **more)
    above = runs.pseudo_of(below)
    names = {"published_file": "F.pth", "printed_mask_ap": 44.9}
    other = runs.score(segmenter, supervision="published", ap=0.45, **more, **names)
    figures = {"retention": 0.8, "retention_low": 0.7, "retention_high": 0.9}
    columns = by_address(runs.records)[above]["columns"]
    runs.add("retention", columns, inputs={"pseudo": above, "human": other}, **figures)
    return runs


def test_a_table_has_a_row_for_each_denominator_and_one_for_the_published_ap() -> None:
    table = made(published_runs(), "tab1_coco")
    rows = measured(table)[1:]
    assert [(row["Ret. val, ours"], row["settings"]) for row in rows] == [
        ("90.0", "recipe=paper; divided by the AP with human masks"),
        ("80.0", "recipe=paper; divided by the AP of F.pth"),
    ]
    [row] = part(table, "At the paper's scale and on its data, but none of its rows")
    assert (row["sup."], row["mask AP val, ours"], row["Ret. val, ours"]) == ("Mask", "45.0", "-")
    assert row["settings"] == "published=F.pth printed_mask_ap=44.9"


@pytest.mark.parametrize("name", ["tab3_decoder", "tab4_encoder", "tab5_theta"])
def test_a_table_without_published_rows_still_names_the_denominator(name: str) -> None:
    rows = [row for row in measured(made(published_runs("cascade_convnext_s"), name)) if row["profile"]]
    assert {row["Ret. val, ours"]: row["settings"].partition("; ")[2] for row in rows} == {
        "90.0": "divided by the AP with human masks",
        "80.0": "divided by the AP of F.pth",
    }


def test_table_7_has_the_published_row() -> None:
    runs = Runs()
    for supervision, more in (("boxes", {}), ("published", {"published_file": "F.pth"})):
        runs.score("mask_rcnn_x101_64x4d", supervision=supervision, ap=0.3, data="lvis", **more)
    texts = [cell for row in made(runs, "tab7_detection").rows for cell in row]
    assert any("published=F.pth" in cell for cell in texts)


# --- figure 8 --------------------------------------------------------------------------------------------------------


def test_the_figure_shows_a_published_segmenter_only_where_there_is_no_other() -> None:
    records = two_denominators()
    for record in records:
        record["columns"] |= {"segmenter": "mask2former_tiny"}
    known = by_address(records)
    ratios = [[known["retention/r2"]], [known["retention/r1"]]]
    assert address(to_show(ratios, known)) == "retention/r1"
    assert address(to_show(ratios[:1], known)) == "retention/r2"


# --- the frame -------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[list[Record]], Path]:
    def store(records: list[Record]) -> Path:
        for record in records:
            path = tmp_path / address(record) / "run.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(record | {"provenance": {"commit": "c0ffee"}}))
        return tmp_path

    return store


def test_the_frame_says_what_is_divided_by_and_which_file_an_ap_is_of(stored: Callable[[list[Record]], Path]) -> None:
    human, file, *rest = two_denominators()
    file["columns"] |= {"printed_mask_ap": 34.7, "printed_by": "MMDetection's (mask AP 34.7 on COCO)"}
    frame = collect(stored([human, file, *rest]))
    shares = frame[frame["metric"] == "retention"].set_index("denominator")["value"]
    assert shares.to_dict() == {TRAINED: 0.891, FILE: 0.445}
    [(name, printed)] = set(
        frame.loc[frame["supervision"] == "published", ["published_file", "printed_mask_ap"]].itertuples(
            index=False, name=None
        )
    )
    assert (name, printed) == (FILE, 34.7)


def test_results_keep_the_denominator() -> None:
    runs = published_runs()
    groups = Results.of(runs.records, NOWHERE).of_table(load()["tab1_coco"])
    assert sorted(result.over for group in groups for result in group if result.over) == ["F.pth", TRAINED]
