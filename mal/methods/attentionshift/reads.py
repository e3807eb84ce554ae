"""Which settings AttentionShift's stages read: what the keys of its results are made of."""

from mal.engine.settings import Reads

# What training reads. Checkpoints are files, known by their content; the precision is that of the device.
TRAINING: Reads = {
    "": "seed",
    "encoder": "name timm pretrained mean std options",
    "attentionshift": {
        "tokens": {
            "": "count blocks patch_mixing begin",
            "stem": "timm stride pretrained frozen mean std options",
        },
        "querying": "alpha gamma place",
        "steps": {
            "rollout": "depth",
            "box": "mode threshold keep",
            "maps": "draws foreground background share rounds",
            "raw_points": "count positive negative erosion",
            "shift": "method threshold erosion prototypes rounds temperature tau outside",
            "parts": "similar inside merge area most",
            "mask_points": ("supervision source fallback mask attention_count attention_positive attention_negative"),
        },
        "detector": {
            "": "width depth heads positions",
            "neck": "strides width",
            "proposals": "anchor ratios before_nms after_nms nms sampled",
            "box": "cells iou sampled positive weight",
            "mask": "grid_train start ignored",
            "mil": "cells width hidden",
        },
        "scale": "short_sides long_side flip multiple position_side",
        "learning": (
            "batch accumulate epochs steps warm_start lr warmup_steps warmup_start milestones gamma betas weight_decay "
            "layer_decay clip snapshots"
        ),
    },
}
# of results older than the setting
FORMER = {"attentionshift.learning.warm_start": 0, "attentionshift.learning.snapshots": 0}
LABELLING: Reads = {
    "": "seed",
    "attentionshift": {
        "labelling": "source map_threshold",
        "scale": "test_short_sides test_long_sides",
        "detector": {"mask": "grid_test", "detection": "mask_threshold"},
    },
}
MAPS: Reads = {"attentionshift": {"scale": "test_short_sides test_long_sides"}}
KEY_POINTS: Reads = {"": "seed", **MAPS}
DETECTION: Reads = {
    "attentionshift": {
        "scale": "test_short_sides test_long_sides test_flip",
        "detector": {"mask": "grid_test", "detection": "score nms max_detections mask_threshold"},
    },
}
LOOKS: Reads = {"": "examples rounds"}  # of `attentionshift.looks`
