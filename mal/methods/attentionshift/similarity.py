"""Cosine similarities of prototypes and patch features."""

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """(…, C) → length 1; a zero vector stays zero, and its cosine with anything is 0."""
    scaled = vectors / vectors.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)  # no underflow
    return scaled / scaled.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)


def cosines(prototypes: Tensor, units: Tensor) -> Tensor:
    """(…, K, C) of any length and (P, C) of length 1 or 0 → (…, K, P)."""
    return unit(prototypes) @ units.T


def patch_rows(features: Tensor) -> Tensor:
    """(C, h, w) → (h·w, C), row-major."""
    return features.flatten(1).T
