"""Class maps from COCO-Stuff-10K v1.0, ADE20K, or your own index PNGs or COCO file.

python -m mal.semantic cocostuff --from cocostuff-10k-v1.0 --out ROOT
python -m mal.semantic ade20k --from ADEChallengeData2016 --out ROOT
python -m mal.semantic png --images FOLDER --labels FOLDER --classes names.txt --split train --out ROOT
python -m mal.semantic coco --annotations FILE --images FOLDER --split train --out ROOT [--ground class] [--groups]
python -m mal.semantic png | coco … --tags FILE    images of which only is known which classes they show
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mal.data.annotations import check_images, file_name
from mal.data.class_maps import class_list, write_class_maps
from mal.data.cocostuff import IMAGES, ade_pairs, read_ade, read_stuff, stuff_pairs
from mal.data.config import GROUNDS
from mal.data.semantic import FILE, IGNORED, SemanticFile, read_map
from mal.data.semantic_folders import SPLITS, Labelled, convert, pairs_in, place, shifted
from mal.data.tags import check_names, read_partly_masked, read_tags
from mal.engine.commands import command
from mal.engine.findings import number, some
from mal.errors import AnnotationError
from mal.methods.simformer.splits import classes_of

HELP = f"ROOT/images/SPLIT, ROOT/labels/SPLIT and its {FILE}, which data.SPLIT.annotations names for runs"


@command
def main(arguments: Sequence[str] | None) -> int:
    """Write the folders and say what is in them; 1 where a file is absent or wrong."""
    options = _parser().parse_args(arguments)
    try:
        options.work(options)
    except KeyboardInterrupt:
        return 130
    return 0


def _published(
    options: argparse.Namespace,
    name: str,
    data: str,
    pairs: Callable[[Path], dict[str, list[Labelled]]],
    reader: Callable[[Path, int], np.ndarray],
) -> None:
    """A data set of the papers: both of its splits."""
    classes = classes_of(data)
    for split, found in pairs(options.source).items():
        whole = IMAGES[name][split]
        if len(found) != whole:
            print(f"note: the whole {split} has {whole:,} images; here are {len(found):,}", flush=True)
        _say(*convert(split, found, classes, lambda path: reader(path, len(classes)), options.out))


def _cocostuff(options: argparse.Namespace) -> None:
    _published(options, "cocostuff", "coco_stuff_10k", stuff_pairs, read_stuff)


def _ade20k(options: argparse.Namespace) -> None:
    _published(options, "ade20k", "ade20k_150", ade_pairs, read_ade)


def _png(options: argparse.Namespace) -> None:
    """A user's index PNGs."""
    try:
        classes = [line.strip() for line in options.classes.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{options.classes} cannot be read ({error}); write one class per line") from error
    if not 1 <= len(classes) <= IGNORED or len({*classes}) < len(classes):
        raise AnnotationError(f"{options.classes} names {len(classes)} classes; write 1 to {IGNORED} different ones")
    first = 1 if options.zero == "unlabelled" else 0
    tags = None if options.tags is None else read_tags(options.tags, classes)
    pairs = pairs_in(options.images, options.labels, ".png", tags=tags)
    if tags is not None:
        check_names(tags, [pair.image.name for pair in pairs], options.tags)

    def values(path: Path) -> np.ndarray:
        return shifted(read_map(path), first, len(classes), path)

    _say(*convert(options.split, pairs, classes, values, options.out, tags=tags))


def _coco(options: argparse.Namespace) -> None:
    """A user's COCO instance file."""
    coco = read_partly_masked(options.annotations)
    check_images(coco, options.images)
    tags = None
    if options.tags is not None:
        tags = read_tags(options.tags, class_list(coco, ground=options.ground, groups=options.groups)[0])
        check_names(tags, [file_name(image) for image in coco["images"]], options.tags)
    labels, images = (options.out / kind / options.split for kind in ("labels", "images"))
    semantic = write_class_maps(labels / FILE, coco, ground=options.ground, groups=options.groups, tags=tags)
    for image in coco["images"]:
        place(options.images / file_name(image), images / file_name(image))
    _say(semantic, [])


def _say(semantic: SemanticFile, empty: list[str]) -> None:
    classes, images = number(len(semantic.classes), "class", "classes"), number(len(semantic.images), "image")
    tagged = sum(bool(image.tags) for image in semantic.images)
    more = f", {tagged} of them with tags" if tagged else ""
    print(f"{semantic.folder / FILE}: {classes} on {images}{more}", flush=True)
    if empty:
        print(f"note: {number(len(empty), 'image')} without a labelled pixel left out: {some(empty)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mal.semantic", description=HELP, allow_abbrev=False)
    kinds = parser.add_subparsers(required=True, metavar="cocostuff | ade20k | png | coco")
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument("--out", type=Path, required=True, metavar="ROOT", help="data.root for runs")
    published = argparse.ArgumentParser(add_help=False, parents=[out])
    published.add_argument("--from", type=Path, required=True, dest="source", metavar="FOLDER", help="as unpacked")
    own = argparse.ArgumentParser(add_help=False, parents=[out])
    own.add_argument("--images", type=Path, required=True, help="folder of the photographs")
    own.add_argument("--split", choices=SPLITS, required=True)
    own.add_argument(
        "--tags",
        type=Path,
        metavar="FILE",
        help="which classes images show, where their pixels are not labelled: CSV (x.jpg,dog,cat) or JSON "
        '({"x.jpg": ["dog", "cat"]})',
    )
    add = partial(kinds.add_parser, allow_abbrev=False)
    add("cocostuff", parents=[published], help="COCO-Stuff-10K v1.0; needs h5py").set_defaults(work=_cocostuff)
    add("ade20k", parents=[published], help="ADEChallengeData2016").set_defaults(work=_ade20k)
    png = add("png", parents=[own], help="your own index PNGs, named as the photographs are")
    png.add_argument("--labels", type=Path, required=True, help="folder of the PNGs")
    png.add_argument("--classes", type=Path, required=True, help="text file, one class per line, the first of value 0")
    png.add_argument("--zero", choices=("class", "unlabelled"), default="class", help="what 0 is; 1 is the first class")
    png.set_defaults(work=_png)
    coco = add("coco", parents=[own], help="your own COCO instance file; what has no mask in it is a tag")
    coco.add_argument("--annotations", type=Path, required=True)
    coco.add_argument("--ground", choices=GROUNDS, default="ignored", help="what no object covers")
    coco.add_argument("--groups", action="store_true", help="merge categories to their supercategories")
    coco.set_defaults(work=_coco)
    return parser


if __name__ == "__main__":
    sys.exit(main())
