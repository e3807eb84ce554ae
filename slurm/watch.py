"""Where a sweep stands: each stage done, running, queued, failed or not run, and why."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from analysis.summary import summary
from mal.config import Config
from mal.engine.files import read_json
from mal.engine.mirror import start_mirror
from mal.engine.store import Store
from mal.engine.tracking_address import is_server, tracking_uri
from mal.errors import MalError
from slurm import queue
from slurm.sweep import Entry, Sweep

SECONDS_BETWEEN_LOOKS = 10.0
TAIL_BYTES = 8192


@dataclass(frozen=True)
class State:
    """Where a stage stands."""

    name: str  # done | running | queued | failed | not run
    detail: str = ""
    log: Path | None = None

    @property
    def is_over(self) -> bool:
        return self.name in ("done", "failed", "not run")


def states(sweep: Sweep) -> dict[str, State]:
    """The state of each of a sweep's stages, by address.

    Raises:
        MalError: SLURM does not answer.
    """
    store, waiting = Store(sweep.store), queue.queue()  # the queue first: a job that ends between is then done
    found: dict[str, State] = {}
    for address, entry in sweep.entries.items():
        found[address] = _state(sweep, entry, store, waiting, found)
    return found


def _state(
    sweep: Sweep, entry: Entry, store: Store, waiting: dict[str, queue.Queued], found: dict[str, State]
) -> State:
    if store.is_done(entry.stage, entry.key):
        return State("done")
    missing = [found[address] for address in entry.after if found[address].name in ("failed", "not run")]
    log = next(iter(sweep.logs(entry)), None)
    job = waiting.get(entry.job)
    if job is not None and job.state in ("RUNNING", "COMPLETING"):
        return State("running", _progress(log) or f"on {job.reason} for {job.seconds}", log)
    if job is not None and not missing:
        ahead = [address.split("/")[0] for address in entry.after if found[address].name != "done"]
        reason = f"after {', '.join(dict.fromkeys(ahead))}" if job.reason == "Dependency" and ahead else job.reason
        again = " (it goes on where it was)" if log is not None else ""
        return State("queued", f"{reason}{again}", log)
    if sweep.failure_file(entry.address).is_file():
        failure = read_json(sweep.failure_file(entry.address))
        return State("failed", failure["error"], Path(failure["log"]))
    if missing:
        culprit = next(a for a in entry.after if found[a].name in ("failed", "not run"))
        why = found[culprit].detail if found[culprit].name == "not run" else f"{culprit} failed"
        return State("not run", why if why.startswith("because") else f"because {why}")
    if not entry.job:
        return State("not run", "because it was never submitted; run the sweep's command again")
    if sweep.taken_back:
        return State("not run", "because the sweep was taken back; its command goes on from here")
    return State("failed", f"job {entry.job} has left the queue without a result: {_last_line(log)}", log)


def status_lines(sweep: Sweep, found: dict[str, State]) -> list[str]:
    """A line a stage, and how many there are of each state."""
    width = max((len(entry.title) for entry in sweep.entries.values()), default=0)
    lines = []
    for address, state in found.items():
        entry = sweep.entries[address]
        log = f"  [{state.log}]" if state.name == "failed" and state.log is not None else ""
        lines.append(f"{state.name:8} {entry.job:>9}  {entry.title:{width}}  {state.detail}{log}".rstrip())
    counts = Counter(state.name for state in found.values())
    names = ("done", "running", "queued", "failed", "not run")
    total = ", ".join(f"{counts[name]} {name}" for name in names if counts[name])
    return [*lines, f"{sweep.folder.name}: {total or 'no stages'}"]


def follow(sweep: Sweep, row: Config) -> None:
    """Wait until every stage is done, failed or given up, telling what changes; then show each row's table.

    Raises:
        MalError: a stage failed.
    """
    tracking = row.tracking
    remote = is_server(tracking_uri(tracking.uri))  # then the jobs send their stages themselves
    mirror = start_mirror(
        sweep.store, enabled=tracking.enabled and not remote, uri=tracking.uri, experiment=tracking.experiment
    )
    told: dict[str, str] = {}
    try:
        while True:
            found = states(sweep)
            for address, state in found.items():
                if told.get(address) != state.name:
                    told[address] = state.name
                    print(f"{state.name:8} {sweep.entries[address].title}  {state.detail}".rstrip(), flush=True)
            if all(state.is_over for state in found.values()):
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        mirror.stop()
    print("\n".join(tables(sweep)), flush=True)
    failed = [sweep.entries[address].title for address, state in found.items() if state.name != "done"]
    if failed:
        raise MalError(
            f"{len(failed)} of {len(found)} stages were not done, the first: {failed[0]}; see python -m slurm.status "
            f"{sweep.folder.name}. Once that is mended, the same command does what is missing"
        )


def tables(sweep: Sweep) -> list[str]:
    """What came out of each row whose stages are all done."""
    store, shown = Store(sweep.store), []
    for row, addresses in sweep.targets.items():
        stages = [address.split("/") for address in addresses]
        if all(store.is_done(stage, key) for stage, key in stages):
            changes = " ".join(sweep.overrides[int(row)])
            shown.append(f"\nrow {row}: {changes}\n{summary([store.read(stage, key) for stage, key in stages])}")
    return shown


def _progress(log: Path | None) -> str:
    """The latest line of progress: `train labeler: 200/800 steps, 0:40, ETA 2:00  total 0.5`."""
    for line in reversed(_tail(log)):
        if ", ETA " in line or ", took " in line:
            return line
    return ""


def _last_line(log: Path | None) -> str:
    lines = [line for line in _tail(log) if line.strip()]
    return lines[-1].strip() if lines else "it wrote nothing"


def _tail(log: Path | None) -> list[str]:
    if log is None:
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
