"""Labelled images drawn here, as `mal.label` would leave them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mal.data.annotations import encode_mask

HOSTILE = (
    "<img src=x onerror=\"document.title='broken in'\">",
    "</script><script>document.title='broken in'</script>",
    "\"quoted\" & 'single' ${1} $title {{x}}",
    "two\nlines\r\nand\ttabs\u2028",
    "🦔 hedgehog \u202egnitirw desrever",
    "half a pair \ud83e",
)


def write_labels(
    folder: Path, *, images: int = 2, each: int = 3, names: tuple[str, ...] = ("left", "right"), **fields: Any
) -> Path:
    """`folder`/masks.json with ellipses in boxes on `images` images in `folder`/images, qualities not in order.

    fields: callables of the annotation's place, whose values each annotation gets.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    coco: dict[str, Any] = {"info": {"note": "kept"}, "images": [], "annotations": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    rows, columns = np.mgrid[:60, :80]
    for number in range(1, images + 1):
        name = f"{number} 'odd' <i>&amp;.png"
        pixels = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        coco["images"].append({"id": number, "file_name": name, "width": 80, "height": 60})
        for _ in range(each):
            place = len(coco["annotations"])
            x, y, w, h = 5 + place % 30, 8, 40, 30
            mask = ((columns - x - w / 2 + 0.5) * 2 / w) ** 2 + ((rows - y - h / 2 + 0.5) * 2 / h) ** 2 <= 1
            coco["annotations"].append(
                {
                    "id": 10 + place,
                    "image_id": number,
                    "category_id": 1 + place % len(names),
                    "bbox": [x, y, w, h],
                    "iscrowd": 0,
                    "segmentation": encode_mask(mask),
                    "area": int(mask.sum()),
                    "score": 0.8,
                    "quality": round(0.95 - 0.37 * place % 0.9, 4),
                    **{key: value(place) for key, value in fields.items()},
                }
            )
    path = folder / "masks.json"
    path.write_text(json.dumps(coco), encoding="utf-8")
    return path
