"""The schema of phase 2. One shape serves every backend; what a backend cannot do it refuses by name.

A field without a note is the quantity its name says, in the field's usual unit. Lengths are pixels of the resized
image; shares of the run are fractions, so that a profile which shrinks a schedule keeps its shape.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class PyramidConfig:
    """The backbone and its feature pyramid."""

    kind: str = "resnet"  # tiny (ours, from scratch) | resnet (torchvision) | timm | swin (transformers)
    name: str = "resnet50"  # torchvision's or timm's model name, or a size of Swin; unused for tiny
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    stem: list[int] = field(default_factory=lambda: [32])  # tiny: channels of the stride-2 convolutions before it
    widths: list[int] = field(default_factory=lambda: [32, 64, 128, 192])  # tiny: channels at strides 4, 8, 16, 32
    blocks: list[int] = field(default_factory=lambda: [1, 1, 1, 1])  # tiny: residual blocks a stage
    norm: str = "frozen"  # frozen (statistics and affine stay as loaded) | affine (only the statistics) | batch
    stride_in_1x1: bool = False  # a bottleneck that halves does so in its first 1 × 1 convolution, as the first ResNets
    # (MSRA's) did and most of detectron2's zoo does; torchvision's do in their 3 × 3
    frozen_stages: int = 0  # the stem (1) and this many stages less one keep their weights
    map_norm: bool = False  # layer norm over the channels of each of the body's maps, as detectors on ConvNeXt have it
    channels: int = 256  # of every map of the feature pyramid
    fpn_norm: bool = False  # batch norm after each of its convolutions, for training from scratch
    fpn_start: str = "kaiming"  # kaiming (torchvision, detectron2) | xavier (MMDetection); both uniform
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])  # of RGB in [0, 1]
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass
class ProposalConfig:
    """Region proposals. Pairs are (training, test)."""

    anchors: list[list[int]] = field(default_factory=lambda: [[32], [64], [128], [256], [512]])  # sides, by level
    ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])  # height / width
    exact_anchors: bool = False  # whole strides apart, sides as they come, as in MMDetection and detectron2;
    # torchvision rounds the sides, and spreads the anchors of a map that was padded
    before_nms: list[int] = field(default_factory=lambda: [2000, 1000])  # kept by score, a level
    after_nms: list[int] = field(default_factory=lambda: [2000, 1000])
    nms: float = 0.7
    sampled: int = 256  # anchors an image in the loss, at most half of them positive
    box_beta: float = 1 / 9  # where their box loss turns from square to linear; 0: it is L1


@dataclass
class HeadConfig:
    """Box and mask heads."""

    start: str = "mmdetection"  # mmdetection | detectron2 | torchvision: whose initial weights, see `rcnn.heads_start`
    sampled: int = 512  # RoIs an image in the loss
    positive: float = 0.25  # share of them that may be positive
    box_cells: int = 7  # side of the grid an RoI is pooled to for its box and class
    mask_cells: int = 14  # the same for its mask, which comes out twice as fine
    samples: int = 2  # each cell averages samples × samples points of the map; 0: about one a pixel
    aligned: bool = True  # a map's pixel i lies at i + 1/2, as in MMDetection and detectron2; torchvision has it at i
    box_width: int = 1024  # of the two fully connected layers
    box_beta: float = 1 / 9  # where the box loss turns from square to linear; 0: it is L1; a cascade has its own loss
    mask_widths: list[int] = field(default_factory=lambda: [256, 256, 256, 256])  # of the 3 × 3 convolutions
    mask_up_width: int = 256  # of the transposed convolution after them
    mask_targets: str = "share"  # share (of each cell that the mask covers) | binary (whether that is at least half)
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
    box_per_class: bool = False  # each class has its own box, instead of one for all


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
    mask_targets: str = "share"  # share (of each cell that the mask covers) | binary (see `solov2.targets`)
    deform_out: bool = False  # the mask features' last convolution, 1 × 1, is deformable too, as in MMDetection's -DCN


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
    repeat_rounding: str = "random"  # of how often: random (up with a chance of the fraction, anew each epoch) | up
    aspect_groups: bool = False  # a batch has wide images or tall ones, so that less of it is padding


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

    workers: int = 0  # processes that read images ahead, in training and prediction; 0 reads in between, in this one
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
    human_checkpoint: str | None = None  # a published segmenter's file, measured in place of one trained on human masks
    class_agnostic: bool = False  # every category becomes one, in training
    mask_head: Any = True  # true | none (or false): a plain detector (Table 7)
    dcn: bool = False  # deformable convolutions in stages 3-5
    precision: str = "auto"  # auto (bf16 on a GPU, fp32 on a CPU) | fp32 | bf16 | fp16
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
