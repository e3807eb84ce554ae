"""Settings of SimNet and SimLoss. Sources: docs/method/simformer.md (R the released program, P the paper)."""

from dataclasses import dataclass

from mal.bounds import choice, number


@dataclass
class SimilarityConfig:
    weight: float = number(1.0, 0, 1e6)  # of SimLoss; 0: SimNet does not learn (R)
    window: int = number(25, 1, 1 << 16)  # steps whose pairs are counted to balance equal and different ones (R)
    # what is counted. paper: the pairs that the loss counts | released: every fifth point's pairs, whether the loss
    # counts them or not, hidden classes told apart by their hidden masks
    counts: str = choice("paper", ("paper", "released"))
    detach: bool = True  # SimLoss teaches SimNet alone; false: the pixel embeddings too (R: S1's last 5,000 steps)
