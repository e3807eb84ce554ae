"""Fixtures every test file may use."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # two processes with two threads each on two cores slow each other down up to fifty-fold

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
