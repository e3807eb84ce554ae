"""What made the numbers: every stage's commit, packages, hardware, seconds, key and seed, with links to its files."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from analysis.columns import COLUMNS, RUN
from analysis.recipes import recipe_name
from analysis.records import Record, address, by_address

LINKED = (".json", ".csv", ".png", ".jsonl", ".txt", ".log")
UNLINKED = ("stage.json", "mlflow.json")  # the store's and the tracking's own bookkeeping
SETTINGS = (*(name for name in COLUMNS if name not in RUN), "published_file", "denominator")


@dataclass(frozen=True)
class Row:
    """A stage that ran, in words."""

    key: str
    profile: str
    data: str
    settings: str
    seed: str
    commit: str
    machine: str
    seconds: float
    memory: str  # GiB at its peak; empty where that was not measured
    started: str
    links: list[tuple[str, str]]  # address and name of each of its files


@dataclass(frozen=True)
class Provenance:
    """What made all numbers of a store."""

    commits: Counter[str]  # how many stages each computed
    machines: dict[str, str]  # hardware and packages → a name for them
    stages: dict[str, list[Row]]  # by a stage's name, in the order of their starts


def provenance(records: Sequence[Record], store: Path, out: Path, *, links: bool) -> Provenance:
    """Machines, and tables of all stages.

    Args:
        out: folder of the page; links are relative to it.
        links: whether to link to files of the store at all (a page that is given away goes without its store).
    """
    known = by_address(records)
    machines: dict[str, str] = {}
    for record in records:
        machines.setdefault(_machine(record), f"machine {len(machines) + 1}")
    stages: dict[str, list[Row]] = {}
    for record in sorted(records, key=lambda r: (r["stage"], r["started"])):
        files = _links(record, store, out) if links else []
        stages.setdefault(record["stage"], []).append(_row(record, known, machines[_machine(record)], files))
    return Provenance(Counter(map(_commit, records)), machines, stages)


def _commit(record: Record) -> str:
    found = record["provenance"]
    return f"{str(found.get('commit') or 'unknown')[:10]}{' + changes' if found.get('diff') else ''}"


def _machine(record: Record) -> str:
    """Hardware, Python and packages in words; the same for all stages that ran in the same place."""
    found = record["provenance"]
    hardware = ", ".join(f"{name} {value}" for name, value in found.get("hardware", {}).items() if value is not None)
    packages = ", ".join(f"{name} {version}" for name, version in found.get("packages", {}).items())
    return f"{hardware}; Python {found.get('python', 'unknown')}; {packages}"


def _row(record: Record, known: Mapping[str, Record], machine: str, files: list[tuple[str, str]]) -> Row:
    columns = record["columns"]
    told = {**columns, "recipe": recipe_name(record, known)}
    memory = record.get("memory", {}).get("peak_memory_gib")
    job = record["provenance"].get("job")
    return Row(
        key=record["key"],
        profile=str(columns.get("profile", "")),
        data=str(columns.get("data", "")),
        settings=", ".join(f"{name} {told[name]}" for name in SETTINGS if told.get(name) is not None),
        seed=str(columns.get("seed", "")),
        commit=_commit(record),
        machine=machine + (f", job {job['id']}" if job else ""),
        seconds=record["seconds"],
        memory="" if memory is None else f"{memory:.2f}",
        started=record["started"][:16].replace("T", " "),
        links=files,
    )


def _links(record: Record, store: Path, out: Path) -> list[tuple[str, str]]:
    """Addresses and names of the files of a stage that can be read or looked at, and to its job's logs."""
    folder = store / address(record)
    files = [
        path
        for path in sorted(folder.glob("*"))
        if path.suffix in LINKED and path.name not in UNLINKED and path.is_file()
    ]
    job = record["provenance"].get("job")
    if job:
        files += sorted((store.parent / "sweeps").glob(f"*/logs/{job['id']}_*_log.*"))
    return [(quote(relative(path, out)), path.name) for path in files]


def relative(path: Path, out: Path) -> str:
    """A path as seen from the page's folder, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
