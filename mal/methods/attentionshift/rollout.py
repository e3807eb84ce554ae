"""Step 2: attention rolled out from the last block down, for the tokens of the image's points."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mal.errors import ConfigError


def rolled_out(attention: Sequence[Tensor], rows: Tensor, *, depth: int) -> Tensor:
    """R_1 = Ā_L and R_k = R_{k−1}·Ā_{L+1−k} with Ā = (A + I)/2, for k up to `depth`.

    Only the rows asked for are multiplied, which costs n·N² a block instead of N³.

    Args:
        attention: (N, N) of each block, the first block first; row i says where token i looks, the mean over heads.
        rows: (n,) indices of tokens.

    Returns:
        (depth, n, N): the tokens' rows of R_1 … R_depth.

    Raises:
        ConfigError: the network has fewer blocks than `depth`.
    """
    if depth > len(attention):
        raise ConfigError(
            f"rollout.depth={depth} is more than the encoder's {len(attention)} blocks; choose at most {len(attention)}"
        )
    last = attention[-1]
    rolled = last.new_zeros(len(rows), len(last)).scatter_(1, rows[:, None], 1)
    found = []
    for block in reversed(attention[-depth:]):
        rolled = (rolled @ block + rolled) / 2
        found.append(rolled)
    return torch.stack(found)
