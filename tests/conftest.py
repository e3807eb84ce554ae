"""Fixtures every test file may use."""

import os
from collections.abc import Callable
from pathlib import Path

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

# Bits, keys and values are the CPU's, in the commands that tests start too, whether or not there is a GPU. What a GPU
# computes is tested where a test is marked `cuda` and names its device.
os.environ["MAL_DEVICE"] = "cpu"
torch.set_num_threads(1)  # two processes with two threads each on two cores slow each other down up to fifty-fold

hypothesis.settings.register_profile("suite", deadline=None)  # how long an example takes is the machine's business
hypothesis.settings.load_profile("suite")

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
SHARED = Path(__file__).resolve().parents[2] / "shared"


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
