"""The gallery's data: crops of the images, human masks and every labeler's, small enough for one page."""

import base64
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from analysis.drawing import HUMAN, PSEUDO, decode, grown, load_picture
from analysis.images import by_id, licence_of
from analysis.records import Json, grouped
from analysis.report.instances import Labelled, Selection, read_json
from analysis.review.crops import Window, crop_webp, window

LIMIT = 1000  # instances in a page
LONGEST = 192  # pixels of a crop's longer side; larger ones are shrunk
FILL, LINE = 110, 255  # opacity of a mask and its contour, of 255


@dataclass
class Gallery:
    """What the page's script reads, and what had to stay out."""

    sets: list[Json] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # sentences

    @property
    def count(self) -> int:
        """Instances in it."""
        return sum(len(part["items"]) for part in self.sets)


def build(selections: list[Selection]) -> Gallery:
    """Crops and masks of the selected instances; what the page leaves out is said in `left_out`."""
    gallery = Gallery()
    for selection in selections:
        gallery.left_out += _rights(selection)
        part, unread = _part(selection)
        if part["items"]:
            gallery.sets.append(part)
        if unread:
            gallery.left_out.append(
                f"{selection.split.name}: {len(unread)} images could not be read and their instances are left out; "
                f"the first is {unread[0]}."
            )
        elif len(selection.ids) < selection.scored and not selection.forbidden:
            gallery.left_out.append(
                f"{selection.split.name}: {len(selection.ids)} of {selection.scored} instances are shown, those at "
                f"equal steps of the IoU ranking of {selection.split.labelled[0].name}, from the best to the worst."
            )
    return gallery


def mask_png(mask: np.ndarray, shown: Window, colour: np.ndarray) -> str:
    """The part of a mask (H, W) bool that a window shows, as PNG in base64: tinted inside, with an opaque contour."""
    part = Image.fromarray(mask[shown.top : shown.bottom, shown.left : shown.right].astype(np.uint8) * 255)
    small = np.asarray(part.resize((shown.width, shown.height), Image.Resampling.BOX)) > 127
    inner = small
    for _ in range(2 if max(small.shape) > LONGEST // 2 else 1):  # a finer line is lost where the page shrinks the crop
        inner = ~grown(~inner)
    image = Image.fromarray(small.astype(np.uint8) + (small & ~inner), "P")
    image.putpalette([0, 0, 0, *(2 * [round(255 * channel) for channel in colour])])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=2, transparency=bytes([0, FILL, LINE]), compress_level=9)
    return base64.b64encode(buffer.getvalue()).decode()


def _part(selection: Selection) -> tuple[Json, list[str]]:
    """One split's entry of the page's data, and the names of images that cannot be read."""
    split, human = selection.split, selection.human
    images, licences = by_id(human["images"]), by_id(human.get("licenses", []))
    truths = by_id(human["annotations"])
    guesses = [_guesses(labelled, selection.ids) for labelled in split.labelled]
    items: dict[int, Json] = {}
    unread = []
    for image_id, names in grouped(selection.ids, lambda name: truths[name]["image_id"]).items():
        image = images[image_id]
        try:
            picture = load_picture(image, split.pictures.images)
        except OSError:
            unread.append(str(image.get("file_name") or image["id"]))
            continue
        credit = "" if split.pictures.drawn else licence_of(image, licences).credit
        for name in names:
            masks = [guess.get(name) for guess in guesses]
            items[name] = _item(truths[name], image, picture, split.labelled, masks) | {"credit": credit}
    categories = {entry["id"]: entry["name"] for entry in human["categories"]}
    used = {item["category"] for item in items.values()}
    return {
        "name": split.name,
        "labelers": [labelled.name for labelled in split.labelled],
        "categories": {name: title for name, title in categories.items() if name in used},
        "items": [items[name] for name in selection.ids if name in items],
    }, unread


def _guesses(labelled: Labelled, ids: list[int]) -> dict[int, Json]:
    """Annotation id → the labeler's annotation, of those that it scores."""
    wanted = set(ids) & set(labelled.scores.index)
    coco = read_json(labelled.labels)
    return {annotation["id"]: annotation for annotation in coco["annotations"] if annotation["id"] in wanted}


def _item(truth: Json, image: Json, picture: Image.Image, sets: list[Labelled], masks: list[Json | None]) -> Json:
    """One instance: its crop, its box as shares of the crop, the human mask and each labeler's with its scores."""
    shown = window(truth["bbox"], image["width"], image["height"], longest=LONGEST)
    x, y, w, h = truth["bbox"]
    across, down = shown.right - shown.left, shown.bottom - shown.top
    row = sets[0].scores.loc[truth["id"]].to_dict()
    return {
        "id": truth["id"],
        "image": image.get("file_name") or image["id"],
        "category": truth["category_id"],
        "size": str(row["size"]),
        "area": round(float(row["area"])),
        "width": shown.width,
        "height": shown.height,
        "box": [round(100 * v, 2) for v in ((x - shown.left) / across, (y - shown.top) / down, w / across, h / down)],
        "crop": crop_webp(picture, shown, quality=75, method=4),
        "human": mask_png(decode(truth["segmentation"], image), shown, HUMAN),
        "masks": [
            None if guess is None else mask_png(decode(guess["segmentation"], image), shown, PSEUDO) for guess in masks
        ],
        "iou": [_score(labelled, truth["id"], "iou") for labelled in sets],
        "boundary": [_score(labelled, truth["id"], "boundary_iou") for labelled in sets],
        "flagged": [guess is not None and bool(guess.get("flagged")) for guess in masks],
    }


def _score(labelled: Labelled, name: int, column: str) -> float | None:
    return round(float(labelled.scores[column].loc[name]), 4) if name in labelled.scores.index else None


def _rights(selection: Selection) -> list[str]:
    """What the licences keep out, in a sentence."""
    if not selection.forbidden:
        return []
    kept = ", ".join(f"{count} under {name}" for name, count in sorted(selection.forbidden.items()))
    return [
        f"{selection.split.name}: {sum(selection.forbidden.values())} photographs may not be passed on and are left "
        f"out ({kept}); {len(selection.ids)} of {selection.scored} instances are shown."
    ]
