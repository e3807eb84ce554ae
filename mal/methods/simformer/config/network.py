"""Settings of SimFormer's network, a MaskFormer. Defaults are the paper's; sources: docs/method/simformer.md."""

from dataclasses import dataclass

from mal.bounds import choice, number


@dataclass
class NetworkConfig:
    width: int = number(256, 32, 1 << 12)  # of the pixel decoder, the embeddings and the transformer; a multiple of 32
    queries: int = number(100, 1, 1 << 14)
    layers: int = number(6, 1, 64)  # of the transformer decoder, each of which predicts
    heads: int = number(8, 1, 1 << 10)  # of its attention; they divide `width`
    feed_forward: int = number(2048, 1, 1 << 16)
    dropout: float = number(0.1, 0, 0.999)
    # what queries look at: stride32, the backbone's last map (paper) | stride8, the pixel decoder's, for small images
    memory: str = choice("stride32", ("stride32", "stride8"))
    # trained: learned here | published: MaskFormer's for these classes, which knows all masks (the oracle's row)
    weights: str = choice("trained", ("trained", "published"))
    # weights=published: the folder of a model as transformers saves it, config.json included; null: the hub's
    checkpoint: str | None = None
