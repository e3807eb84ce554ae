"""Class maps in files: a PNG of 16 bits per training image, 0 the background, k + 1 class k."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mal.engine.files import atomic_write
from mal.errors import MalError


def write_map(folder: Path, entry: dict[str, Any], classes: np.ndarray) -> None:
    """classes: (height, width) of integers, of an image of this entry."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", classes.astype(np.uint16))[1]
    with atomic_write(path_of(folder, entry), "wb") as file:
        file.write(encoded.tobytes())


def read_map(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    """(height, width) int64.

    Raises:
        MalError: it is absent, damaged, or of an image of another size.
    """
    path = path_of(folder, entry)
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if found is None or found.shape != (entry["height"], entry["width"]):
        raise MalError(
            f"{path} is not a readable class map of its image; delete the folder of its stage, and the same command "
            "makes it again"
        )
    return found.astype(np.int64)


def path_of(folder: Path, entry: dict[str, Any]) -> Path:
    """Where an image's map lies."""
    return folder / f"{int(entry['id']):012}.png"
