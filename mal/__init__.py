"""Mask auto-labeling: masks learned from boxes, and how much accuracy they keep."""

__version__ = "0.1.0"
