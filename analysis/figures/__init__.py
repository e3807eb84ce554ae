"""Figures 4 to 8 of the paper and those it lacks, from run files: `python -m analysis.figures`."""

import sys
from collections.abc import Iterable
from pathlib import Path

from analysis.figures.drawn import Drawn, styled, write
from analysis.figures.kinds import KINDS
from analysis.figures.results import Results
from analysis.records import finished

__all__ = ["KINDS", "Drawn", "draw_all"]

SAID = 3  # sentences about what a figure leaves out, before the rest is counted


def draw_all(store: Path, out: Path, only: Iterable[str] | None = None, redistributable: bool = False) -> list[Drawn]:
    """Write `out`/figures/NAME_DATA_PROFILE.png, .pdf and .txt (the caption) of all that a store has data for.

    Args:
        store: folder of finished stages.
        only: names among `KINDS`; None for all.
        redistributable: show no photograph whose licence forbids to pass it on; procedural images always pass.

    Returns:
        The figures, and for each kind without any an entry that says which command computes it; in the order of KINDS.

    Raises:
        UnreadableRecordError: the store is empty or broken.
        KeyError: `only` names a figure that there is not.
    """
    results = Results.of(store, finished(store), redistributable=redistributable)
    for reason in results.unusable:
        print(f"left out: {reason}", file=sys.stderr)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name in KINDS if only is None else only:
        kind = KINDS[name]
        with styled():
            sketches = list(kind.draw(results))
            for sketch in sketches:
                more = sketch.left_out[SAID:]
                reason = "; ".join([*sketch.left_out[:SAID], *([f"and {len(more)} more"] if more else [])])
                if sketch.figure is None:
                    drawn.append(Drawn(f"{name}_{sketch.of}", kind.title, "", None, reason))
                else:
                    png = write(sketch.figure, sketch.caption, folder, f"{name}_{sketch.of}")
                    drawn.append(Drawn(png.stem, kind.title, sketch.caption, png, reason))
        if not sketches:
            reason = f"the store has nothing for it yet: {kind.command}"
            drawn.append(Drawn(name, kind.title, "", None, reason))
    return drawn
