"""Settings of training, inference and re-training. Sources: docs/method/simformer.md (R the released program)."""

from dataclasses import dataclass

from mal.bounds import choice, number, sizes


@dataclass
class LearningConfig:
    # weak: novel classes by their tags | oracle: every class by its masks, a bound from above
    supervision: str = choice("weak", ("weak", "oracle"))
    batch: int = number(8, 1, 1 << 16)  # images a step; with pairs even: one half refers to the other (R)
    steps: int = number(60000, 1, 1 << 24)  # (R: COCO-Stuff; ADE20K 160,000)
    # steps before these in which the pixel embeddings alone learn, by cross-entropy on base pixels; for networks that
    # would otherwise not learn at small scale
    warm_start: int = number(0, 0, 1 << 24)
    lr: float = number(1e-4, 0, 1)
    backbone: float = number(0.1, 0, 1)  # its rate ÷ the rest's (R)
    power: float = number(0.9, 0, 10)  # of the share of the steps left, times which the rate falls (R)
    weight_decay: float = number(1e-4, 0, 1)  # none on norms and embeddings (R)
    clip: float = number(0.01, 0, 1e6)  # largest norm of the whole gradient (R)


@dataclass
class TestingConfig:
    short_side: int = number(640, 1, 1 << 14)  # pixels (R: ADE20K 512)
    long_side: int = number(2560, 1, 1 << 16)  # at most (R: ADE20K 2048)
    # a split whose novel classes are scored apart as well: the mean moves with the set
    subset: str | None = None
    pairs: int = number(200, 1, 1 << 20)  # of images whose hidden novel pixels judge the similarities


@dataclass
class PseudoConfig:
    """Re-training on predictions of the training images."""

    # none | own: the network's predictions | cam: class activation maps of a classifier | complement: all pixels that
    # are not base, in images with one novel tag
    kind: str = choice("none", ("none", "own", "cam", "complement"))
    short_sides: list[int] = sizes([640])  # in which an image is predicted, their scores averaged (R: ADE20K five)
    flip: bool = False  # each also flipped (R: ADE20K)
    cam_steps: int = number(10000, 1, 1 << 24)  # of the classifier
    cam_lr: float = number(1e-4, 0, 1)
    cam_stride: int = choice(32, (4, 8, 16, 32))  # of the map whose activations are shown
