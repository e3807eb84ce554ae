"""Settings of AttentionShift's detector. "Released" is what the authors' program does; the paper gives none of them."""

from dataclasses import dataclass, field

from mal.bounds import choice, number, sizes


@dataclass
class NeckConfig:
    """The feature pyramid under the region proposals."""

    # of its levels but the last, which is twice as coarse as the fourth; pixels, from the finest to the coarsest, each
    # the ViT's patch times or divided by a power of two
    strides: list[int] = sizes([4, 8, 16, 32], 4)
    width: int = number(256, 1, 1 << 16)  # channels of every level


@dataclass
class ProposalsConfig:
    """Region proposals. Pairs are (training, test)."""

    anchor: float = number(8.0, 1e-3, 1 << 10)  # side of a level's anchors ÷ its stride
    ratios: list[float] = sizes([0.5, 1.0, 2.0])  # height / width
    before_nms: list[int] = sizes([2000, 1000], 2)  # kept by score, per level
    after_nms: list[int] = sizes([1000, 1000], 2)
    nms: float = number(0.7, 0, 1)
    sampled: int = number(256, 2, 1 << 16)  # anchors per image in the loss, at most half of them positive


@dataclass
class BoxHeadConfig:
    cells: int = number(7, 1, 256)  # side of the grid an RoI is pooled to
    iou: float = number(0.5, 0, 1)  # from which an RoI is positive
    sampled: int = number(512, 1, 1 << 16)  # RoIs per image in the loss
    positive: float = number(0.25, 0, 1)  # share of them that may be positive
    weight: float = number(10.0, 0, 1e6)  # of the generalised IoU loss


@dataclass
class MaskHeadConfig:
    # side of the grid an RoI is pooled to; masks are twice as fine. The released program trains on the box head's grid
    # (7) and tests on 14, which moves the positions and the scale of what the head reads
    grid_train: int = number(14, 1, 256)
    grid_test: int = number(14, 1, 256)
    # initial weights of the class channels: kaiming (N(2 / classes), released) | small (N(.001²))
    start: str = choice("kaiming", ("kaiming", "small"))
    # what a mask point outside its RoI counts as: skip (nothing) | positive (released, whose labels are boolean)
    ignored: str = choice("skip", ("skip", "positive"))


@dataclass
class MilHeadConfig:
    cells: int = number(7, 1, 256)  # side of the grid a candidate box is pooled to
    width: int = number(256, 1, 1 << 16)  # of the embedding of a cell
    hidden: int = number(1024, 1, 1 << 16)  # of the two fully connected layers


@dataclass
class DetectionConfig:
    """What is kept at test time."""

    score: float = number(0.05, 0, 1)
    nms: float = number(0.5, 0, 1)
    max_detections: int = number(100, 1, 1 << 16)  # per image
    mask_threshold: float = number(0.5, 0, 1)


@dataclass
class DetectorConfig:
    width: int = number(256, 4, 1 << 16)  # of the transformers in the box and mask heads, a multiple of 4 and `heads`
    depth: int = number(4, 0, 64)  # blocks of each
    heads: int = number(8, 1, 1 << 10)  # of their attention
    positions: int = number(14, 1, 256)  # side of the grid of their positions, resized to an RoI's
    neck: NeckConfig = field(default_factory=NeckConfig)
    proposals: ProposalsConfig = field(default_factory=ProposalsConfig)
    box: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    mil: MilHeadConfig = field(default_factory=MilHeadConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
