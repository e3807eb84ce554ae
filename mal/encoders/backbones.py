"""timm models with their weights: from timm's hub, from a file, or none; nothing is loaded in part.

timm takes seconds to import, most of a command that computes nothing, so it is imported where a model is built.
"""

import re
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mal.encoders.config import EncoderConfig
from mal.errors import ConfigError, WeightsError

WAY_OUT = "give the weights as a file with encoder.checkpoint=FILE, or train from scratch with encoder.pretrained=false"


def check_model(config: EncoderConfig) -> None:
    """Refuse a name that timm does not know.

    Raises:
        ConfigError: with the names nearest to it.
    """
    name = config.timm.split(".")[0]
    if _is_in_source(name):
        return
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models())
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise ConfigError(f"encoder.timm={config.timm} is no model of timm's; {hint}")


@cache
def _is_in_source(name: str) -> bool:
    """Whether timm's source registers a model of that name; it may have others, registered otherwise."""
    spec = find_spec("timm")
    folders = spec.submodule_search_locations if spec is not None else None
    registered = re.compile(rf"^@register_model\ndef {re.escape(name)}\(", re.MULTILINE)
    files = (file for folder in folders or () for file in (Path(folder) / "models").glob("*.py"))
    return any(registered.search(file.read_text(encoding="utf-8")) for file in files)


def build_backbone(config: EncoderConfig, *, image_size: tuple[int, int]) -> tuple[Any, tuple[int, int]]:
    """The timm model, its classifier removed, and the input height and width it wants (multiples of its stride).

    Raises:
        ConfigError: timm has no such model, or it cannot be built or give maps.
        WeightsError: its weights cannot be had or do not fit.
    """
    import timm

    check_model(config)
    stride, sized = _inspect(config, image_size)
    height, width = (-(-side // stride) * stride for side in image_size)
    arguments: dict[str, Any] = {**config.options, **({"img_size": (height, width)} if sized else {})}
    if config.checkpoint is not None:
        model = _from_file(config, arguments)
    elif config.pretrained and config.needs_file:
        raise WeightsError(f"the weights of encoder={config.name} are published as a file, not by timm; {WAY_OUT}")
    elif config.pretrained:
        model = _published(config, arguments)
    else:
        model = timm.create_model(config.timm, pretrained=False, num_classes=0, **arguments)
    model.reset_classifier(0, "")
    return model, (height, width)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors or torch file (`weights_only`); a wrapping `model` or `state_dict` key is opened.

    Raises:
        WeightsError: the file is absent, damaged, or holds more than tensors.
    """
    if not Path(path).is_file():
        raise WeightsError(f"encoder.checkpoint={path}: there is no such file; {WAY_OUT}")
    from timm.models import load_state_dict

    try:
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # each format raises kinds of its own
        raise WeightsError(
            f"encoder.checkpoint={path} is not a readable weights file: {_first(error)}; {WAY_OUT}"
        ) from error


def _inspect(config: EncoderConfig, image_size: tuple[int, int]) -> tuple[int, bool]:
    """(largest stride, whether the input size must be given at construction), found on the meta device.

    A family that resamples its positions in each forward (SAM, DINOv3) is built at its own size: its weights then fit
    as they are.
    """
    import timm

    for extra in ({"img_size": image_size}, {}):
        try:
            with torch.device("meta"):
                model: Any = timm.create_model(
                    config.timm, pretrained=False, num_classes=0, **{**config.options, **extra}
                )
        except TypeError as error:
            if extra and "img_size" in str(error):
                continue
            raise ConfigError(f"encoder={config.name} ({config.timm}) cannot be built: {error}") from error
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"encoder={config.name} ({config.timm}) cannot be built: {error}") from error
        if not hasattr(model, "forward_intermediates"):
            raise ConfigError(f"encoder.timm={config.timm} cannot return feature maps in this timm; choose another")
        strict = getattr(getattr(model, "patch_embed", None), "strict_img_size", True)
        return max(int(info["reduction"]) for info in model.feature_info), bool(extra) and strict
    raise AssertionError("the second attempt returns or raises")


def _published(config: EncoderConfig, arguments: dict[str, Any]) -> Any:
    """The model with the weights its timm name stands for, every key and shape accounted for.

    It is built with its own classes, because for any other number timm loads whatever fits and says nothing.
    """
    import timm

    try:
        return timm.create_model(config.timm, pretrained=True, **arguments)
    except Exception as error:  # no network, no such tag, a broken cache: all end the same way for the user
        what = f"the published weights of encoder={config.name} ({config.timm})"
        if isinstance(error, RuntimeError) and "state_dict" in str(error):
            raise WeightsError(f"{what} do not fit the model: {error}; {WAY_OUT}") from error
        raise WeightsError(f"{what} cannot be reached: {_first(error)}; {WAY_OUT}") from error


def _from_file(config: EncoderConfig, arguments: dict[str, Any]) -> Any:
    """Load a file into the backbone, every key and shape accounted for.

    The model is built with as many classes as the file's head has, so that timm's loading (which renames keys and
    resamples position embeddings) is strict; the head goes afterwards.
    """
    import timm

    state = read_weights(str(config.checkpoint))
    default = timm.get_pretrained_cfg(config.timm)
    head = default.classifier if default is not None else None
    heads = [head] if isinstance(head, str) else list(head or [])
    classes = next((len(state[f"{name}.weight"]) for name in heads if f"{name}.weight" in state), 0)
    overlay = {"state_dict": state, "num_classes": classes, "url": "", "hf_hub_id": None, "custom_load": False}
    try:
        return timm.create_model(
            config.timm, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **arguments
        )
    except (RuntimeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"encoder.checkpoint={config.checkpoint} does not fit encoder={config.name} ({config.timm}): {error}"
        ) from error


def _first(error: Exception) -> str:
    """The first line of an error; some have pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
