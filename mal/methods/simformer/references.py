"""Which image is the reference of which."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from mal.engine.runtime import numpy_generator
from mal.errors import AnnotationError
from mal.methods.simformer.config.pairs import PairsConfig

Bools = NDArray[np.bool_]
BY_NOVEL = ("cross", "self", "sampler")  # kinds of pairs


def reads_base(kind: str) -> bool:
    """Whether references of this kind of pairs may depend on which base classes images have."""
    return kind in (*BY_NOVEL, "base")


class References:
    """Reference images by (draw, index), the same one in any process.

    Args:
        tags: novel classes of each image.
        base: (images, classes), base classes that an image has; None where `reads_base` says that none are read.

    Raises:
        AnnotationError: there is but one image.
    """

    def __init__(self, tags: Sequence[Collection[int]], base: Bools | None, config: PairsConfig, *, seed: int) -> None:
        if len(tags) < 2:
            raise AnnotationError(
                f"training has {len(tags)} image, which cannot be paired with another; add images, or set "
                "simformer.pairs.kind=none"
            )
        self.columns = sorted({tag for each in tags for tag in each})
        self.tags = np.array([[column in each for column in self.columns] for each in tags], dtype=bool)
        self.tags = self.tags.reshape(len(tags), len(self.columns))  # also of no column
        self.base, self.config, self.seed = base, config, seed

    def of(self, draw: int, index: int) -> int:
        """The position of the image that is the reference of the one at `index`.

        It shares exactly one novel class with it if there is such an image; else, by the paper's rule, any novel class,
        else a base class, else nothing. By the released rule it shares a novel class only with an image of two or more,
        and is the image itself where none has a base class in common.
        """
        generator = numpy_generator(self.seed, "simformer reference", draw, index)
        kind, paper = self.config.kind, self.config.reference == "paper"
        if kind in BY_NOVEL and self.tags[index].sum() >= (1 if paper else 2):
            found = self._by_novel(index, generator)
            if found is not None:
                return found
        if kind != "random":
            found = self._drawn(index, self._sharing_base(index), self.config.most_base, "base", generator)
            if found is not None:
                return found
        if kind in BY_NOVEL and not paper:
            return index
        other = int(generator.integers(len(self.tags) - 1))
        return other + (other >= index)

    def _by_novel(self, index: int, generator: np.random.Generator) -> int | None:
        own = np.flatnonzero(self.tags[index])
        shared = (self.tags & self.tags[index]).sum(1)
        tags = generator.permutation(own)
        if generator.random() < self.config.rarest:
            rarest = own[self.tags[:, own].sum(0).argmin()]
            tags = np.array([rarest, *tags[tags != rarest]])
        for tag in tags if self.config.reference == "paper" else tags[:1]:
            column = int(tag)
            exactly = (shared == 1) & self.tags[:, column]
            found = self._drawn(index, exactly, self.config.most_novel, f"novel {self.columns[column]}", generator)
            if found is not None:
                return found
        if self.config.reference == "released":
            return None
        return self._drawn(index, shared > 0, self.config.most_novel, "any novel", generator)

    def _sharing_base(self, index: int) -> Bools:
        assert self.base is not None
        return (self.base & self.base[index]).any(1)

    def _drawn(self, index: int, fitting: Bools, most: int, what: str, generator: np.random.Generator) -> int | None:
        """One of the fitting images but the image itself, of the list of at most `most` that it has for all draws."""
        fitting[index] = False
        found = np.flatnonzero(fitting)
        if len(found) > most:
            found = numpy_generator(self.seed, "simformer references", what, index).choice(found, most, replace=False)
        return int(generator.choice(found)) if len(found) else None
