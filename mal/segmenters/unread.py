"""Settings that a segmenter's backend does not read: whoever sets one is told that it changes nothing.

So a config that was written for one backend and is given to another says what it loses, and what `Backend.does` there.
"""

from operator import attrgetter
from typing import Any

from mal.segmenters.backends import BACKENDS, SEGMENTERS
from mal.segmenters.config import SegmenterConfig

OF_BODY = {  # setting → the kinds of backbones that read it
    "pyramid.name": ("resnet", "timm", "swin"),
    "pyramid.options": ("timm",),
    "pyramid.stem": ("tiny",),
    "pyramid.widths": ("tiny",),
    "pyramid.blocks": ("tiny",),
    "pyramid.norm": ("resnet", "timm"),
    "pyramid.frozen_stages": ("resnet", "timm"),
}
SCRATCH = {"pretrained": False, "checkpoint": None}  # a tiny backbone always starts from random weights


def unread(config: SegmenterConfig) -> dict[str, Any]:
    """The settings that do not do what they say.

    Args:
        config: of a segmenter that is trained.

    Returns:
        Setting → what is done there instead, or None where nothing of the kind is done. Settings with the value that
        would be theirs if nobody had set them, or with that of what is done, are not among them.
    """
    does = BACKENDS[config.backend].does
    found: dict[str, Any] = {}
    for setting in _unread(config):
        default = attrgetter(setting)(DEFAULT)
        if attrgetter(setting)(config) != does.get(setting, default):
            found[setting] = does.get(setting)
    if config.pyramid.kind == "tiny":
        found |= {name: value for name, value in SCRATCH.items() if getattr(config, name) != value}
    return found


def note(config: SegmenterConfig) -> str | None:
    """A sentence about them; None where there is none."""
    parts = []
    for setting, instead in unread(config).items():
        value = attrgetter(setting)(config)
        does = "" if instead is None else f" (there it is {_written(instead)})"
        parts.append(f"segmenter.{setting}={_written(value)}{does}")
    if not parts:
        return None
    built = f"segmenter={config.name} (backend={config.backend}, pyramid.kind={config.pyramid.kind})"
    return f"{built} does not read {', '.join(parts)}"


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unread(config: SegmenterConfig) -> list[str]:
    """Every setting that is not read, by the dotted path, in order.

    A segmenter that another backend computes reads what both that and its own backend do.
    """
    own = BACKENDS[SEGMENTERS.get(config.name, config.backend)]
    read = own.read & BACKENDS[config.backend].read
    known = set().union(*(backend.read for backend in BACKENDS.values()))
    of_other_bodies = {setting for setting, kinds in OF_BODY.items() if config.pyramid.kind not in kinds}
    return sorted((known - read) | of_other_bodies)


DEFAULT = SegmenterConfig()
