"""The sentences below a table: how to read it, and what its paper leaves open or contradicts."""

from collections.abc import Iterator, Mapping

from analysis.audit import CANNOT, retentions
from analysis.paper.table import PaperTable


def notes(table: PaperTable, tables: Mapping[str, PaperTable], header: list[str]) -> Iterator[str]:
    """The sentences; `header` are the columns that the table has."""
    units = dict.fromkeys(quantity.unit for quantity in table.quantities.values())
    differences = " Differences are ours - paper's." if table.rows else ""
    yield f"Unit: {', '.join(units)}. Of several seeds: their mean (lowest … highest).{differences}"
    yield (
        "95 % interval: percentile bootstrap over the validation images, of one seed at a time; a retention's two APs "
        "are resampled together. An AP of few objects a category is too high; its interval is bias-corrected, which "
        "mends a part of that (analysis/stats.py)."
    )
    shown = [q for q in table.more.values() if q.title in header]
    yield from (q.note for q in [*shown, *table.quantities.values()] if q.note)
    if table.rows:
        yield "The commands need data.root=FOLDER, the place of the data, unless experiments/conf/local.yaml names it."
    if table.remark:
        yield f"The paper: {table.remark}"
    for row in table.rows:
        if row.remark:
            yield f"The paper, {row.id}: {row.remark}"
    for slip in table.slips:
        yield f"The paper, {slip.where}: “{slip.quote}”. {slip.remark}"
    for finding in retentions(tables):
        if finding.verdict == CANNOT and finding.place.startswith(f"{table.place},"):
            yield (
                f"The paper's numbers contradict each other: {finding.place} is printed as {finding.printed}, but "
                f"{finding.remark} gives {finding.interval} (python -m analysis.audit)."
            )
