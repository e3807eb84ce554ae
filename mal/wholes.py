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

HELP = (
    "objects.json, where all that a file annotates on an image is one object, and parts.json, the annotations with the "
    "object_id of theirs, for data.val.parts"
)


@command
def main(arguments: Sequence[str] | None) -> int:
    """Write the two files and say what is in them."""
    parser = argparse.ArgumentParser(prog="python -m mal.wholes", description=HELP)
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instance file of parts, with masks")
    parser.add_argument("--category", required=True, help="what the objects are, such as car")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    options = parser.parse_args(arguments)
    source: Path = options.annotations
    objects, parts = wholes(read(source, masks=True), options.category, source=source)
    for name, coco, what in (("parts", parts, "parts"), ("objects", objects, "objects")):
        write(options.out / f"{name}.json", coco)
        print(f"{options.out / name}.json: {len(coco['annotations'])} {what} on {len(coco['images'])} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
