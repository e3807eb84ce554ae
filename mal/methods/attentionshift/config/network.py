"""Settings of AttentionShift's ViT and of step 1. Sources: docs/method/attentionshift.md."""

from dataclasses import dataclass, field
from typing import Any

from mal.bounds import choice, number, numbers, sizes


@dataclass
class StemConfig:
    """What embeds patches in place of the ViT's own linear layer; for small networks."""

    timm: str | None = None  # a convolutional network of timm's; null: the ViT's own patches of pixels
    stride: int = number(8, 1, 64)  # of the map that is taken
    pretrained: bool = True
    # safetensors or torch file of its weights, of the whole network or as far as it is used; replaces the download.
    # shipped: the first stages of an ImageNet MobileNetV2, which come with the program
    checkpoint: str | None = None
    frozen: bool = True  # its weights stay as loaded
    mean: list[float] | None = numbers(None, 3)
    std: list[float] | None = numbers(None, 3, low=1e-6)
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model


@dataclass
class TokensConfig:
    count: int = number(100, 1, 1 << 14)  # T, point tokens (R); no image may have more points
    # whose maps the detector sees, counted from 1, not falling; the last is the encoder's last (R)
    blocks: list[int] = sizes([4, 6, 8, 12], 4)
    patch_mixing: bool = True  # false: patches attend to themselves alone
    # what tokens begin as, and are matched by. random: the places that they predict (R) | places: those of a grid, at
    # which they look from the first step on; for ViTs from scratch
    begin: str = choice("random", ("random", "places"))
    stem: StemConfig = field(default_factory=StemConfig)


@dataclass
class QueryingConfig:
    """Step 1."""

    alpha: float = number(0.25, 0, 1)  # of the focal cost and loss (R)
    gamma: float = number(2.0, 0, 100)
    place: float = number(10.0, 0, 1e6)  # weight of |Δx| + |Δy|, in shares of the image (R)


@dataclass
class ScaleConfig:
    """The sizes of images, in pixels; all are padded at the right and at the bottom to multiples of `multiple` (R)."""

    short_sides: list[int] = sizes([480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800])  # drawn in training
    long_side: int = number(1333, 1)
    flip: float = number(0.5, 0, 1)
    multiple: int = number(32, 1, 1 << 12)
    position_side: int = number(224, 16, 1 << 12)  # position embeddings are made for squares of this side, then resized
    test_short_sides: list[int] = sizes([600])  # the detector's; labels are made at the first
    test_long_sides: list[int] = sizes([1000])  # … one of each, or one for all
    test_flip: bool = False  # each size also flipped


@dataclass
class LearningConfig:
    batch: int = number(16, 1, 1 << 16)
    accumulate: int = number(2, 1, 1 << 16)  # micro-batches a step is computed in
    epochs: float | None = 12.0
    steps: int | None = None  # instead of epochs
    warm_start: int = number(0, 0)  # steps before these in which tokens learn alone (step 1); for ViTs from scratch
    lr: float = number(1e-4, 0, 1)
    warmup_steps: int = number(500, 0)  # linear, from `warmup_start` of the rate
    warmup_start: float = number(0.001, 0, 1)
    # shares of the run, warm start apart, after which the rate is `gamma` times that
    milestones: list[float] = sizes([8 / 12, 11 / 12])
    gamma: float = number(0.1, 0, 1)
    betas: list[float] = numbers([0.9, 0.999], 2, 0, 0.999999)
    weight_decay: float = number(0.05, 0)  # none on vectors, biases, tokens and positions
    layer_decay: float = number(0.75, 0, 1)  # of the rate, for each block below the last
    clip: float | None = None  # norm of all gradients
    snapshots: int = number(0, 0, 1000)  # networks kept at equal shares of the steps, the last one among them


@dataclass
class LabellingConfig:
    source: str = choice("head", ("head", "map"))  # head: the mask head's on the chosen box | map: F of step 5
    map_threshold: float = number(0.35, 0, 1)  # of F's maximum
