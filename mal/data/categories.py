"""What a network tells apart: a file's categories, by their names."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

from mal.data.annotations import CocoDict
from mal.errors import AnnotationError


@dataclass
class Categories:
    """A file's categories, sorted by id, or everything as one; label i is the i-th."""

    ids: list[int]
    names: list[str]
    agnostic: bool = False  # whatever a file calls its objects, they are of the one class

    @classmethod
    def of(cls, coco: CocoDict, *, agnostic: bool) -> Self:
        if agnostic:
            return cls([1], ["object"], agnostic=True)
        found = sorted(coco["categories"], key=lambda category: int(category["id"]))
        return cls([int(category["id"]) for category in found], [_name(category) for category in found])

    def labels_of(self, coco: CocoDict, *, source: str) -> dict[int, int]:
        """A file's category ids → labels, by the categories' names.

        Raises:
            AnnotationError: an object of the file has a category of a name that is not among these.
        """
        theirs = {int(category["id"]): _name(category) for category in coco["categories"]}
        if self.agnostic:
            return dict.fromkeys(theirs.keys() | {int(each["category_id"]) for each in coco["annotations"]}, 0)
        if unknown := sorted(self.unknown(coco)):
            raise AnnotationError(
                f"{source} has objects of {', '.join(unknown[:5])}, which the network was not trained on; it knows "
                f"{', '.join(self.names[:20])}: rename the categories, or train on them"
            )
        known = {name: label for label, name in enumerate(self.names)}
        return {identity: known[name] for identity, name in theirs.items() if name in known}

    def unknown(self, coco: CocoDict) -> Counter[str]:
        """The names of a file's categories that are not among these → how many objects it has of each."""
        if self.agnostic:
            return Counter()
        theirs = {int(category["id"]): _name(category) for category in coco["categories"]}
        identities = [int(annotation["category_id"]) for annotation in coco["annotations"]]
        named = [theirs.get(identity, str(identity)) for identity in identities]
        return Counter(name for name in named if name not in self.names)


def _name(category: dict[str, Any]) -> str:
    return str(category.get("name", category["id"]))
