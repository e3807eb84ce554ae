"""The page, put together from all its parts."""

from collections.abc import Sequence
from pathlib import Path

from analysis.figures import draw_all
from analysis.pages import render
from analysis.records import Record, by_address, finished
from analysis.report.gallery import LIMIT, build
from analysis.report.headline import headlines
from analysis.report.instances import find, select
from analysis.report.provenance import provenance
from analysis.summary import summary
from analysis.tables import paper_tables

TITLE = "Mask auto-labeling: what boxes are worth"


def write_page(store: Path, out: Path, *, redistributable: bool = False, limit: int = LIMIT) -> Path:
    """Write `out`/report.html, and the figures that it shows to `out`/figures.

    Args:
        store: folder of finished stages.
        redistributable: leave out photographs whose licence forbids to pass them on, and links to a store that lies
            elsewhere than below `out`.
        limit: instances in the gallery.

    Returns:
        The page.

    Raises:
        UnreadableRecordError, PaperNumbersError: the store is empty, or a file that is read is broken.
    """
    records = finished(store)
    known = by_address(records)
    out.mkdir(parents=True, exist_ok=True)
    splits, absent = find(known, store)
    gallery = build(select(splits, limit, redistributable=redistributable))
    gallery.left_out += absent
    links = not redistributable or store.resolve().is_relative_to(out.resolve())
    page = render(
        "report/report.html",
        title=TITLE,
        subtitle=_subtitle(records),
        headlines=headlines(known, store),
        tables=paper_tables(records, store),
        printed=summary(records),
        figures=draw_all(store, out, redistributable=redistributable),
        gallery=gallery,
        redistributable=redistributable,
        provenance=provenance(records, store, out, links=links),
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _subtitle(records: Sequence[Record]) -> str:
    profiles = sorted({record["columns"]["profile"] for record in records})
    data = sorted({record["columns"]["data"] for record in records})
    return (
        f"{len(records)} finished stages; data {', '.join(data)}; profile{'s' * (len(profiles) > 1)} "
        f"{', '.join(profiles)}. Masks learned from boxes, measured against human masks; and a segmenter trained on "
        "them against the same segmenter trained on human masks: the share of its AP that is kept is the retention."
    )
