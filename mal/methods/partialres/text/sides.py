"""Left and right in an expression, which change places where an image is mirrored."""

from collections.abc import Sequence

SWAPPED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}


def swapped(words: Sequence[str]) -> tuple[str, ...]:
    """An expression with left and right in each other's place."""
    return tuple(SWAPPED.get(word, word) for word in words)
