"""Which detections match which objects: all that COCO's average precision needs to know, kept by image.

With these arrays on disk, AP can be recomputed for any resampling of the images without a mask or an IoU.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mal.engine.files import atomic_write
from mal.errors import MalError

AREAS = {"all": (0.0, 1e10), "S": (0.0, 32.0**2), "M": (32.0**2, 96.0**2), "L": (96.0**2, 1e10)}
TRUE, FALSE, IGNORED = 1, 0, -1
THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class MatchArrays:
    """The matches of one set of detections with one set of objects, at each area range of `AREAS` and each threshold.

    D detections lie by category, then image, then falling score; G objects in any order. A = len(AREAS).
    """

    image_ids: NDArray[np.int64]  # (N,), rising
    category_ids: NDArray[np.int64]  # (K,), rising
    thresholds: NDArray[np.float64]  # (T,) IoU
    det_image: NDArray[np.int64]  # (D,) index into image_ids
    det_category: NDArray[np.int64]  # (D,) index into category_ids
    det_score: NDArray[np.float64]  # (D,)
    det_state: NDArray[np.int8]  # (A, T, D): TRUE, FALSE or IGNORED (matches a crowd, is of another size, …)
    gt_image: NDArray[np.int64]  # (G,)
    gt_category: NDArray[np.int64]  # (G,)
    gt_counted: NDArray[np.bool_]  # (A, G): not a crowd, and of this size

    def save(self, path: str | Path) -> None:
        """Write the arrays as a compressed npz, atomically."""
        with atomic_write(path, "wb") as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> "MatchArrays":
        """Read what `save` wrote.

        Raises:
            MalError: the file is absent or is not such a file.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise MalError(f"{path} holds no match arrays ({error}); evaluate again to write them") from error


def match(
    ious: NDArray[np.float64],
    *,
    crowd: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    thresholds: NDArray[np.float64] = THRESHOLDS,
) -> NDArray[np.int8]:
    """COCO's greedy matching of one image's detections of one category, at all area ranges and thresholds at once.

    In the order of their scores, each detection takes the free object of highest IoU, an object that counts before
    one that is ignored; a crowd is never used up. A detection that takes an ignored object, or takes none and is
    itself `outside`, is ignored.

    Args:
        ious: (D, G), detections by falling score; with a crowd, the IoU is over the detection's own area.
        crowd: (G,).
        ignored: (A, G): crowds, and objects of another size.
        outside: (A, D): detections that are no fault where they match nothing: of another size, or (LVIS) of a category
            that is not exhaustively annotated in the image.
        thresholds: (T,).

    Returns:
        (A, T, D) int8 of TRUE, FALSE or IGNORED.
    """
    areas, (detections, objects) = len(ignored), ious.shape
    limits = np.minimum(thresholds, 1 - 1e-10)[:, None]
    state = np.where(outside[:, None, :], IGNORED, FALSE).astype(np.int8).repeat(len(thresholds), axis=1)
    taken = np.zeros((areas, len(thresholds), objects), dtype=bool)
    for index in range(detections):
        row = ious[index]
        if objects == 0 or row.max() < limits[0, 0]:
            continue
        free = (row >= limits) & (~taken | crowd)
        counted = free & ~ignored[:, None]
        chosen_from = np.where(counted.any(axis=-1, keepdims=True), counted, free)
        # of equal IoUs the later object wins, as in pycocotools: hence the reversal
        best = objects - 1 - np.where(chosen_from, row, -1.0)[..., ::-1].argmax(axis=-1)
        area, threshold = np.nonzero(chosen_from.any(axis=-1))
        winner = best[area, threshold]
        taken[area, threshold, winner] = True
        state[area, threshold, index] = np.where(ignored[area, winner], IGNORED, TRUE)
    return state
