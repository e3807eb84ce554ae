"""RefCOCO, RefCOCO+ and RefCOCOg as refer distributes them → COCO files, one for each split.

A data set is a folder with `refs(BY).p`, a pickle of expressions, and `instances.json`, COCO's annotations of the
images. A pickle may run any program that its author wants; this reader refuses every class, and so reads plain values
alone.
"""

import io
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mal.data.annotations import CocoDict, read
from mal.data.wording import words
from mal.engine.faults import show
from mal.engine.findings import number, some
from mal.errors import AnnotationError

SPLITS = ("train", "val", "testA", "testB", "test")  # in this order
DATASETS = {"refcoco": ("unc", "google"), "refcoco+": ("unc",), "refcocog": ("umd", "google")}  # → who split it
PUBLISHED = {  # data set, who split it, split → objects and expressions
    ("refcoco", "unc", "train"): (42404, 120624),
    ("refcoco", "unc", "val"): (3811, 10834),
    ("refcoco", "unc", "testA"): (1975, 5657),
    ("refcoco", "unc", "testB"): (1810, 5095),
}
KEYS = {"ref_id": int, "ann_id": int, "image_id": int, "split": str, "sentences": list}
NAMED = {int: "a whole number", str: "a text", list: "a list"}
MIRROR = "refer's own downloads are dead; the web archive has copies of its zip files"


def read_splits(folder: Path, by: str) -> dict[str, CocoDict]:
    """A data set's splits by name, in the order of `SPLITS`.

    A file holds the images of the split's expressions and the objects that these mean, each once, with the ids, boxes
    and masks of `instances.json`, `expressions` in the order of the pickle, and `ref_ids`.

    Args:
        folder: of the data set, such as `refcoco`. by: who split it.

    Raises:
        AnnotationError: a file is absent, is no such file, or names an object that there is not.
    """
    path = folder / f"refs({by}).p"
    refs = read_refs(path)
    coco = read(folder / "instances.json", masks=False)
    objects = {annotation["id"]: annotation for annotation in coco["annotations"]}
    unknown = [ref["ref_id"] for ref in refs if ref["ann_id"] not in objects]
    if unknown:
        raise AnnotationError(
            f"{path}: {number(len(unknown), 'reference')} of {len(refs)} mean an annotation that "
            f"{folder / 'instances.json'} does not have (ref_id {some(unknown)}); take both from one archive"
        )
    moved = [ref["ref_id"] for ref in refs if objects[ref["ann_id"]]["image_id"] != ref["image_id"]]
    if moved:
        raise AnnotationError(
            f"{path}: {number(len(moved), 'reference')} of {len(refs)} name another image than their annotation does "
            f"(ref_id {some(moved)}); take refs({by}).p and instances.json from one archive"
        )
    found = {split: [ref for ref in refs if ref["split"] == split] for split in SPLITS}
    return {split: _file(coco, objects, chosen) for split, chosen in found.items() if chosen}


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The references of a pickle: dicts with at least `KEYS`, and in `sentences` dicts with a text `sent` or `raw`.

    Raises:
        AnnotationError: it cannot be read, holds a class, or other values than these.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror}); {MIRROR}") from error
    try:
        refs = _PlainUnpickler(io.BytesIO(content), encoding="utf-8", errors="replace").load()
    except _ClassError as error:
        raise AnnotationError(
            f"{path} holds {error}, and a pickle with anything but plain values may run a program when it is read; "
            "take refer's own file, which has none"
        ) from error
    except Exception as error:  # a broken pickle raises whatever its bytes come to
        said = str(error) or type(error).__name__
        raise AnnotationError(f"{path} is not a readable pickle ({said}); download it again: {MIRROR}") from error
    if not isinstance(refs, list) or not refs:
        raise AnnotationError(f"{path} holds {show(refs)}; refer's file is a list of references")
    for place, ref in enumerate(refs):
        _check(ref, place, path)
    unknown = Counter(ref["split"] for ref in refs if ref["split"] not in SPLITS)
    if unknown:
        raise AnnotationError(f"{path} has the splits {some(unknown)}; refer's are {', '.join(SPLITS)}")
    return refs


class _ClassError(pickle.UnpicklingError):
    """A pickle that asks for a class or a function."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists, tuples, sets and dicts."""

    def find_class(self, module: str, name: str) -> Any:
        raise _ClassError(f"the class {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _ClassError(f"the reference {show(pid)} to an object outside it")


def _check(ref: Any, place: int, path: Path) -> None:
    """Refuse what is not a reference with words."""
    if not isinstance(ref, dict):
        raise AnnotationError(f"{path}: reference {place} is {show(ref)}; refer's are dicts")
    for key, kind in KEYS.items():
        if type(ref.get(key)) is not kind:
            found = f"{key}={show(ref.get(key))}, which must be {NAMED[kind]}"
            raise AnnotationError(f"{path}: reference {place} has {found}; take refer's own file")
    if not [*_texts(ref)]:
        raise AnnotationError(
            f"{path}: reference {ref['ref_id']} has the sentences {show(ref['sentences'])}, of which no word is left; "
            "remove it"
        )


def _texts(ref: Mapping[str, Any]) -> Iterator[str]:
    """What a reference says, as refer cleaned it (`sent`), else as it was typed; sentences without a word left out."""
    for sentence in ref["sentences"]:
        text = sentence.get("sent", sentence.get("raw")) if isinstance(sentence, dict) else None
        if isinstance(text, str) and words(text):
            yield text


def _file(coco: CocoDict, objects: Mapping[int, dict[str, Any]], refs: list[dict[str, Any]]) -> CocoDict:
    """The COCO file of some references."""
    said: dict[int, dict[str, Any]] = {}
    for ref in refs:
        entry = said.setdefault(ref["ann_id"], {"expressions": [], "ref_ids": []})
        entry["expressions"] += _texts(ref)
        entry["ref_ids"].append(ref["ref_id"])
    images = {ref["image_id"] for ref in refs}
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in images],
        "annotations": [objects[key] | said[key] for key in said],
    }
