"""Every segmenter trains and predicts in bf16 and fp16 as it does in fp32, but for rounding."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from mal import segmenters
from mal.errors import ConfigError
from mal.segmenters import inference, loop, training
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.precision import lower_precision
from tests.small_segmenters import AS_PUBLISHED, SMALL, small
from tests.test_segmenter import CPU, composed, make_dataset, same, training_set

WITHIN = {"bf16": 0.02, "fp16": 0.02}  # of fp32's: losses of three steps, relative, and scores on average
FLIPPED = {"mask2former_tiny": 0.05}  # a score: a query looks at pixels above a threshold, of which one may flip
# Every anchor becomes a proposal and every proposal is learned from: what is chosen and drawn hangs on roundings.
ALL_DRAWN = (
    "proposals.anchors=[[24],[40],[64],[90],[120]]",
    "proposals.ratios=[1]",
    "proposals.nms=1",
    "proposals.before_nms=[65536,100]",
    "proposals.after_nms=[65536,100]",
    "proposals.sampled=65536",
    "heads.sampled=65536",
    "heads.positive=1",
)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four images of 64 pixels with two ellipses each."""
    data = make_dataset(tmp_path_factory.mktemp("precision") / "data", images=4)
    return {"annotations": data / "annotations.json", "images": data / "images"}


def train(where: dict[str, Path], folder: Path, config: SegmenterConfig) -> None:
    training.train(**where, config=config, seed=0, folder=folder, device=CPU)


def predict(where: dict[str, Path], folder: Path, config: SegmenterConfig) -> list[dict[str, Any]]:
    checkpoint = folder / "segmenter.pt"
    return inference.predict(checkpoint=checkpoint, **where, config=config, device=CPU)


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "curves.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [*SMALL, *AS_PUBLISHED])
def test_three_steps_and_predictions_are_those_of_fp32_but_for_rounding(
    name: str, where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From torch's own scale of 2¹⁶ the first steps may be skipped, and then the later losses are another network's.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=16.0))
    everything = ("test.score=0", "test.decayed_score=0", "test.max_detections=20")
    everything += ALL_DRAWN if name.startswith(("mask_rcnn", "cascade")) else ()
    losses, scores = {}, {}
    for precision in ("fp32", "bf16", "fp16"):
        config = small(name.split()[0], f"precision={precision}", *everything, *AS_PUBLISHED.get(name, ()))
        train(where, tmp_path / precision, config)
        losses[precision] = curve(tmp_path / precision)
        found = predict(where, tmp_path / "fp32", config)
        scores[precision] = [
            sorted(result["score"] for result in found if result["image_id"] == image) for image in (10, 11, 12, 13)
        ]
    assert all(len(of_image) > 0 for of_image in scores["fp32"])
    for precision, bound in WITHIN.items():
        assert len(losses[precision]) == 3
        assert losses[precision] != losses["fp32"]
        np.testing.assert_allclose(losses[precision], losses["fp32"], rtol=bound)
        for mine, exact in zip(scores[precision], scores["fp32"], strict=True):
            np.testing.assert_allclose(mine, exact, atol=FLIPPED.get(name, bound))
            assert np.abs(np.subtract(mine, exact)).mean() < bound


class Outside(TorchFunctionMode):
    """Notes the types that every function of torch gives inside and outside of some modules."""

    def __init__(self, parts: list[torch.nn.Module]) -> None:
        super().__init__()
        self.depth = 0
        self.dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}  # inside a part or not
        for part in parts:
            part.register_forward_pre_hook(lambda *_: self.moved(1))
            part.register_forward_hook(lambda *_: self.moved(-1))

    def moved(self, by: int) -> None:
        self.depth += by

    def __torch_function__(self, function: Any, _types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.dtypes[self.depth > 0].add(result.dtype)
            assert self.depth > 0 or not torch.is_autocast_enabled("cpu")
        return result


@pytest.mark.parametrize("name", SMALL)
def test_autocast_surrounds_the_networks_and_nothing_else(name: str, where: dict[str, Path]) -> None:
    """Boxes, targets, matching and losses are computed from float32, in float32."""
    config = small(name)
    network = segmenters.find(config)
    model, parts = network.build(config, classes=2), network.lowered_parts(config)
    lower_precision(model, parts, dtype=torch.bfloat16, device=CPU)
    samples = training_set(where["annotations"].parent)
    with Outside([model.get_submodule(part) for part in parts]) as seen:
        losses = network.losses(model.train(), [samples[0, 0], samples[0, 1]])
    assert torch.bfloat16 in seen.dtypes[True]
    assert seen.dtypes[False] == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_fp16_skips_a_step_whose_gradients_overflow_and_resumes_to_the_bit(
    where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**40))
    config = small("cascade_tiny", "precision=fp16", "schedule.steps=6", "running.checkpoint_steps=2")
    train(where, tmp_path / "whole", config)
    real, scales = loop._step, []

    def dies_in_the_third(run: loop.Run, *rest: Any, **named: Any) -> None:
        before = [weight.clone() for weight in run.model.parameters()]
        real(run, *rest, **named)
        scales.append(run.trainer.scaler.get_scale())
        assert all(map(torch.equal, before, run.model.parameters()))  # every step is skipped
        if run.trainer.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_step", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(where, tmp_path / "cut", config)
    assert scales == [2.0**39, 2.0**38, 2.0**37]
    kept = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)
    assert kept["scaler"]["scale"] == 2.0**38
    monkeypatch.setattr(loop, "_step", real)
    train(where, tmp_path / "cut", config)
    first, second = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("whole", "cut"))
    assert same(first, second)
    assert curve(tmp_path / "whole") == curve(tmp_path / "cut")


def test_fp16_learns_and_resumes_to_the_bit_where_no_step_is_skipped(
    where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = ("heads.start=mmdetection", "schedule.steps=4")  # from mask losses that are far from their least
    config = small("mask_rcnn_tiny", "precision=fp16", *falling, "running.checkpoint_steps=2")
    train(where, tmp_path / "whole", config)
    assert curve(tmp_path / "whole")[-1] < 0.95 * curve(tmp_path / "whole")[0]
    real = loop._step

    def dies(run: loop.Run, *rest: Any, **named: Any) -> None:
        if run.trainer.step == 3:
            raise KeyboardInterrupt
        real(run, *rest, **named)

    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(where, tmp_path / "cut", config)
    monkeypatch.undo()
    train(where, tmp_path / "cut", config)
    first, second = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("whole", "cut"))
    assert same(first, second)


def test_only_fp16_keeps_a_scale(where: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("mask_rcnn_tiny", "running.checkpoint_steps=2")

    def dies(run: loop.Run, *_: Any, **__: Any) -> None:
        if run.trainer.step == 2:
            raise KeyboardInterrupt
        run.trainer.add({"loss": torch.zeros(())}, about=[])

    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(where, tmp_path, config)
    assert "scaler" not in torch.load(tmp_path / "checkpoint.pt", weights_only=True)


def test_detectron2_refuses_fp16_and_unknown_types_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"use segmenter\.precision=bf16 or fp32, or the backend"):
        check(composed("mask_rcnn_tiny", "backend=detectron2", "precision=fp16"))
    check(composed("mask_rcnn_tiny", "backend=detectron2", "precision=bf16"))
    with pytest.raises(ConfigError, match="choose one of auto, fp32, bf16, fp16"):
        check(composed("mask_rcnn_tiny", "precision=half"))
