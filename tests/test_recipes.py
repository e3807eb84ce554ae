"""A table that says `recipe=NAME` means what the recipe of that name sets today, or says what it does not."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from paper_runs import LABEL, Runs, made, measured
from test_summary import MAL, parsed, quality

from analysis import recipes
from analysis.recipes import common_departures, departures, recipe, recipe_name
from analysis.records import by_address, finished
from analysis.summary import summary
from mal.engine.payload import flatten
from mal.methods.mal.reads import FORMER

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "experiments" / "conf"
PUBLISHED = ROOT / "results" / "published"
Record = dict[str, Any]
BEST = {"network": "student", "flip": True, "upsample": "direct", "antialias": False, "cut": True}
RECIPES, PROFILES = (sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in ("recipe", "profile"))
DATA = ("shapes", "coco_mini", "lvis")  # one with settings of its own for a recipe, one without, one that sets more


@pytest.mark.usefixtures("compose")  # it tells hydra the config's types
@pytest.mark.parametrize(("name", "profile"), list(itertools.product(RECIPES, PROFILES)))
def test_a_recipe_is_what_a_run_composes(name: str, profile: str) -> None:
    """Every setting that a recipe's files name has hydra's value, in each profile and on each kind of data."""
    for data in DATA:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            overrides = [f"profile={profile}", f"recipe={name}", f"data={data}"]
            whole = OmegaConf.to_container(hydra_compose("config", overrides=overrides))
        found = recipe(name, profile=profile, data=data)
        assert {"label.threshold", "crf.zeta", "loss.mil_weight", "train.ema"} <= found.keys()
        theirs = dict(flatten(whole))  # type: ignore[arg-type]
        assert {key: theirs[key] for key in found} == found


def labelled(label: Record, *, data: str = "coco_mini", profile: str = "mini", **train: Any) -> list[Record]:
    """Records of a training, a labelling and its quality under `recipe=best`."""
    columns = {**MAL, "data": data, "profile": profile}
    records = [quality(name, 0.5, stage, **columns) for stage, name in (("label_val", "l"), ("quality_val", "q"))]
    trained = quality("t", 0.5, "train_labeler", **columns)
    trained["metrics"] = {"steps": {"value": 8, "n": 1}}
    trained["config"] = {"train": {"batch": 32}, "roi": {"size": 96, "repeats": "background"}, **train}
    records[0] |= {
        "config": {"labeler": "mal", "label": label, "label_expansion": 0.15},
        "inputs": {"labeler": "train_labeler/t"},
    }
    records[1]["inputs"] = {"labels": "label_val/l"}
    return [trained, *records]


def told(records: list[Record]) -> str | None:
    return recipe_name(records[-1], by_address(records))


def test_a_result_made_as_the_recipe_says_is_called_by_its_name_alone() -> None:
    assert told(labelled({**BEST, "threshold": [0.35, 0.2, 0.15]})) == "best"
    on_shapes = {**BEST, "antialias": True, "threshold": [0.4, 0.4, 0.4]}
    assert told(labelled(on_shapes, data="shapes", profile="demo")) == "best"  # data_recipe/shapes_best.yaml
    assert told([quality("a", 0.5, labeler="box")]) is None


@pytest.mark.parametrize(
    ("label", "train", "said"),
    [
        ({"threshold": [0.4, 0.4, 0.4]}, {}, "label.threshold=[0.4,0.4,0.4]"),
        ({"antialias": True}, {}, "label.antialias=true"),
        ({"network": "teacher"}, {}, "label.network=teacher"),
        ({}, {"crf": {"zeta": 0.1, "antialias": True}}, "crf.zeta=0.1"),
        ({}, {"crf": {"zeta": 0.3, "antialias": False}}, "crf.antialias=false"),
        ({}, {"train": {"ema": 0.98}}, None),  # the profile's
        ({}, {"train": {"ema": 0.996}}, "train.ema=0.996"),
    ],
)
def test_what_a_result_was_made_with_otherwise_is_said(label: Record, train: Record, said: str | None) -> None:
    found = told(labelled({**BEST, "threshold": [0.35, 0.2, 0.15], **label}, **train))
    assert found == ("best" if said is None else f"best {said}")


def test_a_record_that_does_not_mention_a_newer_setting_has_its_former_value() -> None:
    """Old labels of coco_mini: at .4, antialiased, when there was no such setting."""
    old = {"network": "student", "flip": True, "threshold": [0.4, 0.4, 0.4]}
    assert told(labelled(old)) == "best label.antialias=true label.threshold=[0.4,0.4,0.4]"


def test_a_recipe_that_moves_later_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = labelled({**BEST, "threshold": [0.35, 0.2, 0.15]}, crf={"zeta": 0.3, "antialias": True})
    assert told(records) == "best"
    shutil.copytree(CONF, tmp_path / "conf")
    path = tmp_path / "conf" / "recipe" / "best.yaml"
    path.write_text(path.read_text().replace("crf: {zeta: 0.3,", "crf: {zeta: 0.7,"))
    monkeypatch.setattr(recipes, "CONF", tmp_path / "conf")
    assert told(records) == "best crf.zeta=0.3"


# --- where it is said ------------------------------------------------------------------------------------------------


def test_a_table_of_the_papers_says_it_in_its_settings() -> None:
    runs = Runs()
    runs.pair("solov2_r50", human=0.4, pseudo=0.36)
    as_it_says = measured(made(runs, "tab1_coco"))[-1]
    label = next(r for r in runs.records if r["stage"] == "label_train")["config"]["label"]
    assert label == LABEL
    label |= {"threshold": [0.4, 0.4, 0.4]}
    assert measured(made(runs, "tab1_coco"))[-1]["settings"] == (
        as_it_says["settings"] + " label.threshold=[0.4,0.4,0.4]"
    )


def test_the_summary_tells_two_labellings_of_one_recipe_apart() -> None:
    records = labelled({**BEST, "threshold": [0.35, 0.2, 0.15]})
    other = labelled({**BEST, "threshold": [0.4, 0.4, 0.4]})
    for record in other[1:]:
        record["key"] += "2"
    other[2]["inputs"] = {"labels": "label_val/l2"}
    text = summary([*records, *other[1:]])
    assert "| MAL     | label.threshold=[0.4,0.4,0.4] |" in text
    assert list(parsed(text, "labeler")["MAL"])[:2] == ["labeler", "settings"]
    for record in records:
        record["columns"] = {**record["columns"], "recipe": "released"}
    assert " best label.threshold=[0.4,0.4,0.4] |" in summary([*records, *other[1:]])


def test_an_encoder_names_a_row_before_the_settings_that_came_with_it() -> None:
    records = labelled({**BEST, "threshold": [0.35, 0.2, 0.15]})
    other = labelled({**BEST, "threshold": [0.4, 0.4, 0.4]})
    for record in other:
        record["key"] += "2"
        record["columns"] = {**record["columns"], "encoder": "swin_nano"}
    other[1]["inputs"], other[2]["inputs"] = {"labeler": "train_labeler/t2"}, {"labels": "label_val/l2"}
    assert list(parsed(summary([*records, *other]), "labeler")["MAL"])[:3] == ["labeler", "encoder", "IoU"]


def test_what_all_results_of_a_name_share_is_said_of_them_together() -> None:
    records = labelled({**BEST, "threshold": [0.4, 0.4, 0.4], "network": "teacher"})
    other = labelled({**BEST, "threshold": [0.4, 0.4, 0.4]})
    other[1] |= {"key": "l2"}
    other[2] |= {"key": "q2", "inputs": {"labels": "label_val/l2"}}
    known = by_address([*records, *other])
    both = [known["quality_val/q"], known["quality_val/q2"]]
    assert common_departures(both, known) == {"best": ["label.threshold=[0.4,0.4,0.4]"]}


def test_no_two_published_labellings_have_one_name() -> None:
    """Of MAL's in results/published: on one data set and profile one name, one way to label and to train."""
    known = by_address(finished(PUBLISHED))
    ways: dict[tuple[str, str, str | None], set[str]] = {}
    for record in known.values():
        if record["stage"] in ("quality_val", "ap_val") and "recipe" in record["columns"]:
            queue = [record]
            for one in queue:
                queue += [known[name] for name in one["inputs"].values() if name in known]
            labels = next(one for one in queue if one["stage"] in ("label_val", "label_train"))
            if "label" not in labels["config"]:  # of other methods columns tell rows apart, not recipes' settings
                continue
            whole = {key: value for key, value in FORMER.items() if key.startswith("label.")}
            whole |= dict(flatten({"label": labels["config"]["label"]}))
            columns = record["columns"]
            name = columns["profile"], columns["data"], recipe_name(record, known)
            ways.setdefault(name, set()).add(json.dumps(whole, sort_keys=True))
    assert len(ways) > 10
    assert {name: found for name, found in ways.items() if len(found) > 1} == {}
    old = [r for r in known.values() if r["stage"] == "quality_val" and r["columns"]["data"] == "coco_mini"]
    assert {"label.threshold": [0.4, 0.4, 0.4], "label.antialias": True} in [departures(r, known) for r in old]
