"""Processes that read ahead end with the command that started them, however it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CROPS = """
from dataclasses import dataclass
import torch
from mal.engine.loading import load

@dataclass
class Batch:
    pixels: torch.Tensor
    number: torch.Tensor

def make(numbers, room):
    for number in numbers:
        yield Batch(next(room), torch.tensor([number]))

batches = load(make, range(1000), shape=(1, 3, 8, 8), workers=2)
"""
IMAGES = """
from mal.segmenters.reading import read_ahead

class Numbers:
    def __getitem__(self, key):
        return key

batches = read_ahead(Numbers(), ([key] for key in range(1000)), workers=2, pin=False)
"""


@pytest.mark.parametrize("reading", [CROPS, IMAGES], ids=["crops", "images"])
def test_an_error_that_keeps_the_batches_ends_the_command(reading: str) -> None:
    """Python waits at exit for processes that see no SIGTERM: once for ever."""
    script = f"{reading}\nnext(batches)\nraise SystemExit('an error on the way')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().endswith("an error on the way")
