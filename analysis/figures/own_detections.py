"""Figure 4 of AttentionShift's supplement: what a method's own detector finds, without any annotation."""

from analysis.columns import labeler_name
from analysis.drawing import even_places
from analysis.figures.detections import SAME, SCORE, draw, shown
from analysis.figures.drawn import PAGE, sheet
from analysis.figures.photographs import frame, photographs
from analysis.figures.results import Group, Results
from analysis.figures.series import Drawing, each, provenance
from analysis.recipes import recipe_name
from analysis.records import Json

IMAGES = 5


@each("own_ap_val")
def own_detections(groups: list[Group], results: Results) -> Drawing:
    """Human masks, and the detections of a method's own detector; a column an image."""
    record = groups[0][0]
    images = photographs(results, record)
    chosen = [sorted(images.records)[place] for place in even_places(len(images.records), IMAGES)]
    truths: dict[int, list[Json]] = {image: [] for image in chosen}
    for annotation in images.humans.values():
        if annotation["image_id"] in truths and not annotation.get("iscrowd"):
            truths[annotation["image_id"]].append(annotation)
    found = shown(results.json(results.source(record, "detect_"), "predictions.json"), chosen)
    figure = sheet(PAGE, 2.9)
    grid = figure.subplots(2, IMAGES)
    for axes in grid.flat:
        frame(axes)
    columns, metrics = record["columns"], record["metrics"]
    name = labeler_name(columns["labeler"])
    score = f"mAP50 {metrics['mask_map50']['value']:.3f}" if "mask_map50" in metrics else ""
    for line, ones, title in zip(grid, (truths, found), ("human masks", f"detections\n{score}"), strict=True):
        line[0].set_ylabel(title)
        for axes, image in zip(line, chosen, strict=False):
            draw(axes, image, ones[image], truths[image], images)
    several = "" if len(groups) == 1 else f", of {len(groups)} the one that most results of the store are built on"
    caption = (
        f"Detections of {name}'s own detector ({columns['encoder']}, recipe {recipe_name(record, results.known)}, "
        f"seed {columns['seed']}{several}) on images of which it is given nothing. Rule: of {len(images.records)} "
        f"validation images those at {len(chosen)} equal steps of their ids; detections of a score of at least "
        f"{SCORE:g}, or where there is none the best. A detection has the colour of the object whose human mask it "
        f"overlaps most (IoU of at least {SAME:g}), or is white. "
    )
    caption += provenance([[record]], f"{len(images.records)} images") + images.attribution(chosen)
    return figure, caption, images.notes()
