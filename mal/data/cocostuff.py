"""COCO-Stuff-10K v1.0 and ADE20K (SceneParse150) as they are got: where files lie, and how labels are numbered.

COCO-Stuff (Caesar et al., "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018): a MATLAB 7.3 file (HDF5) for
each photograph, its field `S` of classes counted from 2, 1 for unlabelled, and its field `names`. ADEChallengeData2016
(Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017): PNGs of classes counted from 1, 0 for unlabelled.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mal.data.semantic import read_map
from mal.data.semantic_folders import Labelled, pairs_in, shifted
from mal.engine.findings import some
from mal.errors import AnnotationError, ConfigError

IMAGES = {  # of the whole data sets, by split
    "cocostuff": {"train": 9000, "test": 1000},
    "ade20k": {"train": 20210, "test": 2000},
}
FIRST_STUFF, FIRST_ADE = 2, 1  # the values of class 0
UNLABELLED = "unlabeled"  # the first of the names in v1.0's files
GET_STUFF = (
    "get cocostuff-10k-v1.0.zip by github.com/nightrome/cocostuff10k, unpack it, and give --from the folder that holds "
    "annotations, images and imageLists"
)
GET_ADE = (
    "get ADEChallengeData2016.zip from sceneparsing.csail.mit.edu, unpack it, and give --from …/ADEChallengeData2016, "
    "which holds annotations and images"
)


def stuff_pairs(folder: Path) -> dict[str, list[Labelled]]:
    """COCO-Stuff-10K's photographs by split, in the order of imageLists.

    Raises:
        AnnotationError: a list or a file is absent; says what to download and where it goes.
    """
    found = {}
    for split in IMAGES["cocostuff"]:
        path = folder / "imageLists" / f"{split}.txt"
        try:
            names = path.read_text(encoding="utf-8").split()
        except OSError as error:
            raise AnnotationError(f"{path} cannot be read ({error.strerror or error}); {GET_STUFF}") from error
        if not names or len({*names}) < len(names):
            raise AnnotationError(f"{path} names no photographs, or one of them twice; {GET_STUFF}")
        found[split] = _pairs(folder / "images", folder / "annotations", ".mat", GET_STUFF, names)
    return found


def ade_pairs(folder: Path) -> dict[str, list[Labelled]]:
    """ADE20K's photographs by split: `train` is its training, `test` its validation.

    Errors are those of `stuff_pairs`.
    """
    parts = {"train": "training", "test": "validation"}
    return {
        split: _pairs(folder / "images" / part, folder / "annotations" / part, ".png", GET_ADE)
        for split, part in parts.items()
    }


def read_stuff(path: Path, classes: int) -> np.ndarray:
    """The class map of one of COCO-Stuff-10K's files.

    Raises:
        ConfigError: h5py is not installed.
        AnnotationError: the file is none of v1.0's.
    """
    return stuff_map(*read_mat(path), classes, path)


def read_mat(path: Path) -> tuple[np.ndarray, list[str]]:
    """The fields `S`, transposed to (height, width), and `names` of a MATLAB 7.3 file; errors as `read_stuff`."""
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            "COCO-Stuff's .mat files are HDF5, and h5py, which reads them, is not installed; "
            "pip install h5py, or install this package with its extra `cocostuff`"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            values = np.asarray(file["S"]).T  # MATLAB's arrays lie column by column
            names = [_text(np.asarray(file[reference])) for reference in np.asarray(file["names"]).ravel()]
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:  # whatever h5py meets in another file
        raise AnnotationError(f"{path} cannot be read as COCO-Stuff-10K's labels ({error!r}); {GET_STUFF}") from error
    return values, names


def stuff_map(values: np.ndarray, names: list[str], classes: int, source: Path) -> np.ndarray:
    """v1.0's values, 1 for unlabelled and classes from 2 on → a class map.

    Args:
        values: (height, width). names: in the file, the unlabelled one first. classes: how many there are.

    Raises:
        AnnotationError: the names are not v1.0's, such as v1.1's, or a value is of no class.
    """
    if len(names) != classes + 1 or names[0] != UNLABELLED:
        raise AnnotationError(
            f"{source} has {len(names)} names of classes, from {some(names) or 'none'}, and v1.0's files "
            f"{classes + 1}, from {UNLABELLED!r}; v1.1 numbers its classes differently and cannot be compared: "
            f"{GET_STUFF}"
        )
    return shifted(values, FIRST_STUFF, classes, source)


def read_ade(path: Path, classes: int) -> np.ndarray:
    """The class map of one of ADEChallengeData2016's PNGs.

    Raises:
        AnnotationError: it cannot be read, or holds a value of no class, as the full ADE20K's files do.
    """
    return shifted(read_map(path), FIRST_ADE, classes, path)


def _pairs(images: Path, labels: Path, ending: str, way_out: str, names: list[str] | None = None) -> list[Labelled]:
    try:
        return pairs_in(images, labels, ending, names)
    except AnnotationError as error:
        raise AnnotationError(f"{error}; {way_out}") from error


def _text(letters: np.ndarray[Any, Any]) -> str:
    """MATLAB's characters, numbers in HDF5."""
    return "".join(map(chr, letters.ravel()))
