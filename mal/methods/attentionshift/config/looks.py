"""Settings of the pictures of AttentionShift's steps."""

from dataclasses import dataclass

from mal.bounds import number, rising


@dataclass
class LooksConfig:
    """The supplement's Figures 2 and 3, of some objects of the validation images."""

    enabled: bool = False
    examples: int = number(6, 1, 1000)
    rounds: list[int] = rising([0, 1, 2, 5, 10])  # of step 7, after which the parts are shown; 0: its seeds
