"""A table and its four renderings: Markdown, LaTeX (booktabs), CSV and HTML.

A cell is plain text. What it means in a format is escaped there, so that a reader of any of them gets the text back.
"""

import csv as csv_format
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

# what pdflatex's own input encoding has no character for → what it has
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}", "*": "{*}", "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}", "…": r"\ldots{}", "–": r"\textendash{}",
    "—": r"\textemdash{}", "−": r"$-$", "×": r"$\times$", "·": r"$\cdot$", "÷": r"$\div$", "±": r"$\pm$",
    "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "→": r"$\rightarrow$", "←": r"$\leftarrow$",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "²": r"\textsuperscript{2}", "α": r"$\alpha$", "β": r"$\beta$",
    "ζ": r"$\zeta$", "θ": r"$\theta$", "ρ": r"$\rho$", "τ": r"$\tau$", "ω": r"$\omega$", "Δ": r"$\Delta$",
    "’": "'", "“": "``", "”": "''", "‡": r"\ddag{}", "†": r"\dag{}",
}  # fmt: skip
LATIN = frozenset("¡¿§¶©ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ")  # letters that it does have
WIDE = "10cm"  # a LaTeX column whose lines break


@dataclass(frozen=True)
class Table:
    """Rows under a header, in parts that each may have a heading; all cells are plain text."""

    name: str  # of its files, and an id in a page: letters, digits, - and _
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    headings: tuple[tuple[int, str], ...] = ()  # (the row that it stands above, heading), by rising row
    text: frozenset[str] = frozenset()  # the columns of words: to the left; of numbers: to the right
    wide: frozenset[str] = field(default_factory=frozenset)  # the columns of words whose lines may break

    def __post_init__(self) -> None:
        """Raises ValueError: a row has another length than the header, or a name or heading that cannot be."""
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.name, re.ASCII):
            raise ValueError(f"a table cannot be called {self.name!r}: letters, digits, - and _ only")
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{self.name}: a row of {len(row)} cells under {len(self.header)} headings: {row}")
        places = [place for place, _ in self.headings]
        if places != sorted(set(places)) or any(not 0 <= place <= len(self.rows) for place in places):
            raise ValueError(f"{self.name}: headings stand above rows {places} of {len(self.rows)}")
        if unknown := (self.text | self.wide) - set(self.header):
            raise ValueError(f"{self.name} has no columns {', '.join(sorted(unknown))}")

    def parts(self) -> Iterator[tuple[str, tuple[tuple[str, ...], ...]]]:
        """Each heading (the first may be empty) and the rows below it."""
        starts = [*self.headings] if self.headings and self.headings[0][0] == 0 else [(0, ""), *self.headings]
        ends = [place for place, _ in starts[1:]] + [len(self.rows)]
        for (start, heading), end in zip(starts, ends, strict=True):
            yield heading, self.rows[start:end]

    def shown(self) -> Iterator[tuple[str, "Table"]]:
        """Each heading and a table of the rows below it, with the columns in which these have anything."""
        for heading, rows in self.parts():
            kept = [i for i in range(len(self.header)) if i == 0 or any(row[i].strip() for row in rows)]
            header = tuple(self.header[i] for i in kept)
            cells = tuple(tuple(row[i] for i in kept) for row in rows)
            names = frozenset(header)
            part = replace(self, header=header, rows=cells, headings=(), text=self.text & names, wide=self.wide & names)
            yield heading, part

    def is_text(self, column: int) -> bool:
        """Whether a column holds words."""
        return column == 0 or self.header[column] in self.text | self.wide

    def kind(self, column: int) -> str:
        """A column's class in a page: `wide`, `text`, or empty where it holds numbers."""
        return "wide" if self.header[column] in self.wide else "text" if self.is_text(column) else ""


def markdown(table: Table) -> str:
    """A heading, a GitHub-flavoured table for each part, aligned to be read in a terminal too, and the notes.

    A part shows the columns in which it has anything.
    """
    blocks = [f"## {_markdown_line(table.title)}"]
    for heading, part in table.shown():
        blocks += [f"**{markdown_text(heading.strip())}**"] if heading.strip() else []
        blocks.append(markdown_rows(part))
    blocks += ["\n".join(f"- {_markdown_line(note)}" for note in table.notes)] if table.notes else []
    return "\n\n".join(blocks) + "\n"


def markdown_rows(table: Table) -> str:
    """The header and all rows, without title, headings and notes."""
    lines = [[markdown_text(cell) for cell in line] for line in [table.header, *table.rows]]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(table.header))]
    left = [table.is_text(i) for i in range(len(widths))]
    rule = ["-" * width if to_left else "-" * (width - 1) + ":" for width, to_left in zip(widths, left, strict=True)]
    padded = [
        [cell.ljust(w) if to_left else cell.rjust(w) for cell, w, to_left in zip(line, widths, left, strict=True)]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [padded[0], rule, *padded[1:]])


def _markdown_line(text: str) -> str:
    """Plain text as a line of its own, where a first - or 1. would begin a list."""
    text = markdown_text(text).strip().replace("#", r"\#")
    return re.sub(r"^([-+>=]|\d+(?=[.)]))", lambda m: m[0] + "\\" if m[0].isdigit() else "\\" + m[0], text)


def markdown_text(text: str) -> str:
    """Plain text as it stands within a line of Markdown, in a table or outside."""
    text = re.sub(r"([\\`*~|]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", one_line(text))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))


def latex(table: Table) -> str:
    """A `table` environment with a tabular for each part, shrunk to the line's width where it is wider.

    Needs booktabs, graphicx and array. A heading breaks after its comma. A part shows the columns in which it has
    anything.
    """
    lines = [
        r"% needs \usepackage[T1]{fontenc} and \usepackage{textcomp,booktabs,graphicx,array}",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
    ]
    for heading, part in table.shown():
        lines += [rf"\par\medskip\emph{{{latex_text(heading)}}}\par\smallskip"] if heading.strip() else []
        lines += _latex_rows(part)
    lines += [rf"\par\smallskip\footnotesize {latex_text(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_rows(table: Table) -> list[str]:
    columns = ["l" if table.is_text(i) else "r" for i in range(len(table.header))]
    titles = []
    for name, column in zip(table.header, columns, strict=True):
        first, comma, second = map(latex_text, name.partition(", "))
        titles.append(rf"\shortstack[{column}]{{{first},\\{second}}}" if comma else first)
    broken = rf">{{\raggedright\arraybackslash}}p{{{WIDE}}}"
    columns = [broken if name in table.wide else kind for name, kind in zip(table.header, columns, strict=True)]
    return [
        rf"\sbox0{{\begin{{tabular}}{{{''.join(columns)}}}",
        r"\toprule",
        " & ".join(titles) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_cell(table, i, cell) for i, cell in enumerate(row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
    ]


def _latex_cell(table: Table, column: int, cell: str) -> str:
    """A cell; a long word of a column whose lines break, as a.b.c=d, may break too."""
    text = latex_text(cell)
    return re.sub(r"(?<=[.=/])(?=\w)", r"\\penalty500 ", text) if table.header[column] in table.wide else text


def latex_text(text: str) -> str:
    """Plain text in LaTeX. A character that its usual fonts lack is written as its number (U+4E2D), to be seen."""

    def one(character: str) -> str:
        if character in LATEX:
            return LATEX[character]
        if character.isascii() or character in LATIN:
            return character
        return rf"\texttt{{U+{ord(character):04X}}}"

    return re.sub(r"([-,])(?=\1)", r"\1{}", "".join(map(one, one_line(text))))  # -- and ,, are other characters


def csv(table: Table) -> str:
    """One header line and a line a row (RFC 4180, but for lines that end in a line feed); a part is a column."""
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    first = ["part"] if table.headings else []
    writer.writerow([*first, *table.header])
    for heading, rows in table.parts():
        writer.writerows([*([heading] if first else []), *row] for row in rows)
    return out.getvalue()


def html(table: Table) -> str:
    """A page of its own, with nothing but the table. A part shows the columns in which it has anything."""
    from analysis.pages import render  # jinja2, which a run's summary need not wait for

    page = render("pages/table_page.html", table=table)
    return page.replace("&#39;", "&#x27;").replace("&#34;", "&quot;")  # as the published tables have them


def one_line(text: str) -> str:
    """Text without line breaks and other characters that cannot be seen: each stretch of them is one space."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text)


def spread(values: list[float], pattern: str) -> str:
    """The mean and, of several seeds, the lowest and the highest: `95.0% (94.1% … 95.7%)`."""
    mean = pattern.format(sum(values) / len(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({pattern.format(min(values))} … {pattern.format(max(values))})"


FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "csv": csv, "html": html}
