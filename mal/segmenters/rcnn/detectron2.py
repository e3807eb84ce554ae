"""R-CNNs from detectron2 (Wu et al., 2019): its models on our backbones, its trainer with our resume.

It is optional: the registry imports this file when a config names the backend, and no other file imports detectron2.
Data, order, schedule and, for Mask R-CNN, network and losses are those of the torchvision backend. Sampling, RoIAlign,
mask targets and pasting are detectron2's own, and so the two check each other.
"""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.modeling import Backbone, detector_postprocess
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from mal.data.annotations import encode_mask
from mal.engine import ranks
from mal.engine.trainer import set_rate
from mal.errors import ConfigError
from mal.segmenters import loop
from mal.segmenters.config import OptimizerConfig, SegmenterConfig
from mal.segmenters.data import Sample
from mal.segmenters.layer_decay import layer_factors
from mal.segmenters.network import Detect, Json, Network
from mal.segmenters.optimizer import Factors
from mal.segmenters.pyramids import STRIDES, build_pyramid
from mal.segmenters.rcnn.detectron2_model import BODY_LEVELS, is_cascade, lazy_model

# It prints the traceback of whatever ends its training loop, and we tell that in a sentence.
logging.getLogger("detectron2.engine.train_loop").setLevel(logging.CRITICAL)


def drive(config: SegmenterConfig) -> loop.Drive:
    """See `Network.drive`.

    Raises:
        ConfigError: there are several processes.
    """
    if ranks.size() > 1:
        raise ConfigError(
            f"segmenter.backend=detectron2 trains in one process, but {ranks.size()} were started; start one, or use "
            "the backend that segmenter= names"
        )
    return partial(_drive, config.optimizer.clip)


def _drive(clip: float | None, run: loop.Run, steps: loop.Steps) -> None:
    """Take the steps with detectron2's trainer."""
    inputs = _Inputs(run, steps)
    trainer = SimpleTrainer(run.model, inputs, run.optimizer)
    trainer.register_hooks([_Counting(run, inputs, clip=clip)])
    ours = run.trainer
    try:
        trainer.train(ours.step, ours.total)
    except FloatingPointError as error:  # of a loss, or of a proposal
        why = " ".join(str(error).split())
        raise loop.not_finite(run.rate, ours.folder, ours.step, {}, inputs.image_ids, why) from error
    next(steps, None)  # what follows the last step


def factors(config: OptimizerConfig) -> Factors:
    """See `layer_factors`, which knows our names: detectron2 keeps the body one level deeper."""
    ours = layer_factors(config)
    return lambda name, parameter: ours(name.replace("backbone.bottom_up.", "backbone.", 1), parameter)


class _Inputs(Iterator[list[Json]]):
    """detectron2's data loader: our steps, mapped to its input format. `image_ids` are of the batch it gave last."""

    def __init__(self, run: loop.Run, steps: loop.Steps) -> None:
        self.run, self.steps = run, steps

    def __next__(self) -> list[Json]:
        step, batch = next(self.steps)
        set_rate(self.run.optimizer, self.run.rate(step))
        self.image_ids = [sample.image_id for sample in batch]
        return [mapped(sample) for sample in batch]


def mapped(sample: Sample) -> Json:
    """A sample in the input format of detectron2's models, as its DatasetMapper gives it.

    Ours reads the files, not its DatasetMapper, which drops instances with an empty mask: then two supervisions would
    train on different instances, and it draws from a generator that does not follow (seed, epoch, index).
    """
    height, width = sample.image.shape[-2:]
    targets = Instances(
        (height, width),
        gt_boxes=Boxes(sample.boxes_xyxy),
        gt_classes=sample.labels - 1,  # counted from 0
    )
    if len(sample.masks):
        targets.gt_masks = BitMasks(sample.masks)
    return {"image": sample.image, "height": height, "width": width, "instances": targets}


class _Counting(HookBase):
    """What our loop expects of a step, and the clipping of gradients."""

    def __init__(self, run: loop.Run, inputs: _Inputs, *, clip: float | None) -> None:
        self.run, self.inputs, self.clip = run, inputs, clip

    def after_backward(self) -> None:
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.run.model.parameters(), self.clip)

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        losses = {name: torch.tensor(value) for name, (value, _) in latest.items() if name.startswith("loss_")}
        self.run.trainer.add(losses, about=self.inputs.image_ids)


def detector(model: Any, *, categories: list[int], config: SegmenterConfig) -> Detect:
    """See `Network.detector`; categories are those of the labels from 0."""

    def detect(entries: list[Json], inputs: list[Tensor]) -> list[Json]:
        found = model.inference([{"image": image} for image in inputs], do_postprocess=False)
        results: list[Json] = []
        for entry, instances in zip(entries, found, strict=True):
            height, width = entry["height"], entry["width"]
            pasted = detector_postprocess(instances, height, width, mask_threshold=config.test.mask_threshold)
            results += coco_results(entry, pasted.to("cpu"), categories=categories)
        return results

    return detect


def coco_results(entry: Json, found: Instances, *, categories: list[int]) -> list[Json]:
    """One image's detections, which are in its own pixels already."""
    results = []
    for index, (left, top, right, bottom) in enumerate(found.pred_boxes.tensor.tolist()):
        result = {
            "image_id": int(entry["id"]),
            "category_id": categories[int(found.pred_classes[index])],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(found.scores[index]),
        }
        if found.has("pred_masks"):
            result["segmentation"] = encode_mask(found.pred_masks[index].numpy())
        results.append(result)
    return results


class Body(Backbone):
    """A backbone of ours without its feature pyramid (see `build_pyramid`), as detectron2 wants one."""

    def __init__(self, *, config: SegmenterConfig, load: bool) -> None:
        super().__init__()
        pyramid = build_pyramid(config, load=load)
        self.body, self.map_norms = pyramid.body, pyramid.map_norms
        self._out_features = BODY_LEVELS
        self._out_feature_strides = dict(zip(BODY_LEVELS, STRIDES, strict=True))
        widths = [block[0].in_channels for block in pyramid.fpn.inner_blocks]
        self._out_feature_channels = dict(zip(BODY_LEVELS, widths, strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """{"res2", "res3", "res4", "res5"}: (B, channels, H / stride, W / stride)."""
        maps = self.body(images)
        return {name: norm(level) for name, norm, level in zip(BODY_LEVELS, self.map_norms, maps, strict=True)}


def build(config: SegmenterConfig, *, classes: int, load: bool = True) -> nn.Module:
    """The untrained model; `classes` does not count the background. See `build_pyramid` for `load`.

    Raises:
        ConfigError, WeightsError.
    """
    model = instantiate(lazy_model(config, classes=classes, body={"_target_": Body, "config": config, "load": load}))
    return model.to(memory_format=torch.channels_last)  # faster on a CPU


def losses(model: nn.Module, batch: list[Sample]) -> dict[str, Tensor]:
    """The losses of a batch, outside of detectron2's trainer."""
    with EventStorage():  # its models note their statistics there
        return model([mapped(sample) for sample in batch])


def lowered_parts(config: SegmenterConfig) -> list[str]:
    """The submodules that may run in lower precision; detectron2's AMPTrainer would also decode boxes in fp16.

    Its mask head computes its loss itself, so its layers go one by one.
    """
    boxes = [f".{stage}" for stage in range(len(config.cascade.ious))] if is_cascade(config) else [""]
    convolutions = [f"mask_fcn{number}" for number in range(1, len(config.heads.mask_widths) + 1)]
    masks = [*convolutions, "deconv", "predictor"] if config.mask_head else []
    return [
        "backbone",
        "proposal_generator.rpn_head",
        *(f"roi_heads.box_head{stage}" for stage in boxes),
        *(f"roi_heads.mask_head.{layer}" for layer in masks),
    ]


NETWORK = Network(build, losses, detector, lowered_parts, factors, drive)
