"""The config of one training: the run's, with the settings that this training does not read at their default values.

Its key is made of that config, so two runs that differ in such settings alone share the training.
"""

from dataclasses import replace

from mal.config import Config
from mal.methods.partialres.config import PartialresConfig
from mal.methods.partialres.config.learning import RecConfig, ResConfig, TrainingConfig
from mal.methods.partialres.config.network import PLAIN, PartsConfig, QueryConfig, TextConfig
from mal.methods.partialres.config.sequence import ImageConfig, SequenceConfig

LEAST_POINTS = 3  # a table of positions for so many has room for a box


def task_of(config: Config) -> str:
    """What the training of masks asks for: mask | taskwise (a box, and then the mask)."""
    own = config.partialres
    return "taskwise" if own.network.model == "sequence" and own.sequence.task == "taskwise" else "mask"


def rec_parts(parts: PartsConfig) -> PartsConfig:
    """The decoder's parts in the first training, of boxes: none, unless `parts.rec`."""
    return parts if parts.rec else PLAIN


def for_boxes(config: Config) -> Config:
    """Settings of REC: its [TASK] is zero, and a box has four tokens whatever a contour has."""
    own = _by_model(config.partialres)
    sequence = SequenceConfig(points=LEAST_POINTS, bins=own.sequence.bins, task="zero")
    own = replace(own, parts=rec_parts(own.parts), sequence=sequence, image=_image(own.image, crops=True))
    return replace(config, partialres=own)


def for_masks(config: Config, *, last: bool = True) -> Config:
    """Settings of RES, or of boxes and masks in one training.

    Args:
        last: whether no other training follows it: that one's course is what is looked at.
    """
    own, taskwise = _by_model(config.partialres), task_of(config) == "taskwise"
    res, rec = own.res if last else replace(own.res, snapshots=0), own.rec
    if res.start != "rec":
        res = replace(res, start_from=ResConfig().start_from)
    if taskwise:
        res = replace(res, end=ResConfig().end)
    else:
        rec = replace(rec, first=RecConfig().first)
    parts, image = replace(own.parts, rec=False), _image(own.image, crops=not taskwise)
    return replace(config, partialres=replace(own, parts=parts, rec=rec, res=res, image=image))


def learning_of(own: PartialresConfig, task: str) -> TrainingConfig:
    """The schedule of a task's training."""
    return own.rec if task == "box" else own.res


def _by_model(own: PartialresConfig) -> PartialresConfig:
    """The rival has no sequence, no parts of its decoder and no loss of tokens; the sequence has no queries. A language
    model has no embeddings and no GRU, and these no rate of their own."""
    own = replace(own, network=replace(own.network, text=_text(own.network.text)))
    if own.network.model == "query":
        rec = replace(own.rec, first=RecConfig().first)
        res = replace(own.res, end=ResConfig().end, smoothing=ResConfig().smoothing)
        return replace(own, parts=PLAIN, sequence=SequenceConfig(), rec=rec, res=res)
    parts = own.parts if own.parts.pmca else replace(own.parts, pmca_start=PartsConfig().pmca_start)
    return replace(own, parts=parts, network=replace(own.network, query=QueryConfig()))


def _text(text: TextConfig) -> TextConfig:
    unread = TextConfig()
    if text.encoder == "transformer":
        return replace(text, width=unread.width, hidden=unread.hidden, vectors=None)
    return replace(text, rate=unread.rate, checkpoint=None)


def _image(image: ImageConfig, *, crops: bool) -> ImageConfig:
    """Settings of images; `crops`: whether this training draws scales and windows where `image.crop` is true."""
    unread = ImageConfig()
    if not crops:
        return replace(image, crop=unread.crop, scales=unread.scales)
    return image if image.crop else replace(image, scales=unread.scales)
