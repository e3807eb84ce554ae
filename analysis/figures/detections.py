"""Figure 8: what a segmenter trained on human masks finds, beside the same one trained on MAL's masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval.core import mask as rle  # pycocotools.mask, without its warnings on numpy 2
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from analysis.denominators import TRAINED, denominator, published_file, weakest
from analysis.drawing import compressed, decode, even_places
from analysis.figures.drawn import PAGE, sheet
from analysis.figures.photographs import Photographs, draw_masks, fit, frame, photographs
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import COLOURS, Drawing, each, is_mal, provenance
from analysis.records import Json, Record, address

IMAGES = 5
SCORE = 0.5  # detections below are not shown, but for an image's best where there is no other
SAME = 0.5  # IoU with a human mask from which a detection has the object's colour
SIDE = 400  # pixels of a picture in a figure, at most
MODEL = "mask2former"  # the paper's segmenter here
UNMATCHED = np.array([1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Pair:
    """The same segmenter with human masks and with MAL's: ap_val and detect_val records."""

    human: Record
    pseudo: Record
    human_detections: Record
    pseudo_detections: Record


@each("retention", is_mal)
def detections(groups: list[Group], results: Results) -> Drawing:
    """Human masks, detections after training on human masks, and after training on MAL's; a column an image."""
    pair = _pair(to_show(groups, results.known), results)
    images = photographs(results, pair.human)
    chosen = [sorted(images.records)[place] for place in even_places(len(images.records), IMAGES)]
    figure = sheet(PAGE, 4.2)
    grid = figure.subplots(3, IMAGES)
    _fill(grid, chosen, pair, images, results)
    columns = pair.pseudo["columns"]
    rule = (
        f"{columns['segmenter']} {_against(pair)} on the masks of MAL ({columns['encoder']})"
        f"{_alike(pair)}{_instead(groups, columns['segmenter'])}. Rule: of {len(images.records)} validation images "
        f"those at {len(chosen)} equal steps of their ids; detections of a score of at least {SCORE:g}, or where "
        "there is none the best. A detection has the colour of the object whose human mask it overlaps most (IoU "
        f"of at least {SAME:g}), or is white. "
    )
    caption = rule + provenance([[pair.pseudo], [pair.human]], f"{len(images.records)} images")
    return figure, caption + images.attribution(chosen), images.notes()


def to_show(groups: Sequence[Sequence[Record]], known: Mapping[str, Record]) -> Record:
    """The retention to show: of the paper's segmenter or, where that is too weak or absent, of the one with the highest
    mask AP with human masks; one over a published segmenter's AP only where there is no other."""
    alike = [group for group in groups if denominator(group[0], known) == TRAINED]
    groups = alike or groups

    def strength(group: Sequence[Record]) -> float:
        human = known.get(group[0]["inputs"].get("human", ""), {"metrics": {}})
        return (human["metrics"].get("mask_ap") or {}).get("value", 0.0)

    least = weakest(groups[0][0]["columns"]["data"])
    strong = [group for group in groups if _is_papers(group) and strength(group) >= least]
    return (strong or sorted(groups, key=strength, reverse=True))[0][0]


def _against(pair: Pair) -> str:
    file = published_file(pair.human)
    return f"as published ({file}) and trained" if file else "trained on human masks and"


def _alike(pair: Pair) -> str:
    return "" if published_file(pair.human) else ", everything else alike"


def _is_papers(group: Sequence[Record]) -> bool:
    return group[0]["columns"]["segmenter"].startswith(MODEL)


def _instead(groups: Sequence[Sequence[Record]], segmenter: str) -> str:
    if segmenter.startswith(MODEL):
        return ""
    return f" (the paper shows Mask2Former{', too weak here' if any(map(_is_papers, groups)) else ''})"


def _pair(retention: Record, results: Results) -> Pair:
    """The four records behind a retention.

    Raises:
        LeftOut: one is not in the store.
    """
    scores = {}
    for name in ("human", "pseudo"):
        found = results.known.get(retention["inputs"].get(name, ""))
        if found is None:
            raise LeftOut(f"{address(retention)}: its {name} AP is not in the store")
        scores[name] = found
    sources = {f"{name}_detections": results.source(score, "detect_val/") for name, score in scores.items()}
    return Pair(**scores, **sources)


def _fill(grid: np.ndarray, chosen: list[int], pair: Pair, images: Photographs, results: Results) -> None:
    """Draw the three rows."""
    truths: dict[int, list[Json]] = {image: [] for image in chosen}
    for annotation in images.humans.values():
        if annotation["image_id"] in truths and not annotation.get("iscrowd"):
            truths[annotation["image_id"]].append(annotation)
    detected = (pair.human_detections, pair.pseudo_detections)
    rows = [truths, *(shown(results.json(record, "predictions.json"), chosen) for record in detected)]
    for axes in grid.flat:
        frame(axes)
    titles = (
        "human masks",
        "published" if published_file(pair.human) else "trained on human masks",
        "trained on MAL's masks",
    )
    for line, found, title, score in zip(grid, rows, titles, (None, pair.human, pair.pseudo), strict=True):
        ap = None if score is None else score["metrics"].get("mask_ap")
        line[0].set_ylabel(title + ("\n" if ap is None else f"\nmask AP {ap['value']:.3f}"))
        for axes, image in zip(line, chosen, strict=False):
            draw(axes, image, found[image], truths[image], images)


def shown(predictions: list[Json], images: list[int]) -> dict[int, list[Json]]:
    """Image id → its detections with a mask and a score of at least SCORE, or else the best; best first.

    Raises:
        LeftOut: the detections have no masks.
    """
    found: dict[int, list[Json]] = {image: [] for image in images}
    for prediction in predictions:
        if "segmentation" not in prediction:
            raise LeftOut("the detections have no masks: the segmenter has no mask head")
        if prediction["image_id"] in found:
            found[prediction["image_id"]].append(prediction)
    for image, detections in found.items():
        ranked = sorted(detections, key=lambda d: -d["score"])
        found[image] = [d for d in ranked if d["score"] >= SCORE] or ranked[:1]
    return found


def matched(detections: list[Json], truths: list[Json], record: Json) -> list[int | None]:
    """For each detection the place of the human mask that it overlaps most, where the IoU is at least SAME."""
    if not detections or not truths:
        return [None] * len(detections)
    masks = [[compressed(one["segmentation"], record) for one in ones] for ones in (detections, truths)]
    ious = np.asarray(rle.iou(*masks, [0] * len(truths)))
    return [int(row.argmax()) if row.max() >= SAME else None for row in ious]


def draw(axes: Axes, image: int, found: list[Json], truths: list[Json], images: Photographs) -> None:
    """An image with masks, large ones first."""
    record = images.records[image]
    places = matched(found, truths, record)
    masks = []
    for one, place in zip(found, places, strict=True):
        mask = fit(decode(one["segmentation"], record), SIDE)
        masks.append((mask, UNMATCHED if place is None else np.array(to_rgb(COLOURS[place % 6]))))
    masks.sort(key=lambda pair: -int(pair[0].sum()))
    draw_masks(axes, fit(images.pixels(image), SIDE), masks)
