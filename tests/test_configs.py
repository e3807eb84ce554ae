"""The menu of experiments/conf: every file composes with every profile, and what makes no sense is refused by name."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from mal.config import Config
from mal.config_checks import check
from mal.errors import ConfigError
from mal.segmenters import SEGMENTERS
from mal.segmenters.config_checks import check as check_segmenter

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
PROFILES = ("smoke", "demo", "mini", "paper")
GROUPS = ("data", "encoder", "decoder", "labeler", "recipe", "segmenter", "labeler_data", "tracking", "experiment")
MENU = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}


def compose_config(*overrides: str, folder: Path = CONF, name: str = "config") -> Config:
    """What experiments/run.py makes of a command line."""
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(folder), version_base="1.3"):
        return OmegaConf.to_object(compose(name, list(overrides)))


@pytest.fixture(scope="module")
def demo() -> Config:
    return compose_config()


def changed(config: Config, **settings: object) -> Config:
    """A copy with other values at dotted keys (composing takes half a second, this does not)."""
    copy = OmegaConf.structured(config)
    for key, value in settings.items():
        OmegaConf.update(copy, key, value)
    return OmegaConf.to_object(copy)


NEEDS = {  # what an entry cannot do without
    "encoder=timm": "encoder.name=resnet18",
    "labeler=file": "labeler.file=train.json labeler.val_file=val.json",
    "labeler=none": "clustering.enabled=true",
}


def of_menu(group: str, place: int) -> str:
    """The overrides that choose a group's entry; place counts round and round."""
    chosen = f"{group}={MENU[group][place % len(MENU[group])]}"
    return f"{chosen} {NEEDS.get(chosen, '')}"


def crossings() -> Iterator[Any]:
    """Every entry with every profile; the quick tests take one profile for each entry."""
    for place in range(max(map(len, MENU.values()))):
        for profile in PROFILES:
            quick = profile == PROFILES[place % len(PROFILES)]
            yield pytest.param(profile, place, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("profile", "place"), list(crossings()))
def test_every_entry_of_every_group_composes_with_every_profile(profile, place):
    overrides = [part for group in GROUPS for part in of_menu(group, place).split()]
    config = compose_config(f"profile={profile}", *overrides)
    chosen = dict(override.split("=", 1) for override in overrides)
    assert (config.profile, config.recipe, config.experiment) == (profile, chosen["recipe"], chosen["experiment"])
    for group in ("data", "encoder", "decoder", "labeler", "segmenter"):
        assert getattr(config, group).name == chosen.get(f"{group}.name", chosen[group])
    assert config.segmenter.backend == SEGMENTERS.get(config.segmenter.name, "none")
    check_segmenter(config.segmenter)
    check(config)


def test_the_menu_has_every_name_of_the_paper():
    assert set(PROFILES) == {path.stem for path in (CONF / "profile").glob("*.yaml")}
    assert {"convnext_b", "swin_b", "deit_s", "deit_b", "mae_b", "mae_l"} <= set(MENU["encoder"])
    assert set(MENU["decoder"]) == {"attention", "fc", "fcn", "query"}
    assert set(MENU["labeler"]) == {
        "mal",
        "attentionshift",
        "bestie",
        "simformer",
        "partialres",
        "box",
        "ellipse",
        "grabcut",
        "disc",
        "gt",
        "file",
        "sam",
        "none",
    }
    assert {"paper", "released"} <= set(MENU["recipe"])
    assert set(MENU["segmenter"]) == {*SEGMENTERS, "none"}
    tables = {"tab1_coco", "tab2_lvis", "tab3_decoder", "tab4_encoder", "tab5_theta", "tab6_clustering"}
    figures = {"fig4", "fig5", "fig6", "fig7", "fig8"}
    others = {"baselines", "sensitivity", "rules", "threshold"}
    assert set(MENU["experiment"]) == {*tables, "tab7_detection", *figures, *others}


@pytest.mark.parametrize("name", [name for name in MENU["encoder"] if name != "timm"])
def test_every_encoder_is_a_model_of_timms_with_the_weights_its_tag_names(name):
    model, _, tag = OmegaConf.load(CONF / "encoder" / f"{name}.yaml").timm.partition(".")
    assert timm.is_model(model)
    assert not tag or timm.get_pretrained_cfg(f"{model}.{tag}").has_weights


def test_any_timm_model_must_be_named():
    with pytest.raises(MissingMandatoryValue, match=r"encoder\.name"):
        compose_config("encoder=timm")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("nokey=1", "nokey"),
        ("train.nokey=1", r"train\.nokey"),
        ("train.batch=many", r"train\.batch"),
        ("roi.theta=[1,2]", r"roi\.theta"),
        ("label.flip=perhaps", r"label\.flip"),
        ("seed=1.5", "seed"),
        ("segmenter.scale.nokey=1", r"segmenter\.scale\.nokey"),
    ],
)
def test_unknown_keys_and_wrong_types_fail_at_composition(override, named):
    with pytest.raises(ConfigCompositionException, match=named):
        compose_config(override)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("encoder.timm", "resnet19", "encoder.timm=resnet19 is no model of timm's; did you mean resnet18"),
        ("roi.size", 5, "roi.size=5"),
        ("roi.theta", -0.1, "roi.theta=-0.1"),
        ("roi.border", "mirror", "roi.border=mirror is unknown; choose one of wrap"),
        ("labeler.name", "boxes", "labeler.name=boxes"),
        ("loss.stride", 7, "loss.stride=7"),
        ("crf.kernel", 4, "crf.kernel=4"),
        ("crf.zeta", 0, "crf.zeta=0"),
        ("crf.zeta", float("nan"), "crf.zeta=nan"),
        ("label.threshold", [0.5], "label.threshold=[0.5]"),
        ("label.threshold", [0.5, 0.5, 1], "label.threshold=[0.5, 0.5, 1.0]"),
        ("decoder.strides", [8], "decoder.strides=[8]"),
        ("decoder.strides", [0, 0, 0], "decoder.strides=[0, 0, 0]"),
        ("decoder.width", 0, "decoder.width=0"),
        ("encoder.width", 0, "encoder.width=0"),
        ("encoder.mean", [0.5], "encoder.mean=[0.5] must be 3 numbers"),
        ("augment.jitter", [0.4], "augment.jitter=[0.4] must be 4 numbers"),
        ("augment.blur_sigma", [0, 0], "augment.blur_sigma=[0.0, 0.0]"),
        ("train.betas", [0.9], "train.betas=[0.9]"),
        ("train.betas", [0.9, 2], "train.betas=[0.9, 2.0]"),
        ("train.eps", -1, "train.eps=-1"),
        ("train.weight_decay", -1, "train.weight_decay=-1"),
        ("train.stop_after", 0, "train.stop_after=0"),
        ("roi.max_area", 10, "roi.max_area=10 must exceed roi.min_area="),
        ("train.accumulate", 5, "train.accumulate=5"),
        ("train.epochs", 3, "train.epochs and train.steps"),
        ("train.steps", None, "train.epochs and train.steps"),
        ("train.steps", 0, "train.steps=0"),
        ("compare", ["box", "sphere"], "compare names sphere"),
        ("compare", ["box", "file"], "labeler.val_file=FILE"),
        ("labeler.name", "file", "labeler.file=FILE"),
        ("decoder.query.combine", "vote", "decoder.query.combine=vote"),
        ("decoder.fc.side", 0, "decoder.fc.side=0"),
        ("data.format", "voc", "data.format=voc"),
        ("segmenter.scale.flip", 2, "segmenter.scale.flip=2"),
        ("segmenter.optimizer.betas", [2, 2], "segmenter.optimizer.betas=[2.0, 2.0]"),
        ("segmenter.optimizer.name", "lion", "segmenter.optimizer.name=lion"),
        ("segmenter.schedule.epochs", 5, "segmenter.schedule.epochs and segmenter.schedule.steps"),
        ("segmenter.pyramid.widths", [8], "segmenter.pyramid.widths=[8]"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(demo, key, value, named):
    config = changed(demo, **{key: value})
    with pytest.raises(ConfigError, match=re.escape(named)):
        (check_segmenter(config.segmenter), check(config))


# docs/method/mal.md's tables; where the paper says nothing, its recipe has the released program's value
SHARED = {
    "roi.theta": 1.2,
    "roi.label_expansion": 0.3,
    "roi.border": "wrap",
    "roi.flip": 0.5,
    "roi.min_side": 2,
    "roi.max_area": 1e10,
    "augment.jitter": [0.4, 0.4, 0.2, 0.1],
    "augment.jitter_p": 0.5,
    "augment.grey_p": 0.2,
    "augment.blur_p": 0.5,
    "encoder.levels": None,
    "encoder.fuse": False,
    "decoder.name": "attention",
    "decoder.key_gain": 1.0,
    "decoder.width": 256,
    "decoder.scale": "released",
    "decoder.strides": None,
    "loss.mil_weight": 4,
    "loss.crf_weight": 0.5,
    "crf.form": "two_label",
    "crf.kernel": 3,
    "crf.dilation": 1,
    "crf.iterations": 100,
    "crf.image": "student",
    "train.betas": [0.9, 0.9],
    "train.eps": 1e-8,
    "train.weight_decay": 5e-4,
    "train.final_lr": 0.2,
    "train.ema": 0.996,
    "label.network": "student",
    "label.flip": False,
    "label.threshold": [0.1, 0.1, 0.1],
}
OWN = {
    "paper": {
        "roi.expansion": "paper",
        "decoder.pool": "max",
        "decoder.key_layers": 1,
        "decoder.upsample_before": 3,
        "loss.mil": "joint",
        "loss.smooth": 0,
        "crf.zeta": 0.5,
        "crf.omega": 2,
        "crf.centre": False,
    },
    "released": {
        "roi.expansion": "released",
        "decoder.pool": "mean",
        "decoder.key_layers": 2,
        "decoder.upsample_before": 4,
        "loss.mil": "separate",
        "loss.smooth": 0.001,
        "crf.zeta": 0.1,
        "crf.omega": 1,
        "crf.centre": True,
    },
}
SCALE = {  # [scale] rows, which belong to the profile
    "roi.size": 512,
    "roi.min_area": 2048,
    "augment.blur_sigma": [0.1, 2],
    "loss.stride": 4,
    "loss.mil_warmup": 0.01,
    "loss.crf_warmup": 0.03,
    "train.batch": 32,
    "train.epochs": 10,
    "train.steps": None,
    "train.lr_per_image": 1.5e-6,
    "train.warmup": 0.1,
}


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_recipes_have_the_published_values_at_the_papers_scale(recipe):
    config = OmegaConf.structured(compose_config("profile=paper", f"recipe={recipe}"))
    expected = SHARED | OWN[recipe] | SCALE
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


@pytest.mark.parametrize("profile", ["smoke", "demo", "mini"])
def test_the_small_profiles_change_nothing_of_the_method_but_the_decoders_size_and_the_teachers_lag(profile):
    config = OmegaConf.structured(compose_config(f"profile={profile}", "recipe=paper"))
    expected = {
        k: v for k, v in (SHARED | OWN["paper"]).items() if k not in ("decoder.width", "decoder.strides", "train.ema")
    }
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


def test_a_profile_may_choose_a_recipe_and_the_command_line_has_the_last_word():
    assert compose_config("profile=mini").recipe == "best"
    assert compose_config("profile=paper").recipe == "paper"
    assert compose_config("recipe=released", "profile=mini").recipe == "released"


def test_the_defaults_are_the_demo_on_shapes(demo):
    assert (demo.profile, demo.data.name, demo.encoder.name) == ("demo", "shapes", "vit_nano")
    assert demo == compose_config("profile=demo")


def test_baselines_sweeps_the_labelers_by_itself():
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("config", ["experiment=baselines"], return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    assert hydra.sweeper.params == {"labeler": "mal,box,ellipse"}


LOCAL = "defaults: [config, override profile: mini, override data: coco, _self_]\ndata: {root: /photographs}\n"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A copy of the menu with a user's local.yaml, as README.md describes it."""
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    (folder / "local.yaml").write_text(LOCAL)
    return folder


def test_a_users_own_defaults_replace_ours_and_yield_to_the_command_line(local):
    config = compose_config(folder=local, name="local")
    assert (config.profile, config.recipe) == ("mini", "best")
    assert (config.data.name, config.data.root) == ("coco", "/photographs")
    config = compose_config("profile=paper", "recipe=released", "data.root=elsewhere", folder=local, name="local")
    assert (config.profile, config.recipe, config.data.root) == ("paper", "released", "elsewhere")


def test_a_mistake_in_a_users_own_defaults_is_named(local):
    (local / "local.yaml").write_text(LOCAL + "trian: {steps: 5}\n")
    with pytest.raises(ConfigCompositionException, match="trian"):
        compose_config(folder=local, name="local")


@pytest.mark.slow
def test_the_command_reads_local_yaml(tmp_path, local):
    shutil.copy(CONF.parent / "run.py", tmp_path)
    (local / "local.yaml").write_text("defaults: [config, override profile: smoke, _self_]\nseed: 7\n")
    command = [sys.executable, str(tmp_path / "run.py"), "tracking=none", "dry_run=true", f"store={tmp_path / 'runs'}"]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parents[1])}
    said = {}
    for more in ((), ("seed=7", "profile=smoke"), ("seed=8",), ("roi.theta=11",)):
        done = subprocess.run([*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True)
        said[more] = (done.returncode, done.stdout, done.stderr)
    assert said[()] == said["seed=7", "profile=smoke"]
    assert said[()][0] == 0
    assert "train_labeler" in said[()][1]
    assert said["seed=8",][1] != said[()][1]
    code, _, error = said["roi.theta=11",]
    assert code != 0
    assert "roi.theta=11.0 is out of range" in error
