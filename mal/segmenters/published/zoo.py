"""Published segmenters that a downloaded file can be: where it is, and the AP its publisher printed beside it.

The APs are those of the publishers' model pages (MMDetection's metafiles and READMEs, detectron2's and Mask2Former's
MODEL_ZOO.md, ConvNeXt's object_detection/README.md), in per cent. No published file was at hand when this was written,
and none was measured again here. Whoever evaluates a file and sees another AP has found a fault of ours.
"""

from dataclasses import dataclass
from pathlib import Path

from mal.data.census import Census

OPEN_MMLAB = "https://download.openmmlab.com/mmdetection"
DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation"
MASK2FORMER = "https://dl.fbaipublicfiles.com/maskformer/mask2former/coco/instance"
CONVNEXT = "https://dl.fbaipublicfiles.com/convnext/coco"

# what the printed APs were measured on: images, annotations and categories of instances_val2017.json, lvis_v1_val.json
MEASURED_ON = {"COCO": (5_000, 36_781, 80), "LVIS v1": (19_809, 244_707, 1_203)}


@dataclass(frozen=True)
class Printed:
    """A published model."""

    publisher: str
    segmenter: str  # what it is called here
    data: str  # COCO (val2017) | LVIS v1 (val)
    mask_ap: float  # per cent
    box_ap: float | None
    url: str
    changes: str = ""  # what else must be set

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def name(self) -> str:
        """E.g. `MMDetection's NAME.pth`."""
        return f"{self.publisher}'s {self.file}"

    @property
    def words(self) -> str:
        """E.g. `MMDetection's NAME.pth (mask AP 34.7, box AP 38.2 on COCO)`."""
        box = "" if self.box_ap is None else f", box AP {self.box_ap}"
        return f"{self.name} (mask AP {self.mask_ap}{box} on {self.data})"


def _mmdetection(segmenter: str, data: str, mask: float, box: float | None, path: str, changes: str = "") -> Printed:
    return Printed("MMDetection", segmenter, data, mask, box, f"{OPEN_MMLAB}/{path}", changes)


def _mask_rcnn(segmenter: str, mask: float, box: float, name: str, suffix: str, changes: str = "") -> Printed:
    return _mmdetection(segmenter, "COCO", mask, box, f"v2.0/mask_rcnn/{name}/{name}_{suffix}.pth", changes)


def _lvis(segmenter: str, mask: float, box: float, name: str, suffix: str) -> Printed:
    name = f"mask_rcnn_{name}_fpn_sample1e-3_mstrain_1x_lvis_v1"
    return _mmdetection(segmenter, "LVIS v1", mask, box, f"v2.0/lvis/{name}/{name}-{suffix}.pth")


def _deformed(segmenter: str, mask: float, box: float, name: str, suffix: str) -> Printed:
    name = f"mask_rcnn_{name}_c3-c5_1x_coco"
    return _mmdetection(
        segmenter, "COCO", mask, box, f"v2.0/dcn/{name}/{name}_{suffix}.pth", changes="segmenter.dcn=true"
    )


def _solov2(segmenter: str, mask: float, name: str, suffix: str) -> Printed:
    name = f"solov2_{name}_fpn_3x_coco"
    return _mmdetection(segmenter, "COCO", mask, None, f"v2.0/solov2/{name}/{name}_{suffix}.pth")


def _detectron2(segmenter: str, mask: float, box: float, path: str, changes: str = "") -> Printed:
    return Printed("detectron2", segmenter, "COCO", mask, box, f"{DETECTRON2}/{path}", changes)


def _mask2former(mask: float, path: str, changes: str = "") -> Printed:
    url = f"{MASK2FORMER}/maskformer2_swin_{path}"
    return Printed("Mask2Former", "mask2former_swin_s", "COCO", mask, None, url, changes)


def _queries(mask: float, box: float, size: str, suffix: str, changes: str = "") -> Printed:
    name = f"mask2former_swin-{size}-p4-w7-224_8xb2-lsj-50e_coco"
    path = f"v3.0/mask2former/{name}/{name}_{suffix}.pth"
    return _mmdetection("mask2former_swin_s", "COCO", mask, box, path, changes)


def _convnext(segmenter: str, mask: float, box: float, file: str) -> Printed:
    return Printed("ConvNeXt", segmenter, "COCO", mask, box, f"{CONVNEXT}/{file}")


TINY = "segmenter.pyramid.name=swin_tiny"
BASE = "segmenter.pyramid.name=swin_base"
LARGE = "segmenter.pyramid.name=swin_large segmenter.queries.count=200"
X101_32X8D = "segmenter.pyramid.name=resnext101_32x8d"
CASCADE_S = "cascade_mask_rcnn_convnext-s_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco"

ZOO = (  # the first one of a segmenter and data is the one the tables' own training resembles most
    _mask_rcnn("mask_rcnn_r50", 34.7, 38.2, "mask_rcnn_r50_fpn_1x_coco", "20200205-d4b0c5d6"),
    _mask_rcnn(
        "mask_rcnn_r50", 35.4, 39.2, "mask_rcnn_r50_fpn_2x_coco",
        "bbox_mAP-0.392__segm_mAP-0.354_20200505_003907-3e542a40",
    ),
    _mask_rcnn(
        "mask_rcnn_r50", 37.1, 40.9, "mask_rcnn_r50_fpn_mstrain-poly_3x_coco", "20210524_201154-21b550bb"
    ),
    _mask_rcnn(
        "mask_rcnn_r50", 34.4, 38.0, "mask_rcnn_r50_caffe_fpn_1x_coco",
        "bbox_mAP-0.38__segm_mAP-0.344_20200504_231812-0ebd1859",
    ),
    _mask_rcnn("mask_rcnn_r101", 36.1, 40.0, "mask_rcnn_r101_fpn_1x_coco", "20200204-1efe0ed5"),
    _mask_rcnn(
        "mask_rcnn_r101", 36.6, 40.8, "mask_rcnn_r101_fpn_2x_coco",
        "bbox_mAP-0.408__segm_mAP-0.366_20200505_071027-14b391c7",
    ),
    _mask_rcnn(
        "mask_rcnn_r101", 38.5, 42.7, "mask_rcnn_r101_fpn_mstrain-poly_3x_coco", "20210524_200244-5675c317"
    ),
    _mask_rcnn("mask_rcnn_r101", 36.4, 40.4, "mask_rcnn_r101_caffe_fpn_1x_coco", "20200601_095758-805e06c1"),
    _mask_rcnn("mask_rcnn_x101_32x4d", 37.5, 41.9, "mask_rcnn_x101_32x4d_fpn_1x_coco", "20200205-478d0b67"),
    _mask_rcnn(
        "mask_rcnn_x101_32x4d", 37.8, 42.2, "mask_rcnn_x101_32x4d_fpn_2x_coco",
        "bbox_mAP-0.422__segm_mAP-0.378_20200506_004702-faef898c",
    ),
    _mask_rcnn(
        "mask_rcnn_x101_32x4d", 39.0, 43.6, "mask_rcnn_x101_32x4d_fpn_mstrain-poly_3x_coco", "20210524_201410-abcd7859"
    ),
    _mask_rcnn("mask_rcnn_x101_64x4d", 38.4, 42.8, "mask_rcnn_x101_64x4d_fpn_1x_coco", "20200201-9352eb0d"),
    _mask_rcnn(
        "mask_rcnn_x101_64x4d", 38.1, 42.7, "mask_rcnn_x101_64x4d_fpn_2x_coco", "20200509_224208-39d6f70c"
    ),
    _mask_rcnn(
        "mask_rcnn_x101_64x4d", 39.7, 44.5, "mask_rcnn_x101_64x4d_fpn_mstrain-poly_3x_coco", "20210526_120447-c376f129"
    ),
    _lvis("mask_rcnn_r50", 21.7, 22.5, "r50", "aa78ac3d"),
    _lvis("mask_rcnn_r101", 23.6, 24.6, "r101", "ec55ce32"),
    _lvis("mask_rcnn_x101_32x4d", 25.5, 26.7, "x101_32x4d", "ebbc5c81"),
    _lvis("mask_rcnn_x101_64x4d", 25.8, 27.2, "x101_64x4d", "43d9edfe"),
    _deformed("mask_rcnn_r50", 37.4, 41.8, "r50_fpn_dconv", "20200203-4d9ad43b"),
    _deformed("mask_rcnn_r50", 37.1, 41.5, "r50_fpn_mdconv", "20200203-ad97591f"),
    _deformed("mask_rcnn_r101", 38.9, 43.5, "r101_fpn_dconv", "20200216-a71f5bce"),
    _detectron2("mask_rcnn_r50", 35.2, 38.6, "mask_rcnn_R_50_FPN_1x/137260431/model_final_a54504.pkl"),
    _detectron2("mask_rcnn_r50", 37.2, 41.0, "mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"),
    _detectron2("mask_rcnn_r101", 38.6, 42.9, "mask_rcnn_R_101_FPN_3x/138205316/model_final_a3ec72.pkl"),
    _detectron2(
        "mask_rcnn_r101", 39.5, 44.3, "mask_rcnn_X_101_32x8d_FPN_3x/139653917/model_final_2d9806.pkl", X101_32X8D
    ),
    _solov2("solov2_r50", 37.5, "r50", "20220512_125856-fed092d4"),
    _solov2("solov2_r101_dcn", 41.2, "r101_dcn", "20220513_214734-16c966cb"),
    _solov2("solov2_x101_dcn", 42.4, "x101_dcn", "20220513_214337-aef41095"),
    _convnext("cascade_convnext_s", 45.0, 51.9, "cascade_mask_rcnn_convnext_small_1k_3x.pth"),
    _mmdetection(
        "cascade_convnext_s", "COCO", 44.8, 51.8, f"v2.0/convnext/{CASCADE_S}/{CASCADE_S}_20220510_201004-3d24f5a4.pth"
    ),
    _convnext("cascade_convnext_b", 45.6, 52.7, "cascade_mask_rcnn_convnext_base_1k_3x.pth"),
    _convnext("cascade_convnext_b", 46.9, 54.0, "cascade_mask_rcnn_convnext_base_22k_3x.pth"),
    _mask2former(46.3, "small_bs16_50ep/model_final_1e7f22.pkl"),
    _queries(46.1, 49.3, "s", "20220504_001756-c9d0c4f2"),
    _mask2former(45.0, "tiny_bs16_50ep/model_final_86143f.pkl", TINY),
    _queries(44.7, 47.7, "t", "20220508_091649-01b0f990", TINY),
    _mask2former(48.1, "base_IN21k_384_bs16_50ep/model_final_83d103.pkl", BASE),
    _mask2former(46.7, "base_384_bs16_50ep/model_final_f6e0f6.pkl", BASE),
    _mask2former(50.1, "large_IN21k_384_bs16_100ep/model_final_e5f453.pkl", LARGE),
)  # fmt: skip


def printed(file: Path) -> Printed | None:
    """The published model of a file, by the file's name."""
    return next((model for model in ZOO if model.file == file.name), None)


def is_measured_on(model: Printed, census: Census | None, *, federated: bool) -> bool:
    """Whether a file is the one that a model's printed AP was measured on, by its counts, and so is the protocol.

    Args:
        census: of an annotation file whose categories are those that the model knows. federated: LVIS's protocol.
    """
    if census is None or federated != (model.data == "LVIS v1"):
        return False
    return (census.images, census.annotations, len(census.categories)) == MEASURED_ON[model.data]


def offers(segmenter: str) -> str:
    """What of a segmenter can be downloaded, as the end of a sentence; empty where there is nothing."""
    found = [model for model in ZOO if model.segmenter == segmenter and not model.changes]
    return "; or ".join(f"{model.words} from {model.url}" for model in found)
