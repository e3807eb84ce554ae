"""Settings of AttentionShift's steps. Sources: docs/method/attentionshift.md (P the paper, R the released program)."""

from dataclasses import dataclass, field

from mal.bounds import choice, number


@dataclass
class RolloutConfig:
    """Step 2."""

    depth: int = number(7, 1, 64)  # D: blocks multiplied, from the last one down (R)


@dataclass
class BoxesConfig:
    """Step 3."""

    # expand: the nearer side mirrors the farther one, for central points (R) | min_max: the extent, for any point
    mode: str = choice("expand", ("expand", "min_max"))
    threshold: float = number(0.2, 0, 1)  # of the map normalised to 0…1 (R)
    keep: float = number(0.5, 0, 1)  # components of at least this share of the largest one's pixels (R)


@dataclass
class MapsConfig:
    """Step 5."""

    draws: int = number(20, 1, 1 << 16)  # pixels a prototype starts from (R)
    foreground: float = number(0.2, 0, 1)  # an instance's pixels are drawn from here up (R)
    background: float = number(0.1, 1e-6, 1)  # its background's from below this (R)
    share: float = number(0.9, 0, 1)  # of the largest cosine: what a prototype is averaged over (R)
    rounds: int = number(2, 0, 1000)  # of averaging (R)


@dataclass
class RawPointsConfig:
    """Step 6."""

    count: int = number(10, 1, 1 << 16)  # points per instance (R)
    positive: float = number(0.35, 0, 1)  # of the foreground's maximum in the box (R)
    negative: float = number(0.80, 0, 1)  # of the background's maximum in the box (R)
    erosion: int = number(21, 1, 1 << 12)  # pixels at patches of 16, scaled with the patch (R)


@dataclass
class ShiftConfig:
    """Step 7, and Table 1's K-Means in its place."""

    # shift: step 7 | kmeans_star: K-Means, then step 8 | kmeans: without step 8's filter and merging
    method: str = choice("shift", ("shift", "kmeans_star", "kmeans"))
    threshold: float = number(0.35, 0, 1)  # of the foreground before erosion, and of the eroded map at a patch (R)
    erosion: int = number(11, 1, 1 << 12)  # pixels at patches of 16, scaled with the patch (R)
    prototypes: int = number(20, 1, 1 << 12)  # (R)
    rounds: int = number(10, 0, 1000)  # (R)
    temperature: float = number(0.1, 1e-6)  # the softmax divides by this × τ (R)
    tau: float = number(0.1, 1e-6)  # τ of every prototype in the first round (R)
    # patches outside the box. zero: their features are 0, yet they count in softmax and τ (R) | exclude: left out
    outside: str = choice("zero", ("zero", "exclude"))


@dataclass
class PartsConfig:
    """Step 8."""

    similar: float = number(0.8, 0, 1)  # a part map is binarised above this before the filter (R)
    inside: float = number(0.85, 0, 1)  # the eroded foreground's mean there, at least (R)
    merge: float = number(0.85, -1, 1)  # prototypes of this cosine or more become one (R)
    area: float = number(0.9, 0, 1)  # a part's area: patches of its map above this (R)
    most: int = number(6, 1, 1 << 12)  # parts kept per instance, the largest (R: it says 5, and its loop keeps 6)


@dataclass
class MaskPointsConfig:
    """Step 9, and Table 2's other supervisions."""

    supervision: str = choice("points", ("points", "mask"))  # of the mask head
    source: str = choice("parts", ("parts", "attention"))  # attention: Table 2's baseline, without steps 5, 7 and 8
    # where an instance has no key-points. instance: its raw positives | image: none if another one has some (released)
    fallback: str = choice("instance", ("instance", "image"))
    mask: float = number(0.35, 0, 1)  # supervision=mask: of the foreground's maximum (I)
    # source=attention, on the map normalised to 0…1 (I)
    attention_count: int = number(20, 1, 1 << 16)
    attention_positive: float = number(0.2, 0, 1)
    attention_negative: float = number(0.05, 0, 1)


@dataclass
class StepsConfig:
    """Steps 2 to 9, from attention maps to what teaches the detector."""

    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    box: BoxesConfig = field(default_factory=BoxesConfig)
    maps: MapsConfig = field(default_factory=MapsConfig)
    raw_points: RawPointsConfig = field(default_factory=RawPointsConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    parts: PartsConfig = field(default_factory=PartsConfig)
    mask_points: MaskPointsConfig = field(default_factory=MaskPointsConfig)
