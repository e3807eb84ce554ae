"""The paper's words for what our records name, in the paper's order."""

SEGMENTERS = {  # the segmenter of a record → its backbone and model
    "solov2_r50": ("ResNet-50", "SOLOv2"),
    "solov2_r101_dcn": ("ResNet-101-DCN", "SOLOv2"),
    "solov2_x101_dcn": ("ResNeXt-101-DCN", "SOLOv2"),
    "cascade_convnext_s": ("ConvNeXt-Small", "Cascade R-CNN"),
    "cascade_convnext_b": ("ConvNeXt-Base", "Cascade R-CNN"),
    "mask2former_swin_s": ("Swin-Small", "Mask2Former"),
    "mask_rcnn_r50": ("ResNet-50-FPN", "Mask R-CNN"),
    "mask_rcnn_r101": ("ResNet-101-FPN", "Mask R-CNN"),
    "mask_rcnn_r50_dcn": ("ResNet-50-DCN", "Mask R-CNN"),
    "mask_rcnn_r101_dcn": ("ResNet-101-DCN", "Mask R-CNN"),
    "mask_rcnn_x101_32x4d": ("ResNeXt-101-32x4d-FPN", "Mask R-CNN"),
    "mask_rcnn_x101_64x4d": ("ResNeXt-101-64x4d-FPN", "Mask R-CNN"),
    "solov2_tiny": ("tiny", "SOLOv2"),
    "cascade_tiny": ("tiny", "Cascade R-CNN"),
    "mask2former_tiny": ("tiny", "Mask2Former"),
    "mask_rcnn_tiny": ("tiny", "Mask R-CNN"),
}
LVIS = ("mask_rcnn_r50_dcn", "mask_rcnn_r101_dcn", "mask_rcnn_x101_32x4d", "mask_rcnn_x101_64x4d", "mask_rcnn_tiny")
ENCODERS = {
    "convnext_b": "ConvNeXt-Base",
    "swin_b": "Swin-Base",
    "deit_s": "ViT-DeiT-Small",
    "deit_b": "ViT-DeiT-Base",
    "mae_b": "ViT-MAE-Base",
    "mae_l": "ViT-MAE-Large",
}
DECODERS = {
    "fc": "Fully connected decoder",
    "fcn": "Fully convolutional decoder",
    "attention": "Attention-based decoder",
    "query": "Query-based decoder",
}
DATA = {"coco": "COCO", "lvis": "LVIS v1"}
MASK_LABELS = {"boxes": "None", "human": "GT mask", "published": "GT mask", "pseudo": "MAL mask"}


def bare(segmenter: str) -> str:
    """A segmenter's name without the backend that trained it: `mask_rcnn_tiny (detectron2)` is mask_rcnn_tiny."""
    return segmenter.partition(" ")[0]


def backbone_and_model(segmenter: str) -> tuple[str, str]:
    """A segmenter in the paper's words; another backend than its own stays in sight."""
    backbone, model = SEGMENTERS.get(bare(segmenter), (bare(segmenter), bare(segmenter)))
    return backbone, f"{model}{segmenter.removeprefix(bare(segmenter))}"
