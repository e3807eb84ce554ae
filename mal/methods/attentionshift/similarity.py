"""Cosine similarities of prototypes and patch features."""

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """(…, C) → length 1; a zero vector stays zero, and its cosine with anything is 0."""
    scaled = vectors / vectors.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)  # no underflow
    return scaled / scaled.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)


def cosines(prototypes: Tensor, features: Tensor) -> Tensor:
    """(…, K, C) and (P, C) → (…, K, P)."""
    return unit(prototypes) @ unit(features).T


def patch_rows(features: Tensor) -> Tensor:
    """(C, h, w) → (h·w, C), row-major."""
    return features.flatten(1).T
