"""What a result comes from: its ancestors and all settings behind it; its other seeds; what tells results apart."""

import hashlib
import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from analysis.columns import BELONGS, COLUMNS
from analysis.records import Record, UnreadableRecordError, address, grouped
from mal.engine.payload import flatten

Settings = dict[str, str]
ABSENT = "absent"  # stands for a setting that a result does not have
WEIGHTS = {"trained": "trained by MAL", "given": "as given", "random": "with random weights"}
# columns that tell no two results apart: keys hold no profile, and old records no denominator, which is an input
UNTOLD = ("seed", "profile", "denominator")
SNAPSHOTS = "snapshots"  # the networks that a training keeps on its way: a setting's name


def ancestors(record: Record, known: Mapping[str, Record]) -> dict[str, Record | None]:
    """A record and all that it comes from, by address, nearest first; None where its record is not among the known."""
    found: dict[str, Record | None] = {address(record): record}
    waiting = [record]
    for one in waiting:
        for name in one["inputs"].values():
            if name not in found:
                found[name] = known.get(name)
                waiting += [known[name]] if name in known else []
    return found


def lineage(record: Record, known: Mapping[str, Record]) -> str:
    """Eight hex digits of all that defines a result but the run's seed.

    Two results that differ in their seed alone have the same; two that differ in anything else, as settings of
    a stage that they come from, have not. How many networks a training keeps on its way defines no result but the
    course of that training.

    Args:
        record: a run.json.
        known: the records it comes from, by address. Where one is absent its key stands for it, seed and all.
    """
    return _digest(record, known, without=_left_out(record))


def _digest(record: Record, known: Mapping[str, Record], without: Set[str]) -> str:
    parts = {
        "stage": record["stage"],
        "version": record.get("version"),
        "config": _without(record, without),
        "sources": record.get("sources"),
        "inputs": {
            name: _digest(known[address], known, without) if address in known else address
            for name, address in record["inputs"].items()
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def _on_its_way(record: Record) -> bool:
    """Whether it is about the networks that a training keeps on its way."""
    return record["stage"].startswith("course_")


def _left_out(record: Record) -> Set[str]:
    """The settings that tell no two results like it apart, but for their seeds."""
    return {"seed"} if _on_its_way(record) else {"seed", SNAPSHOTS}


def over_seeds(records: Iterable[Record], known: Mapping[str, Record]) -> list[list[Record]]:
    """Records in groups that differ in their seed alone, each sorted by seed; groups in the order of the records."""

    def alike(record: Record) -> str:
        return json.dumps([lineage(record, known), _telling(record)], sort_keys=True)

    groups = grouped(once(records, known), alike).values()
    return [sorted(group, key=lambda record: record["columns"].get("seed", 0)) for group in groups]


def _telling(record: Record, *also: str) -> dict[str, Any]:
    """The columns that tell results apart."""
    return {name: value for name, value in record["columns"].items() if name not in UNTOLD or name in also}


def once(records: Iterable[Record], known: Mapping[str, Record]) -> list[Record]:
    """The records in their order; of several that differ in the networks that their trainings keep on the way alone,
    which are the same network, the one of the training that keeps most."""

    def network(record: Record) -> str:
        if _on_its_way(record):
            return address(record)
        return json.dumps([_digest(record, known, without={SNAPSHOTS}), _telling(record, "seed")], sort_keys=True)

    def kept(record: Record) -> int:
        behind = (flatten(one.get("config", {})) for one in ancestors(record, known).values() if one is not None)
        found = (value for some in behind for name, value in some if name.rpartition(".")[2] == SNAPSHOTS)
        return max(found, default=0)

    return [some[0] if len(some) == 1 else max(some, key=kept) for some in grouped(records, network).values()]


def settings_behind(record: Record, known: Mapping[str, Record]) -> Iterator[tuple[str, Any]]:
    """`stage.setting` and value, of a record and all it comes from, but the run's seed.

    Beside a stage's config these are its version and the digests of its source files. The key of an ancestor without
    a record stands for all that is not known of it.
    """
    without = _left_out(record)
    for name, here in ancestors(record, known).items():
        stage = name.partition("/")[0]
        if here is None:
            yield f"{stage}.key", name
            continue
        yield from ((f"{stage}.{name}", value) for name, value in flatten(_without(here, without)))
        yield from ((f"{stage}.sources.{name}", value) for name, value in (here.get("sources") or {}).items())
        yield f"{stage}.version", here.get("version")


def settings_of(record: Record, known: Mapping[str, Record]) -> Settings:
    """All settings behind a record as text: its columns under their own names, and those of `settings_behind`."""
    found = {name: shown(record["columns"].get(name)) for name in COLUMNS if record["columns"].get(name) is not None}
    found |= {name: shown(value) for name, value in settings_behind(record, known)}
    for here in ancestors(record, known).values():
        if here is not None and here["stage"] == "train_segmenter" and "data" in here["inputs"]:
            found["train_segmenter.data"] = here["inputs"]["data"]
    return found


def _without(record: Record, names: Set[str]) -> dict[str, Any]:
    """A stage's settings without some. The run's seed is among its columns; where it is not, any seed is the data's."""
    return _pruned(record.get("config", {}), names if "seed" in record.get("columns", {}) else names - {"seed"})


def _pruned(config: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    """Of every part too: that of VOC's mAP has the seed of its bootstrap."""
    return {k: _pruned(v, names) if isinstance(v, dict) else v for k, v in config.items() if k not in names}


def weights_of(record: Record) -> str:
    """Which weights the encoder of a clustering score had: `given` ones, `random` ones, or `trained` by MAL."""
    if "labeler" in record["columns"]:
        return "trained"
    return "given" if record["config"]["encoder"]["pretrained"] or "encoder" in record["sources"] else "random"


def shown(value: Any) -> str:
    """A setting as it stands in an error and as `--where` takes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else str(value)


def chosen(
    records: Iterable[Record], known: Mapping[str, Record], wanted: Mapping[str, list[str]], where: Iterable[str]
) -> list[Record]:
    """The records whose columns are among those wanted and whose settings are those of `where` (`KEY=VALUE`).

    Raises:
        UnreadableRecordError: an entry of `where` that is no KEY=VALUE.
    """
    pairs = [entry.partition("=") for entry in where]
    for key, equals, _ in pairs:
        if not equals:
            raise UnreadableRecordError(f"--where {key} is no KEY=VALUE, such as train_labeler.train.steps=800")
    kept = []
    for record in records:
        columns = {name: shown(record["columns"].get(name)) for name in wanted}
        if any(columns[name] not in values for name, values in wanted.items()):
            continue
        settings = settings_of(record, known) if pairs else {}
        if all(settings.get(key, ABSENT) == value for key, _, value in pairs):
            kept.append(record)
    return kept


def apart_from(compared: str, settings: Settings) -> Settings:
    """The settings without one that is compared, and without what belongs to it: by `BELONGS`, else all of its name."""
    pattern = re.compile(BELONGS.get(compared, rf"(.+\.)?{re.escape(compared)}"))
    return {name: value for name, value in settings.items() if name != compared and not pattern.fullmatch(name)}


def differing(
    all_settings: Sequence[Settings], *, by: str | None = None, along: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Setting → its different values, over some results; those that belong to what is compared are left out.

    Args:
        by: the compared setting, a key of `BELONGS`; None: nothing may differ.
        along: more settings that may differ.
    """
    names = sorted(set().union(*(apart_from(by, settings) if by else settings for settings in all_settings)))
    values = {name: sorted({settings.get(name, ABSENT) for settings in all_settings}) for name in names}
    return {name: some for name, some in values.items() if name not in along and len(some) > 1}


def choices(differences: Mapping[str, list[str]], among: list[Settings]) -> str:
    """What differs, and flags that choose one of the results: by columns first, since the rest often follows from them.

    Args:
        differences: see `differing`. among: the settings of the results that differ.
    """
    columns = [name for name in COLUMNS if name in differences]
    rest = [name for name in differences if name not in COLUMNS]
    listed = columns + rest[: 3 if columns else 8]
    short = {name: [v if len(v) <= 40 else f"{v[:12]}…" for v in differences[name]] for name in listed}
    told = "; ".join(f"{name} ({', '.join(values)})" for name, values in short.items())
    more = len(differences) - len(listed)
    flags = [f"--{name} {among[0][name]}" for name in columns if name in among[0]]
    flags = flags or [f"--where {' '.join(f'{name}={among[0].get(name, ABSENT)}' for name in rest[:3])}"]
    return f"{told}{f' and {more} more' if more else ''}; choose, for instance with {' '.join(flags)}"


def unlike(names: Sequence[Hashable], values: Sequence[Hashable]) -> list[bool]:
    """Of each result, whether another of its name has another value."""
    alike: dict[Hashable, set[Hashable]] = {}
    for name, value in zip(names, values, strict=True):
        alike.setdefault(name, set()).add(value)
    return [len(alike[name]) > 1 for name in names]


def told_apart(
    names: Sequence[str], values: Sequence[Any], pattern: str = "{}", *, by: Sequence[Hashable] | None = None
) -> list[str]:
    """The names, each with the result's value where another of its name has another one.

    Args:
        pattern: how the value is said. by: what decides in the values' place.
    """
    apart = unlike(names, values if by is None else by)
    return [
        f"{name}, {pattern.format(value)}" if is_apart and value is not None else name
        for name, value, is_apart in zip(names, values, apart, strict=True)
    ]
