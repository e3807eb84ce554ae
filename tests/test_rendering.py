"""Each format gives back the text of the cells; LaTeX compiles."""

import csv as csv_format
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analysis.rendering import FORMATS, LATEX, Table, csv, html, latex, latex_text, markdown, one_line

NASTY = (
    "a|b", "<b>x</b>", "< b", "<http://a.b>", "<!-- a", "<!-- a -->", "<?a?>", "&amp;", "5 % & 6 $", "x_y_z _a_ __b__",
    "*a* **b**", "`code`", "[1](http://a.b) [x][y]", "\\|", "~~x~~", "#1", "a\\", "{}^~", '"q" \'s\'', "θ² ≥ 1 …",
    "=1+1", "a,b", "- a", "1. a", "+", "> a", "# a #", "--", "[89.3, 97.9]", "*", "&#65;", "漢",
)  # fmt: skip
cells = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12) | st.sampled_from(
    NASTY
)
tables = st.integers(1, 4).flatmap(
    lambda width: st.builds(
        lambda title, header, rows, note, at: Table(
            "t", title, tuple(header), tuple(map(tuple, rows)), (note,), ((min(at, len(rows)), "a *part*"),)
        ),
        cells, st.lists(cells, min_size=width, max_size=width),
        st.lists(st.lists(cells, min_size=width, max_size=width), max_size=3), cells, st.integers(0, 3),
    )
)  # fmt: skip


def shown(text: str) -> str:
    """What a reader sees of a cell: surrounding and doubled spaces are the format's."""
    return one_line(text).strip()


def lines_of(table: Table) -> list[list[str]]:
    """The header and rows of each part, without the columns that are empty in it."""
    lines = []
    for _, rows in table.parts():
        kept = [i for i in range(len(table.header)) if i == 0 or any(shown(row[i]) for row in rows)]
        lines += [[shown(row[i]) for i in kept] for row in (table.header, *rows)]
    return lines


def from_markdown(text: str) -> tuple[list[list[str]], list[str]]:
    """The cells of all tables in a Markdown text, headers and all, and the list's items, as rendered."""
    rows: list[list[str]] = []
    items: list[str] = []
    target: str = ""
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open", "list_item_open"):
            target = token.type
        elif token.type == "inline" and target:
            assert all(child.type in ("text", "text_special") for child in token.children or []), token.content
            seen = "".join(child.content for child in token.children or [])
            (items if target == "list_item_open" else rows[-1]).append(seen)
        elif token.type in ("tr_close", "table_close"):
            target = ""
    return rows, items


class Cells(HTMLParser):
    """The cells of a page's rows, headers and all."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


@settings(max_examples=60)
@given(tables)
def test_markdown_gives_back_every_cell_as_text_but_for_empty_columns(table):
    found, notes = from_markdown(markdown(table))
    assert [[shown(cell) for cell in row] for row in found] == lines_of(table)
    assert [shown(note) for note in notes] == [shown(note) for note in table.notes if shown(note)]


@settings(max_examples=60)
@given(tables)
def test_csv_gives_back_every_cell_and_the_part_that_it_is_in(table):
    header, *rows = list(csv_format.reader(io.StringIO(csv(table))))
    assert header == ["part", *table.header]
    assert [tuple(row[1:]) for row in rows] == list(table.rows)
    ((start, name),) = table.headings
    assert [row[0] for row in rows] == [name if i >= start else "" for i in range(len(rows))]


@settings(max_examples=60)
@given(tables)
def test_html_gives_back_every_cell_but_for_empty_columns(table):
    assert [[shown(cell) for cell in row] for row in Cells(html(table)).rows] == lines_of(table)


@given(st.text())
def test_latex_text_holds_no_command_but_its_own_and_gives_back_the_text(text):
    """Every active character is one of ours: taking ours away in one pass gives the text back."""
    back = {tex: character for character, tex in LATEX.items()}
    ours = "|".join(re.escape(tex) for tex in sorted(back, key=len, reverse=True))
    rendered = latex_text(text)
    pattern = re.compile(
        rf"(?P<ours>{ours})|\\texttt\{{U\+(?P<number>[0-9A-F]+)\}}|(?P<pair>\{{\}})|(?P<plain>.)", re.S
    )
    found = []
    for match in pattern.finditer(rendered):
        if match["ours"]:
            found.append(back[match["ours"]])
        elif match["number"]:
            found.append(chr(int(match["number"], 16)))
        elif match["plain"]:
            assert match["plain"] not in "\\{}$&%#_^~"
            found.append(match["plain"])
    assert "".join(found) == one_line(text)
    assert "--" not in rendered


def test_a_table_says_what_is_wrong_with_it():
    with pytest.raises(ValueError, match="t: a row of 1 cells under 2 headings"):
        Table("t", "", ("a", "b"), (("x",),))
    with pytest.raises(ValueError, match="cannot be called 'a b'"):
        Table("a b", "", (), ())
    with pytest.raises(ValueError, match=r"headings stand above rows \[3\] of 1"):
        Table("t", "", ("a",), (("x",),), headings=((3, "h"),))
    with pytest.raises(ValueError, match="t has no columns z"):
        Table("t", "", ("a",), (("x",),), wide=frozenset({"z"}))


def test_markdown_is_aligned_words_to_the_left_numbers_to_the_right():
    table = Table("t", "Title", ("a", "words", "n"), (("x", "y", "1"), ("x", "yy", "-")), text=frozenset({"words"}))
    assert markdown(table).splitlines() == [
        "## Title",
        "",
        "| a   | words |   n |",
        "| --- | ----- | --: |",
        "| x   | y     |   1 |",
        "| x   | yy    |   - |",
    ]


def test_a_part_has_its_heading_above_its_rows_in_every_format():
    table = Table("t", "T", ("a",), (("1",), ("2",), ("3",)), headings=((1, "P & Q"),))
    assert list(table.parts()) == [("", (("1",),)), ("P & Q", (("2",), ("3",)))]
    for name, heading in (("md", "**P & Q**"), ("tex", r"\emph{P \& Q}"), ("html", "P &amp; Q"), ("csv", "P & Q")):
        text = FORMATS[name](table)
        assert text.index("1") < text.index(heading)
        assert heading in text[: text.rindex("2")]


def test_latex_is_booktabs_with_a_line_a_row():
    table = Table("tab_x", "50 %", ("a", "b"), (("x", "1"), ("[y]", "2")), ("a note",), text=frozenset({"a"}))
    lines = latex(table).splitlines()
    assert lines[3] == r"\caption{50 \%}"
    assert [lines.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    assert r"{[}y{]} & 2 \\" in lines
    assert r"\begin{tabular}{lr}" in lines[5]
    assert r"\shortstack[r]{AP,\\ours}" in latex(Table("t", "", ("a", "AP, ours"), (("x", "1"),)))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_of_any_text_compiles(tmp_path: Path):
    rows = tuple((text, "".join(reversed(text))) for text in (*NASTY, *LATEX, "".join(map(chr, range(32, 127)))))
    tables = [
        Table("narrow", "50 % & more_", ("a", "b"), rows, ("100 % θ",), ((0, "p_1"), (3, "p & 2"))),
        Table(
            "broad",
            "b",
            ("a [long, [word",) * 40,
            ((f"{'long.name=' * 15}1/2 [x]",) * 40,),
            wide=frozenset({"a [long, [word"}),
        ),
    ]
    compiles("\n".join(map(latex, tables)), tmp_path)


def compiles(body: str, folder: Path) -> None:
    """Fails where pdflatex complains, or where a line runs out of the page."""
    packages = (
        r"\usepackage[T1]{fontenc}\usepackage{textcomp}\usepackage{booktabs}\usepackage{graphicx}\usepackage{array}"
    )
    source = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (folder / "t.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Missing character" not in log
    assert "Overfull \\hbox" not in log, log[-3000:]
