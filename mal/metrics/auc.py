"""How well scores tell two kinds apart."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive's score exceeds a negative's, ties counting half; (n,) each, both kinds present."""
    ranks, number = rankdata(scores), int(positive.sum())
    above = ranks[positive].sum() - number * (number + 1) / 2
    return float(above / (number * (len(positive) - number)))
