"""What made the numbers: every stage's commit, packages, hardware, seconds, key and seed, with links to its files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from analysis.columns import COLUMNS, RUN
from analysis.recipes import recipe_name
from analysis.records import Record, address, by_address
from analysis.rendering import html_text

LINKED = (".json", ".csv", ".png", ".jsonl", ".txt", ".log")
UNLINKED = ("stage.json", "mlflow.json")  # the store's and the tracking's own bookkeeping
SETTINGS = (*(name for name in COLUMNS if name not in RUN), "published_file", "denominator")
HEADER = ("key", *RUN, "settings", "seed", "commit", "machine", "seconds", "memory, GiB", "started", "files")


def provenance(records: Sequence[Record], store: Path, out: Path, *, links: bool) -> str:
    """Tables of all stages, as HTML.

    Args:
        out: folder of the page; links are relative to it.
        links: whether to link to files of the store at all (a page that is given away goes without its store).
    """
    machines: dict[str, str] = {}
    for record in records:
        machines.setdefault(_machine(record), f"machine {len(machines) + 1}")
    stages: dict[str, list[Record]] = {}
    known = by_address(records)
    for record in sorted(records, key=lambda r: (r["stage"], r["started"])):
        stages.setdefault(record["stage"], []).append(record)
    parts = [_commits(records), "<h3>Machines and packages</h3>", "<ul>"]
    parts += [f"<li><b>{name}</b>: {html_text(words)}</li>" for words, name in machines.items()]
    parts += ["</ul>", "<h3>Stages</h3>"]
    for stage, some in stages.items():
        seconds = sum(record["seconds"] for record in some)
        parts.append(f"<details><summary>{html_text(stage)}: {len(some)}, {seconds / 60:.1f} minutes</summary>")
        parts.append(f'<div class="scroll" tabindex="0" role="region" aria-label="Stages called {html_text(stage)}">')
        parts.append(f'<table class="words"><caption>Stages called {html_text(stage)}</caption><thead><tr>')
        parts += [f'<th scope="col">{name}</th>' for name in HEADER]
        parts.append("</tr></thead><tbody>")
        parts += [_row(record, known, machines[_machine(record)], store, out, links) for record in some]
        parts.append("</tbody></table></div></details>")
    return "\n".join(parts)


def _commits(records: Sequence[Record]) -> str:
    """How many stages each commit computed, in a sentence."""
    many: dict[str, int] = {}
    for record in records:
        many[_commit(record)] = many.get(_commit(record), 0) + 1
    listed = ", ".join(f"<code>{html_text(commit)}</code> ({count} stages)" for commit, count in many.items())
    return f"<p>Computed at the commits {listed}. A key is a hash of all that defines a result.</p>"


def _commit(record: Record) -> str:
    found = record["provenance"]
    return f"{str(found.get('commit') or 'unknown')[:10]}{' + changes' if found.get('diff') else ''}"


def _machine(record: Record) -> str:
    """Hardware, Python and packages in words; the same for all stages that ran in the same place."""
    found = record["provenance"]
    hardware = ", ".join(f"{name} {value}" for name, value in found.get("hardware", {}).items() if value is not None)
    packages = ", ".join(f"{name} {version}" for name, version in found.get("packages", {}).items())
    return f"{hardware}; Python {found.get('python', 'unknown')}; {packages}"


def _row(record: Record, known: Mapping[str, Record], machine: str, store: Path, out: Path, links: bool) -> str:
    columns = record["columns"]
    told = {**columns, "recipe": recipe_name(record, known)}
    settings = ", ".join(f"{name} {told[name]}" for name in SETTINGS if told.get(name) is not None)
    memory = record.get("memory", {}).get("peak_memory_gib")
    job = record["provenance"].get("job")
    cells = [
        html_text(str(columns.get("profile", ""))),
        html_text(str(columns.get("data", ""))),
        html_text(settings),
        html_text(str(columns.get("seed", ""))),
        f"<code>{html_text(_commit(record))}</code>",
        machine + (f", job {html_text(str(job['id']))}" if job else ""),
        f"{record['seconds']:.1f}",
        "" if memory is None else f"{memory:.2f}",
        html_text(record["started"][:16].replace("T", " ")),
        _links(record, store, out) if links else "",
    ]
    name = f'<th scope="row"><code>{html_text(record["key"])}</code></th>'
    return f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _links(record: Record, store: Path, out: Path) -> str:
    """Links to the files of a stage that can be read or looked at, and to its job's logs."""
    folder = store / address(record)
    files = [
        path
        for path in sorted(folder.glob("*"))
        if path.suffix in LINKED and path.name not in UNLINKED and path.is_file()
    ]
    job = record["provenance"].get("job")
    if job:
        files += sorted((store.parent / "sweeps").glob(f"*/logs/{job['id']}_*_log.*"))
    return " ".join(f'<a href="{quote(relative(path, out))}">{html_text(path.name)}</a>' for path in files)


def relative(path: Path, out: Path) -> str:
    """A path as seen from the page's folder, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
