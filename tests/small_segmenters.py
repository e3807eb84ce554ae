"""The menu's segmenters from scratch, on images of 64 pixels, as small as they get."""

from mal.segmenters.config import SegmenterConfig
from tests.test_segmenter import composed

ON_64 = (
    "scale.short_sides=[64]",
    "scale.test_short_side=64",
    "schedule.batch=2",
    "schedule.epochs=null",
    "schedule.steps=3",
    "schedule.warmup=0",
    "running.log_steps=1",
)
PYRAMID = ("pyramid.widths=[16,16,24,24]", "pyramid.channels=16")
R_CNN = (*PYRAMID, "heads.box_width=32", "heads.mask_widths=[16]")
SMALL = {
    "mask_rcnn_tiny": R_CNN,
    "cascade_tiny": (*R_CNN, "cascade.box_convs=[16]"),
    "solov2_tiny": (*PYRAMID, "grid.cells=[8,6,5,4,3]", "grid.width=16", "grid.mask_width=16", "grid.kernel=16"),
    "mask2former_tiny": (
        "pyramid.stem=[8]",
        "pyramid.widths=[8,8,16,16]",
        "queries.count=6",
        "queries.width=32",
        "queries.layers=2",
        "queries.feed_forward=32",
        "queries.pixel_feed_forward=32",
        "queries.points=64",
    ),
}
PROPOSALS = ("pyramid.fpn_start=xavier", "proposals.box_beta=0", "proposals.exact_anchors=true")
HEADS = ("heads.start=mmdetection", "heads.samples=0", "heads.mask_targets=binary")
AS_PUBLISHED = {  # the settings in which the configs of the paper differ from the tiny ones
    "mask_rcnn_tiny as published": (*PROPOSALS, *HEADS, "heads.box_beta=0"),
    "cascade_tiny as published": (*PROPOSALS, *HEADS, "cascade.box_per_class=true"),
    "solov2_tiny as published": ("pyramid.fpn_start=xavier", "grid.mask_targets=binary"),
}


def small(name: str, *overrides: str) -> SegmenterConfig:
    return composed(name, *ON_64, *SMALL[name], *overrides)
