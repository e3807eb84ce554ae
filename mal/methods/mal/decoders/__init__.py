"""Mask decoders: features of B crops → mask logits, grouped by object size where the decoder resizes by it (Table 3).

A decoder is called with the encoder's `Features`, the crops' object sizes and their side, and gives pairs of indices
(n,) into the batch and logits (n, s, s); `gather` puts them together.
"""

from torch import nn

from mal.encoders.encoder import Encoder
from mal.methods.mal.config import DecoderConfig
from mal.methods.mal.decoders.attention import AttentionDecoder
from mal.methods.mal.decoders.pixels import STRIDES, gather
from mal.methods.mal.decoders.plain import FullyConnectedDecoder, FullyConvolutionalDecoder
from mal.methods.mal.decoders.query import QueryDecoder

__all__ = ["DECODERS", "STRIDES", "AttentionDecoder", "build_decoder", "gather"]

DECODERS = {
    "attention": AttentionDecoder,
    "fc": FullyConnectedDecoder,
    "fcn": FullyConvolutionalDecoder,
    "query": QueryDecoder,
}


def build_decoder(config: DecoderConfig, encoder: Encoder) -> nn.Module:
    """The decoder a config names, for an encoder's maps.

    Raises:
        ConfigError: its sizes do not go together.
    """
    return DECODERS[config.name](config, last_channels=encoder.last_channels, fine_channels=encoder.fine_channels)
