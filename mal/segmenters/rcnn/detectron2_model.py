"""Our R-CNNs as detectron2's lazy config: a tree of {_target_: constructor, arguments} for its `instantiate`.

Constructors are given by name, so that this file can be read, and tested, without detectron2.
"""

from typing import Any

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.pyramids import STRIDES

Lazy = dict[str, Any]

BODY_LEVELS = ["res2", "res3", "res4", "res5"]  # detectron2's names of the body's maps, of strides 4 to 32,
LEVELS = ["p2", "p3", "p4", "p5"]  # and of the pyramid's; "p6" is the subsampled last one


def lazy_model(config: SegmenterConfig, *, classes: int, body: Lazy) -> Lazy:
    """The model.

    Args:
        config: all of the network's settings are used; those of the cascade where `name` says that it is one.
        classes: the background not counted.
        body: gives the maps of `BODY_LEVELS`.
    """
    pyramid = config.pyramid
    return _call(
        "modeling.GeneralizedRCNN",
        backbone=_call(
            "modeling.FPN",
            bottom_up=body,
            in_features=BODY_LEVELS,
            out_channels=pyramid.channels,
            norm="BN" if pyramid.fpn_norm else "",
            top_block=_call("modeling.backbone.fpn.LastLevelMaxPool"),
        ),
        proposal_generator=_proposals(config),
        roi_heads=_heads(config, classes=classes),
        pixel_mean=[255 * value for value in pyramid.mean],  # pixels go from 0 to 255
        pixel_std=[255 * value for value in pyramid.std],
        input_format="RGB",
    )


def _proposals(config: SegmenterConfig) -> Lazy:
    proposals = config.proposals
    return _call(
        "modeling.proposal_generator.RPN",
        in_features=[*LEVELS, "p6"],
        head=_call(
            "modeling.proposal_generator.StandardRPNHead",
            in_channels=config.pyramid.channels,
            num_anchors=len(proposals.anchors[0]) * len(proposals.ratios),
        ),
        anchor_generator=_call(
            "modeling.anchor_generator.DefaultAnchorGenerator",
            sizes=proposals.anchors,
            aspect_ratios=proposals.ratios,
            strides=[*STRIDES, 2 * STRIDES[-1]],
            offset=0.0,
        ),
        anchor_matcher=_matcher([0.3, 0.7], labels=[0, -1, 1], closest=True),
        box2box_transform=_boxes([1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=proposals.sampled,
        positive_fraction=0.5,
        pre_nms_topk=proposals.before_nms,
        post_nms_topk=proposals.after_nms,
        nms_thresh=proposals.nms,
        smooth_l1_beta=proposals.box_beta,
    )


def _heads(config: SegmenterConfig, *, classes: int) -> Lazy:
    heads = config.heads
    return _call(
        "modeling.roi_heads." + ("CascadeROIHeads" if is_cascade(config) else "StandardROIHeads"),
        num_classes=classes,
        batch_size_per_image=heads.sampled,
        positive_fraction=heads.positive,
        box_in_features=LEVELS,
        box_pooler=_pooler(config, cells=heads.box_cells),
        **(_cascade(config, classes=classes) if is_cascade(config) else _single(config, classes=classes)),
        **(_masks(config, classes=classes) if config.mask_head else {}),
    )


def is_cascade(config: SegmenterConfig) -> bool:
    return config.name.startswith("cascade_")


def _single(config: SegmenterConfig, *, classes: int) -> Lazy:
    beta = config.heads.box_beta
    return {
        "proposal_matcher": _matcher([0.5], labels=[0, 1], closest=False),
        "box_head": _box_head(config, convs=[], layers=2),
        "box_predictor": _predictor(config, classes=classes, weights=[10.0, 10.0, 5.0, 5.0], smooth_l1_beta=beta),
    }


def _cascade(config: SegmenterConfig, *, classes: int) -> Lazy:
    """The stages as ours, one box for all classes; sampling once, scores and the one mask head are detectron2's way."""
    cascade = config.cascade
    return {
        "proposal_matchers": [_matcher([iou], labels=[0, 1], closest=False) for iou in cascade.ious],
        "box_heads": [_box_head(config, convs=cascade.box_convs, layers=1) for _ in cascade.ious],
        "box_predictors": [
            _predictor(
                config,
                classes=classes,
                weights=[1 / std for std in stds],
                cls_agnostic_bbox_reg=True,
                box_reg_loss_type="giou",
                loss_weight={"loss_cls": weight, "loss_box_reg": weight * cascade.box_weight},
            )
            for stds, weight in zip(cascade.box_stds, cascade.weights, strict=True)
        ],
    }


def _masks(config: SegmenterConfig, *, classes: int) -> Lazy:
    heads = config.heads
    return {
        "mask_in_features": LEVELS,
        "mask_pooler": _pooler(config, cells=heads.mask_cells),
        "mask_head": _call(
            "modeling.roi_heads.MaskRCNNConvUpsampleHead",
            input_shape=_pooled(config, cells=heads.mask_cells),
            num_classes=classes,
            conv_dims=[*heads.mask_widths, heads.mask_up_width],
        ),
    }


def _box_head(config: SegmenterConfig, *, convs: list[int], layers: int) -> Lazy:
    heads = config.heads
    return _call(
        "modeling.roi_heads.FastRCNNConvFCHead",
        input_shape=_pooled(config, cells=heads.box_cells),
        conv_dims=convs,
        conv_norm="BN" if convs else "",
        fc_dims=[heads.box_width] * layers,
    )


def _predictor(config: SegmenterConfig, *, classes: int, weights: list[float], **loss: Any) -> Lazy:
    """`weights`: encoded x, y, w and h are multiplied by."""
    return _call(
        "modeling.FastRCNNOutputLayers",
        input_shape=_call("layers.ShapeSpec", channels=config.heads.box_width),
        box2box_transform=_boxes(weights),
        num_classes=classes,
        test_score_thresh=config.test.score,
        test_nms_thresh=config.test.nms,
        test_topk_per_image=config.test.max_detections,
        **loss,
    )


def _pooler(config: SegmenterConfig, *, cells: int) -> Lazy:
    return _call(
        "modeling.poolers.ROIPooler",
        output_size=cells,
        scales=[1 / stride for stride in STRIDES],
        sampling_ratio=config.heads.samples,
        pooler_type="ROIAlignV2" if config.heads.aligned else "ROIAlign",
        canonical_box_size=config.heads.canonical_side,
        canonical_level=4,
    )


def _pooled(config: SegmenterConfig, *, cells: int) -> Lazy:
    return _call("layers.ShapeSpec", channels=config.pyramid.channels, height=cells, width=cells)


def _matcher(thresholds: list[float], *, labels: list[int], closest: bool) -> Lazy:
    """`closest`: the best candidate of an object matches it, however badly."""
    return _call("modeling.matcher.Matcher", thresholds=thresholds, labels=labels, allow_low_quality_matches=closest)


def _boxes(weights: list[float]) -> Lazy:
    return _call("modeling.box_regression.Box2BoxTransform", weights=weights)


def _call(target: str, **arguments: Any) -> Lazy:
    return {"_target_": f"detectron2.{target}", **arguments}
