"""What tables say of Partial-RES's stages."""

from pathlib import Path

from mal.config import Config
from mal.context import Context, Json
from mal.methods.partialres import lessons
from mal.methods.partialres.config import PartialresConfig


def of_boxes(context: Context) -> Json:
    """Of the training of boxes, and of what follows from it alone."""
    config = context.config
    own = lessons.for_boxes(config).partialres
    return {
        **_about(context),
        "recipe": config.recipe,
        "encoder": config.encoder.name,
        "model": own.network.model,
        **_text(own),
        "cctf": own.parts.cctf,
        "pmca": own.parts.pmca,
    }


def of_few(context: Context) -> Json:
    """Of the masks that are seen."""
    return {**_about(context), "percent": context.config.partialres.few.percent}


def of_masks(context: Context, *, pseudo: bool = True) -> Json:
    """Of a training of masks, and of what follows from it.

    Args:
        pseudo: whether it learns from pseudo masks, where the run has some.
    """
    return {**_about(context), **of_method(context.config, pseudo=pseudo)}


def of_method(config: Config, *, pseudo: bool = True) -> Json:
    """The same without data, profile and seed."""
    own = lessons.for_masks(config).partialres
    kind = own.pseudo.kind if pseudo else "none"
    return {
        "recipe": config.recipe,
        "encoder": config.encoder.name,
        "model": own.network.model,
        **_text(own),
        "percent": own.few.percent,
        "start": own.res.start,
        "cctf": own.parts.cctf,
        "pmca": own.parts.pmca,
        "task": own.sequence.task,
        "pseudo": kind,
        **({"threshold": own.pseudo.threshold} if kind == "model" else {}),
        "contour_points": own.sequence.points,
        **({"steps": own.res.steps} if own.res.steps is not None else {}),
    }


def _text(own: PartialresConfig) -> Json:
    """The language model by its folder's name, where there is one, and whether it is frozen."""
    text = own.network.text
    if text.checkpoint is None:
        return {}
    folder = Path(text.checkpoint).absolute()
    if folder.parent.name == "snapshots":  # the hub's own cache: models--OWNER--NAME/snapshots/COMMIT
        folder = Path(folder.parent.parent.name.rpartition("--")[2])
    return {"text": f"{folder.name}, frozen" if text.rate == 0 else folder.name}


def _about(context: Context) -> Json:
    return {**context.columns(context.labeler_train), "labeler": "partialres"}
