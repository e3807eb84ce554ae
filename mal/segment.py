"""Class maps of your own images with a trained SimFormer.

python -m mal.segment simformer.pt --images FOLDER --out FOLDER [--overlay]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mal.engine.commands import command
from mal.label import finish


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; 0 if every image has its map, or those without are skipped as asked."""
    return finish(lambda: _segment(_parser().parse_args(arguments)))


def _segment(options: argparse.Namespace) -> None:
    from mal.own.segment_images import segment_images  # with torch, for which what the parser refuses need not wait

    print(segment_images(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mal.segment",
        description="Give every pixel of images a class: one PNG per image whose values are the classes' ids and whose "
        "palette is for the eye, and classes.json, which names them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="simformer.pt of a training run, whose path the run prints"
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="images, also in folders below; turned upright by their EXIF tag, as viewers do",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where maps are written")
    parser.add_argument("--overlay", action="store_true", help="also draw each map over its image, in FOLDER/overlays")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out and was not written by this")
    parser.add_argument("--short-side", type=_pixels, metavar="N", help="in which images are seen; default: as trained")
    parser.add_argument("--long-side", type=_pixels, metavar="N", help="at most; default: as trained")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--on-bad-image", choices=["error", "skip"], default="error")
    return parser


def _pixels(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is no number of pixels; give 1 to {1 << 16}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
