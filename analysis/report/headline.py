"""The headline numbers: mask IoU against what a box alone gives, AP and retention, each with its 95 % interval."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import LABELERS, PAPER_DATA, labeler_name, learns, rank, supervision_name
from analysis.denominators import Kept, by_score, in_words, kept_groups, must_be_said, names_of, usable
from analysis.intervals import RESAMPLES, interval, read_instances
from analysis.lineage import over_seeds
from analysis.records import Record, address, grouped
from analysis.rendering import Table, spread
from analysis.report.instances import names, order
from analysis.stats import Interval, mean_interval

OVER = "divided by the AP of"
FLOORS = [name for name, labeler in LABELERS.items() if labeler.floor]


@dataclass
class Headline:
    """What was found under one profile on one data set."""

    profile: str
    data: str
    run: list[str] = field(default_factory=list)  # sentences: what was trained, and how long that took
    findings: list[str] = field(default_factory=list)  # sentences
    tables: list[Table] = field(default_factory=list)

    @property
    def comparable(self) -> bool:
        """Whether its numbers may stand beside the paper's."""
        return self.profile == "paper" and self.data in PAPER_DATA


@dataclass(frozen=True)
class Scored:
    """One labeler's masks of the validation images."""

    name: str
    record: Record
    iou: Interval
    gains: dict[str, Interval]  # baseline → how much more IoU this has, paired by instance
    images: int


def headlines(known: Mapping[str, Record], store: Path) -> list[Headline]:
    """The headline numbers of every profile and data set in a store."""
    groups = grouped(known.values(), lambda record: (record["columns"]["profile"], record["columns"]["data"]))
    found = []
    for (profile, data), records in sorted(groups.items()):
        headline = Headline(profile, data, _what_ran(records))
        scored = quality([r for r in records if r["stage"] == "quality_val"], known, store)
        if scored:
            headline.findings += _mask_findings(scored, known)
            headline.tables.append(_quality_table(headline, scored))
        scores = [record for record in records if record["stage"] == "ap_val"]
        if scores:
            kept = kept_groups(scores, known)
            headline.findings += _kept(kept, known)
            headline.tables.append(_ap_table(headline, kept, known, store))
        found.append(headline)
    return found


def quality(records: Sequence[Record], known: Mapping[str, Record], store: Path) -> list[Scored]:
    """Mean IoU of each labelled set and its gain on the filled box and the inscribed ellipse, with intervals.

    A gain is of the same instances of the same files; there is none where the store lacks that baseline of theirs.
    """
    ordered = sorted(records, key=order)
    frames = {address(record): _instances(record, store) for record in ordered}
    scored = []
    plain = [labeler_name(record["columns"]["labeler"]) for record in ordered]
    for record, name in zip(ordered, names(ordered, plain, known), strict=True):
        frame, gains = frames[address(record)], {}
        if frame is None:
            continue
        for baseline in FLOORS:
            for other in ordered:
                beside = frames[address(other)]
                if (
                    other["columns"]["labeler"] == baseline
                    and record["columns"]["labeler"] not in FLOORS
                    and _same_files(record, other)
                    and beside is not None
                    and beside.index.equals(frame.index)
                ):
                    gains[baseline] = mean_interval(frame["iou"] - beside["iou"], frame["image_id"])
        mean = mean_interval(frame["iou"], frame["image_id"])
        scored.append(Scored(name, record, mean, gains, int(frame["image_id"].nunique())))
    return scored


def shown(estimate: Interval, *, signed: bool = False, percent: bool = False) -> str:
    """0.737 [0.725, 0.748]; of a difference +0.110 [+0.098, +0.121]; of a ratio 93.6 % [90.2 %, 98.2 %]."""
    pattern = f"{{:{'+' if signed else ''}{'.1%' if percent else '.3f'}}}"
    value, low, high = (
        pattern.format(number).replace("%", " %") for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def _instances(record: Record, store: Path) -> pd.DataFrame | None:
    """instances.csv by annotation; None where the store lacks it."""
    path = store / address(record) / "instances.csv"
    return read_instances(path, index="annotation_id") if path.is_file() else None


def _same_files(first: Record, second: Record) -> bool:
    """Whether two results are about the same human masks and images."""
    return (first["sources"], first["inputs"].get("data"), first["config"]) == (
        second["sources"],
        second["inputs"].get("data"),
        second["config"],
    )


def _what_ran(records: list[Record]) -> list[str]:
    """What was trained, in sentences."""
    hours = sum(record["seconds"] for record in records) / 3600
    sentences = [f"{len(records)} stages, {hours:.1f} hours of computing."]
    for stage, what, column in (
        ("train_labeler", "Labelers trained", "encoder"),
        ("train_segmenter", "Segmenters trained", "segmenter"),
    ):
        many = Counter(record["columns"][column] for record in records if record["stage"] == stage)
        if many:
            listed = ", ".join(f"{count} × {name}" for name, count in sorted(many.items()))
            sentences.append(f"{what}: {listed}.")
    return sentences


def _mask_findings(scored: list[Scored], known: Mapping[str, Record]) -> list[str]:
    """A sentence for each labeler that was trained, all its seeds together."""
    by_address = {address(one.record): one for one in scored}
    others = "; ".join(
        f"{one.name} {one.iou.value:.3f}" for one in scored if one.record["columns"]["labeler"] in FLOORS
    )
    found = []
    trained = [one.record for one in scored if one.record["inputs"] and learns(one.record["columns"])]
    for group in over_seeds(trained, known):
        each = [by_address[address(record)] for record in group]
        what = labeler_name(group[0]["columns"]["labeler"])
        count = group[0]["metrics"]["iou"]["n"]
        iou = shown(each[0].iou) if len(each) == 1 else spread([one.iou.value for one in each], "{:.3f}")
        setting = group[0]["columns"].get("encoder", "")
        seeds = f"mean of {len(each)} seeds (lowest … highest), " if len(each) > 1 else ""
        sentence = (
            f"{what} with {setting} reaches a mask IoU of {iou}, {seeds}on {count} instances of {each[0].images} "
            f"validation images" + (f" ({others})." if others else ".")
        )
        found.append(f"{sentence} {_verdict(each)}")
    return found


def _verdict(each: list[Scored]) -> str:
    """Whether a labeler beats the inscribed ellipse; if not it has learned nothing (docs/method/mal.md)."""
    gains = [one.gains["ellipse"] for one in each if "ellipse" in one.gains]
    if len(gains) < len(each):
        return "Whether that is more than the inscribed ellipse gives was not measured: run experiment=baselines."
    texts = [shown(gain, signed=True) for gain in gains]
    by = " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
    seed = " of every seed" if len(gains) > 1 else ""
    if all(gain.low > 0 for gain in gains):
        return f"That is more than the inscribed ellipse, by {by}: the interval{seed} lies above 0."
    if all(gain.high < 0 for gain in gains):
        return f"That is less than the inscribed ellipse, by {by}: the labeler has learned nothing."
    return f"Against the inscribed ellipse that is {by}: it is not shown that the labeler has learned anything."


def _kept(groups: list[list[Kept]], known: Mapping[str, Record]) -> list[str]:
    """A sentence for each segmenter trained on a trained labeler's masks and each of its denominators, all its seeds
    together."""
    found, overs = [], names_of(groups)
    for group, over in zip(groups, overs, strict=True):
        columns = group[0].score["columns"]
        if columns["supervision"] != "pseudo" or not learns(columns):
            continue
        parts = []
        for one in group:
            seed = f"seed {one.score['columns']['seed']}: " if len(group) > 1 else ""
            kept = usable(one, known)
            if not isinstance(kept, str):
                parts.append(seed + shown(_stored(kept, "retention"), percent=True))
            else:
                parts.append(seed + ("no retention computed" if kept == "-" else kept))
        what = labeler_name(columns["labeler"], "masks")
        divided = f", {in_words(over)}" if over and must_be_said(overs) else ""
        found.append(f"Retention of {columns['segmenter']} trained on {what}{divided}: {'; '.join(parts)}.")
    return found


def _stored(record: Record, metric: str) -> Interval:
    value, low, high = (record["metrics"][f"{metric}{part}"]["value"] for part in ("", "_low", "_high"))
    return Interval(value, low, high)


def _quality_table(headline: Headline, scored: list[Scored]) -> Table:
    rows = []
    for one in scored:
        more = [shown(one.gains[b], signed=True) if b in one.gains else "-" for b in FLOORS]
        rows.append((one.name, shown(one.iou), *more, str(one.record["metrics"]["iou"]["n"]), str(one.images)))
    gains = [f"gain on {LABELERS[b].title} [95 %]" for b in FLOORS]
    return Table(
        name=_id("headline-iou", headline),
        title=f"Mask IoU on the validation images, {headline.data}, profile {headline.profile}",
        header=("labeler", "IoU [95 %]", *gains, "instances", "images"),
        rows=tuple(rows),
        notes=(f"Intervals: percentile bootstrap over images, {RESAMPLES} resamples; gains are paired by instance.",),
    )


def _ap_table(headline: Headline, groups: list[list[Kept]], known: Mapping[str, Record], store: Path) -> Table:
    kept, said = by_score(groups), must_be_said(names_of(groups))
    scores = [some[0].score for some in kept.values()]
    alike = grouped(scores, lambda record: (record["columns"]["segmenter"], record["columns"]["seed"]))
    named: dict[str, str] = {}
    for same in alike.values():  # what else two of them differ in is said
        words = names(same, [supervision_name(record["columns"]) for record in same], known)
        named |= {address(record): name for record, name in zip(same, words, strict=True)}

    def place(record: Record) -> tuple[str, int, str, int]:
        columns = record["columns"]
        return columns["segmenter"], _place(columns), named[address(record)], columns["seed"]

    rows = []
    for record in sorted(scores, key=place):
        columns = record["columns"]
        aps = [_ap(record, metric, store) for metric in ("mask_ap", "box_ap")]
        for one in kept[address(record)]:
            share = usable(one, known)
            rows.append(
                (
                    named[address(record)],
                    columns["segmenter"],
                    str(columns["seed"]),
                    *aps,
                    *([one.over or "-"] if said else []),
                    share if isinstance(share, str) else shown(_stored(share, "retention"), percent=True),
                    str(record["metrics"]["box_ap"]["n"]),
                )
            )
    over = (OVER,) if said else ()
    return Table(
        name=_id("headline-ap", headline),
        title=f"AP and retention on the validation images, {headline.data}, profile {headline.profile}",
        header=(
            "trained on",
            "segmenter",
            "seed",
            "mask AP [95 %]",
            "box AP [95 %]",
            *over,
            "retention [95 %]",
            "images",
        ),
        rows=tuple(rows),
        notes=(
            f"Intervals: percentile bootstrap over images, {RESAMPLES} resamples; of a retention, paired by image.",
            "They say what other images would change, not what other seeds would.",
        ),
        text=frozenset({"segmenter", *over}),
    )


def _place(columns: Mapping[str, Any]) -> int:
    """Where a segmenter stands in a table, by what it was trained on."""
    if columns["supervision"] != "pseudo":
        return 0
    return 1 if columns["labeler"] == "gt" else 2 + rank(columns)


def _ap(record: Record, metric: str, store: Path) -> str:
    """An AP with its interval, or alone where the store lacks the match arrays."""
    value = record["metrics"].get(metric)
    if value is None:
        return "-"
    found = interval(record, metric, store)
    return f"{value['value']:.3f}" if found is None else shown(found)


def _id(name: str, headline: Headline) -> str:
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in f"{headline.profile}-{headline.data}")
    return f"{name}-{plain}"
