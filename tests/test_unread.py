"""A setting that a backend does not read is named to whoever sets it; what is said is what the backends read."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mal import segmenters
from mal.config import Config
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.request import Graph
from mal.run_notes import notes_of
from mal.segmenters import config as schema
from mal.segmenters import inference, training
from mal.segmenters.backends import BACKENDS
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.rcnn.detectron2_model import lazy_model
from mal.segmenters.unread import _unread, note, unread
from tests.small_segmenters import small
from tests.test_segmenter import composed, make_dataset

CPU = torch.device("cpu")
PARTS = {
    "": SegmenterConfig,
    "pyramid.": schema.PyramidConfig,
    "proposals.": schema.ProposalConfig,
    "heads.": schema.HeadConfig,
    "cascade.": schema.CascadeConfig,
    "grid.": schema.GridConfig,
    "queries.": schema.QueryConfig,
    "scale.": schema.ScaleConfig,
    "optimizer.": schema.OptimizerConfig,
    "schedule.": schema.ScheduleConfig,
    "test.": schema.TestConfig,
}
WHOLE = {part.rstrip(".") for part in PARTS} | {"name", "backend", "running"}
EVERY = {part + it.name for part, cls in PARTS.items() for it in dataclasses.fields(cls)} - WHOLE
# What the small segmenters here do not read, because of another setting of theirs and not of their backend.
ELSEWHERE = {
    "weights", "human_checkpoint", "class_agnostic",  # the stages'
    "pretrained", "checkpoint",  # a body's from elsewhere; see SCRATCH
    "pyramid.stride_in_1x1", "grid.deform_out", "optimizer.backbone", "optimizer.layer_decay",  # refused otherwise
    "queries.drop_path",  # a Swin's
    "schedule.epochs", "schedule.warmup_start", "optimizer.layers", "optimizer.momentum", "optimizer.betas",
    "schedule.milestones", "schedule.gamma", "schedule.final", "scale.crop_sides", "scale.crop_short_sides",
}  # fmt: skip


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Fills with the settings that are read, copies of whole configs left out."""
    found: set[str] = set()

    def watched(part: str, names: set[str]) -> Callable[[object, str], object]:
        def get(self: object, name: str) -> object:
            if name in names and sys._getframe(1).f_globals.get("__name__") not in ("dataclasses", "copy"):
                found.add(part + name)
            return object.__getattribute__(self, name)

        return get

    for part, cls in PARTS.items():
        names = {it.name for it in dataclasses.fields(cls)}
        monkeypatch.setattr(cls, "__getattribute__", watched(part, names), raising=False)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny", "solov2_tiny", "mask2former_tiny"])
def test_what_is_called_unread_is_not_read_and_all_else_is(tmp_path: Path, reads: set[str], name: str) -> None:
    data, config = make_dataset(tmp_path / "data", images=4), small(name, "schedule.steps=1", "scale.jitter=[]")
    claimed = set(_unread(config))
    where = {"annotations": data / "annotations.json", "images": data / "images", "config": config, "device": CPU}
    reads.clear()
    training.train(**where, seed=0, folder=tmp_path)
    inference.predict(checkpoint=tmp_path / "segmenter.pt", **where)
    found = set(reads)
    assert not found & claimed
    assert EVERY - found - ELSEWHERE <= claimed


@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_tiny"])
def test_what_detectron2s_model_does_not_read_is_called_unread(reads: set[str], name: str) -> None:
    config = small(name, "backend=detectron2")
    claimed = set(_unread(config))
    reads.clear()
    lazy_model(config, classes=2, body={})
    found = set(reads)
    assert not found & claimed
    of_heads = {it for it in EVERY if it.startswith(("proposals.", "heads.", "cascade."))}
    assert of_heads - found == {it for it in claimed if it in of_heads}
    assert set(BACKENDS["detectron2"].does) <= claimed | {"cascade.box_per_class"}


def test_detectron2_does_what_is_said_of_it() -> None:
    """Its model, as its own constructors are called: exact anchors, one box for all classes."""
    model = lazy_model(small("cascade_tiny", "backend=detectron2"), classes=2, body={})
    assert model["proposal_generator"]["anchor_generator"]["offset"] == 0.0
    assert all(predictor["cls_agnostic_bbox_reg"] for predictor in model["roi_heads"]["box_predictors"])


@pytest.mark.parametrize("name", segmenters.SEGMENTERS)
def test_the_menus_segmenters_say_nothing_that_their_own_backend_does_not_read(name: str) -> None:
    assert note(composed(name)) is None


def test_a_small_segmenter_in_detectron2_is_as_it_says() -> None:
    assert note(composed("mask_rcnn_tiny", "backend=detectron2")) is None
    assert note(composed("cascade_tiny", "backend=detectron2")) is None


@pytest.mark.parametrize(
    ("name", "overrides", "instead"),
    [
        ("mask_rcnn_tiny", ["backend=detectron2", "heads.start=torchvision"], {"heads.start": "detectron2"}),
        ("mask_rcnn_tiny", ["backend=detectron2", "pyramid.fpn_start=xavier"], {"pyramid.fpn_start": "kaiming"}),
        ("mask_rcnn_tiny", ["backend=detectron2", "heads.mask_targets=share"], {"heads.mask_targets": "binary"}),
        ("mask_rcnn_tiny", ["backend=detectron2", "proposals.exact_anchors=false"], {"proposals.exact_anchors": True}),
        ("mask_rcnn_tiny", ["backend=detectron2", "cascade.ious=[0.4]"], {"cascade.ious": None}),
        ("cascade_tiny", ["backend=detectron2", "cascade.box_per_class=true"], {"cascade.box_per_class": False}),
        ("cascade_tiny", ["backend=detectron2", "heads.box_beta=0"], {"heads.box_beta": None}),
        ("cascade_tiny", ["heads.box_beta=0"], {"heads.box_beta": None}),
        ("mask_rcnn_tiny", ["test.sigma=1", "grid.width=64"], {"grid.width": None, "test.sigma": None}),
        ("solov2_tiny", ["test.nms=0.7", "heads.start=torchvision"], {"heads.start": None, "test.nms": None}),
        ("mask2former_tiny", ["pyramid.channels=64"], {"pyramid.channels": None}),
        ("mask_rcnn_tiny", ["pyramid.name=resnet101", "pretrained=true"], {"pyramid.name": None, "pretrained": False}),
        ("mask_rcnn_r50", ["pyramid.widths=[8,8,8,8]"], {"pyramid.widths": None}),
    ],
)
def test_a_setting_that_is_not_read_is_named_with_what_is_done(
    name: str, overrides: list[str], instead: dict[str, object]
) -> None:
    config = composed(name, *overrides)
    assert unread(config) == instead
    sentence = note(config)
    assert sentence is not None
    assert all(f"segmenter.{setting}=" in sentence for setting in instead)


def test_a_run_says_it_before_any_work(compose: Callable[..., Config], tmp_path: Path) -> None:
    def notes(*overrides: str) -> list[str]:
        config = compose("data=shapes", f"store={tmp_path}", "segmenter=mask_rcnn_tiny", "compare=[]", *overrides)
        return notes_of(Graph(config, Store(tmp_path), CPU))

    both = ("segmenter.backend=detectron2", "segmenter.heads.start=torchvision")
    assert (
        "segmenter=mask_rcnn_tiny (backend=detectron2, pyramid.kind=tiny) does not read "
        "segmenter.heads.start=torchvision (there it is detectron2)"
    ) in notes(*both)
    assert not [it for it in notes(*both[:1]) + notes(*both[1:]) if "does not read" in it]


def test_an_r_cnn_on_swin_is_refused_instead_of_built_on_a_resnet() -> None:
    with pytest.raises(ConfigError, match=r"kind=swin is Mask2Former's; segmenter=mask_rcnn_r50 runs on resnet"):
        check(composed("mask_rcnn_r50", "pyramid.kind=swin"))
    check(composed("mask2former_swin_s"))
