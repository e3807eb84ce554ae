"""PASCAL VOC 2012, with or without SBD, as COCO instance files, which data=voc reads.

python -m mal.voc --voc VOCdevkit/VOC2012 [--sbd benchmark_RELEASE/dataset] [--out FOLDER]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mal.data.annotations import write
from mal.data.voc import IMAGES, convert, names_of
from mal.engine.commands import command

HELP = "train.json, val.json, with --sbd train_aug.json, and beside each NAME_void.json with the pixels of no object"


@command
def main(arguments: Sequence[str] | None) -> int:
    """Write the files and say what is in them; 1 where a file is absent or wrong."""
    parser = argparse.ArgumentParser(prog="python -m mal.voc", description=HELP)
    parser.add_argument("--voc", type=Path, required=True, help="VOCdevkit/VOC2012; roots.voc for runs")
    parser.add_argument(
        "--sbd", type=Path, help="benchmark_RELEASE/dataset: for train_aug.json, which data=voc trains on"
    )
    parser.add_argument("--out", type=Path, help="folder of the files; VOC2012/instances unless given")
    options = parser.parse_args(arguments)
    out = options.out or options.voc / "instances"
    try:
        for split, names in names_of(options.voc, options.sbd).items():
            coco, void = convert(split, names, options.voc, options.sbd)
            write(out / f"{split}_void.json", void)
            write(out / f"{split}.json", coco)
            print(f"{out / split}.json: {len(coco['annotations'])} objects on {len(names)} images", flush=True)
            if len(names) != IMAGES[split]:
                print(
                    f"note: the whole {split} has {IMAGES[split]:,} images; the lists name {len(names):,}", flush=True
                )
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
