"""Does the clustering score (Eq. 6) predict what a labeler is worth? Rank correlations over encoders.

The paper sets Table 6 beside Table 4 and never computes it; `python -m analysis.compare.correlate` does, from what it
prints.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.compare.rankings import FEWEST, rank_correlation
from analysis.lineage import WEIGHTS, Settings, differing, settings_of, weights_of
from analysis.paper_numbers import load
from analysis.records import Record
from analysis.sources import command
from analysis.summary_cells import table

SIGN = "A smaller clustering score is better, so where it predicts the other number the correlation is negative."
INTERVAL = (
    "The interval is that of encoders like these (test inversion, analysis/compare/rankings.py), of a correlation that "
    "can lie between -1 and 1. p tries every order. Neither knows how well each single number is "
    "measured."
)
Points = dict[str, float]  # encoder → number


@dataclass(frozen=True)
class Scores:
    """Clustering scores of some encoders that are alike in all else."""

    title: str
    points: Points


def clustering_scores(records: Iterable[Record], known: Mapping[str, Record]) -> list[Scores]:
    """The clustering scores among some records, those of one kind together, a mean over seeds an encoder."""
    kinds: list[tuple[Settings, dict[str, list[float]], Record]] = []
    for record in sorted(records, key=lambda r: (r["columns"].get("encoder") or "", r["key"])):
        if record["stage"] != "clustering_val":
            continue
        settings = {**settings_of(record, known), "weights": weights_of(record)}
        group = next((g for g in kinds if not differing([settings, g[0]], by="encoder")), None)
        if group is None:
            group = (settings, {}, record)
            kinds.append(group)
        group[1].setdefault(record["columns"]["encoder"], []).append(record["metrics"]["clustering"]["value"])
    found = []
    for _, values, record in kinds:
        config = record["config"]
        what = f"encoders {WEIGHTS[weights_of(record)]}, {config['source']} at {config['roi']['size']}²"
        found.append(Scores(what, {name: sum(each) / len(each) for name, each in values.items()}))
    return found


def correlation_lines(x: Points, y: Points, *, names: tuple[str, str]) -> str:
    """Spearman's ρ over the encoders that have both numbers, as a Markdown table, or why there is none.

    Args:
        x, y: encoder → number. names: what they are, for the text.
    """
    both = [name for name in x if name in y]
    what = f"{names[0]} and {names[1]}"
    if len(both) < FEWEST:
        return f"{what}: {len(both)} encoders have both ({', '.join(both) or 'none'}); it takes at least {FEWEST}."
    first, second = [x[name] for name in both], [y[name] for name in both]
    if len(set(first)) == 1 or len(set(second)) == 1:
        return f"{what}: all encoders are equal in one of the two, which leaves nothing to correlate."
    found = rank_correlation(first, second)
    it = found.interval
    row = [str(len(both)), f"{it.value:+.2f}", f"[{it.low:+.2f}, {it.high:+.2f}]", f"{found.p:.3f}"]
    return f"{what} ({', '.join(both)}):\n\n" + table(["encoders", "Spearman's ρ", "95 % interval", "exact p"], [row])


def paper_correlations() -> str:
    """The paper's argument for Table 6 in numbers: its printed scores against Table 4's AP, retention and accuracy.

    Raises:
        PaperNumbersError: results/paper is not there.
    """
    tables = load()

    def printed(table: str, name: str) -> Points:
        return {row.id: float(it.value) for row in tables[table].rows if (it := row.printed[name]) is not None}

    scores = ("clustering score (Table 6)", printed("tab6_clustering", "score"))
    kept, ap, accuracy = (
        (f"{title} (Table 4)", printed("tab4_encoder", name))
        for title, name in (("retention", "retention_val"), ("mask AP", "mask_ap_val"), ("IN-1k accuracy", "accuracy"))
    )
    pairs = [(scores, kept), (scores, ap), (scores, accuracy), (accuracy, kept)]
    lines = [correlation_lines(x, y, names=(one, other)) for (one, x), (other, y) in pairs]
    return "\n\n".join(["The paper's own numbers", SIGN, INTERVAL, *lines])


@command
def main(_: Sequence[str] | None) -> None:
    """Print the correlations of the paper's own numbers."""
    print(paper_correlations())


if __name__ == "__main__":
    sys.exit(main())
