"""Which figures there are, what computes their data, and what draws them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from analysis.figures import (
    ablations,
    attention,
    class_maps,
    detections,
    features,
    masks,
    overlap,
    own_detections,
    parts,
    quality,
    referring_attention,
    referring_contours,
    referring_fractions,
    referring_sheet,
    sensitivity,
    threshold,
    training,
)
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
    "fig5": Kind("Attention maps", f"{RUN} experiment=fig5", attention.attention),
    "fig6": Kind("MAL's masks beside human ones", f"{RUN} experiment=fig6", masks.beside_human),
    "fig7": Kind("Sensitivity to the constants of MAL", f"{RUN} experiment=fig7", sensitivity.sensitivity),
    "fig8": Kind("Detections after human masks and after MAL's", f"{RUN} experiment=fig8", detections.detections),
    "features": Kind(
        "Cosines between features in the course of training",
        f"{RUN} -m experiment=attentionshift/fig1",
        features.over_training,
    ),
    "parts": Kind("Parts after rounds of key-point shift", f"{RUN} experiment=attentionshift/fig2", parts.part_maps),
    "maps": Kind(
        "Attention, foreground and masks from points", f"{RUN} experiment=attentionshift/fig3", parts.maps_and_masks
    ),
    "detector": Kind(
        "Detections of AttentionShift's own detector",
        f"{RUN} experiment=attentionshift/fig4",
        own_detections.own_detections,
    ),
    "simformer_fig1": Kind(
        "SimFormer's class maps beside those of what the setting gives away",
        f"{RUN} experiment=simformer/fig1",
        class_maps.retrained(ade=False),
    ),
    "simformer_fig2": Kind(
        "The same on ADE20K", f"{RUN} experiment=simformer/fig2 profile=paper", class_maps.retrained(ade=True)
    ),
    "class_maps": Kind("Class maps of one run", f"{RUN} labeler=simformer", class_maps.one_run),
    "partialres_fig1": Kind(
        "Masks from expressions, by the share of the masks that are seen",
        f"{RUN} -m experiment=partialres/fig1",
        referring_fractions.fractions,
    ),
    "partialres_fig2": Kind(
        "Cross-attention of contour points", f"{RUN} -m experiment=partialres/fig2", referring_attention.attention
    ),
    "partialres_fig3": Kind(
        "Points as predicted, sampled again, and of human masks",
        f"{RUN} -m experiment=partialres/fig3",
        referring_contours.contours,
    ),
    "expressions": Kind("Masks that expressions mean", f"{RUN} labeler=partialres", referring_sheet.expressions),
    "size": Kind("IoU against the size of the box", RUN, quality.iou_by_size),
    "overlap": Kind("IoU against the overlap with other boxes", RUN, overlap.iou_by_overlap),
    "boundary": Kind("IoU and boundary IoU", RUN, quality.iou_and_boundary),
    "threshold": Kind("IoU against the threshold", f"{RUN} experiment=threshold", threshold.iou_by_threshold),
    "score": Kind("IoU against the score of a mask", RUN, threshold.iou_by_score),
    "ablations": Kind("One change at a time", f"{RUN} experiment=sensitivity", ablations.changes),
    "labelers": Kind("Training of labelers", RUN, training.of_labelers),
    "segmenters": Kind("Training of segmenters", RUN, training.of_segmenters),
}
