"""What is wrong with the entries of a file: each fault in a sentence, many of them in one readable paragraph."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

NAMED = 3  # of the entries that share a fault
KINDS = 4  # of fault, each with a sentence of its own
LARGEST = 1000  # parts of a value that is shown as Python writes it


class Fault(NamedTuple):
    """One fault of a value."""

    kind: str  # what it shares with others of its sort: "the bbox lies outside its image"
    text: str  # the value, what is wrong with it, and the way out


@dataclass(frozen=True)
class Problem:
    """One fault of one entry of a file, or of the file as a whole."""

    kind: str  # as a fault's
    entries: str  # the list the entry is in: "annotations"; "" for the whole file
    name: str  # the entry's id or place: "11", "entry 3"; "" for the whole file
    text: str  # a sentence that names the entry, the value and the way out


def describe(problems: Sequence[Problem], source: str | Path) -> str:
    """All problems of a file in one paragraph: how many entries of each kind, the first few, and the first's sentence.

    Args:
        problems: at least one. source: the file's name.
    """
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.entries, problem.kind), []).append(problem)
    sentences = [_sentence(group) for group in kinds.values()]
    if len(sentences) == 1:
        return f"{source}: {sentences[0]}"
    text = f"{source}: " + ". Also ".join(sentences[:KINDS])
    if len(sentences) > KINDS:
        rest = [problem for group in list(kinds.values())[KINDS:] for problem in group]
        text += f". And {len(sentences) - KINDS} more kinds of fault in {len(rest)} entries"
    return text


def _sentence(group: Sequence[Problem]) -> str:
    first = group[0]
    if len(group) == 1:
        return first.text
    names = ", ".join(problem.name for problem in group[:NAMED]) + (", ..." if len(group) > NAMED else "")
    return f"{first.text} ({len(group)} {first.entries} have this fault: {names})"


def show(value: Any) -> str:
    """A value for an error message, cut where it is long."""
    try:
        text = repr(value) if _is_small(value) else reprlib.repr(value)
    except RecursionError:
        return "nested too deeply to be shown"
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-12:]}"


def _is_small(value: Any) -> bool:
    """Whether it has no more than LARGEST parts, counted as often as they would be written: a list that holds another
    one twice, and so on, doubles with every level."""
    waiting, seen = [value], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > LARGEST:
            return False
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
    return True
