"""PASCAL VOC 2012's segmentations, and those of SBD, as COCO instance files.

VOC (Everingham et al.) has an image of object numbers and one of classes for each photograph; pixels of value 255,
along contours and on what is too hard, are void. SBD (Hariharan et al., "Semantic Contours from Inverse Detectors",
ICCV 2011) annotates VOC's other photographs in files of MATLAB, without void. `train_aug` is what papers call so: SBD's
train and val and VOC's train, without VOC's val.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mal.data.annotations import CocoDict, encode_mask, instance
from mal.engine.findings import some
from mal.engine.progress import Progress
from mal.errors import AnnotationError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
LISTS = Path("ImageSets") / "Segmentation"
_NAME = re.compile(r"\d{4}_\d{6}")
IMAGES = {"train": 1464, "val": 1449, "train_aug": 10582}  # of the whole data sets
GET_VOC = (
    "get VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012, unpack it, and give "
    "--voc …/VOCdevkit/VOC2012, which holds JPEGImages, ImageSets, SegmentationObject and SegmentationClass"
)
GET_SBD = (
    "get benchmark.tgz from www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours, unpack it, "
    "and give --sbd …/benchmark_RELEASE/dataset, which holds inst, train.txt and val.txt"
)


@dataclass(frozen=True)
class Objects:
    """The objects of a photograph: their masks' numbers and which pixels are void, (H, W), and each number's class."""

    numbers: np.ndarray  # uint8; 0 is background
    void: np.ndarray  # bool
    classes: dict[int, int]  # number → class, 1 … 20


def names_of(voc: Path, sbd: Path | None) -> dict[str, list[str]]:
    """The photographs of each split, sorted: `train`, `val` and, with SBD, `train_aug`.

    Args:
        voc: VOCdevkit/VOC2012. sbd: benchmark_RELEASE/dataset.

    Raises:
        AnnotationError: a list is absent or empty; says what to download and where it goes.
    """
    names = {split: _names(voc / LISTS / f"{split}.txt", GET_VOC) for split in ("train", "val")}
    if sbd is not None:
        more = {name for split in ("train", "val") for name in _names(sbd / f"{split}.txt", GET_SBD)}
        names["train_aug"] = sorted((more | {*names["train"]}) - {*names["val"]})
    return names


def convert(split: str, names: list[str], voc: Path, sbd: Path | None) -> tuple[CocoDict, CocoDict]:
    """A split as a COCO instance file, and its void pixels as another.

    VOC's own annotation is taken for VOC's photographs, SBD's for the rest.

    Args:
        split: its name, for the file. names: its photographs, such as 2007_000032.
        voc, sbd: see `names_of`.

    Returns:
        (images with `file_name` below JPEGImages, an annotation for each object with its tight `bbox`, `area` and RLE,
        VOC's 20 categories under ids 1 … 20; the same images with an RLE of the void pixels for each that has some).
        Void pixels belong to no object. They lie in a file of their own because they run along the objects' contours.

    Raises:
        AnnotationError: a file is absent, cannot be read or contradicts another; names it.
    """
    own = {name for split in ("train", "val") for name in _names(voc / LISTS / f"{split}.txt", GET_VOC)}
    _check_there([voc / "JPEGImages" / f"{name}.jpg" for name in names], GET_VOC)
    for folder in ("SegmentationObject", "SegmentationClass"):
        _check_there([voc / folder / f"{name}.png" for name in names if name in own], GET_VOC)
    if sbd is not None:
        _check_there([sbd / "inst" / f"{name}.mat" for name in names if name not in own], GET_SBD)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    voids: list[dict[str, Any]] = []
    with Progress(f"convert {split}", total=len(names), unit="image") as progress:
        for name in names:
            found = read_sbd(sbd, name) if sbd is not None and name not in own else read_voc(voc, name)
            image = {"id": int(name.replace("_", "")), "file_name": f"{name}.jpg", **_size(voc, name, found)}
            images.append(image)
            for number, category in sorted(found.classes.items()):
                identity = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category}
                annotations.append(identity | instance(found.numbers == number))
            if found.void.any():
                entry = {"id": len(voids) + 1, "image_id": image["id"], "segmentation": encode_mask(found.void)}
                voids.append(entry)
            progress.advance()
    about = {"description": f"PASCAL VOC 2012, split {split}{'' if sbd is None else ', with SBD'}"}
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    coco = {"info": about, "images": images, "annotations": annotations, "categories": categories}
    return coco, {"info": about, "images": images, "annotations": voids}


def read_voc(voc: Path, name: str) -> Objects:
    """The objects of one of VOC's photographs. An object's class is that of most of its pixels.

    Raises:
        AnnotationError: the two images are no index images, differ in size, or an object has no class.
    """
    numbers, classes = (_index_image(voc / f"Segmentation{kind}" / f"{name}.png") for kind in ("Object", "Class"))
    if numbers.shape != classes.shape:
        raise AnnotationError(
            f"{voc / 'SegmentationObject' / name}.png has {numbers.shape} pixels and SegmentationClass's has "
            f"{classes.shape}; {GET_VOC}"
        )
    void = numbers == VOID
    found = {}
    for number in np.unique(numbers[(numbers > 0) & ~void]):
        counts = np.bincount(classes[numbers == number], minlength=256)
        counts[[0, VOID]] = 0
        found[int(number)] = _class(int(counts.argmax()), voc / "SegmentationClass" / f"{name}.png", number)
    return Objects(numbers * ~void, void, found)


def read_sbd(sbd: Path, name: str) -> Objects:
    """The objects of one of SBD's photographs; none of its pixels is void.

    Raises:
        AnnotationError: the file is none of MATLAB's or has no such struct, or an object has no class.
    """
    from scipy.io import loadmat  # half a second

    path = sbd / "inst" / f"{name}.mat"
    try:
        struct = loadmat(path, squeeze_me=True, struct_as_record=False)["GTinst"]
        numbers, classes = np.asarray(struct.Segmentation, dtype=np.uint8), np.atleast_1d(struct.Categories)
    except Exception as error:  # scipy raises whatever its parser meets
        raise AnnotationError(f"{path} cannot be read as SBD's instances ({error!r}); {GET_SBD}") from error
    found = {}
    for number in np.unique(numbers[numbers > 0]):
        category = int(classes[number - 1]) if number <= len(classes) else 0
        found[int(number)] = _class(category, path, number)
    return Objects(numbers, np.zeros_like(numbers, dtype=bool), found)


def _names(path: Path, way_out: str) -> list[str]:
    try:
        names = sorted(path.read_text(encoding="utf-8").split())
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror or error}); {way_out}") from error
    odd = [name for name in names if not _NAME.fullmatch(name)]
    if odd or not names:
        raise AnnotationError(f"{path} names {some(odd) or 'nothing'} in place of photographs of VOC 2012; {way_out}")
    return names


def _check_there(paths: list[Path], way_out: str) -> None:
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise AnnotationError(
            f"{len(absent)} of {len(paths)} files are absent from {absent[0].parent}: {some(p.name for p in absent)}; "
            f"{way_out}"
        )


def _index_image(path: Path) -> np.ndarray:
    """(H, W) uint8 of an image whose pixels are numbers; its palette is for the eye."""
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image)
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read as an image ({error}); {GET_VOC}") from error
    if mode not in ("P", "L"):
        raise AnnotationError(f"{path} holds colours (mode {mode}), not the numbers of objects or classes; {GET_VOC}")
    return pixels


def _class(found: int, path: Path, number: int) -> int:
    if not 1 <= found <= len(CLASSES):
        raise AnnotationError(
            f"{path}: object {number} has class {found}, which is none of VOC's 1 to {len(CLASSES)}; get the file anew"
        )
    return found


def _size(voc: Path, name: str, found: Objects) -> dict[str, int]:
    """Width and height of a photograph, which must be those of its annotation."""
    path = voc / "JPEGImages" / f"{name}.jpg"
    try:
        with Image.open(path) as image:
            width, height = image.size
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read as an image ({error}); {GET_VOC}") from error
    if found.numbers.shape != (height, width):
        tall, wide = found.numbers.shape
        raise AnnotationError(
            f"{path} has {width} x {height} pixels and its annotation {wide} x {tall}; one of the two is another file's"
        )
    return {"width": width, "height": height}
