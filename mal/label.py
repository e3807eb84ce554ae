"""Label your own boxes, points or expressions with a trained labeler.

python -m mal.label --images DIR --boxes IN.json --labeler labeler.pt --out OUT.json
python -m mal.label --images DIR --points IN.json --labeler labeler.pt --out OUT.json    if it learned from points
python -m mal.label --images DIR --expressions IN.json --labeler labeler.pt --out OUT.json    from boxes and expressions
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mal.check import look
from mal.engine.commands import command
from mal.engine.findings import MISLEADS
from mal.methods.mal.shipped import labeler_path

FILES, FOLDERS = ("rle", "polygon"), ("png", "yolo")  # the formats of mal/data/export.py, whose import takes seconds
FORMATS = FILES + FOLDERS


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; 0 if every object has a mask."""
    return finish(lambda: _label(_parser().parse_args(arguments)))


def _label(options: argparse.Namespace) -> None:
    file = next(file for file in (options.boxes, options.points, options.expressions) if file is not None)
    for finding in look(file, options.images)[1]:
        if finding.level == MISLEADS:  # what stops is an error below
            print(f"note: {file}: {finding.text}", file=sys.stderr)
    from mal.own.label_files import label_files  # with torch, for which what the parser refuses need not wait

    print(label_files(options))


def finish(work: Callable[[], None]) -> int:
    """Do the work of a command that labels; its exit status."""
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def add_options(parser: argparse.ArgumentParser, *, others: bool = False) -> None:
    """What every command that labels a file asks for.

    Args:
        others: whether the file may be one of points or expressions instead of boxes.
    """
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    file = parser.add_mutually_exclusive_group(required=True) if others else parser
    file.add_argument("--boxes", type=Path, required=not others, metavar="IN.json", help="COCO file; it needs no masks")
    if others:
        file.add_argument(
            "--points",
            type=Path,
            metavar="IN.json",
            help="COCO file whose objects have `point`: [x, y], `points`: [[x, y], ...] (the first counts) or visible "
            "`keypoints`, for a labeler that learned from points; boxes and masks are not needed",
        )
        file.add_argument(
            "--expressions",
            type=Path,
            metavar="IN.json",
            help="COCO file whose objects have a box and `expressions`: [text, ...], for a labeler that learned from "
            "both; it needs no masks",
        )
    parser.add_argument("--out", type=Path, required=True, help="file (rle, polygon) or folder (png, yolo) to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out already")
    parser.add_argument("--format", choices=FORMATS, default="rle", help="default: rle, COCO's compressed masks")
    parser.add_argument("--preview", type=_count, default=0, metavar="N", help="also draw N examples beside the output")
    parser.add_argument(
        "--review",
        action=argparse.BooleanOptionalAction,
        help="also write a page beside the output that lists the masks from doubtful to sure",
    )
    masks = parser.add_argument_group("with --boxes alone") if others else parser
    masks.add_argument("--network", choices=["student", "teacher", "both"], help="default: as trained")
    masks.add_argument("--flip", action=argparse.BooleanOptionalAction, help="average with the mirrored crop's mask")
    masks.add_argument("--threshold", type=float, nargs="+", metavar="T", help="one number, or three for S, M and L")
    masks.add_argument("--batch", type=int, help="boxes at a time")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images; 0: none but this")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--on-bad-image", choices=["error", "skip"], default="error")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mal.label",
        description="Give every box, point or expression of a COCO file a mask.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--checkpoint",
        "--labeler",
        type=labeler_path,
        required=True,
        metavar="C",
        help="labeler.pt of a training run, or `default`: the labeler that is shipped",
    )
    add_options(parser, others=True)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of examples; give 0 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
