"""The schema of every setting. Hydra composes experiments/conf into it; an unknown key or a wrong type fails there,
a value that makes no sense fails in config_checks.py, both before any work starts."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

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
    root: str | None = None  # null: data.root


@dataclass
class RootsConfig:
    """Where each data set lies: what data.root is where nobody sets it."""

    coco: str | None = None
    lvis: str | None = None


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
    repeats: str = "background"  # training: what beyond the border shows the box again is background | foreground


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
    box_mask: str = "cell"  # cell (inside or not, by its centre) | fraction (cells on the box's edge count .5 or .25)
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
    antialias: bool = True  # in resizing that image to the losses' resolution
    backend: str = "auto"  # auto (triton on a GPU, torch elsewhere) | torch | triton: how, not what


@dataclass
class TrainConfig:
    start: str | None = None  # a trained labeler to go on from instead of the encoder's weights: a file, or `default`
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
    compile: bool = False  # on a GPU, torch.compile: a minute or two at the start, steps up to twice as fast
    checkpoint_seconds: float = 120.0
    stop_after: int | None = None  # leave cleanly after this many steps of this call, checkpoint written
    pool_images: int = MISSING  # images whose boxes are shuffled together; each is decoded once an epoch
    workers: int = 2  # processes that decode and crop; 0: the process that trains does it


@dataclass
class LabelConfig:
    network: str = MISSING  # student | teacher | both
    flip: bool = MISSING  # average the logits of the crop and its mirror image
    threshold: list[float] = MISSING  # for S, M, L
    upsample: str = "direct"  # the decoder's map to the crop: direct | two_step (by way of the losses' resolution)
    antialias: bool = True  # in resizing probabilities from the crop to the window: it widens small masks
    cut: bool = True  # what the resizing brings beyond the box is dropped
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
    uri: str | None = None  # null: $MLFLOW_TRACKING_URI, else sqlite:///results/mlflow.db
    experiment: str | None = None  # null: $MLFLOW_EXPERIMENT_NAME, else mal


@dataclass
class LauncherConfig:
    """How a sweep is sent to a cluster (hydra/launcher=slurm); see slurm/README.md."""

    cluster: str = "generic"  # a profile in slurm/clusters, or the path of one's own
    wait: bool = False  # follow the jobs to their end and show the tables, instead of returning once they are queued
    snapshot: bool = False  # run from a copy of the code as it is now, so that it can be edited while jobs wait


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
    row: Any = None  # a row of an experiment, by its name: a sweep puts the row's overrides in its place. Configs
    # written before rows stood in the experiments' files have a mapping here
    compare: list[str] = field(default_factory=list)  # baseline labelers whose mask quality is shown beside
    roots: RootsConfig = field(default_factory=RootsConfig)
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
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
