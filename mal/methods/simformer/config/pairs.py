"""Settings of which images are paired. Sources: docs/method/simformer.md (R the released program, P the paper)."""

from dataclasses import dataclass

from mal.bounds import choice, number

KINDS = ("cross", "self", "random", "base", "sampler", "none")


@dataclass
class PairsConfig:
    # cross: an image and a reference with the same novel class (R) | self: images as for cross, each paired with itself
    # | random: any two images | base: two that share a base class | sampler: images as for cross, no loss of pairs
    # | none: a batch of inputs alone
    kind: str = choice("cross", KINDS)
    points: int = number(100, 2, 1 << 12)  # J: pixels drawn from each image (R)
    share: float = number(0.8, 0, 1)  # of them on the class that both images have (R)
    # paper: a reference for every image, never itself | released: one with a shared novel class for images of two novel
    # classes and more
    reference: str = choice("paper", ("paper", "released"))
    rarest: float = number(0.01, 0, 1)  # chance that the shared novel class is the rarest of an image's (R)
    most_novel: int = number(500, 1)  # references an image has for a novel class, at most (R)
    most_base: int = number(50, 1)  # … for its base classes together (R)
