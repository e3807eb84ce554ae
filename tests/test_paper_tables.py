"""Tables 1, 2 and 7 from hand-written records, and what is said of several seeds."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.paper import main, paper_table, read_testdev
from analysis.records import UnreadableRecordError, by_address
from analysis.seeds import lineage, over_seeds, spread
from analysis.tables import summary

Record = dict[str, Any]


class Runs:
    """The records that runs would leave: labels → segmenter → predictions → AP, and retention of the pairs."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(
        self, stage: str, columns: Record, *, config: Record | None = None, inputs: Any = None, **metrics: float
    ) -> str:
        key = f"{len(self.records):016x}"
        record = {"stage": stage, "key": key, "version": 1, "status": "done", "columns": columns, "seconds": 1.0}
        record |= {"config": config or {}, "sources": {}, "inputs": inputs or {}}
        record["metrics"] = {name: {"value": value, "n": 9} for name, value in metrics.items()}
        self.records.append(record)
        return f"{stage}/{key}"

    def score(self, segmenter: str, *, supervision: str, ap: float | None, steps: int = 9, **columns: Any) -> str:
        """AP of a segmenter on something's masks; box APs are .1, .11, … above the mask AP (or from .5)."""
        seed = columns.get("seed", 0)
        columns = {"profile": "paper", "data": "coco", "seed": seed} | columns
        inputs = {}
        if supervision == "pseudo":
            columns |= {"labeler": columns.get("labeler", "mal"), "encoder": "mae_b", "recipe": "paper"}
            config: Record = {"seed": seed, "train": {"batch": 32, "steps": steps}, "roi": {"size": 64}}
            labeler = self.add("train_labeler", columns, config=config, steps=steps)
            inputs = {"labels": self.add("label_train", columns, inputs={"labeler": labeler})}
        columns |= {"segmenter": segmenter, "supervision": supervision}
        config = {"seed": seed, "segmenter": {"schedule": {"steps": 9, "epochs": None, "batch": 2}}}
        trained = self.add("train_segmenter", columns, config=config, inputs=inputs)
        detected = self.add("detect_val", columns, inputs={"segmenter": trained})
        base = 0.5 if ap is None else ap + 0.1
        figures = {f"box_ap{part}": base + i / 100 for i, part in enumerate(("", "50", "75", "_S", "_M", "_L"))}
        if ap is not None:
            figures |= {"mask_ap": ap, "mask_ap_r": ap - 0.05, "mask_ap_c": ap - 0.01, "mask_ap_f": ap + 0.02}
        return self.add("ap_val", columns, inputs={"predictions": detected}, **figures)

    def pair(self, segmenter: str, *, human: float, pseudo: float, divided_by: str = "", **columns: Any) -> str:
        """Retention of a segmenter; the human one is computed unless it is given. Returns the human one's address."""
        below = divided_by or self.score(segmenter, supervision="human", ap=human, **_no_labeler(columns))
        above = self.score(segmenter, supervision="pseudo", ap=pseudo, **columns)
        record = by_address(self.records)[above]
        ratio = pseudo / human
        figures = {"retention": ratio, "retention_low": ratio - 0.02, "retention_high": ratio + 0.01}
        config = {"seed": record["columns"]["seed"], "resamples": 50}
        self.add("retention", record["columns"], config=config, inputs={"pseudo": above, "human": below}, **figures)
        return below

    def submit(self, score: str) -> str:
        """Test predictions of the segmenter behind an AP."""
        known = by_address(self.records)
        segmenter = known[known[score]["inputs"]["predictions"]]["inputs"]["segmenter"]
        return self.add("predictions_test", known[score]["columns"], inputs={"segmenter": segmenter}, predictions=7)

    def pseudo_of(self, human: str) -> str:
        return next(
            r["inputs"]["pseudo"] for r in self.records if r["stage"] == "retention" and r["inputs"]["human"] == human
        )


def _no_labeler(columns: Record) -> Record:
    return {name: value for name, value in columns.items() if name not in ("labeler", "steps")}


def rows(text: str) -> list[list[str]]:
    """The cells of the last table of a text."""
    lines = text.split("\n\n")[-1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(line) == len(cells[0]) for line in cells)
    return [cells[0], *cells[2:]]


def test_table_1_has_the_papers_rows_in_its_order_and_per_cent():
    runs = Runs()
    runs.pair("cascade_convnext_s", human=0.448, pseudo=0.423)
    runs.pair("solov2_r50", human=0.375, pseudo=0.35)
    runs.pair("mask_rcnn_r50_dcn", human=0.2, pseudo=0.1)  # of Table 2
    text = paper_table("tab1_coco", runs.records)
    assert text.startswith("tab1_coco, profile paper, data coco, per cent")
    assert "Not comparable" not in text
    assert rows(text)[1:] == [
        ["SOLOv2", "-", "ResNet-50", "SOLOv2", "Mask", "37.5", "-", "-", "-"],
        ["Cascade R-CNN", "-", "ConvNeXt-Small", "Cascade R-CNN", "Mask", "44.8", "-", "-", "-"],
        ["Mask Auto-Labeler", "ViT-MAE-Base", "ResNet-50", "SOLOv2", "Box", "35.0", "-", "93.3 [91.3, 94.3]", "-"],
        ["Mask Auto-Labeler", "ViT-MAE-Base", "ConvNeXt-Small", "Cascade R-CNN", "Box", "42.3", "-",
         "94.4 [92.4, 95.4]", "-"],
    ]  # fmt: skip


def test_the_test_column_says_submit_until_the_server_has_spoken():
    runs = Runs()
    human = runs.pair("solov2_r50", human=0.375, pseudo=0.35)
    pseudo = runs.pseudo_of(human)
    sent = {"human": runs.submit(human), "pseudo": runs.submit(pseudo)}

    def cells(**said: float) -> list[tuple[str, str]]:
        testdev = {sent[name]: value for name, value in said.items()}
        return [(row[6], row[8]) for row in rows(paper_table("tab1_coco", runs.records, testdev=testdev))[1:]]

    assert cells() == [(f"submit {sent['human']}", "-"), (f"submit {sent['pseudo']}", "-")]
    assert cells(human=0.384) == [("38.4", "-"), (f"submit {sent['pseudo']}", "-")]
    assert cells(human=0.384, pseudo=0.357) == [("38.4", "-"), ("35.7", "93.0")]


def test_table_2_names_what_mal_was_trained_on_and_shares_the_supervised_row():
    runs = Runs()
    lvis = {"data": "lvis"}
    human = runs.pair("mask_rcnn_x101_32x4d", human=0.255, pseudo=0.237, **lvis)
    runs.pair("mask_rcnn_x101_32x4d", human=0.255, pseudo=0.233, divided_by=human, labeler="mal:coco", **lvis)
    text = paper_table("tab2_lvis", runs.records)
    assert rows(text)[0][4:] == ["training data", "sup.", "mask AP val", "AP_r", "AP_c", "AP_f", "Ret. val"]
    found = [row[:1] + row[2:] for row in rows(text)[1:]]
    backbone = ["ResNeXt-101-32x4d-FPN", "Mask R-CNN"]
    assert found == [
        ["Mask R-CNN", *backbone, "-", "Mask", "25.5", "20.5", "24.5", "27.5", "-"],
        ["Mask Auto-Labeler", *backbone, "LVIS v1", "Box", "23.7", "18.7", "22.7", "25.7", "92.9 [90.9, 93.9]"],
        ["Mask Auto-Labeler", *backbone, "COCO", "Box", "23.3", "18.3", "22.3", "25.3", "91.4 [89.4, 92.4]"],
    ]


def test_table_7_sets_no_human_and_mal_masks_of_each_detector_side_by_side():
    runs = Runs()
    for segmenter, data, ap in (("cascade_convnext_s", "coco", 0.4), ("mask_rcnn_r50_dcn", "lvis", 0.2)):
        runs.pair(segmenter, human=ap, pseudo=ap - 0.01, data=data)
        runs.score(segmenter, supervision="boxes", ap=None, data=data)
    runs.pair("mask_rcnn_r101_dcn", human=0.2, pseudo=0.19, data="lvis")  # of Table 2: has no row without masks
    found = rows(paper_table("tab7_detection", runs.records))
    assert found[0] == ["backbone", "dataset", "mask labels", "AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"]
    assert [row[:4] for row in found[1:]] == [
        ["ConvNeXt-Small (Cascade R-CNN)", "COCO", "None", "50.0"],
        ["ConvNeXt-Small (Cascade R-CNN)", "COCO", "GT mask", "50.0"],
        ["ConvNeXt-Small (Cascade R-CNN)", "COCO", "MAL mask", "49.0"],
        ["ResNet-50-DCN (Mask R-CNN)", "LVIS v1", "None", "50.0"],
        ["ResNet-50-DCN (Mask R-CNN)", "LVIS v1", "GT mask", "30.0"],
        ["ResNet-50-DCN (Mask R-CNN)", "LVIS v1", "MAL mask", "29.0"],
    ]
    assert found[1][4:] == ["51.0", "52.0", "53.0", "54.0", "55.0"]


def test_small_profiles_and_other_data_have_parts_of_their_own_which_are_not_comparable():
    runs = Runs()
    runs.pair("solov2_tiny", human=0.3, pseudo=0.28, profile="demo", data="shapes")
    runs.pair("solov2_tiny", human=0.2, pseudo=0.19, profile="mini", data="coco_mini")
    text = paper_table("tab1_coco", runs.records)
    assert text.count("Not comparable with the paper's numbers") == 2
    assert "tab1_coco, profile demo, data shapes" in text
    assert "tab1_coco, profile mini, data coco_mini" in text
    assert paper_table("tab2_lvis", runs.records).endswith("experiment=tab2_lvis")


def test_too_weak_to_divide_by_holds_here_too():
    runs = Runs()
    runs.pair("solov2_tiny", human=0.1, pseudo=0.09, profile="demo", data="shapes")
    assert rows(paper_table("tab1_coco", runs.records))[2][7] == "too weak to divide by (human < 0.2)"


def test_several_seeds_are_one_row_with_their_mean_and_range():
    runs = Runs()
    for seed, pseudo in enumerate((0.36, 0.38, 0.37)):
        runs.pair("solov2_r50", human=0.4, pseudo=pseudo, seed=seed)
    found = rows(paper_table("tab1_coco", runs.records))[1:]
    assert len(found) == 2
    assert found[0][5] == "40.0 (40.0 … 40.0)"
    assert (found[1][5], found[1][7]) == ("37.0 (36.0 … 38.0)", "92.5 (90.0 … 95.0)")


def test_unlike_settings_are_never_averaged_and_their_rows_can_be_told_apart():
    runs = Runs()
    human = runs.pair("solov2_r50", human=0.4, pseudo=0.36, steps=9)
    runs.pair("solov2_r50", human=0.4, pseudo=0.38, steps=10, seed=1, divided_by=human)
    found = rows(paper_table("tab1_coco", runs.records))[1:]
    assert [row[5] for row in found] == ["40.0", "36.0", "38.0"]
    names = [row[0] for row in found[1:]]
    assert names[0] != names[1]
    assert all(name.startswith("Mask Auto-Labeler #") for name in names)


def test_the_summary_says_how_far_seeds_lie_apart_beside_each_ones_interval():
    runs = Runs()
    for seed, pseudo in enumerate((0.36, 0.38)):
        runs.pair("solov2_r50", human=0.4, pseudo=pseudo, seed=seed)
    text = summary(runs.records)
    assert text.split("\n\n")[-2] == "Over seeds"
    header, human, mal = rows(text)
    assert header[1:3] == ["seeds", "mask AP, mean (lowest … highest)"]
    assert human == ["human masks", "2", "0.400 (0.400 … 0.400)", "-", "-"]
    assert mal[:4] == ["MAL masks", "2", "0.370 (0.360 … 0.380)", "92.5% (90.0% … 95.0%)"]
    assert mal[4] == "0: 90.0% [88.0%, 91.0%]; 1: 95.0% [93.0%, 96.0%]"


def test_one_seed_too_weak_to_divide_by_leaves_no_mean():
    runs = Runs()
    runs.pair("solov2_r50", human=0.4, pseudo=0.36, seed=0)
    runs.pair("solov2_r50", human=0.1, pseudo=0.09, seed=1)
    mal = rows(summary(runs.records))[2]
    assert mal[3] == "-"
    assert mal[4] == "0: 90.0% [88.0%, 91.0%]; 1: too weak to divide by (human < 0.15)"


def test_one_seed_has_no_spread_to_show():
    runs = Runs()
    runs.pair("solov2_r50", human=0.4, pseudo=0.36)
    assert "Over seeds" not in summary(runs.records)


def test_the_summary_names_a_labeler_of_other_data_and_a_detector_without_masks():
    runs = Runs()
    runs.pair("mask_rcnn_r50_dcn", human=0.4, pseudo=0.36, labeler="mal:coco", data="lvis")
    runs.score("mask_rcnn_r50_dcn", supervision="boxes", ap=None, data="lvis")
    names = [row[0] for row in rows(summary(runs.records))[1:]]
    assert names == ["boxes, no mask head", "human masks", "MAL masks (labeler trained on coco)"]


def test_lineage_is_all_that_defines_a_result_but_the_runs_seed():
    runs = Runs()
    first = runs.score("solov2_r50", supervision="pseudo", ap=0.3, seed=0)
    second = runs.score("solov2_r50", supervision="pseudo", ap=0.31, seed=1)
    longer = runs.score("solov2_r50", supervision="pseudo", ap=0.32, seed=2, steps=10)
    known = by_address(runs.records)
    assert lineage(known[first], known) == lineage(known[second], known) != lineage(known[longer], known)
    groups = over_seeds([known[longer], known[second], known[first]], known)
    assert [[r["columns"]["seed"] for r in group] for group in groups] == [[2], [0, 1]]
    drawn = {"stage": "shapes_train", "key": "a", "version": 1, "sources": {}, "inputs": {}}
    assert lineage(drawn | {"config": {"seed": 0}}, {}) != lineage(drawn | {"config": {"seed": 1}}, {})


def test_a_mean_of_one_has_no_range():
    assert spread([0.5], "{:.2f}") == "0.50"
    assert spread([0.5, 0.7, 0.6], "{:.2f}") == "0.60 (0.50 … 0.70)"


def test_the_command_reads_the_store_and_the_servers_word(tmp_path, capsys):
    runs = Runs()
    sent = runs.submit(runs.pair("solov2_r50", human=0.375, pseudo=0.35))
    for record in runs.records:
        path = tmp_path / "runs" / record["stage"] / record["key"] / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
    said = tmp_path / "testdev.yaml"
    command = ["tab1_coco", "--store", str(tmp_path / "runs"), "--testdev", str(said)]
    assert main(command) == 0
    assert f"submit {sent}" in capsys.readouterr().out
    said.write_text(f"# the server\n{sent}: 0.384\n")
    assert main(command) == 0
    assert "38.4" in capsys.readouterr().out
    said.write_text(f"{sent}: 38.4\n")
    assert main(command) == 1
    assert "38.4 is no predictions_test/KEY with a mask AP in [0, 1]" in capsys.readouterr().err


def test_the_committed_file_for_the_servers_word_can_be_read(tmp_path):
    path = Path(__file__).resolve().parents[1] / "results" / "testdev.yaml"
    assert path.exists()
    assert all(0 < value < 1 for value in read_testdev(path).values())
    (tmp_path / "wrong.yaml").write_text("solov2: 0.4\n")
    with pytest.raises(UnreadableRecordError, match=r"solov2: 0\.4"):
        read_testdev(tmp_path / "wrong.yaml")
