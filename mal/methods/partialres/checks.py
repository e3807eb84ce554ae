"""Settings of Partial-RES that make no sense together, refused before any work starts."""

from mal.config import Config
from mal.errors import ConfigError
from mal.methods.partialres.config import PartialresConfig
from mal.methods.partialres.config.network import TextConfig
from mal.methods.partialres.text.subwords import WAY_OUT


def check(config: Config) -> None:
    """
    Raises:
        ConfigError: a setting that does not go with another.
    """
    own = config.partialres
    for name, learning in (("rec", own.rec), ("res", own.res)):
        key = f"partialres.{name}"
        if (learning.epochs is None) == (learning.steps is None):
            raise ConfigError(f"set exactly one of {key}.epochs and {key}.steps (the other to null)")
        for setting in ("epochs", "steps"):
            value = getattr(learning, setting)
            if value is not None and value <= 0:
                raise ConfigError(f"{key}.{setting}={value} must be positive")
    _check_network(own)
    _check_rows(own)


def _check_network(own: PartialresConfig) -> None:
    network, image = own.network, own.image
    _check_text(network.text)
    for divisor, why in (
        (4, "4 (positions of two axes)"),
        (network.heads, f"partialres.network.heads={network.heads}"),
    ):
        if network.width % divisor:
            nearest = -(-network.width // divisor) * divisor
            raise ConfigError(
                f"partialres.network.width={network.width} must be a multiple of {why}; set it to {nearest}"
            )
    if image.side % 32:
        raise ConfigError(f"partialres.image.side={image.side} must be a multiple of 32")
    for name, batch in (("rec", own.rec.batch), ("res", own.res.batch)):
        if batch == 1 and image.side == network.stride:
            raise ConfigError(
                f"partialres.{name}.batch=1 of one cell (partialres.image.side={image.side}, partialres.network.stride="
                f"{network.stride}) leaves batch norm one value; set partialres.{name}.batch=2 or more, or another size"
            )
    if image.scales[0] > image.scales[1]:
        raise ConfigError(f"partialres.image.scales={image.scales} must be [least, largest]")


def _check_text(text: TextConfig) -> None:
    """One of two encoders reads expressions, and each has a file that the other has not."""
    part = "partialres.network.text"
    if text.encoder == "transformer" and text.checkpoint is None:
        raise ConfigError(f"{part}.encoder=transformer has no model; {WAY_OUT}")
    for setting, value, encoder in (("checkpoint", text.checkpoint, "transformer"), ("vectors", text.vectors, "gru")):
        if value is not None and text.encoder != encoder:
            raise ConfigError(
                f"{part}.{setting}={value} is for {part}.encoder={encoder}, and it is {text.encoder}; set that, or "
                f"leave {setting} out"
            )


def _check_rows(own: PartialresConfig) -> None:
    if own.few.percent == 0:
        raise ConfigError("partialres.few.percent=0 draws no object whose mask could be learned; set it above 0")
    if own.pseudo.kind == "model" and own.pseudo.threshold == 0:
        raise ConfigError("partialres.pseudo.threshold=0 keeps no prediction, as none has d < 0; set it above 0")
    if own.sequence.task == "taskwise" and own.network.model == "sequence" and own.res.start == "rec":
        raise ConfigError(
            "partialres.sequence.task=taskwise learns boxes and masks in one training; set partialres.res.start=none"
        )
