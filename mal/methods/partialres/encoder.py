"""The encoder of image and language tokens: post-norm layers, and no norm after the last."""

from torch import Tensor, nn

from mal.methods.partialres.attention import Attention
from mal.methods.partialres.config.network import NetworkConfig
from mal.methods.partialres.feed_forward import perceptron


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each followed by its norm (Vaswani et al., 2017)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, dropout=config.dropout)
        self.feed_forward = perceptron([config.width, config.feed_forward, config.width], dropout=config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, positions: Tensor, bias: Tensor) -> Tensor:
        """(B, S, d) → (B, S, d); positions (B, S, d) reach queries and keys, bias (B, 1, 1, S) hides padding."""
        states = self.norms[0](states + self.dropout(self.attention(states, positions, bias)))
        return self.norms[1](states + self.dropout(self.feed_forward(states)))


class Encoder(nn.Module):
    """`encoder_layers` layers, one after another."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, states: Tensor, positions: Tensor, bias: Tensor) -> Tensor:
        """See `EncoderLayer`."""
        for layer in self.layers:
            states = layer(states, positions, bias)
        return states
