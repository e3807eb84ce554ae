"""torch.compile where it pays on a GPU: the blocks that an encoder repeats, and the photometrics.

Block by block instead of the whole network: blocks that are alike are compiled once, in seconds instead of minutes, and
what decides on the host (the decoders, by object size) stays outside.
"""

import warnings

import torch
from torch import nn

KINDS = 128  # of blocks and shapes; torch gives up at 8, and a Swin's blocks differ in window shift, size and drop rate


def compile_blocks(backbone: nn.Module) -> int:
    """Have the blocks of a backbone compiled when they are first called; parameters keep their names.

    Each shape is compiled by itself: one trace for all of them would reason about a Swin's windows for minutes. So give
    batches of one size.

    Returns:
        How many blocks that are; 0 where the model repeats none.
    """
    torch._dynamo.config.recompile_limit = max(KINDS, torch._dynamo.config.recompile_limit)
    # torch's tracer looks at every tensor's gradient, and some versions warn of that
    warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf", UserWarning)
    blocks = repeated_blocks(backbone)
    for block in blocks:
        block.compile(dynamic=False)
    return len(blocks)


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The innermost modules that stand in a row with others of their class: a ViT's, Swin's or ConvNeXt's blocks."""
    if inner := [block for child in module.children() for block in repeated_blocks(child)]:
        return inner
    row = list(module.children()) if isinstance(module, nn.Sequential | nn.ModuleList) else []
    alike = len(row) > 1 and len({type(block) for block in row}) == 1
    return row if alike and any(True for _ in row[0].children()) else []
