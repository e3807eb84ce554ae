"""Regions of a class map that one point explains: their centroids are what offsets are first learned from."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from mal.methods.bestie.places import centres_of_pixels

CONNECTIVITY = 8


@dataclass
class Guidance:
    """What a class map and points teach about offsets.

    Attributes:
        offsets: (2, H, W) float32, x and y in pixels from a pixel's centre to the centroid of its region; 0 elsewhere.
        certain: (H, W) bool, the pixels of such regions.
    """

    offsets: Tensor
    certain: Tensor


def guidance(classes: np.ndarray, xy: np.ndarray, labels: np.ndarray, *, smallest: int) -> Guidance:
    """The regions that hold exactly one point of their class.

    Args:
        classes: (H, W) of integers, 0 the background, k + 1 class k.
        xy: (n, 2) points in pixels, pixel i covering [i, i + 1); those outside the map count nowhere.
        labels: (n,) their classes from 0.
        smallest: pixels that a region has at least.
    """
    height, width = classes.shape
    offsets, certain = np.zeros((2, height, width), dtype=np.float32), np.zeros((height, width), dtype=bool)
    columns, rows = np.floor(xy).astype(np.int64).T if len(xy) else np.zeros((2, 0), dtype=np.int64)
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    x, y = centres_of_pixels(height, width).numpy()
    for label in np.unique(labels[inside]).tolist():
        own = inside & (labels == label)
        _, components, stats, centroids = cv2.connectedComponentsWithStats(
            (classes == label + 1).astype(np.uint8), connectivity=CONNECTIVITY
        )
        held, counts = np.unique(components[rows[own], columns[own]], return_counts=True)
        for number in held[counts == 1].tolist():
            if number == 0 or stats[number, cv2.CC_STAT_AREA] < smallest:  # 0: the points beside the class's pixels
                continue
            region = components == number
            centre = centroids[number] + 0.5  # OpenCV's are means of indices
            offsets[0][region], offsets[1][region] = centre[0] - x[region], centre[1] - y[region]
            certain |= region
    return Guidance(torch.from_numpy(offsets), torch.from_numpy(certain))
