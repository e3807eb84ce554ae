"""The menu of experiments/conf: every file composes with every profile, and what makes no sense is refused by name."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import timm
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from mal.config import EXPERIMENTS_BUILT, Config, check
from mal.errors import ConfigError, NotBuiltYet
from mal.labelers import BUILT as BUILT_LABELERS
from mal.run import run
from mal.segmenters import BUILT as BUILT_SEGMENTERS
from mal.segmenters import SEGMENTERS
from mal.segmenters.config import check as check_segmenter

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
PROFILES = ("smoke", "demo", "mini", "paper")
GROUPS = ("data", "encoder", "decoder", "labeler", "recipe", "segmenter", "tracking", "experiment")
MENU = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
Compose = Callable[..., Config]


@contextmanager
def composer(folder: Path, name: str = "config") -> Iterator[Compose]:
    """Composes as experiments/run.py does: overrides in, checked dataclasses out."""
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(folder), version_base="1.3"):
        yield lambda *overrides: OmegaConf.to_object(compose(name, list(overrides)))


@pytest.fixture(scope="module")
def composed() -> Iterator[Compose]:
    with composer(CONF) as ready:
        yield ready


def of_menu(group: str, place: int) -> str:
    """The override that chooses a group's entry; place counts round and round."""
    name = MENU[group][place % len(MENU[group])]
    return f"{group}={name}" + (" encoder.timm=resnet18" if name == "timm" else "")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("place", range(max(map(len, MENU.values()))))
def test_every_entry_of_every_group_composes_with_every_profile(composed, profile, place):
    overrides = [part for group in GROUPS for part in of_menu(group, place).split()]
    config = composed(f"profile={profile}", *overrides)
    if config.experiment not in EXPERIMENTS_BUILT:
        config.experiment = None  # refused by name: see below
    check(config)
    check_segmenter(config.segmenter)
    chosen = dict(override.split("=", 1) for override in overrides)
    assert config.profile == profile
    assert config.recipe == chosen["recipe"]
    for group in ("data", "encoder", "decoder", "labeler", "segmenter"):
        assert getattr(config, group).name == chosen[group]


def test_the_menu_has_every_name_of_the_paper():
    assert set(PROFILES) == {path.stem for path in (CONF / "profile").glob("*.yaml")}
    assert {"convnext_b", "swin_b", "deit_s", "deit_b", "mae_b", "mae_l"} <= set(MENU["encoder"])
    assert set(MENU["decoder"]) == {"attention", "fc", "fcn", "query"}
    assert set(MENU["labeler"]) == {"mal", "box", "ellipse", "grabcut", "gt", "file", "sam"}
    assert {"paper", "released"} <= set(MENU["recipe"])
    assert set(MENU["segmenter"]) == {*SEGMENTERS, "none"}
    tables = {"tab1_coco", "tab2_lvis", "tab3_decoder", "tab4_encoder", "tab5_theta", "tab6_clustering"}
    figures = {"fig4", "fig5", "fig6", "fig7", "fig8"}
    assert set(MENU["experiment"]) == {*tables, "tab7_detection", *figures, "baselines"}


@pytest.mark.parametrize("name", [name for name in MENU["encoder"] if name != "timm"])
def test_every_encoder_is_a_model_of_timms_with_the_weights_its_tag_names(composed, name):
    encoder = composed(f"encoder={name}").encoder
    assert timm.is_model(encoder.timm.split(".")[0])
    if "." in encoder.timm:
        assert timm.get_pretrained_cfg(encoder.timm).has_weights


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
def test_every_segmenter_names_its_backend(composed, name):
    assert composed(f"segmenter={name}").segmenter.backend == SEGMENTERS[name]


def test_any_timm_model_must_be_named(composed):
    with pytest.raises(MissingMandatoryValue, match=r"encoder\.timm"):
        composed("encoder=timm")


NOT_BUILT = [
    *(f"experiment={name}" for name in MENU["experiment"] if name not in EXPERIMENTS_BUILT),
    *(f"decoder={name}" for name in MENU["decoder"] if name != "attention"),
    *(f"labeler={name}" for name in MENU["labeler"] if name not in BUILT_LABELERS),
    *(f"segmenter={name}" for name in MENU["segmenter"] if name not in (*BUILT_SEGMENTERS, "none")),
]


@pytest.mark.parametrize("choice", NOT_BUILT)
def test_what_the_paper_has_and_we_have_not_is_refused_before_any_work(composed, choice, tmp_path):
    config = composed("profile=smoke", "tracking=none", f"store={tmp_path / 'runs'}", choice)
    with pytest.raises(NotBuiltYet, match=f"{choice}.* is not built yet"):
        run(config)
    assert not list(tmp_path.rglob("run.json"))


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
def test_unknown_keys_and_wrong_types_fail_at_composition(composed, override, named):
    with pytest.raises(ConfigCompositionException, match=named):
        composed(override)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ("roi.size=5", "roi.size=5"),
        ("roi.theta=-.1", "roi.theta=-0.1"),
        ("roi.border=mirror", "roi.border=mirror is unknown; choose one of wrap"),
        ("labeler.name=boxes", "labeler.name=boxes"),
        ("loss.stride=7", "loss.stride=7"),
        ("crf.kernel=4", "crf.kernel=4"),
        ("crf.zeta=0", "crf.zeta=0"),
        ("crf.zeta=.nan", "crf.zeta=nan"),
        ("label.threshold=[.5]", "label.threshold"),
        ("label.threshold=[.5,.5,1]", "label.threshold"),
        ("decoder.strides=[8]", "decoder.strides"),
        ("train.accumulate=5", "train.accumulate=5"),
        ("train.epochs=3", "train.epochs and train.steps"),
        ("train.steps=null", "train.epochs and train.steps"),
        ("train.steps=0", "train.steps=0"),
        ("compare=[box,sphere]", "sphere"),
        ("data.format=voc", "data.format=voc"),
        ("segmenter.scale.flip=2", "segmenter.scale.flip=2"),
        ("segmenter.optimizer.name=lion", "segmenter.optimizer.name=lion"),
        ("segmenter.schedule.steps=5", "segmenter.schedule.steps"),
        ("segmenter.proposals.anchors=[8]", "segmenter.proposals.anchors"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(composed, overrides, named):
    config = composed(*overrides.split())
    with pytest.raises(ConfigError, match=named.replace("[", r"\[")):
        (check_segmenter(config.segmenter), check(config))


# MAL.md's tables; where the paper says nothing, its recipe has the released program's value
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
    "decoder.name": "attention",
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
def test_recipes_have_the_published_values_at_the_papers_scale(composed, recipe):
    config = OmegaConf.structured(composed("profile=paper", f"recipe={recipe}"))
    expected = SHARED | OWN[recipe] | SCALE
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


@pytest.mark.parametrize(("profile", "recipe"), product(PROFILES, ["paper", "released"]))
def test_a_profile_changes_nothing_of_the_method_that_a_recipe_fixes(composed, profile, recipe):
    config = OmegaConf.structured(composed(f"profile={profile}", f"recipe={recipe}"))
    expected = {k: v for k, v in (SHARED | OWN[recipe]).items() if k not in ("decoder.width", "decoder.strides")}
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


def test_a_profile_may_choose_a_recipe_and_the_command_line_has_the_last_word(composed):
    assert composed("profile=demo").recipe == "best"
    assert composed("profile=paper").recipe == "paper"
    assert composed("recipe=released", "profile=mini").recipe == "released"


def test_the_defaults_are_the_demo_on_shapes(composed):
    config = composed()
    assert (config.profile, config.data.name, config.encoder.name) == ("demo", "shapes", "vit_nano")
    assert config == composed("profile=demo")


def test_baselines_sweeps_the_labelers_by_itself():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("config", ["experiment=baselines"], return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    assert hydra.sweeper.params == {"labeler": "mal,box,ellipse"}


LOCAL = "defaults: [config, override profile: mini, _self_]\n\ndata: {root: photographs}\n"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A copy of the menu with a user's local.yaml."""
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder, ignore=shutil.ignore_patterns("local.yaml"))
    (folder / "local.yaml").write_text(LOCAL)
    return folder


def test_a_users_own_defaults_replace_ours_and_yield_to_the_command_line(local):
    with composer(local, "local") as composed:
        config = composed()
        assert (config.profile, config.recipe, config.data.root) == ("mini", "best", "photographs")
        assert config.roi == composed("profile=mini").roi
        config = composed("profile=paper", "recipe=released", "data.root=elsewhere")
        assert (config.profile, config.recipe, config.data.root) == ("paper", "released", "elsewhere")


def test_a_mistake_in_a_users_own_defaults_is_named(local):
    (local / "local.yaml").write_text(LOCAL + "trian: {steps: 5}\n")
    with composer(local, "local") as composed, pytest.raises(ConfigCompositionException, match="trian"):
        composed()


@pytest.mark.slow
def test_the_command_reads_local_yaml_and_composes_nothing_twice(tmp_path, local):
    shutil.copy(CONF.parent / "run.py", tmp_path)
    (local / "local.yaml").write_text(LOCAL.replace("mini", "smoke").replace("data: {root: photographs}", "seed: 7"))
    command = [sys.executable, str(tmp_path / "run.py"), "tracking=none", "dry_run=true", f"store={tmp_path / 'runs'}"]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parents[1])}
    said = {}
    for more in ((), ("seed=7", "profile=smoke"), ("seed=8",), ("experiment=tab1_coco",)):
        done = subprocess.run([*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True)
        said[more] = (done.returncode, done.stdout, done.stderr)
    assert said[()] == said["seed=7", "profile=smoke"]
    assert said[()][0] == 0
    assert "train_labeler" in said[()][1]
    assert said["seed=8",][1] != said[()][1]
    code, _, error = said["experiment=tab1_coco",]
    assert code != 0
    assert "experiment=tab1_coco is not built yet; built: baselines" in error
