"""Settings of Mask Auto-Labeler: decoder, augmentation, losses, mean field, training, labelling and looks inside."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from mal.bounds import choice, number, numbers


@dataclass
class FcConfig:
    """Sizes of the fully connected decoder (Fig. 3a)."""

    hidden: int = number(2048, 1, 1 << 16)  # of the one hidden layer (§4.5)
    pool: int = number(7, 1, 64)  # the encoder's map is averaged to pool × pool cells first
    side: int = number(56, 1, 512)  # of the mask map


@dataclass
class QueryConfig:
    """The transformer of the query-based decoder (Fig. 3d); its width is `decoder.width`."""

    layers: int = number(9, 1, 64)
    heads: int = number(8, 1, 64)
    queries: int = number(100, 1, 1 << 12)
    ffn: int = number(8, 1, 64)  # hidden width of the feed-forward layers ÷ width
    # how the queries' masks become one; score: weighted by a learned score
    combine: str = choice("score", ("score", "max", "mean"))


@dataclass
class DecoderConfig:
    name: str = choice(MISSING, ("attention", "fc", "fcn", "query"))
    width: int = number(256, 1, 1 << 16)
    pool: str = choice(MISSING, ("max", "mean"))  # max (paper) | mean (released)
    key_layers: int = choice(MISSING, (1, 2))  # 1: FC (paper) | 2: FC-ReLU-FC (released)
    upsample_before: int = choice(MISSING, (1, 2, 3, 4))  # the ×2 sits before this convolution of V: 3 (paper) | 4
    # released: 1/32, 1/16, 1/8 for S, M, L before V | paper: 1/16, 1/8, 1/4 (A.2)
    scale: str = choice("released", ("released", "paper"))
    # scales the last layer (of K, of the mask embedding) at initialisation: large logits saturate
    key_gain: float = number(1.0, 0)
    strides: list[int] | None = numbers(None, 3, 1, 4096)  # overrides scale: input ÷ map side before V's doubling
    fc: FcConfig = field(default_factory=FcConfig)
    query: QueryConfig = field(default_factory=QueryConfig)


@dataclass
class AugmentConfig:
    """Student-only photometrics."""

    jitter: list[float] = numbers(MISSING, 4, 0)  # brightness, contrast, saturation, hue
    jitter_p: float = number(MISSING, 0, 1)
    grey_p: float = number(MISSING, 0, 1)
    blur_sigma: list[float] = numbers(MISSING, 2, 1e-3)  # lowest and highest, in pixels of the crop
    blur_p: float = number(MISSING, 0, 1)


@dataclass
class LossConfig:
    mil: str = choice(MISSING, ("joint", "separate"))  # one dice over all bags (paper) | rows + columns (released)
    smooth: float = number(MISSING, 0, 1)  # added to each of the dice's squared sums
    mil_weight: float = number(MISSING, 0)
    crf_weight: float = number(MISSING, 0)
    mil_warmup: float = number(MISSING, 0, 1)  # fraction of the run over which the weight rises from 0
    crf_warmup: float = number(MISSING, 0, 1)
    # cell: inside the box or not, by its centre | fraction: cells on the box's edge count .5 or .25
    box_mask: str = choice("cell", ("cell", "fraction"))
    stride: int = number(MISSING, 1, 64)  # losses are computed on maps of roi.size / stride


@dataclass
class CrfConfig:
    form: str = choice(MISSING, ("two_label", "literal"))  # literal: Algorithm 1 as printed
    zeta: float = number(MISSING, 1e-6)
    omega: float = number(MISSING, 0)
    kernel: int = MISSING  # side of the neighbourhood
    dilation: int = number(MISSING, 1, 64)
    centre: bool = MISSING  # the pixel counts as its own neighbour
    iterations: int = number(MISSING, 1, 100_000)
    image: str = choice(MISSING, ("student", "plain"))  # student: augmented
    antialias: bool = True  # in resizing that image to the losses' resolution
    backend: str = choice("auto", ("auto", "torch", "triton"))  # how, not what; auto: triton on a GPU, torch elsewhere


@dataclass
class TrainConfig:
    start: str | None = None  # a trained labeler to go on from instead of the encoder's weights: a file, or `default`
    batch: int = number(MISSING, 1, 1 << 20)
    accumulate: int = number(MISSING, 1, 1 << 20)  # micro-batches a step is computed in
    epochs: float | None = None
    steps: int | None = None  # instead of epochs
    lr_per_image: float = number(MISSING, 0, 1)  # peak learning rate ÷ batch
    warmup: float = number(MISSING, 0, 1)  # fraction of the run
    final_lr: float = number(MISSING, 0, 1)  # fraction of the peak at the end of the cosine
    betas: list[float] = numbers(MISSING, 2, 0, 0.999999)
    eps: float = number(MISSING, 0, 1)
    weight_decay: float = number(MISSING, 0)
    ema: float = number(MISSING, 0, 1)
    precision: str = choice(MISSING, ("auto", "fp32", "bf16", "fp16"))  # auto: bf16 on a GPU, fp32 on a CPU
    compile: bool = False  # on a GPU, torch.compile: a minute or two at the start, steps up to twice as fast
    checkpoint_seconds: float = number(120.0, 0)
    stop_after: int | None = None  # leave cleanly after this many steps of this call, checkpoint written
    pool_images: int = number(MISSING, 1, 1 << 20)  # whose boxes are shuffled together; each is decoded once an epoch
    workers: int = number(2, 0, 256)  # processes that decode and crop; 0: the process that trains does it


@dataclass
class LabelConfig:
    network: str = choice(MISSING, ("student", "teacher", "both"))
    flip: bool = MISSING  # average the logits of the crop and its mirror image
    threshold: list[float] = numbers(MISSING, 3, 0, 0.999999)  # for S, M, L
    # the decoder's map to the crop: direct | two_step (by way of the losses' resolution)
    upsample: str = choice("direct", ("direct", "two_step"))
    antialias: bool = True  # in resizing probabilities from the crop to the window: it widens small masks
    cut: bool = True  # what the resizing brings beyond the box is dropped
    batch: int = number(MISSING, 1, 1 << 20)
    shard_images: int = number(MISSING, 1, 1 << 20)


@dataclass
class ClusteringConfig:
    """Clustering score (Eq. 6, Table 6) of the encoder's features on the validation images."""

    enabled: bool = False
    source: str = choice("crops", ("crops", "images"))  # images: each resized to roi.size
    # pretrained: as encoder= gives it, no training | trained: by MAL, in this run
    encoder: str = choice("pretrained", ("pretrained", "trained"))


@dataclass
class AttentionConfig:
    """Attention maps of a plain ViT's layers on some validation crops (Figure 5)."""

    enabled: bool = False
    encoder: str = choice("trained", ("pretrained", "trained"))
    layers: list[int] = field(default_factory=lambda: [4, 8, 12])
    # whose attention is shown: centre (of the crop) | mean (of all patches) | class (token)
    query: str = choice("centre", ("centre", "mean", "class"))
    examples: int = number(8, 1, 1000)
