"""Settings of the losses of classes and masks, and of the matching. Sources: docs/method/simformer.md."""

from dataclasses import dataclass

from mal.bounds import choice, number


@dataclass
class LossesConfig:
    """The weights of classes, focal and dice are also those of the matching's costs."""

    classes: float = number(1.0, 0, 1e6)  # of the classes' cross-entropy
    nothing: float = number(0.1, 0, 1e6)  # of a query without target in it, beside 1 of the others
    focal: float = number(20.0, 0, 1e6)  # of masks, and within the complement's
    dice: float = number(1.0, 0, 1e6)
    alpha: float = number(0.25, 0, 1)  # of the focal loss
    gamma: float = number(2.0, 0, 100)
    complement: float = number(0.15, 0, 1e6)  # of the complement's loss; 0: none. The paper has .2 on ADE20K
    background: float = number(-2.9444, -1e3, 1e3)  # the least logit in the complement's maximum: σ = .05
    # a base class whose mask is empty at stride 4: keep (it stays base) | novel (released, where columns shift too)
    base_lost: str = choice("keep", ("keep", "novel"))
