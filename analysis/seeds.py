"""Which results are the same thing under other seeds, and how far they lie apart."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from analysis.records import Record

# stages whose `seed` is the run's; any other stage's is the data's
SEEDED = ("train_labeler", "train_segmenter", "retention", "clustering_val", "attention_val")
# columns that tell no two results apart: keys hold no profile, and old records no denominator, which is an input
UNTOLD = ("seed", "profile", "denominator")


def lineage(record: Record, known: Mapping[str, Record]) -> str:
    """Eight hex digits of all that defines a result but the run's seed.

    Two results that differ in their seed alone have the same; two that differ in anything else, as settings of
    a stage that they come from, have not.

    Args:
        record: a run.json.
        known: the records it comes from, by address. Where one is absent its key stands for it, seed and all.
    """
    config = record.get("config", {})
    parts = {
        "stage": record["stage"],
        "version": record.get("version"),
        "config": {k: v for k, v in config.items() if k != "seed"} if record["stage"] in SEEDED else config,
        "sources": record.get("sources"),
        "inputs": {
            name: lineage(known[address], known) if address in known else address
            for name, address in record["inputs"].items()
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def over_seeds(records: Iterable[Record], known: Mapping[str, Record]) -> list[list[Record]]:
    """Records in groups that differ in their seed alone, each by rising seed; groups in the order of the records."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        columns = {k: v for k, v in record["columns"].items() if k not in UNTOLD}
        alike = json.dumps([lineage(record, known), columns], sort_keys=True)
        groups.setdefault(alike, []).append(record)
    return [sorted(group, key=lambda record: record["columns"].get("seed", 0)) for group in groups.values()]


def spread(values: list[float], pattern: str) -> str:
    """The mean and, of several seeds, the lowest and the highest: `95.0% (94.1% … 95.7%)`."""
    mean = pattern.format(sum(values) / len(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({pattern.format(min(values))} … {pattern.format(max(values))})"
