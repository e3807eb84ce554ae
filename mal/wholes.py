"""Whole objects of a file that annotates their parts, for methods that shall find the parts by themselves.

python -m mal.wholes --annotations parts.json --category car --out FOLDER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mal.data.annotations import read, write
from mal.data.object_parts import wholes
from mal.engine.commands import command
from mal.engine.findings import number
from mal.errors import ConfigError

HELP = (
    "objects.json, where all that a file annotates on an image is one object, and parts.json, the annotations with the "
    "object_id of theirs, for data.val.parts"
)


@command
def main(arguments: Sequence[str] | None) -> int:
    """Write the two files and say what is in them."""
    parser = argparse.ArgumentParser(prog="python -m mal.wholes", description=HELP, allow_abbrev=False)
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instance file of parts, with masks")
    parser.add_argument("--category", required=True, help="what the objects are, such as car")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    options = parser.parse_args(arguments)
    source: Path = options.annotations
    files = {name: options.out / f"{name}.json" for name in ("parts", "objects")}
    for file in files.values():
        _check_out(file, source, overwrite=options.overwrite)
    category = options.category.strip()
    if not category.isprintable() or not category:
        raise ConfigError(f"--category {options.category!r} is no name; give what the objects are, such as car")
    objects, parts = wholes(read(source, masks=True), category, source=source)
    for name, coco in (("parts", parts), ("objects", objects)):
        write(files[name], coco)
        counted = number(len(coco["annotations"]), name.removesuffix("s"))
        print(f"{files[name]}: {counted} on {number(len(coco['images']), 'image')}")
    return 0


def _check_out(file: Path, source: Path, *, overwrite: bool) -> None:
    if file.resolve() == source.resolve():
        raise ConfigError(f"{file} is the file that is read, and would be overwritten; give another folder with --out")
    if file.exists() and not overwrite:
        raise ConfigError(f"{file} exists; give another folder with --out, or replace it with --overwrite")


if __name__ == "__main__":
    sys.exit(main())
