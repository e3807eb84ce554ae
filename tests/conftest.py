"""Fixtures every test file may use."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mal.config import Config
from mal.config_checks import check as check_config
from tests.mirrored_store import database, migrated, server, silent_server, without_mlflow  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from tests.label_calls import Place

# Bits, keys and values are the CPU's, in the commands that tests start too, whether or not there is a GPU. What a GPU
# computes is tested where a test is marked `cuda` and names its device.
os.environ["MAL_DEVICE"] = "cpu"
torch.set_num_threads(1)  # two processes with two threads each on two cores slow each other down up to fifty-fold

hypothesis.settings.register_profile("suite", deadline=None)  # how long an example takes is the machine's business
hypothesis.settings.load_profile("suite")

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sweeps on SLURM first: one process is with them about as long as the other with the rest."""
    items.sort(key=lambda item: item.path.name != "test_slurm.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here: a CUDA device is needed for this test")


@pytest.fixture(scope="session")
def compose() -> Callable[..., Config]:
    """Composes and checks a config from overrides, as experiments/run.py does."""
    ConfigStore.instance().store("schema", Config)

    def build(*overrides: str) -> Config:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = OmegaConf.to_object(hydra_compose("config", overrides=list(overrides)))
        check_config(config)
        return config

    return build


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that lies beside the repository on some machines."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data beside the repository: real photographs are needed for this test")
    return SHARED / "data"


@pytest.fixture(scope="session")
def coco_mini(shared_data: Path) -> Path:
    """343 train and 218 val images of COCO 2017 with their instance annotations."""
    return shared_data / "coco_mini"


@pytest.fixture(scope="session")
def lvis_mini(shared_data: Path) -> Path:
    """64 images of LVIS v0.5 val."""
    return shared_data / "lvis_mini"


@pytest.fixture(scope="session")
def car_parts(shared_data: Path) -> Path:
    """400 train and 100 test images with 18 part classes, as a user's own export looks."""
    return shared_data / "car_parts"


@pytest.fixture(scope="session")
def mobilenet_weights(shared_data: Path) -> Path:
    """ImageNet weights of timm's mobilenetv2_100."""
    return shared_data.parent / "weights" / "mobilenetv2_100_same_in1k.safetensors"


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., Config]) -> "Place":
    """A trained labeler, and images with boxes to label."""
    from tests.label_calls import make_place  # here, for its imports take seconds

    return make_place(tmp_path_factory.mktemp("label"), compose("profile=smoke"))


HOLD = """
import sys, time
from pathlib import Path
from mal.engine.turns import turn
with turn(Path(sys.argv[1]), call=sys.argv[2], out=Path("out")):
    time.sleep(60)
"""


@pytest.fixture
def holding() -> Iterator[Callable[[Path, str], subprocess.Popen[bytes]]]:
    """Starts processes that take a turn (`mal.engine.turns`) in a folder for a call; gives one once it has it."""
    started = []

    def start(folder: Path, call: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), call])
        started.append(process)
        while not (folder / "call-1.json").is_file():
            assert process.poll() is None
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
