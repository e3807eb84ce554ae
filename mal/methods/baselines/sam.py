"""Segment Anything prompted with the boxes: what a model trained on a billion masks makes of them.

Kirillov et al., "Segment Anything", ICCV 2023; Ravi et al., "SAM 2", ICLR 2025; both through transformers, which is
imported when first used because that takes seconds.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mal.config import Config
from mal.context import Context
from mal.data.mask_windows import MaskWindow
from mal.data.sources import Split
from mal.errors import WeightsError
from mal.methods.baselines import box as filled_box
from mal.methods.labelling import image_labeler
from mal.methods.spec import Labels, Method

BOXES_AT_ONCE = 16  # their masks at the image's size are in memory together
KINDS = {"sam": "Sam", "sam2": "Sam2", "sam2_video": "Sam2"}  # published SAM 2 files are of the video model
WAY_OUT = (
    "give a name on the Hugging Face hub, such as facebook/sam-vit-base or facebook/sam2.1-hiera-base-plus, or a "
    "folder with config.json, model.safetensors and preprocessor_config.json"
)


class Sam:
    """SAM or SAM 2 with one box per prompt and one mask out (as its authors advise for boxes).

    Args:
        checkpoint: a name on the hub, or a local folder.

    Raises:
        WeightsError: it cannot be reached or read, is another model, or does not fill every parameter.
    """

    def __init__(self, checkpoint: str, device: torch.device) -> None:
        self.device = device
        self.model, self.processor = _load(checkpoint)
        self.model.to(device).eval()

    @torch.no_grad()
    def masks(self, pixels: np.ndarray, boxes: np.ndarray) -> list[MaskWindow]:
        """The mask of each box, cut at the filled box (`mal.methods.baselines.box`).

        Args:
            pixels: (H, W, 3) uint8 RGB.
            boxes: (N, 4) xywh, float pixels; they may reach beyond the image.

        Returns:
            N masks; empty where nothing is found inside the box.
        """
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).tolist()
        image = Image.fromarray(pixels)  # of an array it would have to guess which axis holds the colours
        seen, found = None, []
        for start in range(0, len(corners), BOXES_AT_ONCE):
            inputs = self.processor(image, input_boxes=[corners[start : start + BOXES_AT_ONCE]], return_tensors="pt")
            if seen is None:
                seen = self.model.get_image_embeddings(inputs["pixel_values"].to(self.device))
            prompts = inputs["input_boxes"].to(self.device, torch.float32)
            output = self.model(image_embeddings=seen, input_boxes=prompts, multimask_output=False)
            sizes = [inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
            whole = self.processor.post_process_masks(output.pred_masks.cpu(), *sizes)[0][:, 0].numpy()
            for mask, box in zip(whole, filled_box.masks(pixels, boxes[start : start + BOXES_AT_ONCE]), strict=True):
                found.append(MaskWindow(mask[box.place].copy(), box.left, box.top))
        return found


def weight_files(checkpoint: str) -> list[Path]:
    """The files of a local folder; none where a name on the hub is meant."""
    return sorted(path for path in Path(checkpoint).glob("*") if path.is_file()) if Path(checkpoint).is_dir() else []


def _load(checkpoint: str) -> tuple[Any, Any]:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(checkpoint)
    except Exception as error:  # no network, no such name, a broken file: all end the same way for the user
        raise WeightsError(f"labeler.checkpoint={checkpoint} cannot be reached: {_first(error)}; {WAY_OUT}") from error
    kind = KINDS.get(config.model_type)
    if kind is None:
        raise WeightsError(f"labeler.checkpoint={checkpoint} holds a model of type {config.model_type}; {WAY_OUT}")
    try:
        model, report = getattr(transformers, f"{kind}Model").from_pretrained(
            checkpoint, dtype=torch.float32, output_loading_info=True
        )
        processor = getattr(transformers, f"{kind}Processor").from_pretrained(checkpoint)
    except Exception as error:
        raise WeightsError(f"labeler.checkpoint={checkpoint} cannot be read: {_first(error)}; {WAY_OUT}") from error
    if lost := sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"]})):
        raise WeightsError(
            f"labeler.checkpoint={checkpoint} has no fitting weights for {len(lost)} parameters ({lost[0]}, …), which "
            f"would stay random; {WAY_OUT}"
        )
    return model, processor


def _first(error: Exception) -> str:
    """The first line of an error; some have pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def labels(context: Context, _: Split) -> Labels:
    """Masks of the checkpoint that the config names."""
    checkpoint = context.config.labeler.checkpoint
    weights = weight_files(checkpoint)
    return Labels(
        make=lambda workdir, _: image_labeler(Sam(checkpoint, workdir.device).masks),
        settings={} if weights else {"checkpoint": checkpoint},
        sources={path.name: context.fingerprints.file(path) for path in weights},
    )


def preflight(config: Config, device: torch.device, _: set[str]) -> None:
    """
    Raises:
        WeightsError: the checkpoint cannot be had.
    """
    Sam(config.labeler.checkpoint, device)


METHOD = Method("sam", labels, shared=True, preflight=preflight)
