"""MMDetection's Mask2Formers on Swin (COCO instances) as ours, which are transformers'.

Beside the names two things differ: attentions' three projections are one tensor, and where Swin merges 2 × 2 pixels
MMDetection unfolds them, channel by channel, while transformers (as Swin's authors) puts the four pixels one after the
other, columns before rows. See `mmdetection` for what holds of all of its models.
"""

import dataclasses
import re
from typing import Any

from torch import Tensor

from mal.segmenters.config import SegmenterConfig
from mal.segmenters.published import mask2former as authors
from mal.segmenters.published.files import Weights
from mal.segmenters.published.keys import Rule
from mal.segmenters.published.mask2former import BLOCK, PIXELS, QUERIES, SWIN
from mal.segmenters.published.reading import reading, said

STEM = "backbone.patch_embed.projection.weight"
CLASSES = "panoptic_head.cls_embed.weight"
WAY_OUT = (
    "give a Mask2Former of MMDetection's zoo for COCO instances on Swin, and leave the segmenter's settings as they are"
)
# follows from the window's size; the loss's
UNREAD = r".*relative_position_index|panoptic_head\.loss_cls\.class_weight"

THEIR_BLOCK = r"backbone.stages.\1.blocks.\2."
HEAD = "panoptic_head."
PIXEL_DECODER = HEAD + "pixel_decoder."
ENCODER_LAYER = PIXEL_DECODER + r"encoder.layers.\1."
DECODER_LAYER = HEAD + r"transformer_decoder.layers.\1."


def merged(tensor: Tensor) -> Tensor:
    """(…, C · 4), the four pixels of each channel together and row by row → (…, 4 · C), column by column."""
    pixels = tensor.unflatten(-1, (-1, 2, 2))
    return pixels.permute(*range(tensor.ndim - 1), -1, -2, -3).flatten(-3)


RULES = (
    Rule(SWIN + r"embeddings\.patch_embeddings\.projection\.(.+)", r"backbone.patch_embed.projection.\1"),
    Rule(SWIN + r"embeddings\.norm\.(.+)", r"backbone.patch_embed.norm.\1"),
    Rule(BLOCK + r"attention\.(?:self\.)?([qkv])(?:_proj|uery|ey|alue)\.(.+)", THEIR_BLOCK + r"attn.w_msa.qkv.\4.\3"),
    Rule(BLOCK + r"attention\.(?:o_proj|output\.dense)\.(.+)", THEIR_BLOCK + r"attn.w_msa.proj.\3"),
    Rule(
        BLOCK + r"attention\..+\.relative_position_bias_table", THEIR_BLOCK + "attn.w_msa.relative_position_bias_table"
    ),
    Rule(BLOCK + r"layernorm_before\.(.+)", THEIR_BLOCK + r"norm1.\3"),
    Rule(BLOCK + r"layernorm_after\.(.+)", THEIR_BLOCK + r"norm2.\3"),
    Rule(BLOCK + r"(?:mlp\.fc1|intermediate\.dense)\.(.+)", THEIR_BLOCK + r"ffn.layers.0.0.\3"),
    Rule(BLOCK + r"(?:mlp\.fc2|output\.dense)\.(.+)", THEIR_BLOCK + r"ffn.layers.1.\3"),
    Rule(SWIN + r"encoder\.layers\.(\d)\.downsample\.(.+)", r"backbone.stages.\1.downsample.\2", merged),
    Rule(SWIN + r"hidden_states_norms\.stage(\d)\.(.+)", lambda match: f"backbone.norm{int(match[1]) - 1}.{match[2]}"),
    Rule(PIXELS + "level_embed", PIXEL_DECODER + "level_encoding.weight"),
    Rule(PIXELS + r"input_projections\.(\d)\.0\.(.+)", PIXEL_DECODER + r"input_convs.\1.conv.\2"),
    Rule(PIXELS + r"input_projections\.(\d)\.1\.(.+)", PIXEL_DECODER + r"input_convs.\1.gn.\2"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.(self_attn\..+)", ENCODER_LAYER + r"\2"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.self_attn_layer_norm\.(.+)", ENCODER_LAYER + r"norms.0.\2"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.fc1\.(.+)", ENCODER_LAYER + r"ffn.layers.0.0.\2"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.fc2\.(.+)", ENCODER_LAYER + r"ffn.layers.1.\2"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.final_layer_norm\.(.+)", ENCODER_LAYER + r"norms.1.\2"),
    Rule(PIXELS + r"mask_projection\.(.+)", PIXEL_DECODER + r"mask_feature.\1"),
    Rule(PIXELS + r"adapter_1\.0\.(.+)", PIXEL_DECODER + r"lateral_convs.0.conv.\1"),
    Rule(PIXELS + r"adapter_1\.1\.(.+)", PIXEL_DECODER + r"lateral_convs.0.gn.\1"),
    Rule(PIXELS + r"layer_1\.0\.(.+)", PIXEL_DECODER + r"output_convs.0.conv.\1"),
    Rule(PIXELS + r"layer_1\.1\.(.+)", PIXEL_DECODER + r"output_convs.0.gn.\1"),
    Rule(QUERIES + r"queries_embedder\.weight", HEAD + "query_embed.weight"),
    Rule(QUERIES + r"queries_features\.weight", HEAD + "query_feat.weight"),
    Rule(QUERIES + r"level_embed\.weight", HEAD + "level_embed.weight"),
    Rule(
        QUERIES + r"decoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.+)",
        DECODER_LAYER + r"self_attn.attn.in_proj_\3.\2",
    ),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.self_attn\.(out_proj\..+)", DECODER_LAYER + r"self_attn.attn.\2"),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.cross_attn\.(.+)", DECODER_LAYER + r"cross_attn.attn.\2"),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.cross_attn_layer_norm\.(.+)", DECODER_LAYER + r"norms.0.\2"),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.self_attn_layer_norm\.(.+)", DECODER_LAYER + r"norms.1.\2"),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.final_layer_norm\.(.+)", DECODER_LAYER + r"norms.2.\2"),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.fc1\.(.+)", DECODER_LAYER + r"ffn.layers.0.0.\2"),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.fc2\.(.+)", DECODER_LAYER + r"ffn.layers.1.\2"),
    Rule(QUERIES + r"decoder\.layernorm\.(.+)", HEAD + r"transformer_decoder.post_norm.\1"),
    Rule(
        QUERIES + r"decoder\.mask_predictor\.mask_embedder\.(\d)\.0\.(.+)",
        lambda match: f"{HEAD}mask_embed.{2 * int(match[1])}.{match[2]}",
    ),
    Rule(r"network\.class_predictor\.(.+)", HEAD + r"cls_embed.\1"),
)


def about(weights: Weights) -> dict[str, Any]:
    """What a file says of its model: `classes` ("nothing" not counted), `backbone`, and what its config has `said` (see
    `reading`)."""
    described = authors.described(weights.tensors, classes=CLASSES, blocks="backbone.stages.{stage}.blocks.")
    return {**described, "said": said(weights.config)}


def check(config: SegmenterConfig, facts: dict[str, Any], *, source: str) -> None:
    """Refuse a file of another backbone in a sentence.

    Args:
        source: the file, after the setting that named it.

    Raises:
        WeightsError.
    """
    authors.check(config, facts, source=source)
    reading(facts, source=source)


def fitted(config: SegmenterConfig, facts: dict[str, Any]) -> SegmenterConfig:
    """The config whose images enter as MMDetection's do."""
    return reading(facts, source=facts["file"]).fitted(config)


def converted(config: SegmenterConfig, weights: Weights, facts: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict.

    Raises:
        WeightsError: they are another model's.
    """
    found = reading(facts, source=weights.source)
    named = found.for_rgb({_newest(key): value for key, value in weights.tensors.items()}, STEM)
    return authors.renamed(
        config, dataclasses.replace(weights, tensors=named), facts, rules=RULES, way_out=WAY_OUT, unread=UNREAD
    )


def _newest(key: str) -> str:
    """Keys of MMDetection 2 as those of 3: its decoder attends to the image first, then to itself."""
    key = key.replace(".ffns.0.", ".ffn.")
    if ".transformer_decoder." in key:
        return key.replace(".attentions.0.", ".cross_attn.").replace(".attentions.1.", ".self_attn.")
    return re.sub(r"(\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn.", key)
