"""Which results have a row in Tables 3 to 5, beside the paper's rows or below a heading of their own."""

from paper_runs import Runs, made, measured, of, part

DEMO = {"profile": "demo", "data": "shapes"}
RESULTS_OF_MAL = ("tab3_decoder", "tab4_encoder", "tab5_theta")
OTHER = "Not comparable: profile demo, data shapes: another scale, other data"


def test_what_was_run_for_one_table_is_no_row_of_another():
    runs = Runs()
    for decoder in ("fc", "attention"):
        runs.pair("mask_rcnn_tiny", human=0.3, pseudo=0.2, decoder=decoder, encoder="vit_nano", **DEMO)
    runs.pair("mask_rcnn_tiny", human=0.3, pseudo=0.21, encoder="swin_nano", **DEMO)
    assert [row["mask decoder"] for row in part(made(runs, "tab3_decoder"), OTHER)] == [
        "Fully connected decoder",
        "Attention-based decoder",
    ]
    assert [row["backbone"] for row in part(made(runs, "tab4_encoder"), OTHER)] == ["swin_nano", "vit_nano"]


def test_an_ablation_of_another_setting_is_no_row_of_tables_3_to_5():
    runs = Runs()
    for theta, iou in ((0.6, 0.65), (1.2, 0.73)):
        runs.quality(iou, theta=theta, **DEMO)
    runs.quality(0.72, train={"ema": 0.9}, **DEMO)
    assert [row["mask IoU"] for row in part(made(runs, "tab5_theta"), OTHER)] == ["0.650", "0.730"]
    without_another_decoder = part(made(runs, "tab3_decoder"), OTHER)
    assert [row["mask IoU"] for row in without_another_decoder] == ["0.730", "0.720"]


def test_what_came_of_another_training_than_the_published_one_says_so():
    runs = Runs()
    for theta in (0.6, 1.2):
        runs.pair("mask_rcnn_tiny", human=0.4, pseudo=0.2, theta=theta, **DEMO)
    score = next(r for r in runs.records if r["stage"] == "ap_val" and r["columns"].get("theta") == 0.6)
    score["published"] = {"from_other": ["train_labeler/acfb"]}
    first, second = part(made(runs, "tab5_theta"), OTHER)
    assert first["settings"].endswith("of another train_labeler/acfb than is published")
    assert "another" not in second["settings"]


def test_what_a_table_leaves_out_is_counted():
    runs = Runs()
    for theta in (0.6, 1.2):
        runs.quality(theta, theta=theta, **DEMO)
    runs.quality(0.72, train={"ema": 0.9}, **DEMO)
    said = {name: [note for note in made(runs, name).notes if note.startswith("Left out")] for name in RESULTS_OF_MAL}
    assert [len(notes) for notes in said.values()] == [0, 0, 1]
    assert said["tab5_theta"][0].startswith("Left out: 1 result with nothing beside it")


def test_a_result_stays_whose_partner_stands_among_the_papers_rows():
    runs = Runs()
    for encoder, ap in (("mae_b", 0.36), ("dinov2_b", 0.38)):
        runs.pair("cascade_convnext_s", human=0.45, pseudo=ap, encoder=encoder)
    for encoder in ("eva02_b", "deit3_b"):
        runs.pair("cascade_convnext_s", human=0.45, pseudo=0.3, encoder=encoder, recipe="best")
    found = part(made(runs, "tab4_encoder"), "At the paper's scale and on its data, but none of its rows")
    assert sorted(row["backbone"] for row in found) == ["deit3_b", "dinov2_b", "eva02_b"]


def test_an_ablation_of_another_setting_does_not_stand_beside_the_papers_numbers():
    runs = Runs()
    for theta, ap in ((0.6, 0.3), (1.2, 0.36)):
        runs.pair("cascade_convnext_s", human=0.45, pseudo=ap, theta=theta)
    runs.quality(0.7, train={"ema": 0.9})
    assert [of(row, "θ", "mask AP val, ours") for row in measured(made(runs, "tab5_theta"))] == [
        ["0.6", "30.0"],
        ["1.2", "36.0"],
    ]


def test_masks_that_a_segmenter_learned_from_stand_beside_those_that_have_a_mean_iou_alone():
    runs = Runs()
    for seed in (0, 1):
        for segmenter in ("mask_rcnn_tiny", "solov2_tiny"):
            runs.pair(segmenter, human=0.4, pseudo=0.2, seed=seed, **DEMO)
        runs.quality_of(runs.latest("mask_rcnn_tiny"), 0.73 + seed / 50)
        runs.quality(0.65, theta=0.6, seed=seed, **DEMO)
    rows = part(made(runs, "tab5_theta"), OTHER)
    said = [of(row, "θ", "mask AP val, ours", "mask IoU", "seeds") for row in rows]
    assert said == [
        ["0.6", "-", "0.650 (0.650 … 0.650)", "0, 1"],
        ["1.2", "20.0 (20.0 … 20.0)", "0.740 (0.730 … 0.750)", "0, 1"],
    ]


def test_an_iou_over_more_seeds_than_were_segmented_is_a_row_of_its_own():
    runs = Runs()
    for theta in (0.6, 1.2):
        runs.pair("mask_rcnn_tiny", human=0.4, pseudo=theta / 5, theta=theta, **DEMO)
        runs.quality_of(runs.latest("mask_rcnn_tiny"), theta / 2)
        if theta == 0.6:
            runs.quality(0.4, theta=theta, seed=1, **DEMO)
    rows = part(made(runs, "tab5_theta"), OTHER)
    assert [of(row, "θ", "mask AP val, ours", "mask IoU", "seeds") for row in rows] == [
        ["0.6", "-", "0.350 (0.300 … 0.400)", "0, 1"],
        ["0.6", "12.0", "0.300", "0"],
        ["1.2", "24.0", "0.600", "0"],
    ]
