"""A sweep's folder: what was submitted, so that jobs, `slurm.status` and `slurm.cancel` agree on it.

results/sweeps/<time>/sweep.json        the stages, their jobs, and what each waits for
                      rows/0003.yaml    the resolved config of a row: what runs is what was submitted
                      logs/             one a job and process
                      failed/           why a stage failed, in its own words
                      starts/           how long each start of a stage's job ran
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mal.config import Config
from mal.engine.files import atomic_write, read_json, write_json
from mal.errors import MalError

SWEEPS = Path("results/sweeps")


@dataclass
class Entry:
    """One stage of a sweep, as it was submitted."""

    stage: str  # its name
    key: str
    row: int
    job: str  # SLURM's id of it
    after: list[str]  # addresses of the stages it waits for
    columns: dict[str, Any] = field(default_factory=dict)
    gpus: int = 0
    minutes: int = 0  # the job's time limit; 0 in sweeps of before it was noted, whose jobs are not held to it
    borrowed: bool = False  # the job is another sweep's

    @property
    def address(self) -> str:
        return f"{self.stage}/{self.key}"

    @property
    def title(self) -> str:
        """What tells it from its neighbours."""
        told = [str(v) for k, v in self.columns.items() if k not in ("profile", "data", "recipe", "theta", "seed")]
        numbers = [f"{k}={self.columns[k]}" for k in ("theta", "seed") if k in self.columns]
        return " ".join([self.stage, *told, *numbers])


@dataclass
class Sweep:
    """Everything about a sweep that later commands need."""

    folder: Path
    store: str
    cluster: str
    device: str
    requeues: int
    overrides: list[list[str]]
    code: dict[str, Any]  # commit, hash of uncommitted changes, the folder that it runs from
    entries: dict[str, Entry] = field(default_factory=dict)  # by address, inputs before what needs them
    taken_back: bool = False  # by slurm.cancel; its jobs then stay for other sweeps alone
    targets: dict[str, list[str]] = field(default_factory=dict)  # row → addresses of all its stages
    notice_seconds: int = 120  # between a job's notice and its time limit

    def save(self) -> None:
        write_json(self.folder / "sweep.json", {**asdict(self), "folder": str(self.folder)}, indent=1)

    def row_file(self, row: int) -> Path:
        return self.folder / "rows" / f"{row:04}.yaml"

    def failure_file(self, address: str) -> Path:
        return self.folder / "failed" / f"{address.replace('/', '-')}.json"

    def starts_folder(self, address: str) -> Path:
        """Where the starts of a stage's job note how long they run."""
        return self.folder / "starts" / address.replace("/", "-")

    def promised(self, address: str) -> float:
        """Seconds that the plan promised a stage's job to run at the most, all its starts together."""
        return (1 + self.requeues) * 60.0 * self.entries[address].minutes

    def logs(self, entry: Entry) -> list[Path]:
        """The error logs of a stage's job, the first process's first."""
        return sorted((self.folder / "logs").glob(f"{entry.job}_*_log.err"))


def read_sweep(folder: str | Path | None = None) -> Sweep:
    """A sweep by its folder or its name; the latest one without either.

    Raises:
        MalError: there is none, or its file cannot be read.
    """
    if folder is None:
        found = sorted(SWEEPS.glob("*/sweep.json"))
        if not found:
            raise MalError(f"there is no sweep in {SWEEPS}; start one with -m … hydra/launcher=slurm")
        file = found[-1]
    else:
        candidates = [place / "sweep.json" for place in (Path(folder), SWEEPS / folder)]
        file = next(filter(Path.is_file, candidates), candidates[0])
        if not file.is_file():
            there = ", ".join(path.parent.name for path in sorted(SWEEPS.glob("*/sweep.json")))
            raise MalError(f"there is no sweep {folder}; there are {there or 'none'}")
    try:
        text = read_json(file)
        entries = {address: Entry(**entry) for address, entry in text.pop("entries").items()}
        return Sweep(**{**text, "folder": file.parent, "entries": entries})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalError(
            f"{file} is no sweep of this version of the code ({type(error).__name__}: {error}); move its folder away, "
            "and take back its jobs with scancel"
        ) from error


def write_row(path: Path, config: Config) -> None:
    """A row's config, every value resolved."""
    with atomic_write(path) as file:
        file.write(OmegaConf.to_yaml(OmegaConf.structured(config)))


def read_row(path: Path) -> Config:
    """The config of a row.

    Raises:
        MalError: there is none.
    """
    if not path.is_file():
        raise MalError(f"there is no {path}: the sweep's folder was moved or cleaned while its jobs waited")
    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path)))
    assert isinstance(found, Config)
    return found
