"""The schema of phase 2. One shape serves every backend; what a backend cannot do it refuses by name.

A field without a note is the quantity its name says, in the field's usual unit. Lengths are pixels of the resized
image; shares of the run are fractions, so that a profile which shrinks a schedule keeps its shape.
"""

from dataclasses import dataclass, field
from typing import Any

from mal.bounds import choice, entries, number, sizes

LEVELS = 5  # strides 4, 8, 16, 32 and 64 (a subsampled 32) of the feature pyramid


@dataclass
class PyramidConfig:
    """The backbone and its feature pyramid."""

    # tiny (ours, from scratch) | resnet (torchvision) | timm | swin (transformers)
    kind: str = choice("resnet", ("tiny", "resnet", "timm", "swin"))
    name: str = "resnet50"  # torchvision's or timm's model name, or a size of Swin; unused for tiny
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    stem: list[int] = field(default_factory=lambda: [32])  # tiny: channels of the stride-2 convolutions before it
    widths: list[int] = entries([32, 64, 128, 192], 4)  # tiny: channels at strides 4, 8, 16, 32
    blocks: list[int] = entries([1, 1, 1, 1], 4)  # tiny: residual blocks per stage
    # frozen (statistics and affine stay as loaded) | affine (only the statistics) | batch
    norm: str = choice("frozen", ("frozen", "affine", "batch"))
    stride_in_1x1: bool = False  # a bottleneck that halves does so in its first 1 × 1 convolution, as the first ResNets
    # (MSRA's) did and most of detectron2's zoo does; torchvision's do in their 3 × 3
    frozen_stages: int = number(0, 0, 5)  # the stem (1) and this many stages less one keep their weights
    map_norm: bool = False  # layer norm over the channels of each of the body's maps, as detectors on ConvNeXt have it
    channels: int = number(256, 1, 1 << 16)  # of every map of the feature pyramid
    fpn_norm: bool = False  # batch norm after each of its convolutions, for training from scratch
    # kaiming (torchvision, detectron2) | xavier (MMDetection); both uniform
    fpn_start: str = choice("kaiming", ("kaiming", "xavier"))
    mean: list[float] = entries([0.485, 0.456, 0.406], 3)  # of RGB in [0, 1]
    std: list[float] = entries([0.229, 0.224, 0.225], 3)


@dataclass
class ProposalConfig:
    """Region proposals. Pairs are (training, test)."""

    anchors: list[list[int]] = entries([[32], [64], [128], [256], [512]], LEVELS)  # sides, by level
    ratios: list[float] = sizes([0.5, 1.0, 2.0])  # height / width
    exact_anchors: bool = False  # whole strides apart, sides as they come, as in MMDetection and detectron2;
    # torchvision rounds the sides, and spreads the anchors of a map that was padded
    before_nms: list[int] = entries([2000, 1000], 2)  # kept by score, per level
    after_nms: list[int] = entries([2000, 1000], 2)
    nms: float = number(0.7, 0, 1)
    sampled: int = number(256, 1, 1 << 16)  # anchors per image in the loss, at most half of them positive
    box_beta: float = number(1 / 9, 0, 100)  # where their box loss turns from square to linear; 0: it is L1


@dataclass
class HeadConfig:
    """Box and mask heads."""

    # whose initial weights, see `rcnn.heads_start`
    start: str = choice("mmdetection", ("mmdetection", "detectron2", "torchvision"))
    sampled: int = number(512, 1, 1 << 16)  # RoIs per image in the loss
    positive: float = number(0.25, 0, 1)  # share of them that may be positive
    box_cells: int = number(7, 1, 256)  # side of the grid an RoI is pooled to for its box and class
    mask_cells: int = number(14, 1, 256)  # the same for its mask, which comes out twice as fine
    samples: int = number(2, 0, 16)  # each cell averages samples × samples points of the map; 0: about one per pixel
    aligned: bool = True  # a map's pixel i lies at i + 1/2, as in MMDetection and detectron2; torchvision has it at i
    box_width: int = number(1024, 1, 1 << 16)  # of the two fully connected layers
    # where the box loss turns from square to linear; 0: it is L1; a cascade has its own loss
    box_beta: float = number(1 / 9, 0, 100)
    mask_widths: list[int] = sizes([256, 256, 256, 256])  # of the 3 × 3 convolutions
    mask_up_width: int = number(256, 1, 1 << 16)  # of the transposed convolution after them
    # share (of each cell that the mask covers) | binary (whether that is at least half)
    mask_targets: str = choice("share", ("share", "binary"))
    canonical_side: int = number(224, 1, 1 << 16)  # an RoI of this side is read from the stride-16 map (FPN, Eq. 1)


@dataclass
class CascadeConfig:
    """Stages of Cascade R-CNN (Cai & Vasconcelos, 2018); one entry per stage."""

    ious: list[float] = field(default_factory=lambda: [0.5, 0.6, 0.7])  # from which a proposal is positive
    weights: list[float] = field(default_factory=lambda: [1.0, 0.5, 0.25])  # of the losses
    box_stds: list[list[float]] = field(  # encoded x, y, w and h are divided by
        default_factory=lambda: [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    )
    box_convs: list[int] = field(default_factory=lambda: [256] * 4)  # channels, before one fully connected layer
    box_weight: float = number(10.0, 0, 1e6)  # of the generalised IoU loss
    box_per_class: bool = False  # each class has its own box, instead of one for all


@dataclass
class GridConfig:
    """SOLOv2: an object is predicted by the cells around its center, on the grids of the levels its size belongs to."""

    cells: list[int] = sizes([40, 36, 24, 16, 12], LEVELS)  # along a side, by level
    scales: list[list[int]] = entries(  # √(box area) of a level's objects, from and to, both included
        [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]], LEVELS
    )
    center: float = number(0.2, 0, 1)  # sides of the center region, as a share of the box's
    convs: int = number(4, 1, 64)  # of each of the two branches, before their last
    width: int = number(512, 4, 1 << 16)  # channels of those
    mask_width: int = number(128, 4, 1 << 16)  # channels of the mask-feature branch
    kernel: int = number(256, 4, 1 << 16)  # channels of the mask features, and so of each predicted 1 × 1 kernel
    dice: float = number(3.0, 0, 1e6)  # weight of the mask loss; the focal loss has 1
    # share (of each cell that the mask covers) | binary (see `solov2.targets`)
    mask_targets: str = choice("share", ("share", "binary"))
    deform_out: bool = False  # the mask features' last convolution, 1 × 1, is deformable too, as in MMDetection's -DCN


@dataclass
class QueryConfig:
    """Mask2Former's pixel decoder, transformer decoder and losses (Cheng et al., 2022)."""

    count: int = number(100, 1, 1 << 16)  # objects an image can have
    width: int = number(256, 32, 1 << 16)  # of both decoders and of the pixel and mask embeddings
    heads: int = number(8, 1, 1 << 10)  # of every attention
    pixel_layers: int = number(6, 1, 100)  # of deformable attention over strides 8, 16 and 32
    pixel_feed_forward: int = number(1024, 1, 1 << 16)  # hidden units of their feed-forward parts
    layers: int = number(9, 1, 100)  # of masked attention; each is supervised, and so are the queries before the first
    feed_forward: int = number(2048, 1, 1 << 16)
    points: int = number(12544, 1, 1 << 20)  # where masks are compared, in matching and in the loss (112 × 112)
    class_weight: float = number(2.0, 0, 1000)  # of the losses and of the matching costs
    mask_weight: float = number(5.0, 0, 1000)
    dice_weight: float = number(5.0, 0, 1000)
    no_object: float = number(0.1, 0, 1)  # weight in the class loss of queries that match nothing
    drop_path: float = number(0.3, 0, 1)  # rate in the last block of a Swin; a tiny backbone has none


@dataclass
class ScaleConfig:
    """Sizes images, or crops of them, are resized to, aspect kept, and the flip."""

    short_sides: list[int] = sizes([640, 672, 704, 736, 768, 800])  # training draws one
    long_side: int = number(1333, 16, 1 << 16)
    crop: float = number(0.0, 0, 1)  # share of the training images of which a random part is shown
    crop_short_sides: list[int] = sizes([400, 500, 600])  # of the image its sides are meant in
    crop_sides: list[int] = sizes([384, 600], 2)  # shortest and longest
    jitter: list[float] = field(default_factory=list)  # large-scale jitter: both are multiplied by a factor drawn from
    # between these two, and the image is cropped or padded to a square of `long_side`; empty: none
    flip: float = number(0.5, 0, 1)
    test_short_side: int = number(800, 16, 1 << 16)
    test_long_side: int = number(1333, 16, 1 << 16)


@dataclass
class OptimizerConfig:
    name: str = choice("sgd", ("sgd", "adamw"))
    lr: float = number(0.02, 0, 100)  # peak, for `base_batch` images a step; scaled linearly with the batch
    base_batch: int = number(16, 1, 1 << 20)
    backbone: float = number(1.0, 0, 1)  # × lr, for the backbone's weights
    momentum: float = number(0.9, 0, 1)
    betas: list[float] = entries([0.9, 0.999], 2)
    weight_decay: float = number(1e-4, 0, 1)
    # × lr from each layer of the backbone to the one below it; 1: all train alike
    layer_decay: float = number(1.0, 0, 1)
    layers: int = number(12, 4, 1 << 10)  # that many; only ConvNeXt's are known
    clip: float | None = None  # largest allowed gradient norm


@dataclass
class ScheduleConfig:
    batch: int = number(16, 1, 1 << 20)
    epochs: float | None = 12.0
    steps: int | None = None  # instead of epochs
    warmup: float = number(0.0, 0, 1)  # share of the run; the rate rises linearly from `warmup_start` × peak
    warmup_start: float = number(0.001, 0, 1)
    shape: str = choice("multistep", ("multistep", "cosine"))
    milestones: list[float] = field(default_factory=lambda: [8 / 12, 11 / 12])  # multistep: shares of the run
    gamma: float = number(0.1, 0, 1)  # multistep: factor at each milestone
    final: float = number(0.0, 0, 1)  # cosine: share of the peak at the end
    repeat_threshold: float | None = None  # images with a category on a smaller share of the images are repeated
    # of how often: random (up with a chance of the fraction, anew each epoch) | up
    repeat_rounding: str = choice("random", ("random", "up"))
    aspect_groups: bool = False  # a batch has wide images or tall ones, so that less of it is padding


@dataclass
class TestConfig:
    score: float = number(0.05, 0, 1)
    nms: float = number(0.5, 0, 1)
    max_detections: int = number(100, 1, 1 << 20)  # an image
    mask_threshold: float = number(0.5, 0, 1)
    batch: int = number(8, 1, 1 << 20)
    before_nms: int = number(500, 1, 1 << 20)  # matrix NMS: candidates per image, by score
    sigma: float = number(2.0, 0, 1e6)  # matrix NMS: of its Gaussian, exp(−σ · IoU²)
    decayed_score: float = number(0.05, 0, 1)  # matrix NMS: what still scores this much afterwards is a detection


@dataclass
class RunningConfig:
    """How the work is done, not what comes out: no part of a stage's identity."""

    # processes that read images ahead, in training and prediction; 0 reads in between, in this one
    workers: int = number(0, 0, 256)
    checkpoint_seconds: float = number(300.0, 0)
    checkpoint_steps: int = number(0, 0, 1 << 40)  # also every so many steps; 0: by the clock alone
    log_steps: int = number(20, 1, 1 << 40)  # steps between lines of curves.jsonl


@dataclass
class SegmenterConfig:
    name: str = "none"
    backend: str = "none"  # one of segmenters.backends, or none
    # trained: by this run | published: somebody else's whole model, evaluated and not trained
    weights: str = choice("trained", ("trained", "published"))
    pretrained: bool = True  # the backbone starts from its published weights
    checkpoint: str | None = None  # a safetensors or torch file instead of the download: the backbone's weights, or
    # where `weights` is published the whole model's
    human_checkpoint: str | None = None  # a published segmenter's file, measured in place of one trained on human masks
    class_agnostic: bool = False  # every category becomes one, in training
    mask_head: Any = True  # true | none (or false): a plain detector (Table 7)
    dcn: bool = False  # deformable convolutions in stages 3-5
    precision: str = choice("auto", ("auto", "fp32", "bf16", "fp16"))  # auto: bf16 on a GPU, fp32 on a CPU
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
