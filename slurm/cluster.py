"""A cluster profile: what a stage's job asks SLURM for. One YAML file each; clusters/generic.yaml explains it."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from mal.errors import ConfigError

CLUSTERS = Path(__file__).parent / "clusters"
SPLITS = ("train", "val")


@cache
def kinds() -> tuple[str, ...]:
    """What a profile may give resources to: the stages of a run, labels by who makes them."""
    from mal.data.views import VIEWS  # with torch, which asking after a sweep need not wait for
    from mal.methods.registry import METHODS
    from slurm.trainings import trainings

    return (
        *(f"{stage}_{split}" for stage in ("shapes", *VIEWS, "quality", "semantic") for split in SPLITS),
        *(f"label_{split}.{name}" for split in SPLITS for name, method in METHODS.items() if method.labels is not None),
        *trainings(),
        *(f"detect_{name}" for name, method in METHODS.items() if method.detect is not None),
        *("published_segmenter", "detect_val", "predictions_test", "ap_val", "own_ap_val"),
        *("retention", "clustering_val", "attention_val", "maps_val", "course_val", "key_points_val", "parts_val"),
        *("class_maps_train", "class_maps_val"),
        *("weak_train", "pseudo_train", "pseudo_quality_train", "published_simformer"),
        *("segment_val", "miou_val", "similarity_val"),
        *("few_masks", "refer_train", "pseudo_points", "locate_val", "rec_val", "refer_val", "res_val", "looks_val"),
    )


@dataclass
class Resources:
    """What one stage's job asks for."""

    nodes: int = 1
    gpus: int = 0  # a node
    tasks: int | None = None  # processes a node; null: one a GPU, and one where there is none
    cpus: int = 4  # a process
    memory_gb: float = 16.0  # a node; 0: SLURM's default
    minutes: int = 60  # the time limit
    longest: int | None = None  # … or more, up to this many, where a forecast says that the stage takes longer
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of sbatch, without the dashes: {exclude: node7}

    @property
    def tasks_per_node(self) -> int:
        return self.tasks if self.tasks is not None else max(1, self.gpus)

    @property
    def gpu_hours(self) -> float:
        """Of a job that runs to its time limit once."""
        return self.nodes * self.gpus * self.minutes / 60


@dataclass
class Cluster:
    """A cluster profile."""

    speed: float = 1.0  # of one of its GPUs, a V100's being 1: for forecasts
    device: str = "cuda"  # what the compute nodes compute with: cuda | cpu. It decides the precision, hence the keys
    setup: list[str] = field(default_factory=list)  # shell lines at the start of each job: module load …
    requeues: int = 20  # a stage counts as failed when its starts have taken 1 + so many time limits
    parallel: int = 64  # jobs of one array that run at the same time
    notice_seconds: int = 120  # between SIGUSR2 and the time limit: time to finish a step and write a checkpoint
    defaults: dict[str, Any] = field(default_factory=dict)  # Resources of every stage
    stages: dict[str, dict[str, Any] | None] = field(
        default_factory=dict
    )  # what differs, by stage name or pattern; later ones win

    def resources(self, stage: str) -> Resources:
        """What a stage's job asks for.

        Raises:
            ConfigError: a resource that there is no such, or a value that makes no sense.
        """
        chosen = dict(self.defaults)
        for pattern, changes in self.stages.items():
            if fnmatchcase(stage, pattern):
                chosen |= changes or {}
        try:
            found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Resources), chosen))
        except OmegaConfBaseException as error:
            raise ConfigError(f"the cluster profile's resources of {stage}: {str(error).splitlines()[0]}") from error
        assert isinstance(found, Resources)
        for name in ("nodes", "tasks_per_node", "cpus", "minutes"):
            if getattr(found, name) < 1:
                raise ConfigError(f"the cluster profile's resources of {stage}: {name} must be at least 1")
        if found.minutes * 60 <= self.notice_seconds + 60:  # SLURM may give the notice a minute early
            raise ConfigError(
                f"the cluster profile's resources of {stage}: minutes={found.minutes} leaves no time to work before "
                f"the notice {self.notice_seconds} s (notice_seconds), and up to a minute more, before the limit"
            )
        if found.longest is not None and found.longest < found.minutes:
            raise ConfigError(
                f"the cluster profile's resources of {stage}: longest={found.longest} is less than "
                f"minutes={found.minutes}"
            )
        if found.gpus < 0 or found.memory_gb < 0:
            raise ConfigError(f"the cluster profile's resources of {stage}: gpus and memory_gb cannot be negative")
        return found


def read_cluster(name: str) -> Cluster:
    """A profile by the name of its file in slurm/clusters, or by a path.

    Raises:
        ConfigError: there is none, it holds what a profile does not, or what makes no sense for some stage.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CLUSTERS / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in CLUSTERS.glob("*.yaml")))
        raise ConfigError(
            f"launcher.cluster={name}: there is no {path}; choose from {there}, or copy slurm/clusters/generic.yaml, "
            "adapt it and give its path"
        )
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Cluster), OmegaConf.load(path)))
    except YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(found, Cluster)
    if found.device not in ("cuda", "cpu"):
        raise ConfigError(f"{path}: device={found.device} must be cuda or cpu")
    for key in ("parallel", "notice_seconds"):
        if getattr(found, key) < 1:
            raise ConfigError(f"{path}: {key}={getattr(found, key)} must be at least 1")
    if not 0 < found.speed < float("inf"):
        raise ConfigError(
            f"{path}: speed={found.speed} must be positive: how many times as fast as a V100 its GPUs are"
        )
    if found.requeues < 0:
        raise ConfigError(f"{path}: requeues={found.requeues} cannot be negative")
    for pattern in found.stages:
        if not any(fnmatchcase(kind, pattern) for kind in kinds()):
            raise ConfigError(f"{path}: stages: {pattern} fits no stage; there are {', '.join(kinds())}")
    for kind in kinds():
        found.resources(kind)
    return found
