"""Hand-written records for the tests of the paper's tables, and how to read the tables made of them."""

from pathlib import Path
from typing import Any

from report_store import run_record

from analysis.records import address, by_address
from analysis.rendering import Table
from analysis.tables import paper_tables

Record = dict[str, Any]
NOWHERE = Path("no store")
PAPERS = "The paper's rows"
EPOCHS = {"solov2": 36, "cascade": 36, "mask2former": 50, "mask_rcnn": 12}  # the released configs'

# how the recipes `paper` and `released` label
LABEL = {
    "network": "student",
    "flip": False,
    "upsample": "two_step",
    "antialias": False,
    "cut": False,
    "threshold": [0.1, 0.1, 0.1],
}


class Runs:
    """The records that runs would leave: labels → segmenter → predictions → AP, and retention of the pairs."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(
        self, stage: str, columns: Record, *, config: Record | None = None, inputs: Any = None, **metrics: float
    ) -> str:
        key = f"{len(self.records):016x}"
        told: Record = {"config": config or {}, "inputs": inputs or {}, "seconds": 1.0, "provenance": None}
        told["metrics"] = {name: {"value": value, "n": 9} for name, value in metrics.items()}
        self.records.append(run_record(stage, key, columns, **told))
        return f"{stage}/{key}"

    def labels(self, split: str, *, train: Record | None = None, **columns: Any) -> tuple[str, Record]:
        """MAL's labels of a split, and the columns of what comes from them. `train` changes its training config."""
        seed = columns.get("seed", 0)
        learned = {"labeler": "mal", "encoder": "mae_b", "decoder": "attention", "theta": 1.2, "recipe": "paper"}
        columns = {"profile": "paper", "data": "coco", "seed": seed} | learned | columns
        config: Record = {
            "seed": seed,
            "train": {"batch": 32, "epochs": 10, "steps": None, **(train or {})},
            "roi": {"size": 512, "theta": columns["theta"], "repeats": "foreground"},
            "decoder": {"name": columns["decoder"]},
            "encoder": {"name": columns["encoder"], "fuse": False, "pretrained": True},
        }
        labeler = self.add("train_labeler", columns, config=config, steps=9)
        settings: Record = {"label": dict(LABEL)}
        return self.add(f"label_{split}", columns, config=settings, inputs={"labeler": labeler}), columns

    def quality(self, iou: float, **columns: Any) -> str:
        """Quality of MAL's masks on the validation images."""
        labels, columns = self.labels("val", **columns)
        return self.add("quality_val", columns, config={"images": "all"}, inputs={"labels": labels}, iou=iou)

    def score(
        self,
        segmenter: str,
        *,
        supervision: str,
        ap: float | None,
        train: Record | None = None,
        epochs: int | None = None,
        **columns: Any,
    ) -> str:
        """AP of a segmenter on something's masks; box APs are .1, .11, … above the mask AP (or from .5)."""
        seed = columns.get("seed", 0)
        inputs = {}
        if supervision == "pseudo":
            labels, columns = self.labels("train", train=train, **columns)
            inputs = {"labels": labels}
        else:
            columns = {"profile": "paper", "data": "coco", "seed": seed} | columns
        columns = columns | {"segmenter": segmenter, "supervision": supervision}
        if epochs is None:
            epochs = next(number for name, number in EPOCHS.items() if segmenter.startswith(name))
        config = {"seed": seed, "segmenter": {"schedule": {"steps": None, "epochs": epochs, "batch": 2}}}
        trained = self.add("train_segmenter", columns, config=config, inputs=inputs)
        detected = self.add("detect_val", columns, inputs={"segmenter": trained})
        base = 0.5 if ap is None else ap + 0.1
        figures = {f"box_ap{part}": base + i / 100 for i, part in enumerate(("", "50", "75", "_S", "_M", "_L"))}
        if ap is not None:
            figures |= {"mask_ap": ap, "mask_ap_r": ap - 0.05, "mask_ap_c": ap - 0.01, "mask_ap_f": ap + 0.02}
        return self.add("ap_val", columns, config={"images": "all"}, inputs={"predictions": detected}, **figures)

    def pair(self, segmenter: str, *, human: float, pseudo: float, divided_by: str = "", **columns: Any) -> str:
        """Retention of a segmenter; the human one is computed unless it is given. Returns the human one's address."""
        below = divided_by or self.score(segmenter, supervision="human", ap=human, **_no_labeler(columns))
        above = self.score(segmenter, supervision="pseudo", ap=pseudo, **columns)
        record = by_address(self.records)[above]
        ratio = pseudo / human
        figures = {"retention": ratio, "retention_low": ratio - 0.02, "retention_high": ratio + 0.01}
        config = {"seed": record["columns"]["seed"], "resamples": 50}
        self.add("retention", record["columns"], config=config, inputs={"pseudo": above, "human": below}, **figures)
        return below

    def latest(self, segmenter: str) -> str:
        """The address of the AP, of a segmenter on pseudo-labels, that was added last."""
        scores = [record for record in self.records if record["stage"] == "ap_val"]
        wanted = {"segmenter": segmenter, "supervision": "pseudo"}
        return next(address(r) for r in reversed(scores) if wanted.items() <= r["columns"].items())

    def quality_of(self, score: str, iou: float, *, images: str = "all", **label: Any) -> str:
        """Quality, on the validation images, of the masks that an AP's segmenter learned from.

        `label` changes how they were made.
        """
        known = by_address(self.records)
        trained = known[known[known[score]["inputs"]["predictions"]]["inputs"]["segmenter"]]
        labels = known[trained["inputs"]["labels"]]
        columns = labels["columns"]
        val = self.add(
            "label_val", columns, config={"label": labels["config"]["label"] | label}, inputs=labels["inputs"]
        )
        return self.add("quality_val", columns, config={"images": images}, inputs={"labels": val}, iou=iou)

    def submit(self, score: str) -> str:
        """Test predictions of the segmenter behind an AP."""
        known = by_address(self.records)
        segmenter = known[known[score]["inputs"]["predictions"]]["inputs"]["segmenter"]
        return self.add("predictions_test", known[score]["columns"], inputs={"segmenter": segmenter}, predictions=7)

    def pseudo_of(self, human: str) -> str:
        return next(
            r["inputs"]["pseudo"] for r in self.records if r["stage"] == "retention" and r["inputs"]["human"] == human
        )


def _no_labeler(columns: Record) -> Record:
    return {k: v for k, v in columns.items() if k in ("profile", "data", "seed", "epochs")}


def made(runs: Runs, name: str, **said: Any) -> Table:
    return next(table for table in paper_tables(runs.records, NOWHERE, **said) if table.name == name)


def part(table: Table, heading: str) -> list[dict[str, str]]:
    """The rows below a heading: column → cell."""
    found = [rows for title, rows in table.parts() if title == heading]
    assert len(found) == 1, [title for title, _ in table.parts()]
    return [dict(zip(table.header, row, strict=True)) for row in found[0]]


def of(row: dict[str, str], *columns: str) -> list[str]:
    return [row[column] for column in columns]


def measured(table: Table, heading: str = PAPERS) -> list[dict[str, str]]:
    """The rows that have a result of ours."""
    return [row for row in part(table, heading) if row["profile"]]
