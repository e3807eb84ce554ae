"""The Mask2Formers on Swin of its authors (COCO instances) as ours, which are transformers'.

transformers splits every attention's three projections and names the rest its own way; nothing else differs. Converted
from the layout in Mask2Former's source (see `zoo` for what that is worth).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mal.errors import WeightsError
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.mask2former import build
from mal.segmenters.mask2former.model import SWINS
from mal.segmenters.published.files import Weights
from mal.segmenters.published.keys import Rule, filled

CLASSES = "sem_seg_head.predictor.class_embed.weight"
WAY_OUT = "give Mask2Former's model of COCO instances on Swin, and leave the segmenter's settings as they are"
PROJECTIONS = ("q", "k", "v")
SWIN = r"network\.model\.pixel_level_module\.encoder\.(?:swin\.)?"
BLOCK = SWIN + r"encoder\.layers\.(\d)\.blocks\.(\d+)\."
PIXELS = r"network\.model\.pixel_level_module\.decoder\."
QUERIES = r"network\.model\.transformer_module\."
UNPUBLISHED = r".*\.swin\.layernorm\..+|network\.criterion\.empty_weight"  # neither is read to predict
UNREAD = r".*relative_position_index|criterion\.empty_weight"  # follows from the window's size; of the loss

THEIR_BLOCK = r"backbone.layers.\1.blocks.\2."
DECODER = "sem_seg_head.predictor."
PIXEL_DECODER = "sem_seg_head.pixel_decoder."
ENCODER_LAYER = PIXEL_DECODER + r"transformer.encoder.layers.\1."

RULES = (
    Rule(SWIN + r"embeddings\.patch_embeddings\.projection\.(.+)", r"backbone.patch_embed.proj.\1"),
    Rule(SWIN + r"embeddings\.norm\.(.+)", r"backbone.patch_embed.norm.\1"),
    Rule(BLOCK + r"attention\.(?:self\.)?([qkv])(?:_proj|uery|ey|alue)\.(.+)", THEIR_BLOCK + r"attn.qkv.\4.\3"),
    Rule(BLOCK + r"attention\.(?:o_proj|output\.dense)\.(.+)", THEIR_BLOCK + r"attn.proj.\3"),
    Rule(BLOCK + r"attention\..+\.relative_position_bias_table", THEIR_BLOCK + "attn.relative_position_bias_table"),
    Rule(BLOCK + r"layernorm_before\.(.+)", THEIR_BLOCK + r"norm1.\3"),
    Rule(BLOCK + r"layernorm_after\.(.+)", THEIR_BLOCK + r"norm2.\3"),
    Rule(BLOCK + r"(?:mlp\.fc1|intermediate\.dense)\.(.+)", THEIR_BLOCK + r"mlp.fc1.\3"),
    Rule(BLOCK + r"(?:mlp\.fc2|output\.dense)\.(.+)", THEIR_BLOCK + r"mlp.fc2.\3"),
    Rule(SWIN + r"encoder\.layers\.(\d)\.downsample\.(.+)", r"backbone.layers.\1.downsample.\2"),
    Rule(SWIN + r"hidden_states_norms\.stage(\d)\.(.+)", lambda match: f"backbone.norm{int(match[1]) - 1}.{match[2]}"),
    Rule(PIXELS + "level_embed", PIXEL_DECODER + "transformer.level_embed"),
    Rule(PIXELS + r"input_projections\.(.+)", PIXEL_DECODER + r"input_proj.\1"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.(self_attn\..+)", ENCODER_LAYER + r"\2"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.self_attn_layer_norm\.(.+)", ENCODER_LAYER + r"norm1.\2"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.fc(\d)\.(.+)", ENCODER_LAYER + r"linear\2.\3"),
    Rule(PIXELS + r"encoder\.layers\.(\d)\.final_layer_norm\.(.+)", ENCODER_LAYER + r"norm2.\2"),
    Rule(PIXELS + r"mask_projection\.(.+)", PIXEL_DECODER + r"mask_features.\1"),
    Rule(PIXELS + r"(adapter|layer)_1\.0\.(.+)", PIXEL_DECODER + r"\1_1.\2"),
    Rule(PIXELS + r"(adapter|layer)_1\.1\.(.+)", PIXEL_DECODER + r"\1_1.norm.\2"),
    Rule(QUERIES + r"queries_embedder\.weight", DECODER + "query_embed.weight"),
    Rule(QUERIES + r"queries_features\.weight", DECODER + "query_feat.weight"),
    Rule(QUERIES + r"level_embed\.weight", DECODER + "level_embed.weight"),
    Rule(
        QUERIES + r"decoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.+)",
        DECODER + r"transformer_self_attention_layers.\1.self_attn.in_proj_\3.\2",
    ),
    Rule(
        QUERIES + r"decoder\.layers\.(\d+)\.(self_attn\.out_proj\..+)",
        DECODER + r"transformer_self_attention_layers.\1.\2",
    ),
    Rule(
        QUERIES + r"decoder\.layers\.(\d+)\.(self|cross)_attn_layer_norm\.(.+)",
        DECODER + r"transformer_\2_attention_layers.\1.norm.\3",
    ),
    Rule(
        QUERIES + r"decoder\.layers\.(\d+)\.cross_attn\.(.+)",
        DECODER + r"transformer_cross_attention_layers.\1.multihead_attn.\2",
    ),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.fc(\d)\.(.+)", DECODER + r"transformer_ffn_layers.\1.linear\2.\3"),
    Rule(QUERIES + r"decoder\.layers\.(\d+)\.final_layer_norm\.(.+)", DECODER + r"transformer_ffn_layers.\1.norm.\2"),
    Rule(QUERIES + r"decoder\.layernorm\.(.+)", DECODER + r"decoder_norm.\1"),
    Rule(QUERIES + r"decoder\.mask_predictor\.mask_embedder\.(\d)\.0\.(.+)", DECODER + r"mask_embed.layers.\1.\2"),
    Rule(r"network\.class_predictor\.(.+)", DECODER + r"class_embed.\1"),
)


def about(weights: Weights) -> dict[str, Any]:
    """What a file says of its model: `classes` ("nothing" not counted) and `backbone`."""
    return described(weights.tensors, classes=CLASSES, blocks="backbone.layers.{stage}.blocks.")


def check(config: SegmenterConfig, facts: dict[str, Any], *, source: str) -> None:
    """Refuse a file of another backbone in a sentence.

    Args:
        source: the file, after the setting that named it.

    Raises:
        WeightsError.
    """
    if facts["backbone"] != config.pyramid.name:
        raise WeightsError(
            f"{source} is a Mask2Former on {facts['backbone']}, but segmenter={config.name} runs on "
            f"{config.pyramid.name}; set segmenter.pyramid.name to that of the file"
        )


def fitted(config: SegmenterConfig, _facts: dict[str, Any]) -> SegmenterConfig:
    """The config as it is: the tests are the same."""
    return config


def converted(config: SegmenterConfig, weights: Weights, facts: dict[str, Any]) -> dict[str, Tensor]:
    """Our state dict.

    Raises:
        WeightsError: they are another model's.
    """
    named = {_newest(key): value for key, value in weights.tensors.items()}
    return renamed(
        config, dataclasses.replace(weights, tensors=named), facts, rules=RULES, way_out=WAY_OUT, unread=UNREAD
    )


def described(tensors: Mapping[str, Tensor], *, classes: str, blocks: str) -> dict[str, Any]:
    """`about` of either publisher's file.

    Args:
        classes: the key of the class scores. blocks: see `swin`.
    """
    return {"classes": len(tensors[classes]) - 1, "backbone": swin(tensors, blocks)}


def renamed(
    config: SegmenterConfig,
    weights: Weights,
    facts: dict[str, Any],
    *,
    rules: Sequence[Rule],
    way_out: str,
    unread: str,
) -> dict[str, Tensor]:
    """`converted` of either publisher's file, under the publisher's newest names; see `keys.filled`."""
    return filled(
        lambda: build(config, classes=facts["classes"], load=False),
        dataclasses.replace(weights, tensors=split(weights.tensors)),
        rules=rules,
        model=f"segmenter {config.name}",
        way_out=way_out,
        unread=unread,
        unpublished=UNPUBLISHED,
    )


def swin(tensors: Mapping[str, Tensor], blocks: str) -> str:
    """Our name of a Swin, by its weights.

    Args:
        blocks: a template of the beginning of its blocks' keys, as in `backbone.layers.{stage}.blocks.`; stages from 0.
    """
    found = [
        len({key.split(".")[blocks.count(".")] for key in tensors if key.startswith(blocks.format(stage=stage))})
        for stage in range(4)
    ]
    norm = tensors.get("backbone.patch_embed.norm.weight")
    width = 0 if norm is None else len(norm)
    for name, (_, sizes) in SWINS.items():
        if (sizes["embed_dim"], sizes["depths"]) == (width, found):
            return name
    return f"a Swin of {found} blocks and {width} channels"


def split(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The three projections of self-attentions apart: `….qkv.weight` → `….qkv.weight.q`, `.k`, `.v`."""
    apart: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if re.search(r"\.qkv\.(weight|bias)$|\.self_attn\.(attn\.)?in_proj_(weight|bias)$", key):
            apart |= {f"{key}.{name}": part for name, part in zip(PROJECTIONS, value.chunk(3), strict=True)}
        else:
            apart[key] = value
    return apart


def _newest(key: str) -> str:
    """Keys of files from before the pixel decoder had a name of its own."""
    key = key.replace(".static_query.", ".query_feat.")
    return re.sub(r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", PIXEL_DECODER, key)
