"""A store's results, tied together: an AP, its retention and the quality of its masks; the same under other seeds."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from analysis.columns import KNOWN
from analysis.denominators import kept_groups
from analysis.lineage import ancestors, over_seeds
from analysis.paper.selection import DERIVED, described, matches
from analysis.paper.table import PaperTable
from analysis.paper_numbers import SAYS, PaperNumbersError
from analysis.records import Record, UnreadableRecordError, address, by_address

OF_SPLITS = ("_train", "_val")  # what the names of stages end with that are about one split: no network is


@dataclass(frozen=True)
class Result:
    """One seed's."""

    record: Record  # of the stage that a table selects
    retention: Record | None = None
    quality: Record | None = None  # of the masks on the validation images
    over: str = ""  # the retention's denominator (analysis/denominators.py)

    @property
    def seed(self) -> Any:
        return self.record["columns"].get("seed")


Group = list[Result]  # results that differ in their seed alone, by rising seed


@dataclass(frozen=True)
class Results:
    """All records of a store, and what COCO's server said."""

    known: dict[str, Record]
    store: Path  # whose folders have the arrays beside the records
    testdev: dict[str, float]  # predictions_test/key → mask AP in [0, 1]

    @classmethod
    def of(cls, records: Iterable[Record], store: Path, testdev: dict[str, float] | None = None) -> "Results":
        return cls(by_address(records), store, testdev or {})

    def stage(self, name: str) -> list[Record]:
        """All records of a stage."""
        return [record for record in self.known.values() if record["stage"] == name]

    def of_table(self, table: PaperTable) -> list[Group]:
        """What a table selects; results that differ in their seed alone together.

        An AP stands with its retention and the quality of the masks. One that was divided by several (of unlike
        segmenters on human masks) is in a group for each. Where a table selects APs, the qualities that it selects
        are those of masks, seeds together, of which a seed has no segmenter's AP, as far as the store knows.

        Raises:
            PaperNumbersError: the table names a column that neither a record nor the suite knows.
        """
        known = {*KNOWN, *DERIVED, "stage"}.union(*(record["columns"] for record in self.known.values()))
        for key, column in table.columns():
            if column not in known:
                raise PaperNumbersError(f"{table.file}: {key}: no record has a column {column}; {SAYS}")
        found = [r for r in self.known.values() if any(matches(described(r), where) for where in table.results)]
        groups = self._scores([record for record in found if record["stage"] == "ap_val"])
        trained_on = {self._labelling(score) for score in self.stage("ap_val")} if table.selects("ap_val") else set()
        for alike in over_seeds([record for record in found if record["stage"] != "ap_val"], self.known):
            if alike[0]["stage"] != "quality_val":
                groups.append([Result(record) for record in alike])
            elif any(self._labelling(record) not in trained_on for record in alike):
                groups.append([Result(record, None, record) for record in alike])
        return groups

    def _scores(self, scores: list[Record]) -> list[Group]:
        qualities = self._qualities()
        return [
            [Result(one.score, one.retention, qualities.get(self._labelling(one.score)), one.over) for one in group]
            for group in kept_groups(scores, self.known)
        ]

    def submission(self, score: Record) -> str | None:
        """The address of the test predictions of the segmenter that an ap_val record is of; None without any."""
        detections = self.known.get(score["inputs"].get("predictions", ""), {"inputs": {}})
        segmenter = detections["inputs"].get("segmenter")
        for record in self.stage("predictions_test"):
            if record["inputs"]["segmenter"] == segmenter:
                return address(record)
        return None

    def _qualities(self) -> dict[str, Record]:
        return {name: r for r in self.stage("quality_val") if (name := self._labelling(r))}

    def _labelling(self, record: Record) -> str:
        """What says which masks a result is about: the labeler's training, how it labelled, and for which images."""
        for name, ancestor in ancestors(record, self.known).items():
            if ancestor is not None and name.startswith(("label_train/", "label_val/")):
                networks = [it for it in ancestor["inputs"].values() if not it.partition("/")[0].endswith(OF_SPLITS)]
                images = record["config"].get("images")
                return json.dumps([networks, ancestor["config"], record["columns"]["data"], images], sort_keys=True)
        return ""


def read_testdev(path: Path) -> dict[str, float]:
    """What COCO's server said of submitted predictions: predictions_test/key → mask AP in [0, 1]. No file: nothing yet.

    Raises:
        UnreadableRecordError: an entry is no such pair.
    """
    entries: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {}
    for name, value in entries.items():
        if not str(name).startswith("predictions_test/") or not isinstance(value, float) or not 0 <= value <= 1:
            raise UnreadableRecordError(
                f"{path}: {name}: {value} is no predictions_test/KEY with a mask AP in [0, 1], such as 0.391"
            )
    return entries
