"""The schema of every setting. Hydra composes experiments/conf into it; an unknown key or a wrong type fails there,
a value that makes no sense fails in `check`, both before any work starts."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from mal.boxes import BORDERS, EXPANSIONS
from mal.errors import ConfigError, NotBuiltYet
from mal.segmenters.config import SegmenterConfig


@dataclass
class SplitConfig:
    """One split's files. `annotations` and `images` are relative to `data.root` when that is set."""

    annotations: str | None = None
    images: str | None = None


@dataclass
class LabelerTrainConfig(SplitConfig):
    """What the labeler learns from where that is another data set than the one it labels (Table 2's last rows)."""

    name: str | None = None  # of that data set; tables say labeler mal:NAME


@dataclass
class ShapesConfig:
    """The procedural dataset: how many images, their side in pixels, the seed."""

    train_images: int = 400
    val_images: int = 100
    size: int = 256
    seed: int = 0


@dataclass
class DataConfig:
    name: str = MISSING
    format: str = "coco"  # shapes | coco | lvis
    root: str | None = None
    train: SplitConfig = field(default_factory=SplitConfig)
    val: SplitConfig = field(default_factory=SplitConfig)
    test: SplitConfig = field(default_factory=SplitConfig)  # images without annotations, for COCO's server
    labeler_train: LabelerTrainConfig = field(default_factory=LabelerTrainConfig)  # unset: it learns from train
    val_images: str = "all"  # all | even | odd: which of the sorted val image ids the scores are measured on
    on_bad_image: str = "error"  # error | skip (reported by name and counted)
    class_agnostic: bool = False  # phase 2 sees one class: for sets with too few images a class
    shapes: ShapesConfig = field(default_factory=ShapesConfig)


@dataclass
class EncoderConfig:
    name: str = MISSING
    timm: str = MISSING  # any timm model name
    pretrained: bool = True
    checkpoint: str | None = None  # safetensors or torch file; replaces the download
    levels: list[int] | None = None  # strides fused top-down, e.g. [8, 16, 32]; null: as `fuse` says
    fuse: bool = False  # true: every stride of a pyramid from 4 up (a plain ViT has one); false: the last stage alone
    width: int = 128  # channels of the fused map, where levels are fused
    freeze_norm: bool = False  # batch-norm statistics and affine parameters stay as loaded
    mean: list[float] | None = None  # null: the model's own, as timm states it
    std: list[float] | None = None
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model


@dataclass
class FcConfig:
    """Sizes of the fully connected decoder (Fig. 3a)."""

    hidden: int = 2048  # of the one hidden layer (§4.5)
    pool: int = 7  # the encoder's map is averaged to pool × pool cells first
    side: int = 56  # of the mask map


@dataclass
class QueryConfig:
    """The transformer of the query-based decoder (Fig. 3d); its width is `decoder.width`."""

    layers: int = 9
    heads: int = 8
    queries: int = 100
    ffn: int = 8  # hidden width of the feed-forward layers ÷ width
    combine: str = "score"  # how the queries' masks become one: score (weighted by a learned score) | max | mean


@dataclass
class DecoderConfig:
    name: str = MISSING  # attention | fc | fcn | query
    width: int = 256
    pool: str = MISSING  # max (paper) | mean (released)
    key_layers: int = MISSING  # 1: FC (paper) | 2: FC-ReLU-FC (released)
    upsample_before: int = MISSING  # the ×2 sits before this convolution of V: 3 (paper) | 4 (released)
    scale: str = "released"  # released: 1/32, 1/16, 1/8 for S, M, L before V | paper: 1/16, 1/8, 1/4 (A.2)
    key_gain: float = (
        1.0  # scales the last layer (of K, of the mask embedding) at initialisation: large logits saturate
    )
    strides: list[int] | None = None  # overrides scale: input ÷ map side before V's doubling, for S, M, L
    fc: FcConfig = field(default_factory=FcConfig)
    query: QueryConfig = field(default_factory=QueryConfig)


@dataclass
class LabelerConfig:
    name: str = MISSING  # mal | box | ellipse | grabcut | gt | file | sam | none
    file: str | None = None  # of labeler=file: COCO file with masks of the training images
    val_file: str | None = None  # … of the validation images
    checkpoint: str = "facebook/sam-vit-base"  # of labeler=sam: a name on the Hugging Face hub, or a local folder


@dataclass
class RoiConfig:
    size: int = MISSING  # side in pixels that a crop is resized to
    expansion: str = MISSING
    theta: float = MISSING
    label_expansion: float = MISSING  # × half the box's size, each side
    border: str = MISSING
    flip: float = MISSING
    min_side: float = MISSING  # a box is used only if w and h exceed this
    min_area: float = MISSING  # training only: w · h strictly between these
    max_area: float = MISSING


@dataclass
class AugmentConfig:
    """Student-only photometrics."""

    jitter: list[float] = MISSING  # brightness, contrast, saturation, hue
    jitter_p: float = MISSING
    grey_p: float = MISSING
    blur_sigma: list[float] = MISSING  # lowest and highest, in pixels of the crop
    blur_p: float = MISSING


@dataclass
class LossConfig:
    mil: str = MISSING  # joint: one dice over all bags (paper) | separate: rows + columns (released)
    smooth: float = MISSING  # added to each of the dice's squared sums
    mil_weight: float = MISSING
    crf_weight: float = MISSING
    mil_warmup: float = MISSING  # fraction of the run over which the weight rises from 0
    crf_warmup: float = MISSING
    stride: int = MISSING  # losses are computed on maps of roi.size / stride


@dataclass
class CrfConfig:
    form: str = MISSING  # two_label | literal (Algorithm 1 as printed)
    zeta: float = MISSING
    omega: float = MISSING
    kernel: int = MISSING  # side of the neighbourhood
    dilation: int = MISSING
    centre: bool = MISSING  # the pixel counts as its own neighbour
    iterations: int = MISSING
    image: str = MISSING  # student (augmented) | plain


@dataclass
class TrainConfig:
    batch: int = MISSING
    accumulate: int = MISSING  # micro-batches a step is computed in
    epochs: float | None = None
    steps: int | None = None  # instead of epochs
    lr_per_image: float = MISSING  # peak learning rate ÷ batch
    warmup: float = MISSING  # fraction of the run
    final_lr: float = MISSING  # fraction of the peak at the end of the cosine
    betas: list[float] = MISSING
    eps: float = MISSING
    weight_decay: float = MISSING
    ema: float = MISSING
    precision: str = MISSING  # auto (bf16 on a GPU, fp32 on a CPU) | fp32 | bf16 | fp16
    checkpoint_seconds: float = 120.0
    stop_after: int | None = None  # leave cleanly after this many steps of this call, checkpoint written
    pool_images: int = MISSING  # images whose boxes are shuffled together; each is decoded once an epoch
    workers: int = 2  # threads that decode and crop


@dataclass
class LabelConfig:
    network: str = MISSING  # student | teacher | both
    flip: bool = MISSING  # average the logits of the crop and its mirror image
    threshold: list[float] = MISSING  # for S, M, L
    batch: int = MISSING
    shard_images: int = MISSING


@dataclass
class ClusteringConfig:
    """Clustering score (Eq. 6, Table 6) of the encoder's features on the validation images."""

    enabled: bool = False
    source: str = "crops"  # crops | images (each resized to roi.size)
    encoder: str = "pretrained"  # pretrained (as encoder= gives it: no training) | trained (by MAL, in this run)


@dataclass
class AttentionConfig:
    """Attention maps of a plain ViT's layers on some validation crops (Figure 5)."""

    enabled: bool = False
    encoder: str = "trained"  # pretrained | trained
    layers: list[int] = field(default_factory=lambda: [4, 8, 12])
    query: str = "centre"  # whose attention is shown: centre (of the crop) | mean (of all patches) | class (token)
    examples: int = 8


@dataclass
class EvaluateConfig:
    bootstrap: int = 1000  # resamples of the images behind each interval


@dataclass
class TrackingConfig:
    enabled: bool = True
    uri: str = "sqlite:///results/mlflow.db"
    experiment: str = "mal"


@dataclass
class Config:
    profile: str = MISSING
    recipe: str = MISSING
    experiment: str | None = None
    seed: int = 0
    device: str = "auto"
    deterministic: bool = False
    dry_run: bool = False
    store: str = "results/runs"
    sweep: dict[str, dict[str, str]] = field(default_factory=dict)  # of an experiment: profile → what its rows vary
    row: dict[str, str] = field(default_factory=dict)  # of an experiment's row: the menu entries that it stands for
    compare: list[str] = field(default_factory=list)  # baseline labelers whose mask quality is shown beside
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    labeler: LabelerConfig = field(default_factory=LabelerConfig)
    roi: RoiConfig = field(default_factory=RoiConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


CHOICES = {
    "data.format": ("shapes", "coco", "lvis"),
    "data.val_images": ("all", "even", "odd"),
    "data.on_bad_image": ("error", "skip"),
    "decoder.name": ("attention", "fc", "fcn", "query"),
    "decoder.pool": ("max", "mean"),
    "decoder.key_layers": (1, 2),
    "decoder.upsample_before": (1, 2, 3, 4),
    "decoder.scale": ("released", "paper"),
    "decoder.query.combine": ("score", "max", "mean"),
    "labeler.name": ("mal", "box", "ellipse", "grabcut", "gt", "file", "sam", "none"),
    "roi.expansion": EXPANSIONS,
    "roi.border": BORDERS,
    "loss.mil": ("joint", "separate"),
    "crf.form": ("two_label", "literal"),
    "crf.image": ("student", "plain"),
    "train.precision": ("auto", "fp32", "bf16", "fp16"),
    "label.network": ("student", "teacher", "both"),
    "clustering.source": ("crops", "images"),
    "clustering.encoder": ("pretrained", "trained"),
    "attention.encoder": ("pretrained", "trained"),
    "attention.query": ("centre", "mean", "class"),
}

RANGES = {  # lowest and highest allowed, both included
    "decoder.fc.hidden": (1, 1 << 16),
    "decoder.fc.pool": (1, 64),
    "decoder.fc.side": (1, 512),
    "decoder.query.layers": (1, 64),
    "decoder.query.heads": (1, 64),
    "decoder.query.queries": (1, 1 << 12),
    "decoder.query.ffn": (1, 64),
    "roi.size": (16, 4096),
    "roi.theta": (0, 10),
    "roi.label_expansion": (0, 10),
    "roi.flip": (0, 1),
    "roi.min_side": (0, float("inf")),
    "encoder.width": (1, 1 << 16),
    "decoder.width": (1, 1 << 16),
    "decoder.key_gain": (0, float("inf")),
    "augment.jitter_p": (0, 1),
    "augment.grey_p": (0, 1),
    "augment.blur_p": (0, 1),
    "loss.smooth": (0, 1),
    "loss.mil_weight": (0, float("inf")),
    "loss.crf_weight": (0, float("inf")),
    "loss.mil_warmup": (0, 1),
    "loss.crf_warmup": (0, 1),
    "loss.stride": (1, 64),
    "crf.zeta": (1e-6, float("inf")),
    "crf.omega": (0, float("inf")),
    "crf.dilation": (1, 64),
    "crf.iterations": (1, 100_000),
    "train.batch": (1, 1 << 20),
    "train.accumulate": (1, 1 << 20),
    "train.lr_per_image": (0, 1),
    "train.warmup": (0, 1),
    "train.final_lr": (0, 1),
    "train.ema": (0, 1),
    "train.eps": (0, 1),
    "train.weight_decay": (0, float("inf")),
    "train.checkpoint_seconds": (0, float("inf")),
    "train.pool_images": (1, 1 << 20),
    "train.workers": (1, 256),
    "label.batch": (1, 1 << 20),
    "label.shard_images": (1, 1 << 20),
    "attention.examples": (1, 1000),
    "evaluate.bootstrap": (2, 1 << 20),
    "data.shapes.train_images": (1, 1 << 24),
    "data.shapes.val_images": (1, 1 << 24),
    "data.shapes.size": (64, 4096),
}

LENGTHS = {  # lists that must have so many numbers, and lowest and highest of each
    "augment.jitter": (4, 0, float("inf")),
    "augment.blur_sigma": (2, 1e-3, float("inf")),
    "encoder.mean": (3, -float("inf"), float("inf")),
    "encoder.std": (3, 1e-6, float("inf")),
    "train.betas": (2, 0, 0.999999),
    "label.threshold": (3, 0, 0.999999),
    "decoder.strides": (3, 1, 4096),
}

EXPERIMENTS_BUILT = (
    "baselines",
    "tab1_coco",
    "tab2_lvis",
    "tab3_decoder",
    "tab4_encoder",
    "tab5_theta",
    "tab6_clustering",
    "tab7_detection",
    "fig5",
    "fig6",
    "fig7",
)


def check(config: Config) -> None:
    """Refuse values that would only fail later, or never.

    Raises:
        ConfigError: names the key, its value and what is allowed.
        NotBuiltYet: an experiment that is a name only so far.
    """
    _check_keys(config, "")
    if config.experiment is not None and config.experiment not in EXPERIMENTS_BUILT:
        raise NotBuiltYet(f"experiment={config.experiment} is not built yet; built: {', '.join(EXPERIMENTS_BUILT)}")
    for key, choices in CHOICES.items():
        value = _get(config, key)
        if value not in choices:
            raise ConfigError(f"{key}={value} is unknown; choose one of {', '.join(map(str, choices))}")
    for key, (low, high) in RANGES.items():
        value = _get(config, key)
        if not low <= value <= high:
            raise ConfigError(f"{key}={value} is out of range; choose a value from {low:g} to {high:g}")
    for key, (length, low, high) in LENGTHS.items():
        value = _get(config, key)
        if value is not None and (len(value) != length or not all(low <= number <= high for number in value)):
            raise ConfigError(f"{key}={value} must be {length} numbers from {low:g} to {high:g}")
    _check_relations(config)
    _check_data(config)
    _check_row(config)


def _check_keys(part: Any, place: str) -> None:
    """Hydra's `+key=value` adds keys that no code reads: refuse them."""
    known = {entry.name for entry in fields(part)}
    for key, value in vars(part).items():
        if key not in known:
            raise ConfigError(
                f"there is no setting {place}{key}; {place or 'the top level'} has {', '.join(sorted(known))}"
            )
        if is_dataclass(value):
            _check_keys(value, f"{place}{key}.")


def _check_relations(config: Config) -> None:
    train, roi, crf = config.train, config.roi, config.crf
    if (train.epochs is None) == (train.steps is None):
        raise ConfigError("set exactly one of train.epochs and train.steps (the other to null)")
    for key, value in (("train.epochs", train.epochs), ("train.steps", train.steps)):
        if value is not None and value <= 0:
            raise ConfigError(f"{key}={value} must be positive")
    if train.batch % train.accumulate:
        raise ConfigError(f"train.batch={train.batch} is not divisible by train.accumulate={train.accumulate}")
    if roi.size % config.loss.stride:
        raise ConfigError(f"roi.size={roi.size} is not divisible by loss.stride={config.loss.stride}")
    if crf.kernel < 3 or crf.kernel % 2 == 0:
        raise ConfigError(f"crf.kernel={crf.kernel} must be odd and at least 3")
    if roi.max_area <= roi.min_area:
        raise ConfigError(f"roi.max_area={roi.max_area:g} must exceed roi.min_area={roi.min_area:g}")
    if train.stop_after is not None and train.stop_after < 1:
        raise ConfigError(f"train.stop_after={train.stop_after} must be at least 1, or null")
    if config.labeler.name == "none" and not (config.clustering.enabled or config.attention.enabled):
        raise ConfigError("labeler=none leaves nothing to do; set clustering.enabled=true or attention.enabled=true")
    _check_files(config)
    if not config.attention.layers:
        raise ConfigError("attention.layers=[] is empty; give layers counted from 1, such as [4,8,12]")
    for name in config.compare:
        if name not in CHOICES["labeler.name"]:
            raise ConfigError(f"compare names {name}; choose from {', '.join(map(str, CHOICES['labeler.name']))}")


def _check_files(config: Config) -> None:
    """labeler=file needs its files; which ones follows from what is asked of them."""
    labeler = config.labeler
    if (
        labeler.name == "file"
        and labeler.file is None
        and (config.segmenter.name != "none" or labeler.val_file is None)
    ):
        raise ConfigError("labeler=file needs labeler.file=FILE, a COCO file with masks of the training images")
    if "file" in config.compare and labeler.val_file is None:
        raise ConfigError("compare names file: give labeler.val_file=FILE, a COCO file with masks of the val images")


def _check_data(config: Config) -> None:
    data = config.data
    if data.class_agnostic and data.format == "lvis":
        raise ConfigError(
            "data.class_agnostic=true: LVIS's evaluation judges each category by itself; use data.format=coco with it"
        )
    if data.class_agnostic and data.test.annotations is not None:
        raise ConfigError(
            "data.class_agnostic=true: COCO's evaluation server wants categories; leave data.test.annotations out"
        )
    other = data.labeler_train
    if len({value is None for value in (other.name, other.annotations, other.images)}) > 1:
        raise ConfigError(
            f"data.labeler_train has name={other.name}, annotations={other.annotations}, images={other.images}; "
            "set all three, or none"
        )


def _check_row(config: Config) -> None:
    """A row of a table is what it says, or nothing: local.yaml and the command line outrank what a row chooses."""
    for group, name in config.row.items():
        chosen = config.data.labeler_train.name if group == "labeler_data" else _get(config, group).name
        if chosen != name:
            raise ConfigError(
                f"this row of the table is of {group}={name}, but {group}={chosen} was chosen on the command line or "
                f"among the overrides in local.yaml; leave {group} out there"
            )


def _get(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
