"""Which settings the stages of segmenters read: what the keys of their results are made of; see `backends` too."""

from mal.engine.settings import Json, Reads

PYRAMID = "kind name options stem widths blocks norm stride_in_1x1 frozen_stages map_norm channels fpn_norm mean std"
PROPOSALS = "anchors ratios before_nms after_nms nms sampled"
HEADS = "sampled positive box_cells mask_cells samples aligned box_width mask_widths mask_up_width canonical_side"
CASCADE = "ious weights box_stds box_convs box_weight"
GRID = "cells scales center convs width mask_width kernel dice mask_targets deform_out"
QUERIES = (
    "count width heads pixel_layers pixel_feed_forward layers feed_forward points class_weight mask_weight dice_weight "
    "no_object drop_path"
)
SCALE = "short_sides long_side crop crop_short_sides crop_sides jitter flip"
AT_TEST = "test_short_side test_long_side"

TRAINING: Reads = {  # of a training, whatever the backend; the backbone's checkpoint is a file, known by its content
    "": "name backend pretrained class_agnostic mask_head dcn",
    "scale": SCALE,
    "optimizer": "name lr base_batch backbone momentum betas weight_decay layer_decay layers clip",
    "schedule": (
        "batch epochs steps warmup warmup_start shape milestones gamma final repeat_threshold repeat_rounding "
        "aspect_groups"
    ),
}
PREDICTION: Reads = {
    "test": "score nms max_detections mask_threshold batch before_nms sigma decayed_score",
    "scale": f"{SCALE} {AT_TEST}",
}
PUBLISHED: Reads = {  # of a network that was trained elsewhere
    "": "name backend mask_head dcn",
    "pyramid": PYRAMID,
    "proposals": f"{PROPOSALS} exact_anchors",
    "heads": HEADS,
    "queries": QUERIES,
}
CONVERTED: Reads = {**PUBLISHED, "cascade": f"{CASCADE} box_per_class", "grid": GRID}  # from other programs' layouts
HOW = {  # how the work is done, not what it gives; and what chooses a stage rather than being read by one
    "running.workers",
    "running.checkpoint_seconds",
    "running.checkpoint_steps",
    "running.log_steps",
    "weights",
    "human_checkpoint",
}
FORMER: Json = {
    "schedule.aspect_groups": False,
    "schedule.repeat_rounding": "random",
    "pyramid.fpn_start": "kaiming",
    "proposals.box_beta": 1 / 9,
    "heads.start": "torchvision",
    "heads.box_beta": 1 / 9,
    "heads.mask_targets": "share",
    "cascade.box_per_class": False,
    "grid.mask_targets": "share",
    "pyramid.stride_in_1x1": False,
    "proposals.exact_anchors": False,
    "grid.deform_out": False,
}
