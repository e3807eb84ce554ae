"""The paper's numbers as data: complete, as printed, and each row's command computes that row."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from paper_runs import NOWHERE, Runs

from analysis.paper.results import Results
from analysis.paper.table import PaperTable, Printed, Row
from analysis.paper_numbers import (
    PAPER,
    PaperNumbersError,
    find_cell,
    find_row,
    load,
)
from mal import segmenters
from mal.config import Config
from tests import sweeps

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
TABLES = {name: table for name, table in load().items() if table.file.parent.name == "mal"}
# counted in the paper: printed numbers of each table
COUNTS = {1: 9 * 2 + 2 + 5 * 4 + 1 + 6 * 4, 2: 4 + 6 * 2, 3: 3 * 2, 4: 6 * 3, 5: 6 * 2, 6: 6, 7: 15 * 6}


def numbers() -> Iterator[tuple[int, str, Printed]]:
    """Every printed number: its table, its unit, and how it is printed."""
    for table in TABLES.values():
        for row in table.rows:
            for column, printed in row.printed.items():
                if printed is not None:
                    yield table.number, table.quantities[column].unit, printed


def test_every_printed_number_is_there():
    assert Counter(table for table, _, _ in numbers()) == COUNTS


@pytest.mark.parametrize(
    ("cell", "printed"),
    [  # the four corners of each table, read off the paper by hand
        ("tab1_coco.mask_rcnn_r101_human.mask_ap_val", "38.6"),
        ("tab1_coco.mask2former_swin_s.retention_test", "93.8"),
        ("tab1_coco.bbtp.retention_test", "59.1"),
        ("tab1_coco.boxteacher.mask_ap_test", "40.0"),
        ("tab2_lvis.r50_dcn_human.mask_ap_val", "21.7"),
        ("tab2_lvis.x101_64x4d_from_coco.retention_val", "93.8"),
        ("tab3_decoder.fc.mask_ap_val", "35.5"),
        ("tab3_decoder.attention.retention_val", "94.4"),
        ("tab4_encoder.convnext_b.accuracy", "83.8"),
        ("tab4_encoder.mae_l.retention_val", "94.4"),
        ("tab5_theta.theta_0.6.mask_ap_val", "41.3"),
        ("tab5_theta.theta_1.6.retention_val", "93.3"),
        ("tab6_clustering.convnext_b.score", "0.459"),
        ("tab6_clustering.mae_l.score", "0.301"),
        ("tab7_detection.r50_dcn_none.box_ap", "22.0"),
        ("tab7_detection.convnext_s_mal.box_ap_L", "66.8"),
    ],
)
def test_numbers_stand_as_printed(cell, printed):
    assert find_cell(cell, TABLES["tab1_coco"], TABLES).text == printed


def test_values_are_plausible_and_rise_as_metrics_must():
    for table, unit, printed in numbers():
        low, high = {"per cent": (15, 100)}.get(unit, (0.2, 0.6))
        assert low < printed.value < high, (table, printed)
        assert printed.decimals == {"per cent": 1}.get(unit, 3), (table, printed)
    for row in [row for row in TABLES["tab7_detection"].rows if any(row.printed.values())]:
        ap, ap50, ap75, small, medium, large = (printed.value for printed in row.printed.values() if printed)
        assert ap75 < ap50
        assert ap < ap50
        assert small < medium < large


def test_the_same_result_is_printed_alike_in_every_table():
    """MAL with MAE-B and Cascade R-CNN ConvNeXt-S is a row of Tables 1, 3, 4 and 5."""
    rows = ("tab1_coco.cascade_convnext_s", "tab3_decoder.attention", "tab4_encoder.mae_b", "tab5_theta.theta_1.2")
    for quantity, text in (("mask_ap_val", "42.3"), ("retention_val", "94.4")):
        assert {find_cell(f"{row}.{quantity}", TABLES["tab1_coco"], TABLES).text for row in rows} == {text}


def test_a_printed_number_stands_for_all_that_round_to_it():
    printed = Printed("38.60")
    assert (printed.value, printed.decimals, printed.slack) == (Fraction(193, 5), 2, Fraction(1, 200))


def test_captions_are_the_papers():
    for table in TABLES.values():
        assert re.match(rf"Table {table.number}: ", table.caption)


def changed(folder: Path, name: str, *change: str) -> Path:
    """A folder of papers that holds one table of MAL's, changed."""
    text = (PAPER / "mal" / name).read_text(encoding="utf-8")
    assert change[0] in text
    (folder / "mal").mkdir()
    (folder / "mal" / "words.yaml").write_text((PAPER / "mal" / "words.yaml").read_text(encoding="utf-8"))
    (folder / "mal" / name).write_text(text.replace(*change, 1))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("mask_ap_val: \"35.5\"", "mask_ap_val: 35.5"), "35.5 needs quotes"),
        (("mask_ap_val: \"35.5\", ", ""), "row fc has not every column"),
        (("id: fcn", "id: fc"), "two rows have the same id"),
        (("quantities:", "quantity:"), "there is no key quantity; results/paper/README.md says what belongs there"),
        (("varied: decoder", "vary: decoder"), "there is no key vary"),
        (("unit: per cent, measured: mask_ap,", "unit: percent, measured: mask_ap,"),
         "quantities.mask_ap_val: unit 'percent' is none of per cent, fraction,"),
        (("count: images", "counts: images"), "quantities.mask_ap_val: there is no key counts"),
        (("title: mask decoder, ", ""), "identity.decoder: the key title is absent"),
        (("quotient_of: mask_ap_val", "quotient_of: ap"), "quotient_of: there is no quantity ap"),
        (("{decoder:decoder}", "{decoder:heads}"), "identity.decoder: there are no words heads, only backbone, model"),
        (("order: [{decoder: decoder}]", "order: [{decoder: heads}]"), "order.0: there are no words heads"),
        (("{stage: ap_val, labeler", "{step: ap_val, labeler"), "results.0: the key stage is absent"),
        (("{stage: ap_val, ", "{stage: ap_val, any: [mal], "), "results.0.any is no list of conditions"),
        (("larger: [[", "bigger: [["), "the attention-based decoder performs the best: it needs one of value"),
        (("remark: The table varies", "about: The table varies"), "slips.0: there is no key about"),
        (("ours: {data: coco, ", "ours: {"), "rows.fc.ours: the key data is absent"),
        (("rows:", "rows: ["), "is no YAML: "),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, change, said):
    with pytest.raises(PaperNumbersError, match=rf"mal/tab3\.yaml: .*{re.escape(said)}"):
        load(changed(tmp_path, "tab3.yaml", *change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("labeler: mal, theta", "labelr: mal, theta"), "results.0.labelr: no record has a column labelr"),
        (("text: \"{decoder:decoder}\"", "text: \"{decodr}\""), "identity.decoder: no record has a column decodr"),
        (("order: [{decoder: decoder}]", "order: [decoders]"), "order.0: no record has a column decoders"),
        (("varied: decoder", "varied: heads"), "varied: no record has a column heads"),
        (("ours: {decoder: fc}", "ours: {head: fc}"), "rows.fc.ours: no record has a column head"),
        (("{stage: ap_val, ", "{stage: ap_val, none: [{dta: x}], "), "results.0.none.dta: no record has a column dta"),
    ],
)  # fmt: skip
def test_a_column_that_no_record_has_is_refused(tmp_path, change, said):
    runs = Runs()
    runs.score("solov2_r50", supervision="pseudo", ap=0.3)
    table = load(changed(tmp_path, "tab3.yaml", *change))["tab3_decoder"]
    with pytest.raises(PaperNumbersError, match=rf"mal/tab3\.yaml: {re.escape(said)}; results/paper/README"):
        Results.of(runs.records, NOWHERE).of_table(table)


def test_two_tables_of_one_name_are_refused(tmp_path):
    folder = changed(tmp_path, "tab3.yaml", "number: 3", "number: 4")
    text = (folder / "mal" / "tab3.yaml").read_text(encoding="utf-8")
    (folder / "mal" / "tab4.yaml").write_text(text)
    with pytest.raises(PaperNumbersError, match=r"tab4\.yaml: name: .*tab3\.yaml is called tab3_decoder too"):
        load(folder)


def test_what_the_paper_names_wrongly_has_a_row_as_written_without_its_numbers():
    """Tables 2 and 7 print plain models' numbers under deformable names (see zoo.yaml)."""
    for name, kinds in (("tab2_lvis", ("_human", "")), ("tab7_detection", ("_none", "_human", "_mal"))):
        rows = {row.id: row for row in TABLES[name].rows}
        wanted = {f"{depth}_dcn{kind}_as_written" for depth in ("r50", "r101") for kind in kinds}
        assert {row for row in rows if row.endswith("_as_written")} == wanted
        for depth in ("r50", "r101"):
            for kind in kinds:
                plain, written = rows[f"{depth}_dcn{kind}"], rows[f"{depth}_dcn{kind}_as_written"]
                assert plain.ours
                assert written.ours == plain.ours | {"segmenter": f"mask_rcnn_{depth}_dcn"}
                assert plain.ours["segmenter"] == f"mask_rcnn_{depth}"
                assert all(plain.printed[q] for q in plain.printed if q != "retention_val")
                assert not any(written.printed.values())
                assert (plain.names["backbone"][-11:], written.names["backbone"][-12:]) == (
                    "[plain FPN]",
                    "[as written]",
                )
                assert written.scale == plain.scale


def test_a_reference_to_nothing_is_refused(tmp_path):
    with pytest.raises(PaperNumbersError, match=r"tab3_decoder refers to query\.mask_ap_val, where nothing is printed"):
        find_cell("query.mask_ap_val", TABLES["tab3_decoder"], TABLES)
    with pytest.raises(PaperNumbersError, match="the row nobody, which there is not"):
        find_row("nobody", TABLES["tab3_decoder"], TABLES)
    with pytest.raises(PaperNumbersError, match="holds no mal/tab1"):
        load(tmp_path)


# --- the commands ---------------------------------------------------------------------------------------------------

FILLED = [(table, row) for table in TABLES.values() for row in table.rows if row.run is not None]
QUICK = {table.name: row for table, row in FILLED}  # composing takes a second: quick tests take each table's last row


@pytest.mark.parametrize(
    ("table", "row"),
    [
        pytest.param(
            table, row, id=f"{table.name}-{row.id}", marks=() if QUICK[table.name] is row else pytest.mark.slow
        )
        for table, row in FILLED
    ],
)
def test_the_command_of_a_row_computes_that_row_at_its_scale(
    table: PaperTable, row: Row, compose: Callable[..., Config]
):
    words = table.command(row).split()
    assert words[:3] == ["python", "experiments/run.py", "-m"]
    (job,) = sweeps.jobs(*words[3:])
    config = compose(*job)
    assert row.ours is not None
    assert found(config, row.ours) == dict(row.ours)
    values = dict(dotted(dataclasses.asdict(config)))
    for settings in row.scale.values():
        assert {key: values[key] for key in settings} == dict(settings)


def found(config: Config, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What the columns of the row's result would say; labels of MAL's are in every run that trains on them."""
    assert config.labeler.name == ("mal" if config.segmenter.name != "none" else "none")
    other = config.data.labeler_train.name
    heads = ("human", "pseudo") if config.segmenter.mask_head else ("boxes",)
    columns = {
        "data": config.data.name,
        "labeler": f"mal:{other}" if other else "mal",
        "encoder": config.encoder.name,
        "decoder": config.decoder.name,
        "theta": config.roi.theta,
        "segmenter": segmenters.title(config.segmenter) if config.segmenter.name != "none" else "none",
        "supervision": wanted.get("supervision") if wanted.get("supervision") in heads else heads,
    }
    if wanted.get("supervision") == "human":  # a run of another data set's labeler has the same human masks
        columns["labeler"] = wanted["labeler"]
    return {name: columns[name] for name in wanted}


def dotted(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in config.items():
        pairs += dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs
