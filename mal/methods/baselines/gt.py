"""The human masks themselves: the upper bound of mask quality."""

from pathlib import Path

from mal.context import Context
from mal.data.annotations import CocoDict
from mal.data.images import check_size
from mal.data.mask_formats import encode_runs
from mal.data.mask_windows import area_inside, decode_edges
from mal.data.sources import Split
from mal.methods.labelling import Label, ShardLabeler
from mal.methods.spec import Labels, Method


def human_labeler(human: CocoDict) -> ShardLabeler:
    """Copy the human masks there are: the upper bound of mask quality."""
    by_id = {annotation["id"]: annotation for annotation in human["annotations"]}

    def label(shard: CocoDict, images: Path) -> dict[int, Label]:
        for image in shard["images"]:
            check_size(image, images)  # before masks of that size are made
        sizes = {image["id"]: (image["height"], image["width"]) for image in shard["images"]}
        labels = {}
        for annotation in [a for a in shard["annotations"] if a["id"] in by_id]:
            height, width = sizes[annotation["image_id"]]
            edges = decode_edges(by_id[annotation["id"]]["segmentation"], height=height, width=width)
            labels[annotation["id"]] = {
                "segmentation": encode_runs(edges, height=height, width=width),
                "area": area_inside(edges),
            }
        return labels

    return label


def labels(_: Context, split: Split) -> Labels:
    """A copy of the split's own masks."""
    return Labels(make=lambda *_: human_labeler(split.human()))


METHOD = Method("gt", labels, human=True)
