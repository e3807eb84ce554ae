"""The masks that a training of masks sees: of few objects human ones, of others kept predictions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mal.data.annotations import decode_mask
from mal.engine.files import read_json

FEW, PSEUDO = "few.json", "points.json"
Json = dict[str, Any]


class KnownMasks(Mapping[int, NDArray[np.bool_]]):
    """Id of an object → its mask (H, W), decoded each time it is asked for.

    Args:
        coded: id → run lengths, with the image's size.
    """

    def __init__(self, coded: Mapping[int, Json]) -> None:
        self._coded = dict(coded)

    def __getitem__(self, identity: int) -> NDArray[np.bool_]:
        coded = self._coded[identity]
        height, width = coded["size"]
        return decode_mask(coded, height=height, width=width).astype(bool)

    def __iter__(self) -> Iterator[int]:
        return iter(self._coded)

    def __len__(self) -> int:
        return len(self._coded)


def read_known(few: Path, pseudo: Path | None = None) -> KnownMasks:
    """The masks of few.json in one folder, and the kept ones of points.json in another."""
    coded = {int(row["id"]): row["segmentation"] for row in read_json(few / FEW)}
    if pseudo is not None:
        coded |= {int(row["id"]): row["segmentation"] for row in read_json(pseudo / PSEUDO) if row["kept"]}
    return KnownMasks(coded)
