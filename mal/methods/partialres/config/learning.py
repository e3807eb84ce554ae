"""Settings of the trainings of boxes (REC) and masks (RES), of the few masks, and of pseudo masks."""

from dataclasses import dataclass

from mal.bounds import choice, number


@dataclass
class TrainingConfig:
    # exactly one of the two
    epochs: int | None = None
    steps: int | None = None
    batch: int = number(128, 1, 1 << 16)  # objects a step, each with one of its expressions
    lr: float = number(5e-4, 0, 1)
    backbone: float = number(0.1, 0, 1)  # its rate ÷ the rest's; 0: frozen
    warmup: float = number(5 / 90, 0, 1)  # share of the steps in which the rate rises, on five stairs (5 of 90 epochs)
    drop_at: float = number(5 / 6, 0, 1)  # share of the steps after which it is a tenth
    weight_decay: float = number(0, 0, 1)
    clip: float = number(0.15, 0, 1e6)  # largest norm of the whole gradient
    ema: float = number(0.999, 0, 1)  # min(ema, (k + 1) / (k + 10)) is kept in step k


@dataclass
class RecConfig(TrainingConfig):
    """Of boxes, from all training objects."""

    first: float = number(1.5, 0, 100)  # weight of x1's loss


@dataclass
class ResConfig(TrainingConfig):
    """Of contours, from the objects whose masks are known."""

    start: str = choice("rec", ("rec", "none"))  # the network that learned boxes | none: from scratch
    start_from: str = choice("ema", ("ema", "raw"))  # its weights (R: raw)
    end: float = number(0.1, 0, 100)  # weight of END's loss
    smoothing: float = number(0.1, 0, 0.999)  # of labels, in both trainings
    snapshots: int = number(0, 0, 1000)  # networks kept at equal shares of the steps, the last one among them


@dataclass
class PseudoConfig:
    """Resampled pseudo points: predictions on the other objects whose projections agree with the given box."""

    # none | model: the network's own predictions | box: given boxes filled | ellipse: those inscribed in them
    kind: str = choice("none", ("none", "model", "box", "ellipse"))
    # predictions of projection distance d below it are kept; 2: all that are not empty
    threshold: float = number(0.1, 0, 2)
    expression: str = choice("first", ("first", "random"))  # of an object, by which it is predicted (R: random)
    weights: str = choice("ema", ("ema", "raw"))  # (R: raw, by accident)


@dataclass
class FewConfig:
    """The objects whose masks training sees."""

    percent: float = number(5, 0, 100)  # of the masks of training objects that have an expression


@dataclass
class TestingConfig:
    weights: str = choice("ema", ("ema", "raw"))
    # of a label: fit: the prediction moved and stretched to the given box | cut: what of it lies in the box
    in_box: str = choice("fit", ("fit", "cut"))
    batch: int = number(32, 1, 1 << 12)  # expressions at a time
    crowd_quirk: bool = False  # R's inflated IoU of masks in several parts, as a column beside the true one
    looks: int = number(12, 0, 1 << 10)  # expressions whose attention and points are kept for figures
