"""SimFormer's network: a MaskFormer (Cheng et al., 2021) of transformers' parts, behind any pyramid of ours."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import MaskFormerConfig
from transformers.models.maskformer.modeling_maskformer import (
    MaskformerMLPPredictionHead,
    MaskFormerPixelDecoder,
    MaskFormerSinePositionEmbedding,
    MaskFormerTransformerModule,
)

from mal.encoders.config import EncoderConfig
from mal.encoders.pyramid import Pyramid
from mal.errors import ConfigError
from mal.methods.simformer.config.network import NetworkConfig
from mal.methods.simformer.start import initialise

GROUP = 32  # of the pixel decoder's group norms
STRIDE_8 = 1  # its index among the pixel decoder's maps, whose strides are 16, 8, 4


@dataclass
class Outputs:
    """What the network sees in a batch of images; Q queries, C classes, h = H / 4, w = W / 4.

    Attributes:
        pixels: (B, D, h, w) pixel embeddings.
        classes: per decoder layer, (B, Q, C + 1) logits; the last class is "nothing".
        masks: per decoder layer, (B, Q, h, w) logits.
    """

    pixels: Tensor
    classes: list[Tensor]
    masks: list[Tensor]

    def float(self) -> Self:
        """The same in float32."""
        return type(self)(
            self.pixels.float(), [each.float() for each in self.classes], [each.float() for each in self.masks]
        )


class SimFormer(nn.Module):
    """
    Args:
        encoder: a pyramid; see `Pyramid`.
        config: the network's settings.
        classes: base and novel classes together, "nothing" not counted.
        load: fill in the encoder's weights; false when a trained network's will follow.

    Raises:
        ConfigError, WeightsError.
    """

    def __init__(self, encoder: EncoderConfig, config: NetworkConfig, *, classes: int, load: bool = True) -> None:
        super().__init__()
        _check(config)
        self.config, width = config, config.width
        self.backbone = Pyramid(encoder, load=load)
        *finer, coarsest = self.backbone.widths
        self.pixel_decoder = MaskFormerPixelDecoder(
            in_features=coarsest, lateral_widths=finer, feature_size=width, mask_feature_size=width
        )
        self.transformer = MaskFormerTransformerModule(
            coarsest if config.memory == "stride32" else width, architecture(config, classes=classes)
        )
        self.transformer.position_embedder = _Positions(num_position_features=width // 2, normalize=True)
        self.class_predictor = nn.Linear(width, classes + 1)
        self.mask_embedder = MaskformerMLPPredictionHead(width, width, width)
        initialise(self)

    def forward(self, images: Tensor) -> Outputs:
        """
        Args:
            images: (B, 3, H, W) RGB in [0, 1]; H and W are multiples of 32.
        """
        maps = self.backbone(images)
        decoded = self.pixel_decoder(maps, output_hidden_states=True)
        memory = maps[-1] if self.config.memory == "stride32" else decoded.hidden_states[STRIDE_8]
        states = self._states(memory)
        pixels = decoded.last_hidden_state
        return Outputs(
            pixels,
            [self.class_predictor(state) for state in states],
            [torch.einsum("bqc,bchw->bqhw", self.mask_embedder(state), pixels) for state in states],
        )

    def _states(self, memory: Tensor) -> list[Tensor]:
        """(B, Q, width) after each layer and the norm that all layers share. The library's list starts before the first
        layer; its last entry, and no other, has the norm."""
        found = self.transformer(memory, output_hidden_states=True)
        norm = self.transformer.decoder.layernorm
        return [*(norm(state) for state in found.hidden_states[1:-1]), found.last_hidden_state]


class _Positions(MaskFormerSinePositionEmbedding):
    """The library's positions in float32 whatever the map's type: a coordinate in bfloat16 has three digits."""

    def forward(self, shape: Any, device: Any, _dtype: Any, mask: Any = None) -> Any:
        return super().forward(shape, device, torch.float32, mask)


def semantic_scores(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Σ_q p_q(c) · σ(m_q), "nothing" dropped, in float32.

    Args:
        class_logits: (B, Q, C + 1).
        mask_logits: (B, Q, h, w).

    Returns:
        (B, C, h, w).
    """
    with torch.autocast(class_logits.device.type, enabled=False):
        classes = class_logits.float().softmax(-1)[..., :-1]
        return torch.einsum("bqc,bqhw->bchw", classes, mask_logits.float().sigmoid())


def architecture(config: NetworkConfig, *, classes: int) -> MaskFormerConfig:
    """Our config in the library's terms; its backbone is not ours."""
    return MaskFormerConfig(
        fpn_feature_size=config.width,
        mask_feature_size=config.width,
        num_labels=classes,
        decoder_config={
            "model_type": "detr",
            "d_model": config.width,
            "num_queries": config.queries,
            "decoder_layers": config.layers,
            "decoder_attention_heads": config.heads,
            "decoder_ffn_dim": config.feed_forward,
            "dropout": config.dropout,
            "auxiliary_loss": False,  # true would pass the normed state on to the next layer
        },
    )


def _check(config: NetworkConfig) -> None:
    if config.width % GROUP:
        raise ConfigError(f"simformer.network.width={config.width} is no multiple of {GROUP}, as its group norms need")
    if config.width % config.heads:
        raise ConfigError(
            f"simformer.network.heads={config.heads} do not divide simformer.network.width={config.width}; choose "
            "another number"
        )
