"""Settings of BESTIE. Sources: docs/method/bestie.md (R the released program, I inferred here)."""

from dataclasses import dataclass, field

from mal.bounds import number, sizes


@dataclass
class NetworkConfig:
    """What reads the encoder's maps, in the class network and in the instance network."""

    width: int = number(256, 1, 1 << 16)  # channels of the decoder's maps
    stride: int = number(4, 1, 64)  # of the finest of these, in pixels; predictions are enlarged from there


@dataclass
class ClassMapsConfig:
    """The class network, which learns from the points where the classes are, and its maps (I)."""

    absent: float = number(1.0, 0, 1e6)  # weight of what absent classes have of the pixels
    background: float = number(1.0, 0, 1e6)  # weight of the pixels that look least like objects as background
    radius: float = number(0.1, 0, 1)  # of the disc that an object is expected to fill; a share of the shorter side
    # × the area of all discs: so much of an image, what looks most like objects, is not called background
    spared: float = number(2.0, 0, 1e6)
    # where points are known, how far from them their classes are likelier; a share of the shorter side, 0: nowhere
    reach: float = number(0.2, 0, 1e3)


@dataclass
class TargetsConfig:
    """What the instance network learns from class maps and points."""

    sigma: float = number(6.0, 1e-3)  # of the Gaussians at the points, in pixels (R)
    region: int = number(50, 1)  # pixels of the smallest region that gives offsets (R)


@dataclass
class LossesConfig:
    """The instance network's."""

    hardest: float = number(0.2, 1e-6, 1)  # share of an image's pixels in the loss of the classes (R)
    centre: float = number(200.0, 0, 1e9)  # weight (R)
    offset: float = number(0.01, 0, 1e9)  # weight (R)
    refined: float = number(0.5, 0, 1)  # share of the refined targets in the loss of the offsets (R: an average)


@dataclass
class ScaleConfig:
    """Sizes in pixels."""

    short_side: int = number(480, 1)  # of an image at a scale of 1 (R: the crop and 64)
    scales: list[float] = sizes([0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3])  # drawn in training (R)
    crop: int = number(416, 1)  # side of the square that a network learns from (R)
    flip: float = number(0.5, 0, 1)
    colour: bool = True  # brightness, contrast, saturation and hue drawn too (R)
    test_short_side: int = number(480, 1)  # of whole images, for maps, labels and detections
    test_long_side: int = number(1333, 1)  # at most


@dataclass
class LearningConfig:
    """The same for either network, but for the number of steps."""

    batch: int = number(16, 1, 1 << 16)  # (R)
    class_steps: int = number(50_000, 1)  # of the class network (I)
    steps: int = number(50_000, 1)  # of the instance network (R)
    lr: float = number(5e-5, 0, 1)  # Adam (R)
    warmup_steps: int = number(2000, 0)  # linear (R)
    power: float = number(0.9, 0, 100)  # of the polynomial by which the rate falls to 0 (R)
    clip: float | None = None  # norm of all gradients


@dataclass
class DetectionConfig:
    """What is kept at test time."""

    flip: bool = True  # each image is also shown flipped (R)
    window: int = number(41, 1, 1 << 12)  # side in pixels, odd: a peak is the largest value in it (R)
    peak: float = number(0.1, 0, 1e6)  # a peak is higher than this (R)
    max_detections: int = number(100, 1, 1 << 16)  # per image


@dataclass
class BestieConfig:
    network: NetworkConfig = field(default_factory=NetworkConfig)
    class_maps: ClassMapsConfig = field(default_factory=ClassMapsConfig)
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
