"""The seam: what the suite asks of a method that labels data, and all it knows of one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mal.config import Config
from mal.context import Context, Json
from mal.data.annotations import CocoDict
from mal.data.sources import Split
from mal.engine.findings import Finding
from mal.engine.graph import Stage, Workdir
from mal.methods.labelling import Fallback, ShardLabeler, filled_box

Maker = Callable[[Workdir, CocoDict], ShardLabeler]  # a stage's folders, and the view → what labels its shards


@dataclass(frozen=True)
class Labels:
    """How a method labels one split: what its labels depend on, and who makes them.

    Attributes:
        make: called in the stage; the split's view has been read.
        settings: that it reads, beside those that every labeler has.
        inputs: stages that it starts from, beside its view.
        sources: name → digest of other files that it reads.
        columns: what a table says of its masks, beside the data and the method's name.
        seeded: the masks depend on the seed.
    """

    make: Maker
    settings: Json = field(default_factory=dict)
    inputs: dict[str, Stage] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    columns: Json = field(default_factory=dict)
    seeded: bool = False


def _nothing(*_: Any) -> None:
    return None


def _no_stages(_: Context) -> list[Stage]:
    return []


def _one(_: Json) -> int:
    return 1


def _everywhere(*_: Any) -> bool:
    return True


@dataclass(frozen=True)
class Training:
    """A stage of training, as a cluster needs to know it. It goes on from its checkpoint when it is started again.

    Attributes:
        name: of the stage.
        batch: the setting whose value its processes share equally.
        v100_seconds: what it takes on one V100 by what is published; None where nothing is.
        together: the stage's settings → how many images of a batch stay together, in one process.
    """

    name: str
    batch: str
    v100_seconds: Callable[[Config, Context], float | None] = _nothing
    together: Callable[[Json], int] = _one


def _no_findings(*_: Any) -> list[Finding]:
    return []


@dataclass(frozen=True)
class OwnFiles:
    """How a method labels a file of one's own with what it learned before (`python -m mal.label`).

    A state is what a labeler.pt holds: plain values and tensors; `config` is the YAML text of its settings.

    Attributes:
        wrote: whether a state is the method's.
        labeler: state, its config with the command's options, device, the view of the file, labeler.pt's path → what
            labels the file's images (ConfigError: weights that do not fit or are no numbers).
        options: the settings of `label` that it reads, which the command has options for.
        check: state, config, path: refuses settings that the state has no weights for (ConfigError).
        look: state, config, the view → what stops it from labelling the file, or must be said beforehand.
    """

    wrote: Callable[[Any], bool]
    labeler: Callable[[Json, Config, torch.device, CocoDict, Path], ShardLabeler]
    options: tuple[str, ...] = ()
    check: Callable[[Json, Config, Path], None] = _nothing
    look: Callable[[Json, Config, CocoDict], list[Finding]] = _no_findings


@dataclass(frozen=True)
class Method:
    """One choice of `labeler=`.

    Attributes:
        name: that choice, and the column `labeler` of its results.
        labels: the way it labels a split; None for methods that end in something else than instance masks.
        view: what of the annotations its stages may read, one of `mal.data.views.VIEWS`.
        train: the stage in which it learns, for methods that do; a labeler.pt comes out.
        trainings: its stages of training, which a cluster gives resources to.
        detect: the stage in which its own detector finds objects in the validation images, for methods that have one;
            a predictions.json in COCO's results format comes out.
        looks: the stages that show how it works, as its settings ask; none without validation images.
        shared: several processes share its labelling.
        human: it copies human masks, so its splits must have them.
        has: whether it has masks for a split, by the split's name.
        targets: what a run of it ends in, for methods that end in something else than instance masks: nothing is
            labelled, compared or segmented then.
        fallback: the mask of an object that it gave none.
        own_files: how it labels a file of one's own, for methods that do.
        check: refuses settings before any work starts (ConfigError).
        check_files: refuses splits in files that it could not learn from or label, by what their census says or what it
            remembers of them (AnnotationError).
        remark: what must be said of its labels of a split beforehand.
        preflight: builds what its stages of some names will need, so that what cannot be had is known before any starts
            (ConfigError, WeightsError).
    """

    name: str
    labels: Callable[[Context, Split], Labels] | None
    view: str = "boxes"
    train: Callable[[Context], Stage] | None = None
    trainings: tuple[Training, ...] = ()
    detect: Callable[[Context], Stage] | None = None
    looks: Callable[[Context], list[Stage]] = _no_stages
    shared: bool = False
    human: bool = False
    has: Callable[[Context, str], bool] = _everywhere
    targets: Callable[[Context], list[Stage]] | None = None
    fallback: Fallback = filled_box
    own_files: OwnFiles | None = None
    check: Callable[[Config], None] = _nothing
    check_files: Callable[[Context, list[Split]], None] = _nothing
    remark: Callable[[Context, Split], str | None] = _nothing
    preflight: Callable[[Config, torch.device, set[str]], None] = _nothing
