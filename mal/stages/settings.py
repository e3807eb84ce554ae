"""Which settings a stage's key is made of."""

import dataclasses
from typing import Any

from mal.config import Config

Json = dict[str, Any]

# Settings that are newer than some results, and what those results were computed with. A key that means the same as
# before must stay the same, so it does not mention a setting that has this value.
FORMER: Json = {
    "roi.repeats": "background",
    "loss.box_mask": "cell",
    "crf.antialias": True,
    "label.upsample": "direct",
    "label.antialias": True,
    "label.cut": True,
    "segmenter.schedule.aspect_groups": False,
    "segmenter.schedule.repeat_rounding": "random",
    "segmenter.pyramid.fpn_start": "kaiming",
    "segmenter.proposals.box_beta": 1 / 9,
    "segmenter.heads.start": "torchvision",
    "segmenter.heads.box_beta": 1 / 9,
    "segmenter.heads.mask_targets": "share",
    "segmenter.cascade.box_per_class": False,
    "segmenter.grid.mask_targets": "share",
    "segmenter.pyramid.stride_in_1x1": False,
    "segmenter.proposals.exact_anchors": False,
    "segmenter.grid.deform_out": False,
}


def plain(config: Config, *names: str) -> Json:
    """Parts of the config as plain values, to hash: without settings that say what was so before there were any."""
    whole = dataclasses.asdict(config)
    return without_former({name: whole[name] for name in names})


def without_former(settings: Json) -> Json:
    """The same settings, nested, without those of `FORMER` that have its values."""
    for path, value in FORMER.items():
        part, name = _place(settings, path)
        if name in part and part[name] == value:
            del part[name]
    return settings


def without(settings: Json, *paths: str) -> Json:
    """The same settings, nested, without those at the dotted paths, as far as they are there."""
    for path in paths:
        part, name = _place(settings, path)
        part.pop(name, None)
    return settings


def _place(settings: Json, path: str) -> tuple[Json, str]:
    """The part of the settings that holds what a dotted path names (empty where there is none), and its name there."""
    *parents, name = path.split(".")
    part = settings
    for parent in parents:
        part = part.get(parent, {})
    return part, name
