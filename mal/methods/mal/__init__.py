"""Mask Auto-Labeler: masks learned from boxes (Lan et al., CVPR 2023); docs/method/mal.md has the facts."""
