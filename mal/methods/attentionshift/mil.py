"""Step 4: which of an instance's candidate boxes holds its class, learned by multiple-instance learning."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mal.methods.attentionshift.scaling import in_full

EPS = 1e-6  # a bag's probability stays this far from 0 and 1 (R)


def mil_loss(class_logits: Tensor, box_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of the bags, and each instance's best box.

    A box's probability is the softmax over classes times the softmax over the instance's boxes; a bag's is their sum.

    Args:
        class_logits, box_logits: (n, D, K).
        labels: (n,) in 0 … K − 1.

    Returns:
        The mean over instances and classes, 0 without instances; (n,) the box of the highest probability at the
        true class, the first of equals.
    """
    scores, boxes = in_full(class_logits), in_full(box_logits)
    with torch.autocast(scores.device.type, enabled=False):
        probability = scores.softmax(2) * boxes.softmax(1)
        if not len(labels):
            return probability.sum(), labels
        bags = probability.sum(1).clamp(EPS, 1 - EPS)
        loss = F.binary_cross_entropy(bags, F.one_hot(labels, scores.shape[2]).to(bags))
        own = probability.gather(2, labels[:, None, None].expand(-1, scores.shape[1], 1))[..., 0]
    return loss, own.argmax(1)
