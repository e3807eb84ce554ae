"""Predictions in the form and under the name that COCO's evaluation server takes (cocodataset.org/#format-results)."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from mal.engine.files import atomic_write
from mal.errors import ConfigError

PER_IMAGE = 100  # the server looks at no more


def write_submission(results: list[dict[str, Any]], folder: Path, *, images: Path, algorithm: str) -> Path:
    """Write folder/detections_<test set>_<algorithm>_results.zip, which holds the .json of that name.

    Args:
        results: COCO results with masks, of any number an image; the best by score go in, without their boxes.
        images: the file that names the test images; `image_info_test-dev2017.json` is of the set test-dev2017.
        algorithm: a name for it. Its underscores become hyphens: in the file's name they separate the parts.

    Returns:
        The zip file.

    Raises:
        ConfigError: the predictions have no masks.
        MalError: the disk is full or the folder cannot be written.
    """
    name = f"detections_{test_set(images)}_{re.sub('[^A-Za-z0-9.]+', '-', algorithm)}_results"
    by_image: dict[int, list[dict[str, Any]]] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    with atomic_write(folder / f"{name}.zip", "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        best = [entry for image in sorted(by_image) for entry in _best(by_image[image])]
        packed.writestr(f"{name}.json", json.dumps(best, allow_nan=False))
    return folder / f"{name}.zip"


def test_set(images: Path) -> str:
    """The server's name of a test set, from its image file's."""
    return images.stem.removeprefix("image_info_")


def _best(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The server's fields of an image's best results."""
    for result in results:
        if "segmentation" not in result:
            raise ConfigError(
                "the predictions have boxes only, and the server's instance segmentation task takes masks; "
                "use segmenter.mask_head=true, or leave data.test.annotations out"
            )
    chosen = sorted(results, key=lambda result: -result["score"])[:PER_IMAGE]
    return [{key: result[key] for key in ("image_id", "category_id", "segmentation", "score")} for result in chosen]
