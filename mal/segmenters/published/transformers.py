"""transformers' published Mask2Former for COCO instances (Swin-S: mask AP 46.3) as ours."""

from pathlib import Path
from typing import Any

from transformers import Mask2FormerForUniversalSegmentation
from transformers.utils import cached_file

from mal.errors import ConfigError, WeightsError
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.mask2former.model import SWINS, UNUSED, Architecture, architecture
from mal.segmenters.published import WEIGHTS_FILES, coco_names
from mal.segmenters.published.files import read
from mal.segmenters.published.setting import asked
from mal.segmenters.weights import first_line, refuse, unfit

FILES = ("config.json", WEIGHTS_FILES[0])
# What the shapes of the weights do not tell; the rest they do.
TELLING = ("num_attention_heads", "activation_function", "pre_norm", "common_stride", "feature_strides")
TELLING_OF_BACKBONE = ("model_type", "num_heads", "window_size", "hidden_act", "layer_norm_eps", "qkv_bias")


def hub_name(config: SegmenterConfig) -> str:
    """The published model of a segmenter.

    Raises:
        ConfigError: none is published.
    """
    if config.pyramid.kind != "swin" or config.pyramid.name not in SWINS:
        raise ConfigError(
            f"segmenter.weights=published: no weights of segmenter={config.name} on {config.pyramid.kind} "
            f"{config.pyramid.name} are published; choose segmenter=mask2former_swin_s with segmenter.pyramid.name one "
            f"of {', '.join(SWINS)}, or give a whole model with segmenter.checkpoint=FOLDER"
        )
    return f"facebook/mask2former-{config.pyramid.name.replace('_', '-')}-coco-instance"


def fetch(config: SegmenterConfig) -> Path:
    """The model's weights in the hub's own cache, its config.json beside them; downloaded if they are not there.

    Raises:
        ConfigError: see `hub_name`.
        WeightsError: it cannot be downloaded.
    """
    name = hub_name(config)
    try:
        return [Path(cached_file(name, file)) for file in FILES][-1]
    except Exception as error:  # hubs fail in as many ways as there are networks
        raise WeightsError(
            f"the published weights {name} cannot be reached ({first_line(error)}); put that model's files "
            f"{' and '.join(FILES)} into a folder and name it with segmenter.checkpoint=FOLDER"
        ) from error


def state(config: SegmenterConfig, file: Path) -> dict[str, Any]:
    """What segmenter.pt holds, from a weights file as transformers saves it; a config.json beside it must agree.

    Raises:
        WeightsError: the weights are not those of this segmenter; lists the keys.
    """
    way_out = "give the folder of the model this segmenter is, and leave its settings as they are"
    ours = architecture(config, classes=len(coco_names()))
    if (file.parent / FILES[0]).is_file():
        _compare(Architecture.from_pretrained(file.parent), ours, source=file.parent / FILES[0], way_out=way_out)
    weights = read(file, setting=asked(config).file)
    network, report = Mask2FormerForUniversalSegmentation.from_pretrained(
        None, config=ours, state_dict=weights.tensors, output_loading_info=True, ignore_mismatched_sizes=True
    )
    faults = unfit(report, absent=UNUSED)
    refuse(faults, source=weights.source, model=f"segmenter {config.name}", way_out=way_out)
    model = {f"network.{key}": value for key, value in network.state_dict().items()}
    return {"model": model, "category_ids": sorted(coco_names()), "classes": len(coco_names())}


def _compare(theirs: Architecture, ours: Architecture, *, source: Path, way_out: str) -> None:
    inner = [config.backbone_config for config in (theirs, ours)]
    pairs = [(name, getattr(theirs, name), getattr(ours, name)) for name in TELLING]
    pairs += [(f"backbone {name}", getattr(inner[0], name), getattr(inner[1], name)) for name in TELLING_OF_BACKBONE]
    for name, their, our in pairs:
        alike = list(their) == list(our) if isinstance(our, list | tuple) else their == our
        if not alike:
            raise WeightsError(f"{source} says {name}={their}, but this segmenter has {our}; {way_out}")
