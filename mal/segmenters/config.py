"""The schema of phase 2. One shape serves every backend; what a backend cannot do it refuses by name.

A field without a note is the quantity its name says, in the field's usual unit. Lengths are pixels of the resized
image; shares of the run are fractions, so that a profile which shrinks a schedule keeps its shape.
"""

from dataclasses import dataclass, field
from typing import Any

from mal.errors import ConfigError


@dataclass
class PyramidConfig:
    """The backbone and its feature pyramid."""

    kind: str = "resnet"  # tiny (ours, from scratch) | resnet (torchvision) | timm | swin (transformers)
    name: str = "resnet50"  # torchvision's or timm's model name, or a size of Swin; unused for tiny
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    stem: list[int] = field(default_factory=lambda: [32])  # tiny: channels of the stride-2 convolutions before it
    widths: list[int] = field(default_factory=lambda: [32, 64, 128, 192])  # tiny: channels at strides 4, 8, 16, 32
    blocks: list[int] = field(default_factory=lambda: [1, 1, 1, 1])  # tiny: residual blocks a stage
    norm: str = "frozen"  # frozen (statistics and affine stay as loaded) | batch
    frozen_stages: int = 0  # the stem (1) and this many stages less one keep their weights
    map_norm: bool = False  # layer norm over the channels of each of the body's maps, as detectors on ConvNeXt have it
    channels: int = 256  # of every map of the feature pyramid
    fpn_norm: bool = False  # batch norm after each of its convolutions, for training from scratch
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])  # of RGB in [0, 1]
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass
class ProposalConfig:
    """Region proposals. Pairs are (training, test)."""

    anchors: list[list[int]] = field(default_factory=lambda: [[32], [64], [128], [256], [512]])  # sides, by level
    ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])  # height / width
    before_nms: list[int] = field(default_factory=lambda: [2000, 1000])  # kept by score, a level
    after_nms: list[int] = field(default_factory=lambda: [2000, 1000])
    nms: float = 0.7
    sampled: int = 256  # anchors an image in the loss, at most half of them positive


@dataclass
class HeadConfig:
    """Box and mask heads."""

    sampled: int = 512  # RoIs an image in the loss
    positive: float = 0.25  # share of them that may be positive
    box_cells: int = 7  # side of the grid an RoI is pooled to for its box and class
    mask_cells: int = 14  # the same for its mask, which comes out twice as fine
    samples: int = 2  # each cell averages samples × samples points of the map
    box_width: int = 1024  # of the two fully connected layers
    mask_widths: list[int] = field(default_factory=lambda: [256, 256, 256, 256])  # of the 3 × 3 convolutions
    mask_up_width: int = 256  # of the transposed convolution after them
    canonical_side: int = 224  # an RoI of this side is read from the stride-16 map (FPN, Eq. 1)


@dataclass
class CascadeConfig:
    """Stages of Cascade R-CNN (Cai & Vasconcelos, 2018); one entry a stage."""

    ious: list[float] = field(default_factory=lambda: [0.5, 0.6, 0.7])  # from which a proposal is positive
    weights: list[float] = field(default_factory=lambda: [1.0, 0.5, 0.25])  # of the losses
    box_stds: list[list[float]] = field(  # encoded x, y, w and h are divided by
        default_factory=lambda: [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    )
    box_convs: list[int] = field(default_factory=lambda: [256] * 4)  # channels, before one fully connected layer
    box_weight: float = 10.0  # of the generalised IoU loss


@dataclass
class GridConfig:
    """SOLOv2: an object is predicted by the cells around its center, on the grids of the levels its size belongs to."""

    cells: list[int] = field(default_factory=lambda: [40, 36, 24, 16, 12])  # along a side, by level
    scales: list[list[int]] = field(  # √(box area) of a level's objects, from and to, both included
        default_factory=lambda: [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]
    )
    center: float = 0.2  # sides of the center region, as a share of the box's
    convs: int = 4  # of each of the two branches, before their last
    width: int = 512  # channels of those
    mask_width: int = 128  # channels of the mask-feature branch
    kernel: int = 256  # channels of the mask features, and so of each predicted 1 × 1 kernel
    dice: float = 3.0  # weight of the mask loss; the focal loss has 1


@dataclass
class QueryConfig:
    """Mask2Former's pixel decoder, transformer decoder and losses (Cheng et al., 2022)."""

    count: int = 100  # objects an image can have
    width: int = 256  # of both decoders and of the pixel and mask embeddings
    heads: int = 8  # of every attention
    pixel_layers: int = 6  # of deformable attention over strides 8, 16 and 32
    pixel_feed_forward: int = 1024  # hidden units of their feed-forward parts
    layers: int = 9  # of masked attention; each is supervised, and so are the queries before the first
    feed_forward: int = 2048
    points: int = 12544  # where masks are compared, in matching and in the loss (112 × 112)
    class_weight: float = 2.0  # of the losses and of the matching costs
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object: float = 0.1  # weight in the class loss of queries that match nothing
    drop_path: float = 0.3  # rate in the last block of a Swin; a tiny backbone has none


@dataclass
class ScaleConfig:
    """Sizes images, or crops of them, are resized to, aspect kept, and the flip."""

    short_sides: list[int] = field(default_factory=lambda: [640, 672, 704, 736, 768, 800])  # training draws one
    long_side: int = 1333
    crop: float = 0.0  # share of the training images of which a random part is shown
    crop_short_sides: list[int] = field(default_factory=lambda: [400, 500, 600])  # of the image its sides are meant in
    crop_sides: list[int] = field(default_factory=lambda: [384, 600])  # shortest and longest
    jitter: list[float] = field(default_factory=list)  # large-scale jitter: both are multiplied by a factor drawn from
    # between these two, and the image is cropped or padded to a square of `long_side`; empty: none
    flip: float = 0.5
    test_short_side: int = 800
    test_long_side: int = 1333


@dataclass
class OptimizerConfig:
    name: str = "sgd"  # sgd | adamw
    lr: float = 0.02  # peak, for `base_batch` images a step; scaled linearly with the batch
    base_batch: int = 16
    backbone: float = 1.0  # × lr, for the backbone's weights
    momentum: float = 0.9
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 1e-4
    layer_decay: float = 1.0  # × lr from each layer of the backbone to the one below it; 1: all train alike
    layers: int = 12  # that many; only ConvNeXt's are known
    clip: float | None = None  # largest allowed gradient norm


@dataclass
class ScheduleConfig:
    batch: int = 16
    epochs: float | None = 12.0
    steps: int | None = None  # instead of epochs
    warmup: float = 0.0  # share of the run; the rate rises linearly from `warmup_start` × peak
    warmup_start: float = 0.001
    shape: str = "multistep"  # multistep | cosine
    milestones: list[float] = field(default_factory=lambda: [8 / 12, 11 / 12])  # multistep: shares of the run
    gamma: float = 0.1  # multistep: factor at each milestone
    final: float = 0.0  # cosine: share of the peak at the end
    repeat_threshold: float | None = None  # images with a category on a smaller share of the images are repeated


@dataclass
class TestConfig:
    score: float = 0.05
    nms: float = 0.5
    max_detections: int = 100  # an image
    mask_threshold: float = 0.5
    batch: int = 8
    before_nms: int = 500  # matrix NMS: candidates an image, by score
    sigma: float = 2.0  # matrix NMS: of its Gaussian, exp(−σ · IoU²)
    decayed_score: float = 0.05  # matrix NMS: what still scores this much afterwards is a detection


@dataclass
class RunningConfig:
    """How the work is done, not what comes out: no part of a stage's identity."""

    workers: int = 0  # processes that read images; 0 reads in the training process
    checkpoint_seconds: float = 300.0
    checkpoint_steps: int = 0  # also every so many steps; 0: by the clock alone
    log_steps: int = 20  # steps between lines of curves.jsonl


@dataclass
class SegmenterConfig:
    name: str = "none"
    backend: str = "none"  # torchvision | cascade | transformers | solov2 | detectron2 | none
    weights: str = "trained"  # trained: by this run | published: somebody else's whole model, evaluated and not trained
    pretrained: bool = True  # the backbone starts from its published weights
    checkpoint: str | None = None  # a safetensors or torch file instead of the download: the backbone's weights, or
    # where `weights` is published the whole model's
    class_agnostic: bool = False  # every category becomes one, in training
    mask_head: Any = True  # true | none (or false): a plain detector (Table 7)
    dcn: bool = False  # deformable convolutions in stages 3-5
    precision: str = "auto"  # auto (bf16 on a GPU, fp32 on a CPU) | fp32 | bf16
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)
    cascade: CascadeConfig = field(default_factory=CascadeConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    queries: QueryConfig = field(default_factory=QueryConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    test: TestConfig = field(default_factory=TestConfig)
    running: RunningConfig = field(default_factory=RunningConfig)

    def __post_init__(self) -> None:
        if self.mask_head == "none":  # as Table 7's rows are named on the command line; code reads a bool
            self.mask_head = False


CHOICES = {
    "backend": ("torchvision", "cascade", "transformers", "solov2", "detectron2", "none"),
    "weights": ("trained", "published"),
    "precision": ("auto", "fp32", "bf16"),
    "pyramid.kind": ("tiny", "resnet", "timm", "swin"),
    "pyramid.norm": ("frozen", "batch"),
    "optimizer.name": ("sgd", "adamw"),
    "schedule.shape": ("multistep", "cosine"),
}

RANGES = {  # lowest and highest allowed, both included
    "pyramid.frozen_stages": (0, 5),
    "pyramid.channels": (1, 1 << 16),
    "proposals.nms": (0, 1),
    "proposals.sampled": (1, 1 << 16),
    "heads.sampled": (1, 1 << 16),
    "heads.positive": (0, 1),
    "heads.box_cells": (1, 256),
    "heads.mask_cells": (1, 256),
    "heads.samples": (1, 16),
    "heads.box_width": (1, 1 << 16),
    "heads.mask_up_width": (1, 1 << 16),
    "heads.canonical_side": (1, 1 << 16),
    "cascade.box_weight": (0, 1e6),
    "grid.center": (0, 1),
    "grid.convs": (1, 64),
    "grid.width": (4, 1 << 16),
    "grid.mask_width": (4, 1 << 16),
    "grid.kernel": (4, 1 << 16),
    "grid.dice": (0, 1e6),
    "queries.count": (1, 1 << 16),
    "queries.width": (32, 1 << 16),
    "queries.heads": (1, 1 << 10),
    "queries.pixel_layers": (1, 100),
    "queries.pixel_feed_forward": (1, 1 << 16),
    "queries.layers": (1, 100),
    "queries.feed_forward": (1, 1 << 16),
    "queries.points": (1, 1 << 20),
    "queries.class_weight": (0, 1000),
    "queries.mask_weight": (0, 1000),
    "queries.dice_weight": (0, 1000),
    "queries.no_object": (0, 1),
    "queries.drop_path": (0, 1),
    "scale.long_side": (16, 1 << 16),
    "scale.crop": (0, 1),
    "scale.flip": (0, 1),
    "scale.test_short_side": (16, 1 << 16),
    "scale.test_long_side": (16, 1 << 16),
    "optimizer.lr": (0, 100),
    "optimizer.base_batch": (1, 1 << 20),
    "optimizer.backbone": (0, 1),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, 1),
    "optimizer.layer_decay": (0, 1),
    "optimizer.layers": (4, 1 << 10),
    "schedule.batch": (1, 1 << 20),
    "schedule.warmup": (0, 1),
    "schedule.warmup_start": (0, 1),
    "schedule.gamma": (0, 1),
    "schedule.final": (0, 1),
    "test.score": (0, 1),
    "test.nms": (0, 1),
    "test.max_detections": (1, 1 << 20),
    "test.mask_threshold": (0, 1),
    "test.batch": (1, 1 << 20),
    "test.before_nms": (1, 1 << 20),
    "test.sigma": (0, 1e6),
    "test.decayed_score": (0, 1),
    "running.workers": (0, 256),
    "running.checkpoint_seconds": (0, float("inf")),
    "running.checkpoint_steps": (0, 1 << 40),
    "running.log_steps": (1, 1 << 40),
}

LEVELS = 5  # strides 4, 8, 16, 32 and 64 (a subsampled 32) of the feature pyramid


def check(config: SegmenterConfig) -> None:
    """Refuse values that would only fail later, or never.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    for key, choices in CHOICES.items():
        if (value := _get(config, key)) not in choices:
            raise ConfigError(f"segmenter.{key}={value} is unknown; choose one of {', '.join(choices)}")
    for key, (low, high) in RANGES.items():
        if not low <= (value := _get(config, key)) <= high:
            raise ConfigError(f"segmenter.{key}={value} is out of range; choose a value from {low:g} to {high:g}")
    if not isinstance(config.mask_head, bool):
        raise ConfigError(f"segmenter.mask_head={config.mask_head} is unknown; choose true, or none for boxes alone")
    schedule = config.schedule
    if (schedule.epochs is None) == (schedule.steps is None):
        raise ConfigError(
            "set exactly one of segmenter.schedule.epochs and segmenter.schedule.steps (the other to null)"
        )
    if (schedule.epochs or schedule.steps or 0) <= 0:
        raise ConfigError(
            f"segmenter.schedule.epochs={schedule.epochs}, steps={schedule.steps}: the length must be positive"
        )
    if schedule.repeat_threshold is not None and not 0 < schedule.repeat_threshold <= 1:
        raise ConfigError(
            f"segmenter.schedule.repeat_threshold={schedule.repeat_threshold} must be a share of the images, above 0 "
            "and at most 1, or null for no repeats"
        )
    if any(not 0 <= share <= 1 for share in schedule.milestones):
        raise ConfigError(f"segmenter.schedule.milestones={schedule.milestones} must be shares of the run, in [0, 1]")
    if config.optimizer.clip is not None and config.optimizer.clip <= 0:
        raise ConfigError(f"segmenter.optimizer.clip={config.optimizer.clip} must be positive, or null for none")
    if any(not 0 <= beta < 1 for beta in config.optimizer.betas):
        raise ConfigError(f"segmenter.optimizer.betas={config.optimizer.betas} must be numbers from 0 to below 1")
    if config.dcn and config.pyramid.kind == "tiny":
        raise ConfigError("segmenter.dcn=true needs a ResNet or ResNeXt, and segmenter.pyramid.kind=tiny is none")
    if config.optimizer.layer_decay != 1 and (config.optimizer.name != "adamw" or config.pyramid.kind != "timm"):
        raise ConfigError(
            f"segmenter.optimizer.layer_decay={config.optimizer.layer_decay} needs AdamW and timm's ConvNeXt; set 1"
        )
    _check_cascade(config.cascade)
    _check_lengths(config)
    if config.scale.crop_sides[0] > config.scale.crop_sides[1]:
        raise ConfigError(f"segmenter.scale.crop_sides={config.scale.crop_sides} must be the shorter, then the longer")


def _check_cascade(cascade: CascadeConfig) -> None:
    count = len(cascade.ious)
    if not count or len(cascade.weights) != count or len(cascade.box_stds) != count:
        raise ConfigError(
            f"segmenter.cascade: ious={cascade.ious}, weights={cascade.weights} and box_stds={cascade.box_stds} must "
            "have one entry a stage each, and at least one"
        )
    if not all(0 < iou < 1 for iou in cascade.ious) or min(cascade.weights) < 0:
        raise ConfigError(
            f"segmenter.cascade: ious={cascade.ious} must lie between 0 and 1, weights={cascade.weights} not below 0"
        )
    if any(len(stds) != 4 or min(stds) <= 0 for stds in cascade.box_stds):
        raise ConfigError(f"segmenter.cascade.box_stds={cascade.box_stds}: each stage needs four positive numbers")


def _check_lengths(config: SegmenterConfig) -> None:
    pairs = {"proposals.before_nms": 2, "proposals.after_nms": 2, "pyramid.mean": 3, "pyramid.std": 3}
    levels = {"proposals.anchors": LEVELS, "grid.cells": LEVELS, "grid.scales": LEVELS}
    exact = pairs | levels | {"scale.crop_sides": 2, "optimizer.betas": 2, "pyramid.widths": 4, "pyramid.blocks": 4}
    for key, length in exact.items():
        if len(value := _get(config, key)) != length:
            raise ConfigError(f"segmenter.{key}={value} must be a list of {length}")
    if len({len(sides) for sides in config.proposals.anchors}) > 1 or not config.proposals.anchors[0]:
        raise ConfigError(f"segmenter.proposals.anchors={config.proposals.anchors}: each level needs as many sides")
    if any(len(scale) != 2 or not 0 <= scale[0] < scale[1] for scale in config.grid.scales):
        raise ConfigError(f"segmenter.grid.scales={config.grid.scales}: each level needs a lower and a higher number")
    for key in ("grid.width", "grid.mask_width", "grid.kernel"):
        if (value := _get(config, key)) % 4:
            raise ConfigError(f"segmenter.{key}={value} must be a multiple of 4, the least that a norm averages")
    if (jitter := config.scale.jitter) and not (len(jitter) == 2 and 0 < jitter[0] <= jitter[1]):
        raise ConfigError(
            f"segmenter.scale.jitter={jitter} must be the lowest and the highest factor, such as [0.1, 2.0], "
            "or [] for none"
        )
    if config.scale.jitter and config.scale.crop:
        raise ConfigError("segmenter.scale.jitter crops by itself; set segmenter.scale.crop=0")
    if config.optimizer.backbone != 1 and config.backend != "transformers":
        raise ConfigError(
            f"segmenter.optimizer.backbone={config.optimizer.backbone}: segmenter={config.name} trains its backbone "
            "at the same rate as the rest; set 1"
        )
    if config.queries.width % 32 or config.queries.width % config.queries.heads:
        raise ConfigError(
            f"segmenter.queries.width={config.queries.width} must be a multiple of 32 (its norms have 32 groups) and "
            f"of segmenter.queries.heads={config.queries.heads}"
        )
    for key in (
        "scale.short_sides",
        "scale.crop_short_sides",
        "scale.crop_sides",
        "proposals.ratios",
        "heads.mask_widths",
        "grid.cells",
    ):
        value = _get(config, key)
        if not value or min(value) <= 0:
            raise ConfigError(f"segmenter.{key}={value} must be a list of at least one positive number")


def _get(config: SegmenterConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
