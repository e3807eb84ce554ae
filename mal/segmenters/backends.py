"""The backends of phase 2, and which segmenters each computes: the registry, which imports none of them."""

from dataclasses import dataclass, field

from mal.engine.settings import Json, Reads, names
from mal.segmenters.reads import CASCADE, GRID, HEADS, PROPOSALS, PYRAMID, QUERIES


@dataclass(frozen=True)
class Backend:
    """One choice of `segmenter.backend=`.

    Attributes:
        name: that choice.
        module: its `NETWORK` is a `network.Network`. Imported when used: some take seconds, some are optional.
        reads: settings of its network and losses, which the keys of its trainings are made of.
        segmenters: names of those that it computes unless their config names another backend.
        also: names of other backends' segmenters, which it computes where their config names it.
        ignores: settings in `reads` that it does not read; keys of results that exist hold them.
        test: settings of `test` that it reads and other backends do not.
        does: setting that it does not read → what it does instead.
        marks: part → name → value that the keys of its trainings hold besides, since a change of what it computes.
        install: how to get a package that no requirement brings, as the end of a sentence; empty: it needs none.
        published: module of `published` that fetches its library's own weights; empty: it publishes none.
        deformable: its backbones can have deformable convolutions.
        masks_only: it finds objects by their masks, and without masks none.
        swin: its backbone can be a Swin.
        slower_backbone: it reads `optimizer.backbone`.
        fp16: it scales losses, so that gradients do not vanish.
    """

    name: str
    module: str
    reads: Reads
    segmenters: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    ignores: str = ""
    test: str = ""
    does: Json = field(default_factory=dict)
    marks: dict[str, Json] = field(default_factory=dict)
    install: str = ""
    published: str = ""
    deformable: bool = False
    masks_only: bool = False
    swin: bool = False
    slower_backbone: bool = False
    fp16: bool = True

    @property
    def read(self) -> set[str]:
        """Dotted names of the settings that it reads, of those that not every backend does."""
        return (names(self.reads) - set(self.ignores.split())) | names({"test": self.test})


MASK_RCNNS = (  # Tables 1, 2 and 7 of the paper, and tiny ones and one on timm of ours
    "mask_rcnn_tiny",
    "mask_rcnn_r50",
    "mask_rcnn_timm",
    "mask_rcnn_r101",
    "mask_rcnn_x101_32x4d",
    "mask_rcnn_x101_64x4d",
)
CASCADES = ("cascade_tiny", "cascade_convnext_s", "cascade_convnext_b")

_ALL = (
    Backend(
        "torchvision",
        "mal.segmenters.rcnn.mask_rcnn",
        {
            "pyramid": f"{PYRAMID} fpn_start",
            "proposals": f"{PROPOSALS} exact_anchors box_beta",
            "heads": f"{HEADS} start box_beta mask_targets",
        },
        segmenters=MASK_RCNNS,
        test="nms",
        published="mal.segmenters.published.torchvision",
        deformable=True,
    ),
    Backend(
        "cascade",
        "mal.segmenters.rcnn.cascade",
        {
            "pyramid": f"{PYRAMID} fpn_start",
            "proposals": f"{PROPOSALS} exact_anchors box_beta",
            "heads": f"{HEADS} start mask_targets",  # its stages have box losses of their own
            "cascade": f"{CASCADE} box_per_class",
        },
        segmenters=CASCADES,
        test="nms",
        deformable=True,
    ),
    Backend(
        "transformers",
        "mal.segmenters.mask2former",
        {"pyramid": PYRAMID, "queries": QUERIES},
        segmenters=("mask2former_tiny", "mask2former_swin_s"),
        ignores="pyramid.options pyramid.norm pyramid.frozen_stages pyramid.map_norm pyramid.channels pyramid.fpn_norm",
        # its heads once started as the installed version of the library has them, from other draws
        marks={"queries": {"start": "ours"}},
        published="mal.segmenters.published.transformers",
        masks_only=True,
        swin=True,
        slower_backbone=True,
    ),
    Backend(
        "solov2",
        "mal.segmenters.solov2",
        {"pyramid": f"{PYRAMID} fpn_start", "grid": GRID},
        segmenters=("solov2_tiny", "solov2_r50", "solov2_r101_dcn", "solov2_x101_dcn"),
        test="before_nms sigma decayed_score",
        deformable=True,
        masks_only=True,
    ),
    Backend(
        "detectron2",
        "mal.segmenters.rcnn.detectron2",
        {
            "pyramid": PYRAMID,
            "proposals": f"{PROPOSALS} box_beta",
            "heads": f"{HEADS} box_beta",
            "cascade": CASCADE,
        },
        also=(*MASK_RCNNS, *CASCADES),
        test="nms",
        does={
            "pyramid.fpn_start": "kaiming",
            "proposals.exact_anchors": True,
            "heads.start": "detectron2",
            "heads.mask_targets": "binary",
            "cascade.box_per_class": False,
        },
        install="is on no package index; get it from its public source (it is compiled, minutes on a free core): "
        "python -m pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2'",
        deformable=True,
        fp16=False,
    ),
)
BACKENDS = {backend.name: backend for backend in _ALL}
SEGMENTERS = {name: backend.name for backend in _ALL for name in backend.segmenters}  # → its own backend
