"""Published segmenters, evaluated instead of trained: whoever doubts our APs sees a known one come out first.

`segmenter.weights=published` takes the whole model's weights from their library's hub, or from a downloaded file
(`segmenter.checkpoint`, or `segmenter.human_checkpoint` beside a training on pseudo-labels; `layouts` lists
whose, `zoo` which and with which printed AP), through the same prediction and the same AP as everything else.
They know the categories of COCO, or of LVIS v1, and no others.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mal import segmenters
from mal.data.annotations import CocoDict
from mal.engine.runtime import save_checkpoint
from mal.errors import ConfigError, WeightsError
from mal.segmenters.backends import BACKENDS
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published.files import read
from mal.segmenters.published.layouts import LAYOUTS, Layout, recognise
from mal.segmenters.published.setting import Asked, asked
from mal.segmenters.published.zoo import Printed, offers, printed

BY_WEIGHTS = asked(SegmenterConfig())
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # as transformers names them in a folder
CONVERTED = "converted"  # what `weights` becomes for a file of another program than the backend's
LVIS = 1203  # categories of LVIS v1, numbered from 1
# sha256 of them, see `check_categories`
LVIS_NAMES = "f1badbf3214033bb3e444aa926f22cc7e73d3f234d8ba0d0132d51bf8380f5d2"


@cache
def coco_names() -> dict[int, str]:
    """COCO's 80 categories, numbered from 1 to 90; the list that torchvision publishes has "N/A" where it skips one."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {number: name for number, name in enumerate(names) if name not in ("__background__", "N/A")}


@dataclass(frozen=True)
class Found:
    """A published segmenter's file, and what it is."""

    file: Path
    layout: Layout
    facts: dict[str, Any]  # `classes`, `file` (its name), and what else its converter found out about it

    @property
    def printed(self) -> Printed | None:
        """The published model that the file's name says it is."""
        return printed(self.file)

    @property
    def name(self) -> str:
        """What tables call it: the file's name, with its folder's where every model's file is called so."""
        return f"{self.file.parent.name}/{self.file.name}" if self.file.name in WEIGHTS_FILES else self.file.name

    @property
    def category_ids(self) -> list[int]:
        return list(range(1, LVIS + 1)) if self.facts["classes"] == LVIS else sorted(coco_names())

    def fitted(self, config: SegmenterConfig) -> SegmenterConfig:
        """The config that predicts with this file as its publisher did."""
        if not self.layout.module:
            return config
        return dataclasses.replace(self.layout.convert("fitted")(config, self.facts), weights=CONVERTED)


def locate(config: SegmenterConfig) -> Path:
    """The file of a published model's weights: `segmenter.checkpoint`, or its library's copy, fetched if need be.

    Called when a run is planned, so that what cannot be had is known before any work, and so that the key of what comes
    out is made of the weights themselves.

    Raises:
        ConfigError: nobody published weights for this segmenter that can be fetched; names those to download.
        WeightsError: there is no such file, or the hub cannot be reached.
    """
    if config.backend in BACKENDS and not BACKENDS[config.backend].segmenters:
        raise ConfigError(
            f"{asked(config).by}: segmenter.backend={config.backend} evaluates no published segmenter; leave "
            "segmenter.backend out, and the backend that segmenter= names does"
        )
    segmenters.check_built(config)
    if config.checkpoint is None:
        return _fetch(config)
    path = Path(config.checkpoint)
    for file in [path / name for name in WEIGHTS_FILES] if path.is_dir() else [path]:
        if file.is_file():
            return file
    inside = f" with {' or '.join(WEIGHTS_FILES)}" if path.is_dir() else ""
    by = asked(config)
    otherwise = "leave it out and they are downloaded" if config.human_checkpoint is None else by.instead
    raise WeightsError(
        f"{by.source(path)}: there is no such file{inside}; give the published model's weights, or {otherwise}"
    )


def identify(
    config: SegmenterConfig, file: Path, *, remember: Callable[[Callable[[], Any]], Any] = lambda compute: compute()
) -> Found:
    """Which published model a file is.

    Args:
        remember: keeps the JSON value of a function that reads the file, for the next time.

    Raises:
        WeightsError: it cannot be read, is no segmenter known here, or is of another kind than the config's; or of
            other categories than COCO's and LVIS v1's.
    """
    setting = asked(config).file
    source = f"{setting}={file}"
    facts = {**remember(lambda: _facts(file, setting)), "file": file.name}
    layout = LAYOUTS[facts["layout"]]
    if layout.backend != config.backend:
        fitting = BACKENDS[layout.backend].segmenters
        if config.name in fitting:
            raise WeightsError(
                f"{source} is {layout.title}, which segmenter={config.name} computes with "
                f"segmenter.backend={layout.backend}, not with {config.backend}; leave segmenter.backend out"
            )
        raise WeightsError(
            f"{source} is {layout.title}, and segmenter={config.name} is none; choose one of "
            f"{', '.join(name for name in fitting if not name.endswith('_tiny'))}"
        )
    if facts["classes"] not in (len(coco_names()), LVIS):
        raise WeightsError(
            f"{source} knows {facts['classes']} categories, which are neither COCO's "
            f"{len(coco_names())} nor the {LVIS} of LVIS v1; give a model of one of them"
        )
    if layout.module:
        layout.convert("check")(config, facts, source=source)
    return Found(file, layout, facts)


def write(config: SegmenterConfig, *, found: Found, folder: Path) -> None:
    """folder/segmenter.pt, as training would have left it. config: the user's, not fitted.

    Raises:
        WeightsError: the file's weights are not those of this segmenter.
    """
    fitted = found.fitted(config)
    if not found.layout.module:
        state = _library(config).state(config, found.file)
    else:
        model = found.layout.convert("converted")(fitted, read(found.file, setting=asked(config).file), found.facts)
        state = {"model": model, "category_ids": found.category_ids, "classes": found.facts["classes"]}
    save_checkpoint(folder / "segmenter.pt", {**state, "weights": fitted.weights})


def check_categories(coco: CocoDict, *, source: str | Path, classes: int | None = None, by: Asked = BY_WEIGHTS) -> None:
    """Refuse an annotation file whose categories are not those that a model knows.

    Args:
        classes: how many the model knows: LVIS v1's, or COCO's.
        by: how the config asks for the model.

    Raises:
        ConfigError: names the first that is another.
    """
    if classes == LVIS:
        listed = "\n".join(f"{c['id']} {c['name']}" for c in sorted(coco["categories"], key=lambda c: c["id"]))
        if hashlib.sha256(listed.encode()).hexdigest() != LVIS_NAMES:
            raise ConfigError(
                f"{by.by}: the model knows the {LVIS} categories of LVIS v1, but {source} lists "
                f"{len(coco['categories'])} that are not the same; evaluate it on data=lvis with lvis_v1_val.json, or "
                f"{by.instead}"
            )
        return
    for category in coco["categories"]:
        if coco_names().get(category["id"]) != category["name"]:
            raise ConfigError(
                f"{by.by}: the model knows COCO's categories, but category {category['id']} of "
                f"{source} is {category['name']!r} (COCO: {coco_names().get(category['id'], 'none')!r}); "
                f"evaluate it on data=coco, or {by.instead}"
            )


def known(results: list[dict[str, Any]], coco: CocoDict) -> list[dict[str, Any]]:
    """The results whose category an annotation file lists: torchvision's model also has labels COCO never used."""
    categories = {category["id"] for category in coco["categories"]}
    return [result for result in results if result["category_id"] in categories]


def _facts(file: Path, setting: str) -> dict[str, Any]:
    weights = read(file, setting=setting)
    name = recognise(weights)
    layout = LAYOUTS[name]
    about = layout.convert("about")(weights) if layout.module else {"classes": len(coco_names())}
    return {**about, "layout": name}


def _fetch(config: SegmenterConfig) -> Path:
    offered = offers(config.name)
    if BACKENDS[config.backend].published:
        try:
            return _library(config).fetch(config)
        except ConfigError as error:
            raise ConfigError(f"{error}: {offered}" if offered else str(error)) from error
    if not offered:
        raise ConfigError(
            f"segmenter.weights=published: no weights of segmenter={config.name} are published; choose mask_rcnn_r50 "
            "or mask2former_swin_s, or train with segmenter.weights=trained"
        )
    raise ConfigError(
        f"segmenter.weights=published: weights of segmenter={config.name} are not fetched from here; give a file with "
        f"segmenter.checkpoint=FILE: {offered}"
    )


def _library(config: SegmenterConfig) -> ModuleType:
    """It has fetch(config) → weights file, and state(config, file) → what segmenter.pt holds."""
    return import_module(BACKENDS[config.backend].published)
