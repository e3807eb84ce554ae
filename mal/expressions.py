"""Objects with referring expressions: COCO files from RefCOCO, RefCOCO+ and RefCOCOg, your own list, or templates.

python -m mal.expressions refer --root DATA --dataset refcoco --by unc --out ROOT/refcoco_unc
python -m mal.expressions json FILE --images FOLDER --out FILE
python -m mal.expressions templates FILE --out FILE
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mal.data.annotations import CocoDict, read, write
from mal.data.expressions import expressions_only
from mal.data.own_expressions import LAYOUT, read_own
from mal.data.refer import DATASETS, PUBLISHED, SPLITS, read_splits
from mal.data.templates import templated
from mal.engine.commands import command
from mal.engine.findings import number
from mal.errors import AnnotationError, ConfigError

OWN_HELP = (
    f"FILE is a list of {LAYOUT}; a mask (polygons or RLE) may stand beside the box or in its place, and a category. "
    "Entries of one image, box, mask and category are one object with several expressions; those without a mask, too, "
    "where one mask alone has their box."
)
HELP = "COCO files whose annotations have expressions, which data.SPLIT.annotations names for runs"


@command
def main(arguments: Sequence[str] | None) -> int:
    """Write the files and say what is in them; 1 where a file is absent or wrong."""
    options = _parser().parse_args(arguments)
    try:
        options.work(options)
    except KeyboardInterrupt:
        return 130
    return 0


def _refer(options: argparse.Namespace) -> None:
    """A published data set: all of its splits."""
    if options.by not in DATASETS[options.dataset]:
        known = " or ".join(DATASETS[options.dataset])
        raise ConfigError(f"--by {options.by}: {options.dataset} is not split so; choose --by {known}")
    _check_output(options, [options.out / "annotations" / f"{split}.json" for split in SPLITS], folder=options.out)
    folder = options.root if (options.root / f"refs({options.by}).p").exists() else options.root / options.dataset
    splits = read_splits(folder, options.by)
    for split, coco in splits.items():
        _write(options.out / "annotations" / f"{split}.json", coco)
        found = len(coco["annotations"]), _expressions(coco)
        whole = PUBLISHED.get((options.dataset, options.by, split), found)
        if found != whole:
            print(
                f"note: the whole {split} has {whole[0]:,} objects with {whole[1]:,} expressions; here are "
                f"{found[0]:,} with {found[1]:,}",
                flush=True,
            )
    former = [options.out / "annotations" / f"{split}.json" for split in SPLITS if split not in splits]
    for path in filter(Path.exists, former):
        print(f"note: {path} was there before, and is of another conversion: remove it", flush=True)


def _json(options: argparse.Namespace) -> None:
    """A user's own list."""
    _check_output(options, [options.out], folder=options.out.parent)
    _write(options.out, read_own(options.file, options.images))


def _templates(options: argparse.Namespace) -> None:
    """A COCO file without expressions."""
    _check_output(options, [options.out], folder=options.out.parent)
    coco = read(options.file, masks=False)
    made = templated(coco)
    if not made:
        raise AnnotationError(
            f"{options.file}: no template is true of one object alone, and of no other of its image; write expressions "
            f"of your own: `python -m mal.expressions json` takes a list of {LAYOUT}"
        )
    kept = [{key: value for key, value in a.items() if key != "expression"} for a in coco["annotations"]]
    _write(options.out, {**coco, "annotations": [{**a, "expressions": made.get(a["id"], [])} for a in kept]})


def _check_output(options: argparse.Namespace, files: Sequence[Path], *, folder: Path) -> None:
    """
    Args:
        files: that will be written. folder: that is made for them where it does not exist.

    Raises:
        ConfigError: a file is the input, or is there already, or the folder that `folder` would be made in is not.
    """
    source = getattr(options, "file", None)
    if source is not None and any(path.resolve() == source.resolve() for path in files):
        raise ConfigError(f"--out {options.out} is the file that is read; name another place")
    if options.out.is_dir() and options.out in files:
        raise ConfigError(f"--out {options.out} is a folder; name a file")
    if (there := [path for path in files if path.exists()]) and not options.overwrite:
        raise ConfigError(f"--out {options.out}: {there[0]} exists; name another place, or give --overwrite")
    if not folder.is_dir() and not folder.absolute().parent.is_dir():
        raise ConfigError(
            f"--out {options.out}: there is no folder {folder.absolute().parent}; make it, or correct --out"
        )


def _write(path: Path, coco: CocoDict) -> None:
    expressions_only(coco, source=path)  # refuses what no run could read
    write(path, coco)
    objects = sum(bool(annotation["expressions"]) for annotation in coco["annotations"])
    more = len(coco["annotations"]) - objects
    others = f", {more:,} without any" if more else ""
    print(
        f"{path}: {number(_expressions(coco), 'expression')} of {number(objects, 'object')} on "
        f"{number(len(coco['images']), 'image')}{others}",
        flush=True,
    )


def _expressions(coco: CocoDict) -> int:
    return sum(len(annotation["expressions"]) for annotation in coco["annotations"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mal.expressions", description=HELP, allow_abbrev=False)
    kinds = parser.add_subparsers(required=True, metavar="refer | json | templates")
    add = partial(kinds.add_parser, allow_abbrev=False)
    refer = add("refer", help="RefCOCO, RefCOCO+ or RefCOCOg as refer distributes them")
    refer.add_argument(
        "--root", type=Path, required=True, metavar="FOLDER", help="holds the data set's folder, or is it"
    )
    refer.add_argument("--dataset", choices=tuple(DATASETS), required=True)
    by = sorted({by for all_of in DATASETS.values() for by in all_of})
    refer.add_argument("--by", choices=by, required=True, help="who split it: refs(BY).p")
    refer.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="gets annotations/SPLIT.json")
    refer.set_defaults(work=_refer)
    own = add("json", help="your own: a list of texts with a box or a mask each", description=OWN_HELP)
    own.add_argument("file", type=Path, metavar="FILE", help="the list, in JSON")
    own.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="of the photographs")
    own.add_argument("--out", type=Path, required=True, metavar="FILE", help="COCO file to write")
    own.set_defaults(work=_json)
    templates = add("templates", help='"the dog", "the leftmost dog": made from the boxes of a COCO file')
    templates.add_argument(
        "file", type=Path, metavar="FILE", help="COCO file with boxes; expressions in it are replaced"
    )
    templates.add_argument("--out", type=Path, required=True, metavar="FILE", help="COCO file to write")
    templates.set_defaults(work=_templates)
    for kind in (refer, own, templates):
        kind.add_argument("--overwrite", action="store_true", help="replace what is at --out already")
    return parser


if __name__ == "__main__":
    sys.exit(main())
