"""The mean field's Triton kernels against the PyTorch code, which is tested against a loop over pixels.

Without a GPU they run in Triton's interpreter, in a process of its own: Triton decides when a kernel is defined.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mal.errors import ConfigError
from mal.methods.mal.config import CrfConfig
from mal.methods.mal.crf import backend, mean_field

ROOT = Path(__file__).resolve().parents[1]
CASES = {  # height, width, and what of the config is not usual
    "within one tile": (16, 20, {}),
    "tiles below one another": (70, 40, {"zeta": 0.5, "omega": 2.0, "centre": False}),
    "tiles side by side": (40, 150, {"zeta": 0.3, "dilation": 2, "iterations": 5}),
    "tiles both ways, wider reach": (70, 140, {"zeta": 0.3, "kernel": 5, "iterations": 3}),
}
SCRIPT = """
import sys
import torch
from mal.methods.mal.crf_triton import two_label
cases = torch.load(sys.argv[1], weights_only=False)
torch.save([two_label(*case[:3], case[3], valid=case[4]) for case in cases], sys.argv[2])
"""


def settings(**changes: object) -> CrfConfig:
    usual = {"form": "two_label", "zeta": 0.1, "omega": 1.0, "kernel": 3, "dilation": 1, "centre": True,
             "iterations": 9, "image": "student"}  # fmt: skip
    return CrfConfig(**(usual | changes))


def scene(height: int, width: int, *, smooth: bool) -> tuple[torch.Tensor, ...]:
    """Soft masks, normalised images, boxes and pixels that count; of two crops."""
    generator = torch.Generator().manual_seed(height)
    masks = torch.rand(2, height, width, generator=generator)
    images = torch.randn(2, 3, height // 8 + 2 if smooth else height, width // 8 + 2 if smooth else width,
                         generator=generator)  # fmt: skip
    images = torch.nn.functional.interpolate(images, size=(height, width), mode="bilinear")
    boxes = torch.zeros(2, height, width, dtype=torch.bool)
    boxes[0, 3:-4, 2:-5] = boxes[1, :, 1:] = True
    return masks, images, boxes, torch.rand(2, height, width, generator=generator) > 0.05


def test_the_kernels_give_the_labels_of_the_reference(tmp_path: Path) -> None:
    prepared, expected = [], []
    for height, width, changes in CASES.values():
        for smooth in (True, False) if height == 16 else (False,):
            masks, images, boxes, valid = scene(height, width, smooth=smooth)
            config = settings(**changes)
            for counted in (valid, None) if height == 16 else (valid,):
                prepared.append((masks, images, boxes.float(), config, counted))
                expected.append(mean_field(masks, images, boxes, config, valid=counted))
    torch.save(prepared, tmp_path / "cases.pt")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "cases.pt"), str(tmp_path / "found.pt")],
        check=True, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    for (_, _, inside, _, _), labels, found in zip(prepared, expected, torch.load(tmp_path / "found.pt"), strict=True):
        assert 0 < labels.sum() < inside.sum()
        # a pixel whose two labels hang even may fall otherwise with another order of additions
        assert ((found & inside.bool()) != labels).float().mean() < 1e-3


@pytest.mark.cuda
@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "noise"])
@pytest.mark.parametrize("case", CASES)
def test_the_compiled_kernels_give_the_labels_of_the_reference(case: str, smooth: bool) -> None:
    height, width, changes = CASES[case]
    masks, images, boxes, valid = scene(height, width, smooth=smooth)
    labels = mean_field(masks, images, boxes, settings(**changes), valid=valid)
    found = mean_field(*(part.cuda() for part in (masks, images, boxes)), settings(**changes), valid=valid.cuda())
    assert (found.cpu() != labels).float().mean() < 1e-3


def test_triton_computes_on_gpus_and_only_the_two_labels() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert backend(settings(), cpu) == "torch"
    assert backend(settings(), gpu) == "triton"
    assert backend(settings(backend="torch"), gpu) == "torch"
    assert backend(settings(form="literal"), gpu) == "torch"
    with pytest.raises(ConfigError, match=r"crf\.backend=triton needs a GPU.*crf\.backend=auto"):
        backend(settings(backend="triton"), cpu)


def test_triton_is_refused_for_the_literal_algorithm(compose) -> None:
    with pytest.raises(ConfigError, match=r"crf\.backend=triton computes crf\.form=two_label alone, not literal"):
        compose("profile=smoke", "crf.backend=triton", "crf.form=literal")
