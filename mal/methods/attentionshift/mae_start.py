"""Box and mask heads that start from the decoder of a masked autoencoder, as imTED does (Zhang et al., ICCV 2023)."""

from pathlib import Path

from torch import Tensor

from mal.methods.attentionshift.heads import RoiTransformer
from mal.segmenters.weights import refuse

# prefixes of the keys of facebookresearch/mae's checkpoints → of ours; the first norm is its encoder's last, which the
# ViT of a detector does not have
RENAMED = {
    "norm.": "norm.",
    "decoder_embed.": "embed.",
    "decoder_pos_embed": "positions",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "last_norm.",
}
WAY_OUT = (
    "give a checkpoint whose decoder has detector.width, detector.depth and detector.positions, or set these to what "
    "it has"
)


def start_from_mae(transformer: RoiTransformer, state: dict[str, Tensor], *, source: str | Path) -> bool:
    """Copy a masked autoencoder's decoder into the transformer of a head, all of it.

    Args:
        state: weights of a masked autoencoder, named as facebookresearch/mae's checkpoints name them.
        source: where they came from, for the error.

    Returns:
        False where they hold no decoder, as published encoders do; the head then stays as it was drawn.

    Raises:
        WeightsError: they hold another decoder; lists missing, unexpected and misshapen keys.
    """
    if not any(key.startswith("decoder_") for key in state):
        return False
    own, theirs = transformer.state_dict(), {ours: given for given, ours in RENAMED.items()}
    names = {new: old for old in state if (new := _renamed(old)) is not None}
    faults = {
        "missing": [_renamed_back(key, theirs) for key in own if key not in names],
        "unexpected": [old for new, old in names.items() if new not in own],
        "of another shape": [
            f"{old} {tuple(state[old].shape)} instead of {tuple(own[new].shape)}"
            for new, old in names.items()
            if new in own and state[old].shape != own[new].shape
        ],
    }
    refuse(faults, source=source, model="transformer of the detector's heads", way_out=WAY_OUT)
    transformer.load_state_dict({new: state[old] for new, old in names.items()})
    return True


def _renamed(key: str) -> str | None:
    """Our name of a checkpoint's key; none for what the heads have no use for (its encoder, its pixels)."""
    return next((new + key.removeprefix(old) for old, new in RENAMED.items() if key.startswith(old)), None)


def _renamed_back(key: str, theirs: dict[str, str]) -> str:
    return next(old + key.removeprefix(new) for new, old in theirs.items() if key.startswith(new))
