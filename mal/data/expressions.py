"""Referring expressions: what a file says of its objects, and the view of methods that learn from it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mal.data.strip import strip
from mal.data.templates import templated
from mal.data.wording import words
from mal.engine.faults import Fault, Problem, describe, show
from mal.engine.findings import number, say, some
from mal.errors import AnnotationError

__all__ = ["expressions_only", "of_annotation", "words"]

OWN = ("expressions", "expression")  # keys of an annotation's own expressions: a list of texts, one text
WAY_OUT = 'write "expressions": ["the red star", ...]'
WRITE_THEM = 'write them into the file as "expressions": ["the red star", …]'  # where there is none at all
OR_TEMPLATES = f"{WRITE_THEM}, or set data.expressions.kind=templates, which makes them from boxes and categories"


def of_annotation(annotation: Mapping[str, Any]) -> list[str]:
    """The expressions that a file gives for an object, in its order; empty where it gives none.

    They are `"expressions": [text, …]`, or `"expression": text`, or both one after the other. The same text twice
    stays: each was said of the object, and each is measured.

    Raises:
        AnnotationError: one is no text, or no word is left of it (`words`).
    """
    found = _own(annotation)
    if isinstance(found, Fault):
        raise AnnotationError(found.text)
    return found


def expressions_only(
    coco: dict[str, Any],
    *,
    kind: str = "file",
    source: str | Path = "the file",
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The expressions view: a file without its masks (`strip`), and with `expressions` in every annotation.

    Args:
        coco: a COCO file that `annotations.read` gave, with boxes.
        kind: `file`: each object's own expressions; `templates`: made from boxes and categories (`templated`), whatever
            the file says.
        source: the file's name, for the errors.
        tell: takes what is odd and yet usable; by default it goes to standard error, as a note on the file.

    Returns:
        A new file. `expressions` is a list of texts, empty for objects of which nothing is said, and for crowds: they
        are several objects, so what a file says of one is left out, and counted.

    Raises:
        AnnotationError: expressions that are no text, or of which no word is left; all of them, by kind of fault.
    """
    view = strip(coco)
    made = templated(view) if kind == "templates" else {}
    annotations, problems, crowds = [], [], []
    for annotation in view["annotations"]:
        found = made.get(annotation["id"], []) if kind == "templates" else _own(annotation)
        if isinstance(found, Fault):
            problems.append(Problem(found.kind, "annotations", str(annotation["id"]), found.text))
            continue
        if found and annotation.get("iscrowd", 0):
            crowds.append(annotation["id"])
            found = []
        kept = {key: value for key, value in annotation.items() if key not in OWN}
        annotations.append({**kept, "expressions": found})
    if problems:
        raise AnnotationError(describe(problems, source))
    remarks = []
    if crowds:
        remarks.append(
            f"expressions of {number(len(crowds), 'crowd')} (iscrowd 1; annotations {some(crowds)}) are left out, for "
            "a crowd is no single object"
        )
    remarks += _ambiguous(annotations)
    for remark in remarks:
        tell(remark) if tell is not None else say(source, remark)
    return {**view, "annotations": annotations}


def texts_among(annotation: Mapping[str, Any]) -> list[str]:
    """The texts among what stands for an object's expressions; what is none, which `of_annotation` refuses, is passed
    over."""
    listed, single = (annotation.get(key) for key in OWN)
    return [text for text in [*(listed if isinstance(listed, list) else ()), single] if isinstance(text, str)]


def words_in(coco: Mapping[str, Any]) -> set[str]:
    """Every word of a file's own expressions, those of crowds left out."""
    objects = (annotation for annotation in coco["annotations"] if not annotation.get("iscrowd", 0))
    return {word for annotation in objects for text in texts_among(annotation) for word in words(text)}


def _ambiguous(annotations: list[dict[str, Any]]) -> list[str]:
    """That expressions are said of several objects of an image, if some are."""
    meant: dict[tuple[Any, ...], set[int]] = {}
    for each in annotations:
        for text in each["expressions"]:
            meant.setdefault((each["image_id"], *words(text)), set()).add(each["id"])
    several = [(text, sorted(ids)) for (_, *text), ids in meant.items() if len(ids) > 1]
    if not several:
        return []
    shown = some([f"{show(' '.join(text))} of {', '.join(map(str, ids))}" for text, ids in several])
    what = number(len(several), "expression is", "expressions are")
    return [f"{what} said of several objects of one image ({shown}): nothing tells which of them is meant"]


def _own(annotation: Mapping[str, Any]) -> list[str] | Fault:
    listed, single = annotation.get("expressions"), annotation.get("expression")
    name = f"annotation {annotation.get('id')}"
    if listed is not None and not isinstance(listed, list):
        text = f"{name} has expressions={show(listed)}; it must be a list of texts: {WAY_OUT}"
        return Fault("expressions that are no list", text)
    given = [*(listed or []), *([] if single is None else [single])]
    for text in given:
        if not isinstance(text, str):
            return Fault("an expression that is no text", f"{name} has the expression {show(text)}; {WAY_OUT}")
        if not words(text):
            return Fault(
                "an expression without a word",
                f"{name} has the expression {show(text)}, of which no word is left; write words, or leave it out",
            )
    return given
