"""BESTIE's row of AttentionShift's Table 3: its command, and what stands beside the printed numbers."""

import dataclasses

from paper_runs import Runs, made, measured, of
from test_paper_numbers import dotted

from analysis.paper_numbers import load
from tests import sweeps

TABLE = load()["attentionshift_tab3"]
(ROW,) = [row for row in TABLE.rows if row.id == "bestie_vit_s"]


def test_the_experiment_trains_both_methods_on_the_same_data(compose) -> None:
    for profile, encoders in (("demo", ["resnet10_nano", "vit_nano16"]), ("paper", ["mae_s", "mae_s"])):
        configs = [compose(*job) for job in sweeps.jobs("experiment=attentionshift/tab3", f"profile={profile}")]
        assert [config.labeler.name for config in configs] == ["bestie", "attentionshift"]
        assert [config.encoder.name for config in configs] == encoders
        assert len({config.data.name for config in configs}) == 1
        assert {(config.segmenter.name, *config.compare) for config in configs} == {("none", "disc")}


def test_the_command_of_its_row_computes_it_at_its_scale(compose) -> None:
    (job,) = sweeps.jobs(*TABLE.command(ROW).split()[3:])
    config = compose(*job)
    assert ROW.ours == {"data": config.data.name, "labeler": config.labeler.name, "encoder": config.encoder.name}
    values = dict(dotted(dataclasses.asdict(config)))
    for settings in ROW.scale.values():
        assert {key: values[key] for key in settings} == dict(settings)


def test_its_result_stands_beside_the_printed_one() -> None:
    runs = Runs()
    columns = {"profile": "paper", "data": "voc", "seed": 0, "labeler": "bestie", "recipe": "paper", "encoder": "mae_s"}
    own = {"learning": {"batch": 16, "steps": 50_000, "lr": 5e-5}, "scale": {"crop": 416}}
    encoder = {"name": "mae_s", "pretrained": True}
    trained = runs.add("train_bestie", columns, config={"seed": 0, "encoder": encoder, "bestie": own})
    found = runs.add(
        "detect_bestie", columns, config={"bestie": {"detection": {"flip": True}}}, inputs={"network": trained}
    )
    figures = {"mask_map25": 0.48, "mask_map50": 0.37, "mask_map75": 0.16}
    config = {"images": "all", "voc": {"resamples": 50, "seed": 0}}
    runs.add("own_ap_val", columns, config=config, inputs={"predictions": found}, mask_ap=0.2, **figures)
    (row,) = measured(made(runs, "attentionshift_tab3"))
    titles = ("method", "backbone", "mAP50, paper", "mAP50, ours", "mAP50, difference", "mAP75, difference")
    assert of(row, *titles) == ["BESTIE", "ViT-S", "36.2", "37.0", "+0.8", "-1.3"]
