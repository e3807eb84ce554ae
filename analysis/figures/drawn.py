"""What a figure is before and after it is written: the same inputs give the same bytes."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.lettering import lettered

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, PAGE = 3.3, 6.9  # inches: a column, and a page of two
PAD = 0.03  # inches between parts
NOTE = 5.5  # points: the lines below a figure
NAMES = 6.5  # points: the legend, as paper.mplstyle has it
SAMPLE = 9  # characters: what stands before a name in it, and after it
UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}


@dataclass(frozen=True)
class Sketch:
    """A figure that is not yet on disk, or why there is none.

    Attributes:
        of: what tells it from others of its kind, as in a file's name: `shapes_demo`.
        caption: what is shown, of which runs and by which rule; the rule is written below the figure too.
        left_out: sentences about records and images that are not in it.
    """

    of: str
    figure: Figure | None
    caption: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """A figure on disk, or why there is none.

    Attributes:
        name: of the files: `fig6_shapes_demo`.
        png: None where there is nothing to show.
        reason: why there is nothing, and which command computes it; of a figure, what was left out of it.
    """

    name: str
    title: str
    caption: str
    png: Path | None
    reason: str


@contextmanager
def styled() -> Iterator[None]:
    """Draw with paper.mplstyle on matplotlib's own defaults."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rc_file(STYLE, use_default_template=False)
        yield


def sheet(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose axes are laid out to fit."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD))


def legend(figure: Figure, *panels: Axes) -> None:
    """What the lines of panels are, above the figure, in as many columns as the longest name leaves room for.

    A line that several panels have is named once, and a name that is wider than the figure takes several lines. A long
    legend makes the figure higher: a sheet's height has room for three lines of it.
    """
    named = {title: handle for axes in panels for handle, title in zip(*axes.get_legend_handles_labels(), strict=True)}
    width, height = figure.get_size_inches()
    room, widest = (int(width * 72 / (letter * NAMES)) for letter in (0.55, 0.6))  # characters across; of wide ones
    wrapped = [textwrap.wrap(t, widest - SAMPLE, subsequent_indent="  ", break_on_hyphens=False) for t in named]
    longest = max((len(line) for lines in wrapped for line in lines), default=0)
    columns = min(max(1, room // (longest + SAMPLE)), len(wrapped) or 1)
    handles, titles = [*named.values()], ["\n".join(lines) for lines in wrapped]
    rows = -(-len(titles) // columns)  # matplotlib fills columns from above, as evenly as it can
    tallest = max(
        (sum(map(len, wrapped[start : start + rows])) for start in range(0, len(wrapped), rows or 1)), default=0
    )
    more = max(0, tallest - 3)
    figure.set_size_inches(width, height + more * 1.5 * NAMES / 72)
    figure.legend(handles, titles, loc="outside upper left", ncols=columns)


def write(figure: Figure, caption: str, folder: Path, name: str) -> Path:
    """Write NAME.png, NAME.pdf and the caption as NAME.txt; the caption's first paragraph also stands below the figure.

    Returns:
        The PNG.
    """
    _note(figure, caption.partition("\n\n")[0])
    with lettered(figure):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out; another time would take as long and change nothing
        for kind, metadata in UNDATED.items():
            figure.savefig(folder / f"{name}.{kind}", metadata=metadata)
    (folder / f"{name}.txt").write_text(caption + "\n", encoding="utf-8")
    return folder / f"{name}.png"


def _note(figure: Figure, text: str) -> None:
    """Lengthen a figure by some lines of small print at its foot."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, int(width * 72 / (0.53 * NOTE)))
    foot = (len(lines) * 1.3 + 0.8) * NOTE / 72
    figure.set_size_inches(width, height + foot)
    share = foot / (height + foot)
    rect = (0, share, 1, 1 - share - 0.04 / (height + foot))
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD, rect=rect))
    figure.text(
        0.03 / width, 0.3 * share * NOTE / 72 / foot, "\n".join(lines),
        fontsize=NOTE, color="#555555", va="bottom", linespacing=1.2,
    )  # fmt: skip
