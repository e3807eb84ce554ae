"""Figure 1 of AttentionShift's supplement: how alike features are, in the course of training."""

import numpy as np

from analysis.columns import labeler_name
from analysis.figures.drawn import PAGE, legend, sheet
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import Drawing, draw_band, each, looks, names, over_course, provenance
from analysis.records import Record

TITLES = {  # of `mal.methods.attentionshift.cosines`
    "background": "instance and background",
    "between": "instances of two classes",
    "within": "instances of one class",
}


def _of_features(record: Record) -> bool:
    return any(f"{name}_1" in record["metrics"] for name in TITLES)


@each("course_val", _of_features)
def over_training(groups: list[Group], results: Results) -> Drawing:
    """One panel per kind of pair, one line per way of teaching."""
    figure = sheet(PAGE, 2.1)
    panels = [name for name in TITLES if all(f"{name}_1" in record["metrics"] for group in groups for record in group)]
    if not panels:
        raise LeftOut("no kind of cosine is in all results")
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, look, group in zip(names(groups, results, _taught_by), looks(groups), groups, strict=True):
            means = np.array([over_course(record, name) for record in group])
            parts = np.arange(1, means.shape[1] + 1) / means.shape[1]
            ends = [means.mean(axis=0), means.min(axis=0), means.max(axis=0)]
            draw_band(axes, 100 * parts, ends, {**look, "markersize": 3}, label=label)
        axes.set(title=TITLES[name], xlabel="share of the steps, %", ylabel="cosine")
        axes.set_xlim(left=0)
    legend(figure, axes)
    method = labeler_name(groups[0][0]["columns"]["labeler"])
    caption = (
        f"Mean cosines of features of {method}'s last map on the validation images, in the course of training. An "
        "instance is the mean of the patches that its human mask covers by more than half; background, of the same "
        "image, of the patches that contain no object. The paper does not define them: this is inferred. "
        + ("Bands: the range of the seeds. " if any(len(group) > 1 for group in groups) else "")
    )
    record = groups[0][0]
    entry = next(iter(record["metrics"].values()))
    return figure, caption + provenance(groups, f"{entry['n']} objects"), []


def _taught_by(record: Record) -> str:
    """By what its mask head learns: the attention map itself, or the parts that key-point shift finds."""
    return {
        "attention points": "baseline: points of the attention map",
        "parts points": "AttentionShift: key-points of parts",
    }.get(record["columns"]["taught_by"], record["columns"]["taught_by"])
