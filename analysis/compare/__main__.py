"""Any number of encoders (decoders, θ, recipes, labelers, segmenters) against a baseline, with what is certain of it.

python -m analysis.compare --by encoder [--baseline NAME] [--profile P] [--data D] … [--where KEY=VALUE] [--store DIR]
python -m analysis.compare --by changes: ablations, each row named by the settings it changes
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analysis import sources
from analysis.columns import BELONGS, COLUMNS
from analysis.compare.changes import by_changes
from analysis.compare.contenders import Comparison, Row, compared, contenders
from analysis.compare.correlate import INTERVAL, SIGN, Points, clustering_scores, correlation_lines, paper_correlations
from analysis.compare.resampled import ComparisonError, Measured, Runs, mask_ap, mask_iou, per_cent
from analysis.denominators import by_score, in_words, kept_groups, must_be_said, usable
from analysis.lineage import Settings, choices, chosen, differing, shown
from analysis.paper_numbers import PaperNumbersError
from analysis.recipes import common_departures
from analysis.records import Record, address, by_address, finished
from analysis.sources import command
from analysis.stats import Interval
from analysis.summary_cells import table

CHANGES = "changes"
HOW = (
    "Value and difference: mean over seeds (a difference: over those that both have), with a 95 % interval of the "
    "images alone (percentile bootstrap, the same images for all). p: no difference on these images, for these "
    "trainings (IoU: the two swapped on whole images; AP and retention: from the bootstrap, which cannot go below 2 in "
    "its number of resamples); adjusted by Holm for the number of rows. Over seeds: Student's 95 % interval of the "
    "mean difference, which says what another training would change; with two or three seeds it is wide."
)


@dataclass(frozen=True)
class Question:
    """What is asked of a store."""

    by: str
    baseline: str | None = None
    wanted: Mapping[str, list[str]] = field(default_factory=dict)  # column → values
    where: Sequence[str] = ()
    along: Sequence[str] = ()
    resamples: int = 1000
    seed: int = 0


def report(store: Path, question: Question) -> str:
    """The whole comparison as Markdown.

    Raises:
        ComparisonError: there is nothing to compare, or results differ in more than what is compared.
        UnreadableRecordError: the store, or a file in it, cannot be read.
    """
    everything = finished(store)
    known = by_address(everything)
    by = question.by

    def grouped(records: list[Record]) -> dict[str, Runs]:
        return by_changes(records, known) if by == CHANGES else contenders(records, known, by=by, along=question.along)

    records = chosen(everything, known, question.wanted, question.where)
    quality = grouped([r for r in records if r["stage"] == "quality_val"])
    scores = [r for r in records if r["stage"] == "ap_val" and r["columns"].get("supervision") == "pseudo"]
    by_segmenter = {
        name: grouped([r for r in scores if name in ("", r["columns"]["segmenter"])])
        for name in (("",) if by == "segmenter" else sorted({r["columns"]["segmenter"] for r in scores}))
    }
    segmenters = {name: runs for name, runs in by_segmenter.items() if len(runs) > 1}
    if len(quality) < 2 and not segmenters:
        names = ", ".join(quality) or "none"
        sweep = "experiment=sensitivity" if by == CHANGES else f"{by}=A,B"
        raise ComparisonError(
            f"there are not two values of {by} to compare (found: {names}); compute more, for instance with "
            f"python experiments/run.py -m {sweep}, or choose others"
        )
    _check_comparable([quality, *segmenters.values()])
    parts = [f"# Comparison by {by}", _about([quality, *segmenters.values()], known), HOW]
    values: dict[str, Points] = {}
    if by != "segmenter" and len(quality) > 1:
        measured = mask_iou(quality, store, resamples=question.resamples, seed=question.seed)
        counts = {run["metrics"]["iou"]["n"] for group in quality.values() for run in group.values()}
        instances = " or ".join(map(str, sorted(counts)))
        parts += [f"## Mask IoU of {instances} validation instances", *_section(measured, question, "{:.3f}")]
        values["mask IoU"] = _means(measured)
    for name, runs in segmenters.items():
        title = f" of {name}" if name else ""
        humans, reasons = _humans(runs, known)
        ap, kept = mask_ap(runs, humans, store, resamples=question.resamples, seed=question.seed)
        parts += [f"## Mask AP{title}", *_section(ap, question, "{:.3f}")]
        values[f"mask AP{title}"] = _means(ap)
        said = must_be_said(kept)
        for over, shares in kept.items():  # each denominator by itself
            divided = f", {in_words(over)}" if said else ""
            if question.baseline not in (None, *shares):
                reasons.append(f"Not compared{divided}: there is no retention of the baseline {question.baseline}.")
            elif len(shares) > 1:
                parts += [f"## Retention{title}{divided}, per cent", *_section(per_cent(shares), question, "{:.1f}")]
                values[f"retention{title}{divided}"] = _means(shares)
            else:
                reasons.append(f"Not compared{divided}: there is a retention of {', '.join(shares)} alone.")
        compared_any = any(name.startswith(f"retention{title}") for name in values)
        if reasons:
            parts += [*([] if compared_any else [f"## Retention{title}"]), *reasons]
    if by == "encoder":
        parts += _clustering(_scores_of_encoders(everything, known, question), known, values)
    return "\n\n".join(parts) + "\n"


def _scores_of_encoders(everything: list[Record], known: dict[str, Record], question: Question) -> list[Record]:
    """The clustering scores that are asked for. Weights that MAL did not train have no recipe, decoder or θ."""
    scores = [record for record in everything if record["stage"] == "clustering_val"]
    trained = [record for record in scores if "labeler" in record["columns"]]
    wanted = {name: question.wanted[name] for name in ("profile", "data", "encoder") if name in question.wanted}
    others = [record for record in scores if "labeler" not in record["columns"]]
    return chosen(trained, known, question.wanted, question.where) + chosen(others, known, wanted, ())


def _check_comparable(parts: list[dict[str, Runs]]) -> None:
    """Masks and segmenters of one report are of one profile and data set."""
    records = [record for runs in parts for group in runs.values() for record in group.values()]
    alike: list[Settings] = [{name: shown(r["columns"].get(name)) for name in ("profile", "data")} for r in records]
    if unlike := differing(alike):
        raise ComparisonError(f"mask quality and AP are of different runs: {choices(unlike, alike)}")


def _about(parts: list[dict[str, Runs]], known: Mapping[str, Record]) -> str:
    records = [r for runs in parts for group in runs.values() for r in group.values()]
    record, columns = records[0], records[0]["columns"]
    told = f"profile {columns['profile']}, data {columns['data']}, commit {record['provenance']['commit'][:8]}"
    for name, entries in common_departures(records, known).items():
        told += f", recipe {name} with {' '.join(entries)}"
    if columns["profile"] == "paper":
        return told
    return f"{told}. Not comparable with the paper's numbers: another scale, other data."


def _humans(runs: Mapping[str, Runs], known: dict[str, Record]) -> tuple[dict[str, dict[str, Record]], list[str]]:
    """Denominator → AP with pseudo-labels → the AP that it is divided by; and a line for each AP without one."""
    kept = by_score(kept_groups([record for group in runs.values() for record in group.values()], known))
    said = must_be_said(one.over for some in kept.values() for one in some)
    humans: dict[str, dict[str, Record]] = {}
    reasons = []
    for name, group in runs.items():
        for seed, record in group.items():
            for one in kept[address(record)]:
                found = usable(one, known)
                if isinstance(found, str):
                    why = "no retention was computed" if found == "-" else found
                    divided = f" {in_words(one.over)}" if said and one.over else ""
                    reasons.append(f"Without a retention{divided}: {name}, seed {seed}: {why}.")
                else:
                    humans.setdefault(one.over, {})[address(record)] = known[found["inputs"]["human"]]
    return humans, reasons


def _section(measured: Measured, question: Question, pattern: str) -> list[str]:
    baseline = question.baseline or ("box" if question.by == "labeler" and "box" in measured else next(iter(measured)))
    found = compared(measured, baseline=baseline)
    header = [question.by, "seeds", "value [95 %]", f"minus {baseline}", "95 % over images", "p", "adjusted p"]
    header += ["each seed", "95 % over seeds"]
    rows = [_cells(row, pattern) for row in found.rows]
    return [table(header, rows), _ranking(found)]


def _cells(row: Row, pattern: str) -> list[str]:
    signed = pattern.replace("{:", "{:+")
    seeds = ", ".join(map(str, row.seeds)) or "any"
    head = [row.name, seeds, f"{pattern.format(row.value.value)} {_bounds(row.value, pattern)}"]
    if row.difference is None:
        return [*head, "baseline", *["-"] * 5]
    each = ", ".join(f"{seed}: {signed.format(value)}" for seed, value in sorted(row.by_seed.items()))
    over = "-" if row.over_seeds is None else _bounds(row.over_seeds, signed)
    difference = [signed.format(row.difference.value), _bounds(row.difference, signed)]
    return [*head, *difference, _p(row.p), _p(row.adjusted), each or "-", over]


def _p(value: float) -> str:
    return f"{value:.2g}" if value < 0.001 else f"{value:.3f}"


def _bounds(interval: Interval, pattern: str) -> str:
    low, high = (pattern.format(v) if math.isfinite(v) else ("no limit") for v in (interval.low, interval.high))
    return f"[{low}, {high}]"


def _ranking(found: Comparison) -> str:
    """How stable the order is over seeds, in a sentence."""
    if found.stability is None:
        have = ", ".join(map(str, found.seeds)) or "none"
        return f"{found.images} images. Ranking over seeds: it takes two seeds that all have (there: {have})."
    names = [row.name for row in found.rows]
    first = ", ".join(f"{n} {share:.0%}" for n, share in zip(names, found.stability.first, strict=True) if share)
    return (
        f"{found.images} images. Ranking over the {len(found.seeds)} seeds that all have: Kendall's W "
        f"{found.stability.w:.2f}; first: {first} of the seeds."
    )


def _means(measured: Measured) -> Points:
    return {name: float(np.mean([run.value for run in group.values()])) for name, group in measured.items()}


def _clustering(records: list[Record], known: Mapping[str, Record], values: Mapping[str, Points]) -> list[str]:
    """Correlations of the clustering score with all that was compared, and the paper's own."""
    scores = clustering_scores(records, known)
    parts = ["## Clustering score (Eq. 6) and what the labels are worth", SIGN, INTERVAL]
    parts += [
        correlation_lines(score.points, points, names=(f"clustering score ({score.title})", name))
        for score in scores
        for name, points in values.items()
    ]
    if not scores:
        parts.append("No clustering score yet; python experiments/run.py experiment=tab6_clustering computes them.")
    try:
        return [*parts, f"### {paper_correlations()}"]
    except PaperNumbersError as error:
        return [*parts, f"The paper's own numbers: {error}"]


@command
def main(arguments: Sequence[str] | None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--by", required=True, choices=[*BELONGS, CHANGES], help="what is compared")
    parser.add_argument("--baseline", metavar="NAME", help="what the others are compared with; default: the first")
    for name in [*(name for name in COLUMNS if name != "supervision"), "seed"]:
        parser.add_argument(f"--{name}", nargs="+", metavar="VALUE", help=argparse.SUPPRESS)
    parser.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="only results with this setting")
    parser.add_argument("--along", nargs="+", default=[], metavar="KEY", help="a setting that may differ too")
    parser.add_argument("--resamples", type=int, default=1000, help="of the images; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/report"), help="default: %(default)s")
    sources.add_options(parser)
    parser.epilog = (
        "Choose results by --profile, --data, --labeler, --encoder, --seed, …, each with one or more values."
    )
    options = parser.parse_args(arguments)
    wanted = {name: values for name in [*COLUMNS, "seed"] if (values := getattr(options, name, None))}
    question = Question(options.by, options.baseline, wanted, options.where, options.along, options.resamples)
    text = report(sources.opened(options), question)
    out = options.out / "tables" / f"compare_{options.by}.md"
    with sources.writing(options.out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    print(text, end="")
    print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
