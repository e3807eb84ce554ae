"""DistLoss: what SimNet says of two pixels teaches how alike the network's scores of novel classes are there."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def novel_scores(classes: Tensor, masks: Tensor, novel: Tensor) -> Tensor:
    """What the network says of novel classes at an image's points: Σ_q p_q(c) · σ(m_q).

    Args:
        classes: (Q, C + 1) logits, the last of nothing. masks: (Q, n) logits of each query at the points.
        novel: (N,) places of the novel classes among the C.

    Returns:
        (n, N).
    """
    return masks.sigmoid().T @ classes.softmax(1)[:, novel]


def alike(left: Tensor, right: Tensor) -> Tensor:
    """Scores (n, N) and (m, N) → (n, m) in [0, 1], their cosines, and 0 where these are negative."""
    return (_unit(left) @ _unit(right).T).clamp(0, 1)


def _unit(scores: Tensor) -> Tensor:
    """Of length 1, however small they are: squares of the scores that a network begins with may be 0 in float32."""
    largest = scores.detach().abs().amax(1, keepdim=True).clamp(min=1e-20)
    return F.normalize(scores / largest, dim=1, eps=1e-6)


def student(at_first: Tensor, at_second: Tensor, kind: str) -> Tensor:
    """The similarities that learn.

    Args:
        at_first: (n, N) scores at an image's points. at_second: (m, N), at its reference's.
        kind: across, (n, m): of point i of the image and point j of the reference. within, (n, min(n, m)): of points i
            and j of the image, as released.
    """
    return alike(at_first, at_second if kind == "across" else at_first[: len(at_second)])


def cce(teacher: Tensor, student: Tensor) -> Tensor:
    """−max(t − ½, 0) · ln(1 + s) − max(½ − t, 0) · ln(2 − s) of each pair; t and s in [0, 1]."""
    return -(teacher - 0.5).clamp(min=0) * student.log1p() - (0.5 - teacher).clamp(min=0) * (2 - student).log()


def ce(teacher: Tensor, student: Tensor) -> Tensor:
    """Binary cross-entropy of each pair, t and s clamped to [.01, .99]."""
    return F.binary_cross_entropy(student.clamp(0.01, 0.99), teacher.clamp(0.01, 0.99), reduction="none")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cce": cce, "ce": ce}


def dist_loss(teacher: Tensor, student: Tensor, kind: str) -> Tensor:
    """The mean over pairs.

    Args:
        teacher: (n, m) logits of P(one class); no gradient flows into them.
        student: (n, at most m), see `student`; in [0, 1].
        kind: of `LOSSES`.
    """
    wanted = teacher.detach()[:, : student.shape[1]].sigmoid()
    return LOSSES[kind](wanted, student).mean()
