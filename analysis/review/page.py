"""The page, put together: one HTML file that needs no network and no server."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from analysis.drawing import opened
from analysis.images import by_id
from analysis.pages import render
from analysis.records import Json, grouped
from analysis.review.crops import crop_webp, mask_part, outline_path, reasons, window
from analysis.review.ranking import LIMIT, Ranking, covered, rank
from mal.data.expressions import texts_among
from mal.engine.files import atomic_write

TEXTS = 3  # that a card has room for
PART = 50  # masks whose pictures are one piece of JSON, parsed when the first of them is shown
ORDERS = {
    "quality": "by predicted IoU with the mask a human would draw",
    "score": "by score, the labeler's mean probability inside the mask; a predicted IoU is not in this file",
    "file": "in the file's order; neither a predicted IoU nor a score is in this file",
}


def write_review(labels: Path, images: Path, out: Path, limit: int | None = LIMIT) -> Path:
    """Write a page on which masks are looked at from doubtful to sure, and kept, rejected or replaced by their box.

    Choices stay in the browser until they are exported as JSON; `python -m mal.review apply` carries them out.

    Args:
        labels: COCO file whose annotations all have masks.
        images: folder of its images. One that cannot be read leaves its cards without pictures.
        out: HTML file; replaced if it exists.
        limit: the most masks to list, the most doubtful ones; None for all.

    Returns:
        `out`.

    Raises:
        OSError: a file cannot be read.
        MalError: it cannot be written.
    """
    content = labels.read_bytes()
    coco = json.loads(content)
    ranking = rank(coco["annotations"], limit)
    pictures = _pictures(ranking, coco, images)
    about = {
        "file": labels.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "part": PART,
        "categories": {str(entry["id"]): str(entry["name"]) for entry in coco.get("categories", [])},
        # ids as text: a script's numbers are exact up to 2⁵³ only
        "items": [[str(a["id"]), str(a["category_id"]), ranking.value(a)] for a in ranking.annotations],
    }
    page = render(
        "review/review.html",
        title=f"Masks to look at first: {labels.name}",
        subtitle=_subtitle(ranking),
        about=about,
        parts=[pictures[start : start + PART] for start in range(0, len(pictures), PART)],
    )
    with atomic_write(out, "wb") as file:
        file.write(page.encode("utf-8", "replace"))
    return out


def _subtitle(ranking: Ranking) -> str:
    shown = len(ranking.annotations)
    which = (
        f"All {shown:,} masks" if shown == ranking.total else f"The {shown:,} most doubtful of {ranking.total:,} masks"
    )
    flagged = sum(bool(annotation.get("flagged")) for annotation in ranking.annotations)
    first = f" {flagged:,} flagged ones come first: they are filled boxes." if flagged else ""
    return f"{which}, {ORDERS[ranking.by]}.{first}"


def _pictures(ranking: Ranking, coco: Json, images: Path) -> list[Json]:
    """Of each ranked annotation what its card shows. An image is decoded once for all its boxes."""
    records = by_id(coco["images"])
    shares = covered(coco["annotations"])
    found: dict[int, Json] = {}
    by_image = grouped(range(len(ranking.annotations)), lambda place: ranking.annotations[place]["image_id"])
    for image_id, places in by_image.items():
        annotations = [ranking.annotations[place] for place in places]
        found |= zip(places, _of_image(records[image_id], annotations, images, shares), strict=True)
    return [found[place] for place in range(len(found))]


def _of_image(record: Json, annotations: Sequence[Json], images: Path, shares: dict[Any, float]) -> Iterator[Json]:
    cards = [_card(annotation, record, shares[annotation["id"]]) for annotation in annotations]
    try:
        with opened(record, images) as image:
            for card, annotation in zip(cards, annotations, strict=True):
                card["crop"] = crop_webp(image, window(annotation["bbox"], record["width"], record["height"]))
    except OSError as error:
        for card in cards:
            card |= {"crop": "", "unread": f"the image cannot be read: {error.strerror or error}"}
    yield from cards


def _card(annotation: Json, record: Json, share: float) -> Json:
    part = window(annotation["bbox"], record["width"], record["height"])
    x, y, w, h = annotation["bbox"]
    corners = [*part.shown(x, y), *part.shown(x + w, y + h)]
    mask = mask_part(annotation["segmentation"], record, part)
    if annotation.get("flagged"):
        why = [str(annotation.get("flag_reason") or "flagged")]
    else:
        why = reasons(mask, annotation["bbox"], part, share)
    return {
        "image": str(record.get("file_name") or record["id"]),
        "size": [part.width, part.height],
        "box": [round(value, 1) for value in corners],
        "path": outline_path(mask),
        "texts": _texts(annotation),
        "why": why,
    }


def _texts(annotation: Json) -> list[str]:
    """What was said of the object; of many texts the first few, and how many others there are."""
    texts = texts_among(annotation)
    more = len(texts) - TEXTS
    return [*texts[:TEXTS], *([f"… and {more} more"] if more > 0 else [])]
