"""The schema of every setting; each room's own stand in its config.py, with the values they may have.

Hydra composes experiments/conf into it. An unknown key or a wrong type fails there, a value out of its bounds in
`bounds.check`, values that do not go together in config_checks.py: all before any work starts.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mal.bounds import number
from mal.data.config import DataConfig, RoiConfig
from mal.encoders.config import EncoderConfig
from mal.methods.attentionshift.config import AttentionShiftConfig
from mal.methods.bestie.config import BestieConfig
from mal.methods.mal.config import (
    AttentionConfig,
    AugmentConfig,
    ClusteringConfig,
    CrfConfig,
    DecoderConfig,
    LabelConfig,
    LossConfig,
    TrainConfig,
)
from mal.methods.partialres.config import PartialresConfig
from mal.methods.simformer.config import SimformerConfig
from mal.segmenters.config import SegmenterConfig


@dataclass
class RootsConfig:
    """Where each data set lies: what data.root is where nobody sets it."""

    coco: str | None = None
    lvis: str | None = None
    voc: str | None = None
    coco_stuff: str | None = None
    ade20k: str | None = None
    refcoco: str | None = None


@dataclass
class LabelerConfig:
    # mal | attentionshift | bestie | simformer | partialres | box | ellipse | grabcut | disc | gt | file | sam | none
    name: str = MISSING
    file: str | None = None  # of labeler=file: COCO file with masks of the training images
    val_file: str | None = None  # … of the validation images
    checkpoint: str = "facebook/sam-vit-base"  # of labeler=sam: a name on the Hugging Face hub, or a local folder
    # of labeler=disc: a share of the image's shorter side. A tenth had the best mean IoU of .04 … .3 on the training
    # images of shapes (.33), parts (.33) and coco_mini (.22) alike, with points of kind `inside`
    radius: float = number(0.1, 0, 1)


@dataclass
class EvaluateConfig:
    bootstrap: int = number(1000, 2, 1 << 20)  # resamples of the images behind each interval
    voc: bool = False  # mAP of masks as PASCAL VOC measures it, beside COCO's AP (mal/metrics/voc.py)


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
    # a row of an experiment, by its name, in whose place a sweep puts the row's overrides; configs written before rows
    # stood in the experiments' files have a mapping here
    row: Any = None
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
    attentionshift: AttentionShiftConfig = field(default_factory=AttentionShiftConfig)
    bestie: BestieConfig = field(default_factory=BestieConfig)
    simformer: SimformerConfig = field(default_factory=SimformerConfig)
    partialres: PartialresConfig = field(default_factory=PartialresConfig)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
