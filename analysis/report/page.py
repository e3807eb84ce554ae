"""The page, put together: every part as HTML, style and script inside, pictures as base64."""

import base64
from collections.abc import Sequence
from pathlib import Path
from string import Template

from analysis.figures import Drawn, draw_all
from analysis.records import Record, by_address, finished
from analysis.rendering import Table, html, html_text, part_of_page, script_json
from analysis.report.gallery import LIMIT, Gallery, build
from analysis.report.headline import Headline, headlines
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
    page = Template(part_of_page("analysis.report", "page.html")).substitute(
        title=TITLE,
        style=part_of_page("analysis.report", "style.css"),
        script=part_of_page("analysis.report", "elements.js") + part_of_page("analysis.report", "gallery.js"),
        subtitle=_subtitle(records),
        summary="\n".join(map(_headline, headlines(known, store))),
        tables=_tables(paper_tables(records, store), summary(records)),
        figures=_figures(draw_all(store, out, redistributable=redistributable)),
        gallery=_gallery(gallery, redistributable),
        provenance=provenance(records, store, out, links=links),
        footer="Written by <code>python -m analysis.report</code> from the records of finished stages; no experiment "
        "is run for it, and the same store gives the same page.",
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _subtitle(records: Sequence[Record]) -> str:
    profiles = sorted({record["columns"]["profile"] for record in records})
    data = sorted({record["columns"]["data"] for record in records})
    return html_text(
        f"{len(records)} finished stages; data {', '.join(data)}; profile{'s' * (len(profiles) > 1)} "
        f"{', '.join(profiles)}. Masks learned from boxes, measured against human masks; and a segmenter trained on "
        "them against the same segmenter trained on human masks: the share of its AP that is kept is the retention."
    )


def _headline(headline: Headline) -> str:
    """What was run and found under one profile on one data set."""
    note = (
        ""
        if headline.comparable
        else '<p class="note">Not comparable with the paper\'s numbers: another scale, other data.</p>'
    )
    lines = "".join(f"<li>{html_text(finding)}</li>" for finding in headline.findings)
    return "\n".join(
        [
            f"<h3>{html_text(headline.data)}, profile {html_text(headline.profile)}</h3>",
            f'<p class="soft">{html_text(" ".join(headline.run))}</p>',
            note,
            f'<ul class="findings">{lines}</ul>' if lines else "<p>Nothing was measured here.</p>",
            *map(html, headline.tables),
        ]
    )


def _tables(tables: Sequence[Table], printed: str) -> str:
    """The paper's tables, and what a run prints at its end."""
    return "\n".join(
        [
            *map(html, tables),
            "<h3>What a run prints at its end</h3>",
            '<div class="scroll" tabindex="0" role="region" aria-label="What a run prints at its end">',
            f"<pre>{html_pre(printed)}</pre></div>",
        ]
    )


def html_pre(text: str) -> str:
    """Lines of text in HTML, their breaks kept."""
    return "\n".join(html_text(line.replace(" ", "\u00a0")).replace("\u00a0", " ") for line in text.splitlines())


def _figures(drawn: Sequence[Drawn]) -> str:
    """Figures with their captions, and why the others are absent."""
    parts, absent = [], []
    for figure in drawn:
        if figure.png is None:
            absent.append(f"<li>{html_text(figure.title)}: {html_text(figure.reason)}</li>")
            continue
        data = base64.b64encode(figure.png.read_bytes()).decode()
        left_out = f" Left out: {figure.reason}." if figure.reason else ""
        parts.append(
            f'<figure id="figure-{html_text(figure.name)}"><h3>{html_text(figure.title)}</h3>\n'
            f'<img decoding="async" alt="{html_text(figure.title)}; the caption says what it shows" '
            f'src="data:image/png;base64,{data}">\n'
            f"<figcaption>{html_text(figure.caption + left_out)}</figcaption></figure>"
        )
    if absent:
        parts.append(f"<h3>Not drawn</h3><ul>{''.join(absent)}</ul>")
    return "\n".join(parts)


def _gallery(gallery: Gallery, redistributable: bool) -> str:
    """The gallery with its data, or why there is none."""
    left_out = "".join(f'<p class="note">{html_text(sentence)}</p>' for sentence in gallery.left_out)
    if not gallery.count:
        return (
            f"<p>There is nothing to show.</p>{left_out}"
            + '<script type="application/json" id="gallery-data">[]</script>'
        )
    if redistributable:
        left_out += (
            "<p>Only images that may be passed on are shown; whom to name stands below each when it is open.</p>"
        )
    return Template(part_of_page("analysis.report", "gallery.html")).substitute(
        left_out=left_out, data=script_json(gallery.sets)
    )
