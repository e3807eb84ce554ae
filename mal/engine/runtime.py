"""What surrounds the work: seeds, threads, checkpoints, and the record of how a result came about."""

import hashlib
import importlib.metadata
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mal.engine.files import atomic_write, read_json
from mal.engine.store import BEGUN, RECORD
from mal.errors import MalError

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "numpy",
    "pycocotools",
    "faster-coco-eval",
    "opencv-python-headless",
)
ROOT = Path(__file__).resolve().parents[2]
CODE = ("analysis", "experiments", "mal", "slurm")  # its folders
CODE_RECORD = ".code.json"  # in a copy of the code: the commit it was taken from, and the hash of what was changed
OPTIONAL_PACKAGES = ("detectron2",)  # recorded where they are installed


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed from what it belongs to: `seed_for(seed, "expand", epoch, annotation_id)`.

    Draws that follow (seed, epoch, index) instead of the order of calls are the same for any number of workers
    and after a resume.
    """
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded by what it belongs to (see `seed_for`)."""
    return np.random.default_rng(seed_for(*parts))


def seed_everything(*parts: int | str) -> None:
    """Seed the global generators of Python, NumPy and torch (dropout and initialisation draw from them)."""
    seed = seed_for(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


_ANEW = "delete it, and the same command trains from the start"


class StopSignals:
    """Notices SIGINT, SIGTERM and SIGUSR2 (a scheduler's notice) for the length of a `with` block.

    Long work asks `raised` between steps, writes its checkpoint and leaves. A second Ctrl-C ends it at once. Outside
    the main thread, where Python allows no handlers, it notices nothing.
    """

    WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self) -> None:
        self.raised: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in self.WATCHED}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, _frame: FrameType | None) -> None:
        if self.raised is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.raised = signal.Signals(number).name


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write a torch file under a temporary name first: a kill in mid-write leaves the previous checkpoint.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path, "wb") as file:
        torch.save(state, file)


def load_checkpoint(path: str | Path, *, parts: Collection[str] = ()) -> dict[str, Any]:
    """Read a torch file of ours onto the CPU, tensors and plain values only.

    Args:
        parts: what must be in it.

    Raises:
        MalError: the file is absent, is damaged or is not a checkpoint.
    """
    if not Path(path).is_file():
        raise MalError(f"there is no checkpoint at {path}; give the path of a labeler.pt that a training run wrote")
    try:
        if zipfile.is_zipfile(path) and (bad := zipfile.ZipFile(path).testzip()) is not None:
            raise OSError(f"{bad} in it is damaged")  # torch.load compares no check sums
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a broken file
        folder = Path(path).parent
        stored = any((folder / name).is_file() for name in (RECORD, BEGUN))
        anew = f", or delete {folder}, a stage's folder in the run store, and run the same command again"
        raise MalError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); give another file{anew if stored else ''}"
        ) from error
    if parts and not (isinstance(state, dict) and set(parts) <= state.keys()):
        raise MalError(f"{path} is a checkpoint of something else: it lacks {', '.join(parts)}; {_ANEW}")
    return state


def restore(path: Path, parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Give each part of a training its state in a checkpoint, by name.

    Raises:
        MalError: the checkpoint is not this training's.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise MalError(f"{path} does not fit this training ({first}); {_ANEW}") from error


def is_readable(path: Path) -> bool:
    """Whether there is a whole checkpoint: for one that a killed run has left, which nobody vouches for."""
    if not path.is_file():
        return False
    try:
        load_checkpoint(path)
    except MalError as error:
        print(f"not used: {error}", file=sys.stderr, flush=True)
        return False
    return True


def pick_device(name: str) -> torch.device:
    """`auto` is what the environment's MAL_DEVICE names, without it the first GPU where there is one, else the CPU.

    Raises:
        MalError: a GPU is asked for that is not there, or the name means nothing.
    """
    if name == "auto":
        name = os.environ.get("MAL_DEVICE") or "auto"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MalError(f"device={name} is no device of torch's; use auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MalError(f"device={name}, but torch sees {torch.cuda.device_count()} GPUs here; use device=auto or cpu")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # Triton launches on the current one, whatever holds its arguments
    return device


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's, and of no GPU's, on a device; through page-locked memory, so that nobody waits for the
    copy."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def reset_peak_memory(device: torch.device) -> None:
    """Start the peaks of `peak_memory_gib` anew; where the system cannot (not Linux), the CPU's is the process's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak resident set becomes the present one
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gib(device: torch.device) -> dict[str, float]:
    """Peak resident memory of this process and, on a GPU, peak allocated device memory, since the reset, in GiB."""
    peaks = {"peak_memory_gib": _peak_resident_kib() / 2**20}
    if device.type == "cuda":
        peaks["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return peaks


def _peak_resident_kib() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def provenance(code: tuple[str | None, str | None] | None = None) -> dict[str, Any]:
    """How a result came about: commit, hash of uncommitted changes, package versions, hardware.

    Args:
        code: `code_state` when the work began; None: as it is now.
    """
    commit, diff = code or code_state()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": commit,
        "diff": diff,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in (*PACKAGES, *_installed(OPTIONAL_PACKAGES))},
        "hardware": {
            "platform": platform.platform(terse=True),
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        },
        **_cluster_job(),
    }


def _cluster_job() -> dict[str, Any]:
    """The SLURM job this runs in, and how often it was requeued; nothing elsewhere."""
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    return {"job": {"id": os.environ["SLURM_JOB_ID"], "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0"))}}


def _installed(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if any(importlib.metadata.distributions(name=name))]


def code_state() -> tuple[str | None, str | None]:
    """(commit, digest of uncommitted changes or None when clean); (None, None) outside a git checkout."""
    if (ROOT / CODE_RECORD).is_file():
        copied = read_json(ROOT / CODE_RECORD)
        return copied["commit"], copied["diff"]
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        changes = uncommitted()
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, hashlib.sha256(changes).hexdigest()[:12] if changes else None


def uncommitted() -> bytes:
    """The code's difference from the last commit as a patch, new files included; empty where there is none.

    Raises:
        OSError, subprocess.SubprocessError: no git, or no checkout.
    """
    with tempfile.TemporaryDirectory() as folder:  # an index of its own: the user's is not touched
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        own = ROOT / os.fsdecode(_git("rev-parse", "--git-path", "index")).rstrip("\n")
        if own.is_file():  # a copy knows which files have not changed: an empty one would read them all
            shutil.copy2(own, index["GIT_INDEX_FILE"])
        else:
            _git("read-tree", "HEAD", **index)
        _git("add", "--intent-to-add", "--", *(name for name in CODE if (ROOT / name).is_dir()), **index)
        return _git("diff", "HEAD", "--no-ext-diff", "--binary", **index)


def _git(*arguments: str, **environment: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=30, env=os.environ | environment).stdout


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
