"""Where a split's annotations and images are, and what identifies them before anything is read."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal.data.annotations import CocoDict, check_images, file_name, read, read_images
from mal.data.census import Census
from mal.data.config import DataConfig
from mal.data.image_folder import folder_fault
from mal.data.images import load_for
from mal.data.joins import join_labels
from mal.data.mask_kinds import with_masks
from mal.data.object_parts import read_parts
from mal.data.remembered import census, remembered
from mal.engine import ranks
from mal.engine.graph import Stage
from mal.engine.progress import Progress
from mal.engine.store import Fingerprints
from mal.errors import ConfigError, ImageError

SUGGESTED_VAL = (
    "annotations/instances_val2017.json",
    "lvis_v1_val.json",
    "instances/val.json",
)  # what data=coco, data=lvis and data=voc name below a root
ROOTS = {  # data set → its entry of roots, as experiments/conf/data has it
    **{name: name for name in ("coco", "lvis", "voc")},
    "coco_stuff_10k": "coco_stuff",
    "ade20k_150": "ade20k",
    **dict.fromkeys(("refcoco", "refcoco_plus", "refcocog_google", "refcocog_umd"), "refcoco"),
}


@dataclass(frozen=True)
class Parts:
    """A file of objects' parts, and what must be said of it."""

    file: Path
    remark: str | None = None


@dataclass(frozen=True)
class Split:
    """Annotations and images of one split: files of the user's, or drawn by a stage."""

    name: str  # train | val
    annotations: Path
    images: Path
    has_masks: bool
    dataset: str | None = None  # its name; None: data.name
    drawn: Stage | None = None
    census: Census | None = None  # of a file of the user's with annotations
    sources: tuple[tuple[str, str], ...] = ()
    parts: Parts | None = None  # of its objects, with masks, which no method sees

    @property
    def inputs(self) -> dict[str, Stage]:
        """The stage that draws it, as an input of what reads it."""
        return {} if self.drawn is None else {"data": self.drawn}

    def human(self) -> CocoDict:
        """The file with those of its annotations that have a human mask."""
        return with_masks(read(self.annotations, masks=False, boxes=False))


def files_split(name: str, data: DataConfig, fingerprints: Fingerprints) -> Split | None:
    """A split in files; None where the config names no annotations for it.

    A practitioner's command names train.annotations and train.images and nothing else; the paths of val that
    `data=coco` suggests belong to `data.root`, so without a root they name nothing.

    Raises:
        ConfigError, MalError: a path that is not set or does not exist.
        AnnotationError: annotations that cannot be read or trusted.
    """
    split = getattr(data, name)
    if split.annotations is None or split.images is None:
        return None
    folder = getattr(split, "root", None) or data.root
    root = Path(folder) if folder else Path()
    annotations, images = root / split.annotations, root / split.images
    if folder is None and not annotations.exists():
        if name == "val" and split.annotations in SUGGESTED_VAL:
            return None
        held = " and ".join(it for it in (split.annotations, split.images) if it != ".")
        raise ConfigError(
            f"data.{name}.annotations={split.annotations} does not exist and data.root is not set; "
            f"give data.root=FOLDER, which holds {held}{_for_good(data)}, "
            f"or both data.{name}.annotations=FILE and data.{name}.images=FOLDER"
        )
    fault = folder_fault(images)
    if fault:
        raise ConfigError(f"data.{name}.images={split.images}: {fault}")
    skip = data.on_bad_image == "skip"
    sources = ranks.on_first(lambda: _digests(annotations, images, fingerprints, skip_unreadable=skip))
    # test sets are lists of images
    found = None if name == "test" else ranks.on_first(lambda: census(annotations, fingerprints))
    has_masks = found is not None and found.has_masks
    parts = _parts(root, annotations, data, fingerprints) if name == "val" else None
    return Split(name, annotations, images, has_masks, sources=tuple(sources.items()), census=found, parts=parts)


def _parts(root: Path, annotations: Path, data: DataConfig, fingerprints: Fingerprints) -> Parts | None:
    """The file of the validation objects' parts, which is refused before anything is trained.

    Raises:
        ConfigError: there is no such file.
        AnnotationError: see `read_parts`.
    """
    if data.val.parts is None:
        return None
    path = root / data.val.parts
    if not path.is_file():
        raise ConfigError(
            f"data.val.parts={data.val.parts}: there is no file {path}; `python -m mal.wholes` writes one beside that "
            "of the objects"
        )
    which = data.val_images

    def remark() -> str | None:
        return read_parts(path, annotations, which=which).remark

    about = f"parts-{which}"
    return Parts(path, ranks.on_first(lambda: remembered(about, 1, [path, annotations], remark, fingerprints)))


def maps_split(name: str, data: DataConfig, fingerprints: Fingerprints) -> Split | None:
    """A split whose annotations are class maps: `annotations` names a semantic.json, beside which the maps lie; None
    where the config names none.

    Raises:
        ConfigError: a path that is not set or does not exist.
        AnnotationError: the file cannot be read.
        ImageError: images or maps are not there.
    """
    split = getattr(data, name)
    if split.annotations is None or split.images is None:
        return None
    root = Path(data.root) if data.root else Path()
    annotations, images = root / split.annotations, root / split.images
    if not annotations.is_file():
        raise ConfigError(
            f"data.{name}.annotations={split.annotations}: there is no file {annotations}; write it with "
            f"`python -m mal.semantic`, and give data.root=FOLDER{_for_good(data)}"
        )
    if fault := folder_fault(images):
        raise ConfigError(f"data.{name}.images={split.images}: {fault}")
    sources = ranks.on_first(lambda: _map_digests(annotations, images, fingerprints))
    return Split(name, annotations, images, has_masks=True, sources=tuple(sources.items()))


def _map_digests(annotations: Path, images: Path, fingerprints: Fingerprints) -> dict[str, str]:
    """What identifies class maps: the bytes of their file, of the maps that it names, and of the images."""
    content = fingerprints.file(annotations)
    entries = read_images(annotations)
    names = [file_name(entry) for entry in entries]
    maps = [str(entry["map"]) for entry in entries if entry.get("map") is not None]
    return {
        "annotations": content,
        "images": fingerprints.images(images, names),
        "maps": fingerprints.images(annotations.parent, maps),
    }


def _digests(annotations: Path, images: Path, fingerprints: Fingerprints, *, skip_unreadable: bool) -> dict[str, str]:
    """What identifies a split: the bytes of its annotation file and of the images that this names.

    Whatever else lies in the folder does not count: nothing reads it, and a file that comes to lie beside the images
    must not give days of work another key.

    Raises:
        AnnotationError: the file cannot be read, or an image in it has no name.
        ImageError: images are not there.
    """
    content = fingerprints.file(annotations)
    names = fingerprints.derived(  # parsing COCO's file takes ten seconds
        "image-names-1", content, lambda: sorted({file_name(image) for image in read_images(annotations)})
    )
    try:
        found = fingerprints.images(images, names, skip_unreadable=skip_unreadable)
    except ImageError:
        check_images({"images": [{"file_name": name} for name in names]}, images)  # says how many, and where they are
        raise
    return {"annotations": content, "images": found}


def label_join(labels: Path, split: Split, fingerprints: Fingerprints) -> tuple[bool, str | None]:
    """How a pseudo-label file is joined to the boxes of a split in files: whether by annotation id, and what must be
    said of it.

    Raises:
        AnnotationError: it is not a file of these boxes' labels.
    """

    def join() -> dict[str, Any]:
        joined = join_labels(read(labels, masks=True), read(split.annotations, masks=False), source=labels)
        return {"by_id": joined.by_id, "remark": joined.remark and joined.remark.removeprefix(f"{labels}: ")}

    found = ranks.on_first(lambda: remembered("label-join", 1, [labels, split.annotations], join, fingerprints))
    return found["by_id"], found["remark"] and f"{labels}: {found['remark']}"


def unreadable(coco: CocoDict, folder: Path, *, workers: int) -> list[int]:
    """Ids of the images that cannot be decoded, each reported by name. Decodes every image once.

    For `data.on_bad_image=skip`: what is skipped is known, and counted, before training starts.
    """

    def problem(image: dict[str, Any]) -> str | None:
        try:
            load_for(image, folder)
        except ImageError as error:
            return str(error)
        return None

    bad = []
    with (
        ThreadPoolExecutor(max(1, workers)) as threads,
        Progress("check images", total=len(coco["images"]), unit="image") as bar,
    ):
        for image, reason in zip(coco["images"], threads.map(problem, coco["images"]), strict=True):
            bar.advance()
            if reason is not None:
                print(f"skipped: {reason}", file=sys.stderr, flush=True)
                bad.append(image["id"])
    return bad


def _for_good(data: DataConfig) -> str:
    """How to say once where a data set of the menu lies."""
    root = ROOTS.get(data.name)
    return f" (for good: roots: {{{root}: FOLDER}} in experiments/conf/local.yaml)" if root else ""
