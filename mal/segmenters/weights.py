"""Weights of a backbone: published ones or a file, all of them or an error."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mal.errors import WeightsError
from mal.segmenters.config import SegmenterConfig

WAY_OUT = (
    "give the weights as a file with segmenter.checkpoint=FILE, or train from scratch with segmenter.pretrained=false"
)
KEYS_SHOWN = 8
WRAPPERS = ("state_dict", "model")  # what files wrap their weights in
COUNTER = "num_batches_tracked"  # of batch norms, which loaded ones do not count on with


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file; a wrapping `model` or `state_dict` is opened.

    Raises:
        WeightsError: the file is absent, or is not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"segmenter.checkpoint={path}: there is no such file; {WAY_OUT}")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # each format breaks with errors of its own
        raise WeightsError(
            f"segmenter.checkpoint={path} is not a readable weights file ({type(error).__name__}: {error}); {WAY_OUT}"
        ) from error
    state = unwrapped(state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"segmenter.checkpoint={path} holds no dictionary of tensors; {WAY_OUT}")
    return state


def unwrapped(content: Any) -> Any:
    """What a file holds, without the dictionaries that its weights are wrapped in."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return content


def load_backbone(model: nn.Module, state: dict[str, Tensor], *, head: str, source: str | Path) -> None:
    """Copy weights into a backbone whose classifier was removed; only the classifier may be left over.

    Args:
        model: the backbone.
        state: what a file or the hub gave.
        head: prefix of the classifier's keys.
        source: where they came from, for the error.

    Raises:
        WeightsError: lists missing keys, unexpected keys and tensors of another shape.
    """
    own = model.state_dict()
    given = {key: value for key, value in state.items() if key in own or not key.startswith(head)}
    refuse(mismatches(_uncounted(own), _uncounted(given)), source=source, model="backbone", way_out=WAY_OUT)
    model.load_state_dict(given, strict=False)


def _uncounted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith(COUNTER)}


def mismatches(own: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, list[str]]:
    """What is wrong with the weights of a file, for `refuse`: missing, unexpected, of another shape → the keys."""
    return {
        "missing": [key for key in own if key not in given],
        "unexpected": [key for key in given if key not in own],
        "of another shape": [
            f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
            for key, value in given.items()
            if key in own and value.shape != own[key].shape
        ],
    }


def refuse(faults: dict[str, list[str]], *, source: str | Path, model: str, way_out: str) -> None:
    """Nothing where there is no fault.

    Args:
        faults: what is wrong ("missing", "unexpected", "of another shape") → the keys.
        source: where the weights came from.
        model: what they should have fitted.
        way_out: the end of the sentence.

    Raises:
        WeightsError: lists the keys.
    """
    if any(faults.values()):
        lists = "; ".join(f"{kind}: {_shown(keys)}" for kind, keys in faults.items() if keys)
        raise WeightsError(f"the weights of {source} do not fit the {model} ({lists}); {way_out}")


def check_weights(state: dict[str, Any], config: SegmenterConfig, *, checkpoint: Path) -> None:
    """Refuse to predict with a published model's settings from a trained one, or the other way round.

    Raises:
        WeightsError.
    """
    if (given := state.get("weights", "trained")) != config.weights:
        raise WeightsError(
            f"{checkpoint} holds {given} weights; predict with segmenter.weights={given}, not {config.weights}"
        )


def _shown(keys: list[str]) -> str:
    more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
    return ", ".join(keys[:KEYS_SHOWN]) + more


def unfit(report: dict[str, Any], *, absent: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """What the library reports after loading, as `refuse` takes it.

    Args:
        absent: parts of names that a file need not have.
        extra: parts of names that it may have in vain.
    """

    def without(keys: Any, excused: tuple[str, ...]) -> list[str]:
        return sorted(key for key in keys if not any(part in key for part in excused))

    return {
        "missing": without(report["missing_keys"], absent),
        "unexpected": without(report["unexpected_keys"], (*extra, "relative_position_index", COUNTER)),
        "of another shape": [
            f"{key} {tuple(theirs)} instead of {tuple(ours)}" for key, theirs, ours in sorted(report["mismatched_keys"])
        ],
    }


def first_line(error: Exception) -> str:
    """What an error says, in a line; some say nothing, some have pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
