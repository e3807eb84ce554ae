"""Published segmenters, evaluated instead of trained: whoever doubts our APs sees a known one come out first.

`segmenter.weights=published` takes the whole model's weights from their library's hub, or from `segmenter.checkpoint`,
through the same prediction and the same AP as everything else. They know COCO's categories and no others.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mal import segmenters
from mal.annotations import CocoDict
from mal.errors import ConfigError, WeightsError
from mal.runtime import save_checkpoint
from mal.segmenters.config import SegmenterConfig

BACKENDS = {  # each has fetch(config) → weights file, and state(config, file) → what segmenter.pt holds
    "torchvision": "mal.segmenters.published_mask_rcnn",
    "transformers": "mal.segmenters.published_mask2former",
}
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # as transformers names them in a folder


@cache
def coco_names() -> dict[int, str]:
    """COCO's 80 categories, numbered from 1 to 90; the list that torchvision publishes has "N/A" where it skips one."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {number: name for number, name in enumerate(names) if name not in ("__background__", "N/A")}


def locate(config: SegmenterConfig) -> Path:
    """The file of a published model's weights: `segmenter.checkpoint`, or its library's copy, fetched if need be.

    Called when a run is planned, so that what cannot be had is known before any work, and so that the key of what comes
    out is made of the weights themselves.

    Raises:
        ConfigError: nobody published weights for this segmenter.
        WeightsError: there is no such file, or the hub cannot be reached.
    """
    module = _module(config)
    if config.checkpoint is None:
        return module.fetch(config)
    path = Path(config.checkpoint)
    for file in [path / name for name in WEIGHTS_FILES] if path.is_dir() else [path]:
        if file.is_file():
            return file
    inside = f" with {' or '.join(WEIGHTS_FILES)}" if path.is_dir() else ""
    raise WeightsError(
        f"segmenter.checkpoint={path}: there is no such file{inside}; give the published model's weights, or leave "
        "segmenter.checkpoint out and they are downloaded"
    )


def write(config: SegmenterConfig, *, source: Path, folder: Path) -> None:
    """folder/segmenter.pt, as training would have left it.

    Raises:
        WeightsError: the file's weights are not those of this segmenter.
    """
    state = _module(config).state(config, source)
    save_checkpoint(folder / "segmenter.pt", {**state, "weights": "published"})


def check_categories(coco: CocoDict, *, source: str | Path) -> None:
    """Refuse an annotation file whose categories are not COCO's.

    Raises:
        ConfigError: names the first that is another.
    """
    for category in coco["categories"]:
        if coco_names().get(category["id"]) != category["name"]:
            raise ConfigError(
                f"segmenter.weights=published: the model knows COCO's categories, but category {category['id']} of "
                f"{source} is {category['name']!r} (COCO: {coco_names().get(category['id'], 'none')!r}); "
                "evaluate it on data=coco, or train with segmenter.weights=trained"
            )


def known(results: list[dict[str, Any]], coco: CocoDict) -> list[dict[str, Any]]:
    """The results whose category an annotation file lists: torchvision's model also has labels COCO never used."""
    categories = {category["id"] for category in coco["categories"]}
    return [result for result in results if result["category_id"] in categories]


def _module(config: SegmenterConfig) -> ModuleType:
    if config.backend not in BACKENDS:
        raise ConfigError(
            f"segmenter.weights=published: no weights of segmenter={config.name} are published; choose mask_rcnn_r50 "
            "or mask2former_swin_s, or train with segmenter.weights=trained"
        )
    segmenters.check_built(config)
    return import_module(BACKENDS[config.backend])
