"""What one training is told: the run's settings, with those that it does not read at one value.

Keys are made of them, so that trainings that come to the same are the same.
"""

from dataclasses import replace

from mal.config import Config
from mal.methods.partialres.config import PartialresConfig
from mal.methods.partialres.config.learning import RecConfig, ResConfig, TrainingConfig
from mal.methods.partialres.config.network import PartsConfig, QueryConfig
from mal.methods.partialres.config.sequence import SequenceConfig

PLAIN = PartsConfig(cctf="none", pmca=False)
LEAST_POINTS = 3  # of a position table that has room for a box


def task_of(config: Config) -> str:
    """What the training of masks asks for: mask | taskwise (a box, and then the mask)."""
    own = config.partialres
    return "taskwise" if own.network.model == "sequence" and own.sequence.task == "taskwise" else "mask"


def for_boxes(config: Config) -> Config:
    """Of REC: [TASK] is zero, a box has four tokens, and only `parts.rec` gives it the decoder's parts."""
    own = _by_model(config.partialres)
    parts = own.parts if own.parts.rec else PLAIN
    sequence = SequenceConfig(points=LEAST_POINTS, bins=own.sequence.bins, task="zero")
    return replace(config, partialres=replace(own, parts=parts, sequence=sequence))


def for_masks(config: Config) -> Config:
    """Of RES, or of boxes and masks in one."""
    own = _by_model(config.partialres)
    res = own.res if own.res.start == "rec" else replace(own.res, start_from=ResConfig().start_from)
    rec = own.rec if task_of(config) == "taskwise" else replace(own.rec, first=RecConfig().first)
    return replace(config, partialres=replace(own, parts=replace(own.parts, rec=False), rec=rec, res=res))


def learning_of(own: PartialresConfig, task: str) -> TrainingConfig:
    """The schedule of a task's training."""
    return own.rec if task == "box" else own.res


def _by_model(own: PartialresConfig) -> PartialresConfig:
    """The rival has neither sequence nor parts, the sequence no queries."""
    if own.network.model == "query":
        return replace(own, parts=PLAIN, sequence=SequenceConfig())
    parts = own.parts if own.parts.pmca else replace(own.parts, pmca_start=PartsConfig().pmca_start)
    return replace(own, parts=parts, network=replace(own.network, query=QueryConfig()))
