"""Experiments of phase 1 (Tables 3 to 6, the figures): their rows at every scale, and what rows share."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import mal.run
from analysis.lineage import shown
from mal.config import Config
from mal.engine.graph import Stage, execute, in_order
from mal.engine.payload import flatten
from mal.engine.store import Store
from mal.request import Graph
from mal.run_notes import notes_of
from mal.segmenters.config_checks import check as check_segmenter
from tests import sweeps

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
PROFILES = ("smoke", "demo", "mini", "paper")
ROWS = {  # at smoke and demo scale; at mini and paper scale
    "tab3_decoder": (4, 4),
    "tab4_encoder": (3, 6),
    "tab5_theta": (6, 6),
    "tab6_clustering": (3, 6),
    "fig4": (1, 1),
    "fig5": (2, 2),
    "fig6": (1, 1),
    "fig7": (20, 20),
    "fig8": (1, 1),
    "sensitivity": (14, 14),
    "rules": (8, 8),
    "threshold": (8, 8),
}
ENCODERS = ["convnext_b", "swin_b", "deit_s", "deit_b", "mae_b", "mae_l"]
CPU = torch.device("cpu")
Compose = Callable[..., Config]


def jobs(experiment: str, profile: str, *more: str) -> list[list[str]]:
    """The overrides of each row of an experiment."""
    return sweeps.jobs(f"experiment={experiment}", f"profile={profile}", *more)


def listed(experiment: str) -> dict[str, list[str]]:
    """Name → overrides of the rows in an experiment's file."""
    file = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    return OmegaConf.to_container(file.hydra.sweeper.rows)


def swept(rows: list[list[str]], key: str) -> list[str]:
    return list(dict.fromkeys(part.partition("=")[2] for row in rows for part in row if part.startswith(f"{key}=")))


CROSSINGS = [  # composing takes half a second: the quick tests take each experiment at one scale
    pytest.param(experiment, profile, marks=() if place % 4 == other else pytest.mark.slow)
    for place, experiment in enumerate(ROWS)
    for other, profile in enumerate(PROFILES)
]


@pytest.mark.parametrize(("experiment", "profile"), CROSSINGS)
def test_every_experiment_has_its_rows_at_every_scale(experiment, profile, compose):
    rows = jobs(experiment, profile)
    assert len(rows) == ROWS[experiment][profile in ("mini", "paper")]
    config = compose(*rows[-1])
    check_segmenter(config.segmenter)
    assert (config.experiment, config.profile) == (experiment, profile)
    small = profile in ("smoke", "demo")
    real = {"mini": "lvis_mini", "paper": "lvis"} if experiment == "fig4" else {"mini": "coco_mini", "paper": "coco"}
    assert config.data.name == real.get(profile, "shapes")
    assert config.encoder.name.endswith("_nano") == small
    assert config.encoder.pretrained != small


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ROWS)
def test_every_row_composes(experiment, compose):
    """Each at one of the scales in turn; above, the last at every scale."""
    for place, profile in enumerate(PROFILES):
        for row in jobs(experiment, profile)[place :: len(PROFILES)]:
            check_segmenter(compose(*row).segmenter)


def test_the_rows_of_the_tables_are_the_papers(compose):
    assert swept(jobs("tab3_decoder", "paper"), "decoder") == ["fc", "fcn", "attention", "query"]
    assert swept(jobs("tab4_encoder", "paper"), "encoder") == ENCODERS
    assert swept(jobs("tab5_theta", "paper"), "roi.theta") == ["0.6", "0.8", "1.0", "1.2", "1.4", "1.6"]
    assert swept(jobs("tab6_clustering", "paper"), "encoder") == ENCODERS
    for experiment in ("tab3_decoder", "tab5_theta"):
        config = compose(*jobs(experiment, "paper")[0])
        assert (config.encoder.name, config.segmenter.name, config.recipe) == ("mae_b", "cascade_convnext_s", "paper")
    config = compose(*jobs("tab4_encoder", "paper")[0])
    assert (config.segmenter.name, config.decoder.name, config.encoder.fuse) == (
        "cascade_convnext_s",
        "attention",
        False,
    )
    config = compose(*jobs("tab6_clustering", "paper")[-1])
    assert (config.clustering.source, config.clustering.encoder, config.labeler.name) == ("crops", "pretrained", "none")
    config = compose(*jobs("fig5", "paper")[-1])
    assert (config.attention.layers, config.attention.encoder) == ([4, 8, 12], "trained")


def test_figure_7_varies_one_value_at_a_time_around_the_papers(compose):
    centre = {"loss.mil_weight": 4, "loss.crf_weight": 0.5, "crf.zeta": 0.5, "crf.omega": 2}
    rows = jobs("fig7", "paper")
    panels = {key: [float(value) for value in swept(rows, key)] for key in centre}
    assert panels == {key: [v / 4, v / 2, v, 2 * v, 4 * v] for key, v in centre.items()}
    for name, ((setting, value),) in ((n, [it.split("=") for it in own]) for n, own in listed("fig7").items()):
        assert name == f"{setting.rpartition('.')[2]}_{value}"
    config = OmegaConf.structured(compose(*rows[-1]))
    assert {key: OmegaConf.select(config, key) for key in centre} == centre | {"crf.omega": 8}


@pytest.mark.parametrize(
    "profile", ["demo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mini", "paper"))]
)
def test_rows_of_the_sensitivity_change_one_setting_each(profile, compose):
    rows = dict(zip(listed("sensitivity"), jobs("sensitivity", profile), strict=True))
    unchanged = dict(flatten(asdict(compose(*rows.pop("unchanged")))))
    for row, job in rows.items():
        config = dict(flatten(asdict(compose(*job))))
        ((setting, value),) = {key: value for key, value in config.items() if value != unchanged[key]}.items()
        assert row == f"{setting.rpartition('.')[2]}_{shown(value)}"


def test_the_rules_change_one_setting_each_and_are_together_the_released_programs(compose):
    rows = dict(zip(listed("rules"), jobs("rules", "mini"), strict=True))
    none = dict(flatten(asdict(compose(*rows.pop("none")))))
    released = dict(flatten(asdict(compose(*jobs("rules", "mini", "recipe=released", "row=none")[0]))))
    changed = {}
    for job in rows.values():
        config = dict(flatten(asdict(compose(*job))))
        ((setting, value),) = {key: value for key, value in config.items() if value != none[key]}.items()
        assert setting not in changed
        assert (value == released[setting]) == (setting not in ("label.threshold", "label.antialias"))
        changed[setting] = value
    apart = {key for key, value in released.items() if value != none[key]}
    assert {"loss.box_mask", "roi.repeats", "crf.antialias", "label.cut", "label.upsample"} == apart & {*changed}
    assert changed["label.antialias"] is False


def test_an_experiment_says_which_models_stand_in_for_the_papers(compose, tmp_path):
    def said(*overrides: str) -> list[str]:
        config = compose(*overrides, "data=shapes")
        return [note for note in notes_of(Graph(config, Store(tmp_path), torch.device("cpu"))) if "in place of" in note]

    demo = ["experiment=tab4_encoder", "profile=demo", "encoder=swin_nano", "segmenter=mask_rcnn_tiny"]
    expected = "in place of the paper's models, small ones: encoder=swin_nano, segmenter=mask_rcnn_tiny"
    assert said(*demo) == [f"tab4_encoder: {expected}"]
    assert not said("experiment=tab4_encoder", "profile=demo", "encoder=deit_s", "segmenter=cascade_convnext_s")
    assert not said("experiment=baselines", "profile=demo")


def test_an_experiment_says_what_is_compared(compose):
    assert compose().compare == ["box", "ellipse", "grabcut"]
    assert compose("experiment=tab6_clustering", "profile=smoke").compare == []
    assert compose("experiment=tab5_theta", "compare=[box]").compare == ["box"]


def test_the_command_line_has_the_last_word():
    rows = jobs("tab4_encoder", "mini", "encoder=mobilenetv2", "seed=0,1")
    assert swept(rows, "encoder") == ["mobilenetv2"]
    assert len(rows) == 2


def stages_of(rows: list[list[str]], compose: Compose, store: Store) -> list[list[Stage]]:
    return [in_order(Graph(compose(*row), store, CPU).targets()) for row in rows]


def test_rows_share_what_does_not_depend_on_theta(compose, tmp_path):
    graphs = stages_of(jobs("tab5_theta", "smoke"), compose, Store(tmp_path))
    distinct = Counter(stage.name for stage in {stage for graph in graphs for stage in graph})
    assert distinct["train_labeler"] == 6
    assert distinct["train_segmenter"] == 6 + 1  # and the supervised one
    assert distinct["retention"] == 6
    assert [distinct[f"{what}_{split}"] for what in ("shapes", "boxes") for split in ("train", "val")] == [1, 1, 1, 1]
    assert distinct["label_val"] == 6 + 1  # and the ellipse


def test_table_6_looks_at_the_labelers_of_table_4_at_demo_scale(compose, tmp_path):
    store = Store(tmp_path)
    trained = {
        experiment: {s for graph in stages_of(jobs(experiment, "demo"), compose, store) for s in graph
                     if s.name == "train_labeler"}
        for experiment in ("tab4_encoder", "tab6_clustering")
    }  # fmt: skip
    assert len(trained["tab4_encoder"]) == 3
    assert trained["tab6_clustering"] == trained["tab4_encoder"]


MADE = {
    "tab3_decoder": "retention",
    "tab4_encoder": "retention",
    "tab5_theta": "retention",
    "tab6_clustering": "clustering_val",
    "fig4": "quality_val",
    "fig5": "attention_val",
    "fig6": "quality_val",
    "fig7": "retention",
    "fig8": "retention",
    "sensitivity": "quality_val",
    "rules": "quality_val",
    "threshold": "quality_val",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def count_executions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the stages that runs will compute, as they do."""
    computed: list[str] = []

    def counted(stage: Stage, store: Store, *, device: torch.device) -> bool:
        ours = execute(stage, store, device=device)
        computed.extend([stage.address] if ours else [])
        return ours

    monkeypatch.setattr(mal.run, "execute", counted)
    return computed


@pytest.mark.slow
def test_what_the_rows_of_a_sweep_share_is_computed_once(compose, tmp_path, monkeypatch):
    computed = count_executions(monkeypatch)
    rows = [[*row, "tracking=none", f"store={tmp_path}"] for row in jobs("tab3_decoder", "smoke")[:2]]
    for row in rows:
        mal.run.run(compose(*row))
    distinct = {stage.address for graph in stages_of(rows, compose, Store(tmp_path)) for stage in graph}
    assert sorted(computed) == sorted(distinct)
    assert Counter(address.partition("/")[0] for address in computed)["train_segmenter"] == 1 + 2  # human masks, once


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ROWS)
def test_one_row_of_each_runs_and_computes_nothing_twice(experiment, compose, root, monkeypatch, capsys):
    """All in one store, so that what experiments share is there already: some find everything done."""
    computed = count_executions(monkeypatch)
    config = compose(*jobs(experiment, "smoke")[-1], "tracking=none", f"store={root}")
    store = Store(root)
    made = [stage for stage in Graph(config, store, CPU).targets() if stage.name == MADE[experiment]]
    done_before = {stage for stage in made if store.is_done(stage.name, stage.key)}
    mal.run.run(config)
    assert made
    assert {stage.address: stage.address in computed for stage in made} == {
        stage.address: stage not in done_before for stage in made
    }
    assert len(set(computed)) == len(computed)
    said = capsys.readouterr().out
    assert ("sheet.png" in said) == (config.labeler.name != "none")
    assert ("attention.png" in said) == (experiment == "fig5")
    assert ("Clustering score" in said) == (experiment == "tab6_clustering")
    computed.clear()
    mal.run.run(config)
    assert computed == []
