"""Which figures there are, what computes their data, and what draws them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from analysis.figures import masks, overlap, quality
from analysis.figures.drawn import Sketch
from analysis.figures.results import Results


@dataclass(frozen=True)
class Kind:
    """A figure of the paper, or one that it lacks."""

    title: str
    command: str  # computes its data
    draw: Callable[[Results], Iterable[Sketch]]


RUN = "python experiments/run.py"
KINDS: dict[str, Kind] = {
    "fig4": Kind("Masks that MAL made", f"{RUN} experiment=fig4", masks.masks_made),
    "fig6": Kind("MAL's masks beside human ones", f"{RUN} experiment=fig6", masks.beside_human),
    "size": Kind("IoU against the size of the box", RUN, quality.iou_by_size),
    "overlap": Kind("IoU against the overlap with other boxes", RUN, overlap.iou_by_overlap),
    "boundary": Kind("IoU and boundary IoU", RUN, quality.iou_and_boundary),
}
