"""Which program saved a file of a whole segmenter, told by the names of its weights, and which module makes it ours."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mal.errors import WeightsError
from mal.segmenters.published.files import Weights


@dataclass(frozen=True)
class Layout:
    """One publisher's names for one kind of segmenter.

    Attributes:
        title: of the models, in words.
        backend: ours, that builds such a segmenter.
        tells: keys that every such file has.
        module: has about(weights) → facts, as JSON; check(config, facts, source=), which refuses another backbone's;
            fitted(config, facts) → config; and converted(config, weights, facts) → our state dict. Empty: the
            backend's own library saved it (`Backend.published`).
    """

    title: str
    backend: str
    tells: tuple[str, ...]
    module: str = ""

    def convert(self, name: str) -> Any:
        return getattr(import_module(f"mal.segmenters.published.{self.module}"), name)


LAYOUTS = {
    "torchvision": Layout("torchvision's Mask R-CNN", "torchvision", ("backbone.body.conv1.weight",)),
    "transformers": Layout("transformers' Mask2Former", "transformers", ("class_predictor.weight",)),
    "mmdetection_mask_rcnn": Layout(
        "MMDetection's Mask R-CNN",
        "torchvision",
        ("roi_head.bbox_head.fc_cls.weight", "roi_head.mask_head.conv_logits.weight"),
        "mmdetection",
    ),
    "mmdetection_cascade": Layout(
        "MMDetection's Cascade Mask R-CNN on ConvNeXt",
        "cascade",
        ("roi_head.bbox_head.0.fc_cls.weight", "roi_head.mask_head.0.conv_logits.weight", "backbone.norm0.weight"),
        "mmdetection_cascade",
    ),
    "mmdetection_solov2": Layout(
        "MMDetection's SOLOv2",
        "solov2",
        ("mask_head.conv_cls.weight", "mask_head.conv_kernel.weight"),
        "mmdetection_solov2",
    ),
    "mmdetection_mask2former": Layout(
        "MMDetection's Mask2Former",
        "transformers",
        ("panoptic_head.cls_embed.weight", "panoptic_head.query_feat.weight"),
        "mmdetection_mask2former",
    ),
    "detectron2_mask_rcnn": Layout(
        "detectron2's Mask R-CNN",
        "torchvision",
        ("roi_heads.box_predictor.cls_score.weight", "backbone.bottom_up.stem.conv1.weight"),
        "detectron2",
    ),
    "mask2former": Layout(
        "Mask2Former of its authors",
        "transformers",
        ("sem_seg_head.predictor.class_embed.weight",),
        "mask2former",
    ),
}


def recognise(weights: Weights) -> str:
    """The name of a file's layout in `LAYOUTS`.

    Raises:
        WeightsError: none has its keys.
    """
    for name, layout in LAYOUTS.items():
        if all(key in weights.tensors for key in layout.tells):
            return name
    known = ", ".join(layout.title for layout in LAYOUTS.values())
    raise WeightsError(
        f"{weights.source} is no published segmenter in a layout known here ({known}): its "
        f"{len(weights.tensors)} weights are called {', '.join(list(weights.tensors)[:3])}, …; give a file that "
        "one of them saved"
    )
