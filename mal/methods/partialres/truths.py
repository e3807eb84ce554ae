"""The human masks that predictions of expressions are scored against."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mal.data.annotations import CocoDict, decode_mask

Json = dict[str, Any]


class Truths:
    """Human masks of a file by the object's id; crowds, which are no single object, are none."""

    def __init__(self, human: CocoDict) -> None:
        self.entries = {image["id"]: image for image in human["images"]}
        self.annotations = {a["id"]: a for a in human["annotations"] if not a.get("iscrowd")}

    def known(self, answers: Sequence[Json]) -> list[Json]:
        """The answers about objects that have a mask."""
        return [answer for answer in answers if answer["id"] in self.annotations]

    def mask(self, identity: int) -> tuple[NDArray[np.bool_], Any]:
        """(height, width) of the image, and as the file has it."""
        annotation = self.annotations[identity]
        entry = self.entries[annotation["image_id"]]
        segmentation = annotation["segmentation"]
        return decode_mask(segmentation, height=entry["height"], width=entry["width"]).astype(bool), segmentation
