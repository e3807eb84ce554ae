"""A user's local.yaml as the READMEs write it: every experiment of the menu plans with it, LVIS's too."""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException

from mal.config import Config
from mal.data.sources import ROOTS
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.request import Graph
from slurm.cluster import read_cluster
from slurm.plan import Plan, make_plan
from slurm.rows import compose_rows
from tests import sweeps
from tests.paper_data import coco_and_lvis

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "experiments" / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
FORMER = "defaults: [config, override profile: paper, override data: coco, _self_]\ndata: {root: /data/coco}\n"
MOST = 4  # rows that are planned of an experiment: composing one takes half a second
OTHERS = sorted(str(path.relative_to(CONF / "experiment"))[:-5] for path in (CONF / "experiment").glob("*/*.yaml"))
OF_LVIS = {"tab2_lvis", "fig4"}  # what the paper has of LVIS alone


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_and_lvis(tmp_path_factory.mktemp("coco"))


def written(readme: str) -> str:
    """The local.yaml that a README tells its reader to write."""
    (found,) = re.findall(r"```yaml\n(defaults: \[config, .*?)```", (ROOT / readme).read_text(), re.DOTALL)
    return found


@pytest.fixture
def menu(tmp_path: Path, root: Path) -> Callable[[str], Path]:
    """A copy of the menu with a local.yaml, whose data lies in `root`."""

    def build(text: str) -> Path:
        folder = tmp_path / "conf"
        shutil.copytree(CONF, folder)
        assert "/data/coco" in text
        (folder / "local.yaml").write_text(
            text.replace("/data/coco", str(root)).replace("cluster: mine", "cluster: generic")
        )
        return folder

    return build


def rows(folder: Path, store: Path, arguments: Sequence[str]) -> list[Config]:
    """What the launchers make of a command, of which `-m` is understood; of many rows some."""
    ConfigStore.instance().store("schema", Config)
    arguments = [*arguments, f"store={store}"]
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        sweep = sweeps.load(loader, *arguments, name="local")
        jobs = sweeps.split(loader, sweep, *arguments)
        return compose_rows(loader, sweep, jobs[:: math.ceil(len(jobs) / MOST)])


def plan(found: list[Config]) -> Plan:
    return make_plan(found, read_cluster("generic"))


SLOW = [pytest.param(name, marks=() if name == "tab7_detection" else pytest.mark.slow) for name in EXPERIMENTS]


@pytest.mark.parametrize("experiment", SLOW)
def test_every_experiment_plans_at_the_papers_scale_with_the_local_yaml_of_slurms_readme(
    menu: Callable[[str], Path], tmp_path: Path, experiment: str
) -> None:
    found = rows(menu(written("slurm/README.md")), tmp_path / "runs", [f"experiment={experiment}"])
    assert {row.profile for row in found} == {"paper"}
    data = {row.data.name for row in found}
    assert (
        data == {"lvis"} if experiment in OF_LVIS else data == ({"coco", "lvis"} if "tab7" in experiment else {"coco"})
    )
    assert plan(found).jobs


FIRST = {"attentionshift/tab1", "partialres/tab1", "simformer/tab1"}


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in OTHERS]
)
def test_other_methods_experiments_plan_or_say_which_root_they_lack(
    menu: Callable[[str], Path], tmp_path: Path, experiment: str
) -> None:
    found = rows(menu(written("slurm/README.md")), tmp_path / "runs", [f"experiment={experiment}"])
    if {row.data.name for row in found} == {"coco"}:
        assert plan(found).jobs
        return
    with pytest.raises(ConfigError, match=rf"roots: {{{ROOTS[found[0].data.name]}: FOLDER}} in experiments/conf/local"):
        plan(found)


def test_the_root_that_a_message_names_is_the_menus() -> None:
    text = {
        path.stem: re.search(r"root: \$\{roots\.(\w+)\}", path.read_text()) for path in (CONF / "data").glob("*.yaml")
    }
    assert {name: match[1] for name, match in text.items() if match} == ROOTS


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["fig4", "tab1_coco", "tab2_lvis", "tab7_detection"])
@pytest.mark.parametrize("text", [FORMER, written("README.md")], ids=["former", "readme"])
def test_other_ways_to_write_local_yaml_do_too(
    menu: Callable[[str], Path], tmp_path: Path, experiment: str, text: str
) -> None:
    assert plan(rows(menu(text), tmp_path / "runs", [f"experiment={experiment}"])).jobs


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("data", ["coco", "lvis"])
def test_data_on_the_command_line_works_or_is_answered_with_what_to_write(
    menu: Callable[[str], Path], tmp_path: Path, experiment: str, data: str
) -> None:
    """An experiment whose rows bring their data refuses another; every other takes it."""
    folder, command = menu(written("slurm/README.md")), [f"experiment={experiment}", f"data={data}"]
    if (experiment, data) in {("tab2_lvis", "coco"), ("tab7_detection", "coco"), ("tab7_detection", "lvis")}:
        with pytest.raises(
            CompactHydraException, match=f"but the command says data={data}: .*; leave data= out"
        ) as refused:
            rows(folder, tmp_path / "runs", command)
        if fitting := re.search(r"choose those of it: (row=\S+)", str(refused.value)):
            command.append(fitting[1])
        else:
            command.remove(f"data={data}")
    found = rows(folder, tmp_path / "runs", command)
    assert {row.data.name for row in found} == {"lvis" if experiment == "tab2_lvis" else data}
    assert plan(found).jobs


def test_rows_of_another_data_set_are_named_in_the_refusal(menu: Callable[[str], Path], tmp_path: Path) -> None:
    folder = menu(written("slurm/README.md"))
    with pytest.raises(CompactHydraException) as refused:
        rows(folder, tmp_path, ["experiment=tab7_detection", "data=lvis"])
    assert str(refused.value) == (
        "error: row=coco_convnext_s is of data=coco, but the command says data=lvis: a table's rows bring their own; "
        "leave data= out, or choose those of it: row=lvis_r50,lvis_r101,lvis_x101_32x4d,lvis_x101_64x4d,lvis_r50_dcn,"
        "lvis_r101_dcn"
    )
    with pytest.raises(
        CompactHydraException, match=r"row=lvis_r50 is of segmenter=mask_rcnn_r50, but .*; leave segmenter= out$"
    ):
        rows(folder, tmp_path, ["experiment=tab2_lvis", "segmenter=solov2_r50"])


def test_each_data_set_has_a_root_of_its_own(compose: Callable[..., Config], root: Path, tmp_path: Path) -> None:
    """LVIS elsewhere than COCO; a labeler of COCO still learns from COCO's files."""
    elsewhere = tmp_path / "lvis"
    elsewhere.mkdir()
    for name in ("lvis_v1_train.json", "lvis_v1_val.json", "train2017", "val2017"):
        (elsewhere / name).symlink_to(root / name)
    roots = [f"roots.coco={root}", f"roots.lvis={elsewhere}", "profile=smoke", "labeler_data=coco"]
    graph = Graph(compose("data=lvis", *roots), Store(tmp_path / "runs"), torch.device("cpu"))
    assert graph.context.train.annotations == elsewhere / "lvis_v1_train.json"
    assert graph.context.labeler_train.annotations == root / "annotations" / "instances_train2017.json"
    alone = compose("data=lvis", f"data.root={root}", "labeler_data=coco").data
    assert (alone.root, alone.labeler_train.root) == (str(root), None)
    assert compose("data=lvis", f"roots.coco={root}").data.root == str(root)
    assert compose("data=coco_mini", f"roots.coco={root}").data.root == "../shared/data/coco_mini"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", "local"])
def test_the_command_plans_table_7_as_the_readme_says(
    menu: Callable[[str], Path], tmp_path: Path, launcher: str
) -> None:
    menu(written("slurm/README.md"))
    shutil.copy(ROOT / "experiments" / "run.py", tmp_path)
    command = [sys.executable, str(tmp_path / "run.py"), "-m", "experiment=tab7_detection", "dry_run=true",
               f"store={tmp_path / 'runs'}", f"hydra/launcher={launcher}"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "14 rows: " in done.stdout
    refused = subprocess.run([*command, "data=lvis"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0
    assert refused.stderr.startswith("error: row=coco_convnext_s is of data=coco, but the command says data=lvis")
