"""The paper's tables from hand-written records: whose numbers stand beside whose, and what is said of several seeds."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from paper_runs import NOWHERE, PAPERS, Runs, made, measured, of, part

from analysis.lineage import lineage, over_seeds, settings_of
from analysis.paper.results import read_testdev
from analysis.records import UnreadableRecordError, by_address
from analysis.rendering import FORMATS, spread
from analysis.summary import summary
from analysis.tables import main, paper_tables, write

AP = ("mask AP val, paper", "mask AP val, ours", "mask AP val, difference")
RET = ("Ret. val, paper", "Ret. val, ours", "Ret. val, difference", "Ret. val, 95 % interval")


def test_table_1_sets_ours_beside_the_papers_and_says_the_difference():
    runs = Runs()
    runs.pair("cascade_convnext_s", human=0.452, pseudo=0.423)
    runs.pair("mask_rcnn_r50_dcn", human=0.2, pseudo=0.1)  # of Table 2
    table = made(runs, "tab1_coco")
    assert [heading for heading, _ in table.parts()] == [PAPERS]
    human, mal = measured(table)
    assert of(human, "method", "backbone", *AP, "computed by") == [
        "ConvNeXt",
        "ConvNeXt-Small",
        "44.8",
        "45.2",
        "+0.4",
        "",
    ]
    assert of(human, *RET) == ["-", "-", "", ""]
    assert of(mal, "method", "labeler backbone", *AP) == ["Mask Auto-Labeler", "ViT-MAE-Base", "42.3", "42.3", "+0.0"]
    assert of(mal, *RET) == ["94.4", "93.6", "-0.8", "[91.6, 94.6]"]
    assert of(mal, "seeds", "n", "profile", "data", "commit") == ["0", "9 images", "paper", "coco", "-"]


def test_every_row_of_the_paper_is_there_with_its_command_where_the_store_has_nothing():
    runs = Runs()
    runs.pair("cascade_convnext_s", human=0.452, pseudo=0.423)
    rows = part(made(runs, "tab1_coco"), PAPERS)
    assert len(rows) == 22
    missing = [row for row in rows if row["mask AP val, ours"] == "missing"]
    assert len(missing) == 10  # five segmenters, on human masks and MAL's
    assert {row["computed by"].split()[-1] for row in missing} == {
        f"segmenter={name}"
        for name in ("solov2_r50", "solov2_r101_dcn", "solov2_x101_dcn", "cascade_convnext_b", "mask2former_swin_s")
    }
    quoted = [row for row in rows if row["computed by"] == "quoted by the paper"]
    assert len(quoted) == 10
    assert {row["mask AP val, ours"] for row in quoted} == {""}


def test_a_row_that_lacks_its_retention_says_which_command_computes_it():
    runs = Runs()
    runs.score("solov2_r50", supervision="pseudo", ap=0.3)
    (row,) = measured(made(runs, "tab1_coco"))
    assert of(row, "mask AP val, ours", "Ret. val, ours") == ["30.0", "-"]
    assert row["computed by"].endswith("experiment=tab1_coco profile=paper segmenter=solov2_r50")


def test_the_test_column_says_submit_until_the_server_has_spoken(tmp_path):
    runs = Runs()
    human = runs.pair("solov2_r50", human=0.375, pseudo=0.35)
    pseudo = runs.pseudo_of(human)
    sent = {"human": runs.submit(human), "pseudo": runs.submit(pseudo)}
    columns = (
        "mask AP test-dev, ours",
        "mask AP test-dev, difference",
        "Ret. test-dev, ours",
        "Ret. test-dev, difference",
    )

    def cells(**said: float) -> list[list[str]]:
        (tmp_path / "testdev.yaml").write_text(
            "".join(f"{sent[name]}: {value}\n" for name, value in said.items()) or "{}"
        )
        return [of(row, *columns) for row in measured(made(runs, "tab1_coco", testdev=tmp_path / "testdev.yaml"))]

    waiting = [f"submit {sent['pseudo']}", "", "-", ""]
    assert cells() == [[f"submit {sent['human']}", "", "-", ""], waiting]
    assert cells(human=0.386) == [["38.6", "+0.2", "-", ""], waiting]
    assert cells(human=0.386, pseudo=0.357) == [["38.6", "+0.2", "-", ""], ["35.7", "+0.0", "92.5", "-0.5"]]


def test_table_2_names_what_mal_was_trained_on_and_shares_the_supervised_row():
    runs = Runs()
    lvis = {"data": "lvis"}
    human = runs.pair("mask_rcnn_x101_32x4d", human=0.255, pseudo=0.237, **lvis)
    runs.pair("mask_rcnn_x101_32x4d", human=0.255, pseudo=0.231, divided_by=human, labeler="mal:coco", **lvis)
    table = made(runs, "tab2_lvis")
    names = ("method", "training data", *AP, "AP_r", "AP_c", "AP_f", *RET[:3])
    assert [of(row, *names) for row in measured(table)] == [
        ["Mask R-CNN", "-", "25.5", "25.5", "+0.0", "20.5", "24.5", "27.5", "-", "-", ""],
        ["Mask Auto-Labeler", "LVIS v1", "23.7", "23.7", "+0.0", "18.7", "22.7", "25.7", "92.9", "92.9", "+0.0"],
        ["Mask Auto-Labeler", "COCO", "23.3", "23.1", "-0.2", "18.1", "22.1", "25.1", "91.8", "90.6", "-1.2"],
    ]
    assert any("91.8, but 23.3 / 25.5 gives" in note for note in table.notes)


@pytest.mark.parametrize(
    ("name", "setting", "value", "title", "papers"),
    [
        ("tab3_decoder", "decoder", "fcn", "Fully convolutional decoder", "36.1"),
        ("tab4_encoder", "encoder", "deit_s", "ViT-DeiT-Small", "40.8"),
        ("tab5_theta", "theta", 0.6, "0.6", "41.3"),
    ],
)
def test_tables_3_to_5_have_the_row_of_the_setting_that_they_vary(name, setting, value, title, papers):
    runs = Runs()
    human = runs.pair("cascade_convnext_s", human=0.45, pseudo=0.36, **{setting: value})
    runs.quality(0.7, **{setting: value})  # another labeler's: it has no part in the row
    runs.pair("solov2_r50", human=0.4, pseudo=0.3)  # not their segmenter
    table = made(runs, name)
    (row,) = [row for row in measured(table) if row["mask AP val, ours"] != "-"]
    assert next(iter(row.values())) == title
    assert of(row, *AP) == [papers, "36.0", f"{36 - float(papers):+.1f}"]
    assert of(row, "Ret. val, ours", "settings", "computed by") == ["80.0", "recipe=paper", ""]
    assert human


def test_mask_iou_stands_where_no_segmenter_was_trained():
    runs = Runs()
    runs.quality(0.7371, profile="demo", data="shapes", encoder="vit_nano")
    for name in ("tab3_decoder", "tab4_encoder", "tab5_theta"):
        table = made(runs, name)
        (row,) = part(table, "Not comparable: profile demo, data shapes: another scale, other data")
        assert of(row, "mask AP val, ours", "Ret. val, ours", "mask IoU", "n") == ["-", "-", "0.737", "9 masks"]


def test_the_iou_of_a_row_is_that_of_the_masks_its_segmenter_learned_from():
    runs = Runs()
    runs.pair("cascade_convnext_s", human=0.45, pseudo=0.36)
    score = runs.latest("cascade_convnext_s")
    runs.quality_of(score, 0.81)
    runs.quality_of(score, 0.5, flip=True)
    runs.quality_of(score, 0.3, images="odd")
    found = [(row["mask AP val, ours"], row["mask IoU"]) for row in measured(made(runs, "tab3_decoder"))]
    assert found == [("36.0", "0.810")]  # of the images that the AP is of, and labelled alike


def test_table_6_tells_crops_from_images_and_given_weights_from_trained_ones():
    runs = Runs()
    columns = {"profile": "paper", "data": "coco", "seed": 0, "encoder": "deit_s"}
    for source, score in (("crops", 0.431), ("images", 0.5)):
        config = {"source": source, "roi": {"size": 512}, "encoder": {"pretrained": True}}
        runs.add("clustering_val", columns, config=config, clustering=score)
    labeler, trained = runs.labels("val", encoder="deit_s")
    config = {"source": "crops", "roi": {"size": 512}}
    runs.add("clustering_val", trained, config=config, inputs={"labeler": labeler}, clustering=0.4)
    rows = measured(made(runs, "tab6_clustering"))
    assert [of(row, "backbone", "score, paper", "score, ours", "score, difference") for row in rows] == [
        ["ViT-DeiT-Small", "0.431", "0.431", "+0.000"],
        ["ViT-DeiT-Small", "0.431", "0.500", "+0.069"],
        ["ViT-DeiT-Small", "0.431", "0.400", "-0.031"],
    ]
    assert rows[0]["settings"] == "source=crops weights=given"
    assert rows[1]["settings"] == "source=images weights=given"
    assert rows[2]["settings"].endswith("source=crops weights=trained")


@pytest.mark.parametrize(("pretrained", "images", "why"), [
    (False, "all", "the encoder's weights are random"),
    (True, "odd", "measured on the odd-placed images alone"),
])  # fmt: skip
def test_clustering_scores_of_random_weights_or_fewer_images_do_not_stand_beside_the_papers(pretrained, images, why):
    runs = Runs()
    columns = {"profile": "paper", "data": "coco", "seed": 0, "encoder": "mae_b"}
    config = {"source": "crops", "roi": {"size": 512}, "encoder": {"pretrained": pretrained}, "images": images}
    runs.add("clustering_val", columns, config=config, clustering=0.3)
    table = made(runs, "tab6_clustering")
    assert not measured(table)
    (row,) = part(table, f"Not comparable: profile paper, data coco, but {why}")
    assert row["settings"] == f"source=crops weights={'given' if pretrained else 'random'}"


def test_a_labeler_without_published_weights_does_not_stand_beside_the_papers():
    runs = Runs()
    runs.pair("cascade_convnext_s", human=0.418, pseudo=0.407, data="coco")
    assert len(measured(made(runs, "tab4_encoder"))) == 1
    next(r for r in runs.records if r["stage"] == "train_labeler")["config"]["encoder"]["pretrained"] = False
    assert not measured(made(runs, "tab4_encoder"))


def test_clustering_scores_of_weights_drawn_with_several_seeds_are_one_row():
    runs = Runs()
    for seed, score in ((0, 0.4), (1, 0.5)):
        columns = {"profile": "demo", "data": "shapes", "seed": seed, "encoder": "vit_nano"}
        config = {"source": "crops", "seed": seed, "encoder": {"pretrained": False}}
        runs.add("clustering_val", columns, config=config, clustering=score)
    heading = "Not comparable: profile demo, data shapes: another scale, other data"
    (row,) = part(made(runs, "tab6_clustering"), heading)
    assert of(row, "score, ours", "seeds") == ["0.450 (0.400 … 0.500)", "0, 1"]


def test_table_7_sets_paper_ours_and_difference_below_each_other():
    runs = Runs()
    runs.pair("cascade_convnext_s", human=0.418, pseudo=0.407, data="coco")
    runs.score("cascade_convnext_s", supervision="boxes", ap=None, data="coco")
    runs.pair("mask_rcnn_r101_dcn", human=0.2, pseudo=0.19, data="lvis")  # of Table 2: has no row without masks
    rows = part(made(runs, "tab7_detection"), PAPERS)
    mine = [of(row, "mask labels", "numbers", "AP", "AP_L") for row in rows if row["backbone"] == "ConvNeXt-Small"]
    assert mine == [
        ["None", "paper", "51.5", "66.9"], ["None", "ours", "50.0", "55.0"], ["None", "difference", "-1.5", "-11.9"],
        ["GT mask", "paper", "51.8", "66.6"], ["GT mask", "ours", "51.8", "56.8"],
        ["GT mask", "difference", "+0.0", "-9.8"],
        ["MAL mask", "paper", "51.7", "66.8"], ["MAL mask", "ours", "50.7", "55.7"],
        ["MAL mask", "difference", "-1.0", "-11.1"],
    ]  # fmt: skip
    missing = [row for row in rows if row["numbers"] == "ours" and row["AP"] == "missing"]
    assert len(missing) == 12 + 6
    assert missing[0]["computed by"].endswith("profile=paper row=lvis_r50 segmenter.mask_head=false")
    assert missing[1]["computed by"].endswith("profile=paper row=lvis_r50_dcn segmenter.mask_head=false")


def test_plain_networks_stand_beside_the_numbers_and_deformable_ones_have_rows_as_written():
    runs = Runs()
    for name, human in (("mask_rcnn_r50", 0.217), ("mask_rcnn_r50_dcn", 0.24)):
        runs.pair(name, human=human, pseudo=human - 0.01, data="lvis")
        runs.score(name, supervision="boxes", ap=None, data="lvis")
    found = [of(row, "backbone", "sup.", *AP[:3], *RET[:3:2]) for row in measured(made(runs, "tab2_lvis"))]
    plain, written = "ResNet-50-DCN [plain FPN]", "ResNet-50-DCN [as written]"
    assert found == [
        [plain, "Mask", "21.7", "21.7", "+0.0", "-", ""],
        [written, "Mask", "-", "24.0", "", "-", ""],
        [plain, "Box", "20.7", "20.7", "+0.0", "95.4", "+0.0"],
        [written, "Box", "-", "23.0", "", "-", ""],
    ]
    rows = part(made(runs, "tab7_detection"), PAPERS)
    numbers = [of(row, "backbone", "numbers", "AP") for row in rows if row["mask labels"] == "GT mask"][:4]
    assert numbers == [[plain, "paper", "22.5"], [plain, "ours", "31.7"], [plain, "difference", "+9.2"],
                       [written, "ours", "34.0"]]  # fmt: skip


def test_results_on_lvis_are_of_table_2_whatever_the_segmenter_and_those_on_coco_of_table_1():
    runs = Runs()
    runs.score("solov2_r50", supervision="human", ap=0.3, data="lvis")
    runs.score("mask_rcnn_r50", supervision="human", ap=0.3, data="coco")
    other = "At the paper's scale and on its data, but none of its rows"
    assert [row["model"] for row in part(made(runs, "tab2_lvis"), other)] == ["SOLOv2"]
    assert [row["model"] for row in part(made(runs, "tab1_coco"), other)] == ["Mask R-CNN"]


def test_other_profiles_and_data_are_headed_not_comparable_and_have_no_difference():
    runs = Runs()
    runs.pair("solov2_tiny", human=0.3, pseudo=0.28, profile="demo", data="shapes")
    runs.pair("solov2_r50", human=0.2, pseudo=0.19, profile="mini")
    runs.pair("solov2_r50", human=0.2, pseudo=0.18, data="coco_mini")
    table = made(runs, "tab1_coco")
    assert [heading for heading, _ in table.parts()][1:] == [
        "Not comparable: profile demo, data shapes: another scale, other data",
        "Not comparable: profile mini, data coco: another scale",
        "Not comparable: profile paper, data coco_mini: other data",
    ]
    assert measured(table) == []
    for heading, _ in [*table.parts()][1:]:
        human, mal = part(table, heading)
        assert of(human, AP[0], AP[2]) == ["", ""]
        assert of(mal, AP[0], AP[2], RET[0], RET[2]) == ["", "", "", ""]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": {"epochs": 1}}, "train_labeler has train.epochs=1, not 10"),
        ({"train": {"steps": 10}}, "train_labeler has train.steps=10, not None"),
        ({"epochs": 12}, "train_segmenter has segmenter.schedule.epochs=12, not 36"),
    ],
)
def test_the_papers_profile_with_a_shorter_training_is_not_comparable(changed, said):
    runs = Runs()
    runs.score("solov2_r50", supervision="pseudo", ap=0.3, **changed)
    table = made(runs, "tab1_coco")
    assert measured(table) == []
    (row,) = part(table, f"Not comparable: profile paper, data coco, but {said}")
    assert row["mask AP val, difference"] == ""


def test_a_scale_that_the_store_does_not_know_is_not_the_papers():
    runs = Runs()
    runs.score("solov2_r50", supervision="human", ap=0.3)
    runs.records = [record for record in runs.records if record["stage"] != "train_segmenter"]
    table = made(runs, "tab1_coco")
    assert measured(table) == []
    assert any("has no record of train_segmenter/" in heading for heading, _ in table.parts())


def test_a_segmenter_or_encoder_that_the_paper_has_not_stands_apart_from_its_rows():
    runs = Runs()
    runs.pair("solov2_r50", human=0.4, pseudo=0.3, encoder="dinov2_b")
    (row,) = part(made(runs, "tab1_coco"), "At the paper's scale and on its data, but none of its rows")
    assert of(row, "labeler backbone", "mask AP val, paper", "mask AP val, ours") == ["dinov2_b", "", "30.0"]


def test_another_backend_is_named():
    runs = Runs()
    runs.score("mask_rcnn_tiny (detectron2)", supervision="human", ap=0.3, profile="demo", data="shapes")
    (row,) = part(made(runs, "tab2_lvis"), "Not comparable: profile demo, data shapes: another scale, other data")
    assert row["model"] == "Mask R-CNN (detectron2)"


def test_too_weak_to_divide_by_holds_here_too():
    runs = Runs()
    runs.pair("solov2_tiny", human=0.1, pseudo=0.09, profile="demo", data="shapes")
    rows = part(made(runs, "tab1_coco"), "Not comparable: profile demo, data shapes: another scale, other data")
    assert of(rows[1], "Ret. val, ours", "Ret. val, 95 % interval") == ["too weak to divide by (human < 0.2)", ""]


def test_several_seeds_are_one_row_with_their_mean_their_range_and_each_ones_interval():
    runs = Runs()
    for seed, pseudo in enumerate((0.36, 0.38, 0.37)):
        runs.pair("solov2_r50", human=0.4, pseudo=pseudo, seed=seed)
    human, mal = measured(made(runs, "tab1_coco"))
    assert of(human, "seeds", *AP[1:]) == ["0, 1, 2", "40.0 (40.0 … 40.0)", "+2.5"]
    assert of(mal, *AP[1:]) == ["37.0 (36.0 … 38.0)", "+2.0"]
    assert of(mal, *RET[1:3]) == ["92.5 (90.0 … 95.0)", "-0.8"]
    assert mal["Ret. val, 95 % interval"] == "0: [88.0, 91.0]; 1: [93.0, 96.0]; 2: [90.5, 93.5]"
    assert mal["each seed"] == "mask AP val: 36.0, 38.0, 37.0; Ret. val: 90.0, 95.0, 92.5"


def test_a_seed_without_a_retention_leaves_no_mean():
    runs = Runs()
    runs.pair("solov2_r50", human=0.4, pseudo=0.36, seed=0)
    runs.score("solov2_r50", supervision="pseudo", ap=0.38, seed=1)
    _, mal = measured(made(runs, "tab1_coco"))
    assert of(mal, "seeds", "mask AP val, ours", "Ret. val, ours") == ["0, 1", "37.0 (36.0 … 38.0)", "-"]
    assert mal["Ret. val, 95 % interval"] == "0: [88.0, 91.0]; 1: -"
    assert "segmenter=solov2_r50" in mal["computed by"]


def test_unlike_settings_are_never_averaged_and_their_rows_say_what_differs():
    runs = Runs()
    human = runs.pair("solov2_r50", human=0.4, pseudo=0.36)
    runs.pair("solov2_r50", human=0.4, pseudo=0.38, train={"ema": 0.9}, seed=1, divided_by=human)
    runs.pair("solov2_r50", human=0.4, pseudo=0.3, recipe="released", divided_by=human)
    rows = measured(made(runs, "tab1_coco"))
    assert [row["mask AP val, ours"] for row in rows] == ["40.0", "36.0", "38.0", "30.0"]
    assert [row["settings"] for row in rows] == [
        "",
        "recipe=paper",
        "recipe=paper train.ema=0.9",
        "recipe=released",
    ]


def test_of_many_differing_settings_those_are_said_that_tell_every_row_from_every_other():
    runs = Runs()
    human = runs.pair("solov2_r50", human=0.4, pseudo=0.3)
    shared = {f"a{i}": 1 for i in range(8)}  # they come first, and tell only the first row from the others
    for ap, last in ((0.31, 1), (0.32, 2), (0.33, 3)):
        runs.pair("solov2_r50", human=0.4, pseudo=ap, train={**shared, "z": last}, divided_by=human)
    said = [row["settings"] for row in measured(made(runs, "tab1_coco"))[1:]]
    assert [text.count("=") for text in said] == [7, 7, 7, 7]  # with the recipe
    assert [text.partition("train.z=")[2].split()[0] for text in said] == ["-", "1", "2", "3"]
    assert all(text.endswith(" and 3 more settings") for text in said)


def test_rows_that_differ_in_a_setting_alone_stand_in_its_order():
    runs = Runs()
    values = (0.8, 0.6, 0.1, 0.2, 0.9, 0.4)
    for value in values:
        runs.pair("solov2_tiny", human=0.4, pseudo=value / 4, profile="demo", data="shapes", train={"ema": value})
    rows = measured(made(runs, "tab1_coco"), "Not comparable: profile demo, data shapes: another scale, other data")
    learned = [row["mask AP val, ours"] for row in rows if "ema" in row["settings"]]
    assert learned == [f"{25 * value:.1f}" for value in sorted(values)]


def test_data_drawn_with_another_seed_is_other_data_and_said():
    runs = Runs()
    for seed, drawn in ((0, 7), (1, 8)):
        score = runs.score("solov2_tiny", supervision="human", ap=0.3, seed=seed, profile="demo", data="shapes")
        data = runs.add("shapes_val", {"profile": "demo", "data": "shapes"}, config={"seed": drawn})
        by_address(runs.records)[score]["inputs"]["data"] = data
    rows = part(made(runs, "tab1_coco"), "Not comparable: profile demo, data shapes: another scale, other data")
    assert sorted(row["settings"] for row in rows) == ["shapes_val.seed=7", "shapes_val.seed=8"]


def test_the_same_masks_divided_by_unlike_human_aps_are_two_rows():
    runs = Runs()
    first = runs.pair("solov2_r50", human=0.4, pseudo=0.36)
    pseudo = runs.pseudo_of(first)
    second = runs.score("solov2_r50", supervision="human", ap=0.45)
    by_address(runs.records)[second]["version"] = 2
    figures = {"retention": 0.8, "retention_low": 0.7, "retention_high": 0.9}
    inputs = {"pseudo": pseudo, "human": second}
    runs.add("retention", by_address(runs.records)[pseudo]["columns"], inputs=inputs, **figures)
    rows = measured(made(runs, "tab1_coco"))[2:]
    assert [row["Ret. val, ours"] for row in rows] == ["90.0", "80.0"]
    assert [row["settings"] for row in rows] == [
        "recipe=paper; human:ap_val.version=1",
        "recipe=paper; human:ap_val.version=2",
    ]


def test_of_two_bootstraps_of_one_ratio_the_longer_is_shown():
    runs = Runs()
    human = runs.pair("solov2_r50", human=0.4, pseudo=0.36)  # of 50 resamples
    ratio = next(record for record in runs.records if record["stage"] == "retention")
    figures = {"retention": 0.9, "retention_low": 0.85, "retention_high": 0.95}
    runs.add("retention", ratio["columns"], config={"seed": 0, "resamples": 1000}, inputs=ratio["inputs"], **figures)
    assert measured(made(runs, "tab1_coco"))[1]["Ret. val, 95 % interval"] == "[85.0, 95.0]"
    assert human


def test_commits_of_all_that_a_row_comes_from_are_said():
    runs = Runs()
    runs.score("solov2_r50", supervision="human", ap=0.3)
    for record, commit, diff in zip(
        runs.records, ("a" * 40, "b" * 40, "b" * 40), (None, "c0ffee", "c0ffee"), strict=True
    ):
        record["provenance"] = {"commit": commit, "diff": diff}
    (row,) = measured(made(runs, "tab1_coco"))
    assert row["commit"] == "bbbbbbbb+, aaaaaaaa"


def cells_of(text: str) -> list[list[str]]:
    """The cells of the last table of a text."""
    lines = text.split("\n\n")[-1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(line) == len(cells[0]) for line in cells)
    return [cells[0], *cells[2:]]


def test_the_summary_says_how_far_seeds_lie_apart_beside_each_ones_interval():
    runs = Runs()
    for seed, pseudo in enumerate((0.36, 0.38)):
        runs.pair("solov2_r50", human=0.4, pseudo=pseudo, seed=seed)
    text = summary(runs.records)
    assert text.split("\n\n")[-2] == "Over seeds"
    header, human, mal = cells_of(text)
    assert header[1:3] == ["seeds", "mask AP, mean (lowest … highest)"]
    assert human == ["human masks", "2", "0.400 (0.400 … 0.400)", "-", "-"]
    assert mal[:4] == ["MAL masks", "2", "0.370 (0.360 … 0.380)", "92.5% (90.0% … 95.0%)"]
    assert mal[4] == "0: 90.0% [88.0%, 91.0%]; 1: 95.0% [93.0%, 96.0%]"


def test_one_seed_too_weak_to_divide_by_leaves_no_mean():
    runs = Runs()
    runs.pair("solov2_r50", human=0.4, pseudo=0.36, seed=0)
    runs.pair("solov2_r50", human=0.1, pseudo=0.09, seed=1)
    mal = cells_of(summary(runs.records))[2]
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
    names = [row[0] for row in cells_of(summary(runs.records))[1:]]
    assert names == ["boxes, no mask head", "human masks", "MAL masks (labeler trained on coco)"]


def test_lineage_is_all_that_defines_a_result_but_the_runs_seed():
    runs = Runs()
    first = runs.score("solov2_r50", supervision="pseudo", ap=0.3, seed=0)
    second = runs.score("solov2_r50", supervision="pseudo", ap=0.31, seed=1)
    longer = runs.score("solov2_r50", supervision="pseudo", ap=0.32, seed=2, train={"epochs": 11})
    known = by_address(runs.records)
    assert lineage(known[first], known) == lineage(known[second], known) != lineage(known[longer], known)
    groups = over_seeds([known[longer], known[second], known[first]], known)
    assert [[r["columns"]["seed"] for r in group] for group in groups] == [[2], [0, 1]]
    drawn = {"stage": "shapes_train", "key": "a", "version": 1, "sources": {}, "inputs": {}}
    assert lineage(drawn | {"config": {"seed": 0}}, {}) != lineage(drawn | {"config": {"seed": 1}}, {})


def test_what_a_training_keeps_on_its_way_makes_no_other_result():
    """Nor a second one: of the same network, the result of the training that keeps most stands."""
    known = {}
    for key, seed, snapshots in (("a", 0, 0), ("b", 0, 8), ("c", 1, 0), ("d", 2, None)):
        res = {"steps": 9} | ({} if snapshots is None else {"snapshots": snapshots})
        train = record_of("train_res", key, {"partialres": {"res": res}, "seed": seed}, seed)
        train |= {"inputs": {}}
        known[f"train_res/{key}"] = train
        for stage in ("res_val", "course_val"):
            known[f"{stage}/{key}"] = record_of(stage, key, {}, seed) | {"inputs": {"network": f"train_res/{key}"}}
    scores = [one for one in known.values() if one["stage"] == "res_val"]
    assert [[one["key"] for one in group] for group in over_seeds(scores, known)] == [["b", "c", "d"]]
    assert not any("snapshots" in name for name in settings_of(scores[0], known))
    for key, profile in (("a", "demo"), ("b", "mini")):  # which no key holds
        known[f"res_val/{key}"]["columns"]["profile"] = profile
    assert [[one["key"] for one in group] for group in over_seeds(scores, known)] == [["b", "c", "d"]]
    courses = [one for one in known.values() if one["stage"] == "course_val"]
    assert len(over_seeds(courses, known)) == 3
    assert settings_of(courses[1], known)["train_res.partialres.res.snapshots"] == "8"


def record_of(stage, key, config, seed):
    return {"stage": stage, "key": key, "version": 1, "sources": {}, "config": config, "columns": {"seed": seed}}


def test_a_mean_of_one_has_no_range():
    assert spread([0.5], "{:.2f}") == "0.50"
    assert spread([0.5, 0.7, 0.6], "{:.2f}") == "0.60 (0.50 … 0.70)"


def store_of(runs: Runs, root: Path) -> Path:
    for record in runs.records:
        path = root / record["stage"] / record["key"] / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
    return root


def test_the_command_writes_every_format_of_every_table_and_says_so(tmp_path, capsys):
    runs = Runs()
    sent = runs.submit(runs.pair("solov2_r50", human=0.375, pseudo=0.35))
    store, said = store_of(runs, tmp_path / "runs"), tmp_path / "testdev.yaml"
    command = ["--store", str(store), "--out", str(tmp_path / "out"), "--testdev", str(said)]
    assert main(command) == 0
    written = capsys.readouterr().out.split()
    assert sorted(written) == sorted(map(str, (tmp_path / "out" / "tables").iterdir()))
    assert len(written) == len(
        list((Path(__file__).resolve().parents[1] / "results" / "paper").glob("*/tab*.yaml"))
    ) * len(FORMATS)
    assert f"submit {sent}" in (tmp_path / "out/tables/tab1_coco.md").read_text()
    said.write_text(f"# the server\n{sent}: 0.384\n")
    assert main([*command, "--table", "tab1_coco"]) == 0
    assert len(capsys.readouterr().out.split()) == len(FORMATS)
    assert "submit predictions_test" not in (tmp_path / "out/tables/tab1_coco.md").read_text()
    said.write_text(f"{sent}: 38.4\n")
    assert main(command) == 1
    assert "38.4 is no predictions_test/KEY with a mask AP in [0, 1]" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_the_latex_of_every_table_compiles(tmp_path):
    runs = Runs()
    for seed in (0, 1):
        runs.pair("cascade_convnext_s", human=0.45, pseudo=0.36, seed=seed)
    runs.score("cascade_convnext_s", supervision="boxes", ap=None)
    runs.pair("mask_rcnn_tiny", human=0.1, pseudo=0.09, profile="demo", data="my_shapes", train={"ema": 0.9})
    runs.pair("mask_rcnn_tiny", human=0.1, pseudo=0.09, profile="demo", data="my_shapes")
    body = "".join(f"\\input{{{name}}}" for name in write_all(runs, tmp_path))
    packages = r"\usepackage[T1]{fontenc}\usepackage{textcomp,booktabs,graphicx,array}"
    (tmp_path / "all.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Overfull \\hbox" not in log


def write_all(runs: Runs, folder: Path) -> list[str]:
    paths = [path for table in paper_tables(runs.records, NOWHERE) for path in write(table, folder)]
    return [path.name for path in paths if path.suffix == ".tex"]


def test_an_empty_store_a_broken_record_and_a_bad_folder_are_sentences(tmp_path, capsys):
    assert main(["--store", str(tmp_path)]) == 1
    assert "make demo" in capsys.readouterr().err
    runs = Runs()
    runs.pair("solov2_r50", human=0.375, pseudo=0.35)
    store = store_of(runs, tmp_path / "runs")
    (tmp_path / "file").write_text("")
    assert main(["--store", str(store), "--out", str(tmp_path / "file")]) == 1
    assert "name another folder with --out" in capsys.readouterr().err
    path = next(store.glob("*/*/run.json"))
    for text in ("{", "[]", '{"status": "done"}', json.dumps(runs.records[0] | {"metrics": {"iou": 0.5}})):
        path.write_text(text)
        assert main(["--store", str(store)]) == 1
        assert f"error: {path} cannot be read" in capsys.readouterr().err


def test_tables_are_read_from_an_mlflow_server_too_and_a_missing_one_is_a_sentence(tmp_path, capsys):
    assert main(["--mlflow", f"sqlite:///{tmp_path}/absent.db", "--out", str(tmp_path)]) == 1
    assert "there is no database" in capsys.readouterr().err


def test_the_committed_file_for_the_servers_word_can_be_read(tmp_path):
    path = Path(__file__).resolve().parents[1] / "results" / "testdev.yaml"
    assert path.exists()
    assert all(0 < value < 1 for value in read_testdev(path).values())
    (tmp_path / "wrong.yaml").write_text("solov2: 0.4\n")
    with pytest.raises(UnreadableRecordError, match=r"solov2: 0\.4"):
        read_testdev(tmp_path / "wrong.yaml")
