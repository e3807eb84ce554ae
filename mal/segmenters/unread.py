"""Settings that a segmenter's backend does not read: whoever sets one is told that it changes nothing.

`reads.BACKENDS` keeps such settings out of keys. This lists what more there is, and what a backend does where it lets
nobody choose: so a config that was written for one backend and is given to another says what it loses.
"""

import dataclasses
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from mal.engine.settings import names
from mal.segmenters import SEGMENTERS
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.reads import BACKENDS

PYRAMIDS = ("torchvision", "cascade", "solov2", "detectron2")
READ = {  # setting → the backends that read it
    setting: tuple(backend for backend, read in BACKENDS.items() if setting in names(read))
    for setting in sorted(set().union(*map(names, BACKENDS.values())))
} | {
    "pyramid.options": PYRAMIDS,
    "pyramid.norm": PYRAMIDS,
    "pyramid.frozen_stages": PYRAMIDS,
    "pyramid.map_norm": PYRAMIDS,
    "pyramid.channels": PYRAMIDS,
    "pyramid.fpn_norm": PYRAMIDS,
    "test.nms": ("torchvision", "cascade", "detectron2"),
    "test.before_nms": ("solov2",),
    "test.sigma": ("solov2",),
    "test.decayed_score": ("solov2",),
}
OF_KIND = {  # setting → the backends whose own segmenters read it, where another backend builds them
    "cascade": ("cascade",),
    "heads.box_beta": ("torchvision",),
}
OF_BODY = {  # setting → the kinds of backbones that read it
    "pyramid.name": ("resnet", "timm", "swin"),
    "pyramid.options": ("timm",),
    "pyramid.stem": ("tiny",),
    "pyramid.widths": ("tiny",),
    "pyramid.blocks": ("tiny",),
    "pyramid.norm": ("resnet", "timm"),
    "pyramid.frozen_stages": ("resnet", "timm"),
}
DOES: dict[str, dict[str, Any]] = {  # backend → setting → what it does, whatever is set
    "detectron2": {
        "pyramid.fpn_start": "kaiming",
        "proposals.exact_anchors": True,
        "heads.start": "detectron2",
        "heads.mask_targets": "binary",
        "cascade.box_per_class": False,
    }
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
    does = DOES.get(config.backend, {})
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


def _unread(config: SegmenterConfig) -> Iterator[str]:
    """Every setting that is not read, by the dotted path."""
    own = SEGMENTERS.get(config.name, config.backend)
    named: set[str] = set()
    for table, reader in ((READ, config.backend), (OF_KIND, own), (OF_BODY, config.pyramid.kind)):
        for path, readers in table.items():
            relevant = table is not OF_KIND or config.backend != own
            if relevant and reader not in readers:
                named |= {path} if "." in path else {f"{path}.{it.name}" for it in dataclasses.fields(PARTS[path])}
    yield from sorted(named)


DEFAULT = SegmenterConfig()
PARTS = {it.name: getattr(DEFAULT, it.name) for it in dataclasses.fields(DEFAULT)}
