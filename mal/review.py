"""Look at labelled masks, doubtful ones first, and carry out what was chosen.

python -m mal.review page masks.json --images DIR --out review.html
python -m mal.review apply masks.json masks_choices.json --out reviewed.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mal.data.annotations import CocoDict, check_images, read, write
from mal.data.mask_formats import encode_runs
from mal.engine.commands import command
from mal.engine.faults import show
from mal.engine.files import explain, sha256
from mal.errors import AnnotationError, ConfigError
from mal.pictures import LIMIT, write_review

CHOICES = ("keep", "reject", "box")
BY_HAND = "replaced by its filled box by hand"
MEASURED = ("score", "quality")  # of the mask that a box replaces


@command
def main(arguments: Sequence[str] | None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    print(options.run(options))


def make_page(options: argparse.Namespace) -> str:
    """Write the page for a file of masks, and say where it is.

    Raises:
        MalError: an input that cannot be used, or an output that exists or cannot be written.
    """
    out: Path = options.out
    _check_out(out, (options.labels,), overwrite=options.overwrite)
    check_images(read(options.labels, masks=True), options.images)
    try:
        write_review(options.labels, options.images, out, options.limit)
    except OSError as error:
        raise explain(error, out) from error
    return f"{out} ({out.stat().st_size / 1e6:.1f} MB): open it in a browser"


def apply_choices(options: argparse.Namespace) -> str:
    """Write the file with rejected annotations removed and chosen ones filled, and say how many.

    Raises:
        MalError: an input that cannot be used, choices made for another file, or an output that exists or cannot be
            written.
    """
    _check_out(options.out, (options.labels, options.choices), overwrite=options.overwrite)
    coco = read(options.labels, masks=True)
    choices = read_choices(options.choices, options.labels, {annotation["id"] for annotation in coco["annotations"]})
    write(options.out, reviewed(coco, choices))
    many = {choice: sum(value == choice for value in choices.values()) for choice in CHOICES}
    return (
        f"{many['keep']} kept, {many['reject']} rejected, {many['box']} filled boxes, "
        f"{len(coco['annotations']) - len(choices)} not decided and left as they were: {options.out}"
    )


def read_choices(path: Path, labels: Path, ids: set[int]) -> dict[int, str]:
    """What was chosen on a page, by annotation id.

    Args:
        labels: the file that the page was made from, whose annotations have `ids`.

    Raises:
        MalError: the file cannot be read, is not one that a page exports, or belongs to other labels.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; give the JSON that the page exports") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the JSON that the page exports") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}); give the file that the page exports") from error
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, dict) or "labels_sha256" not in content:
        raise ConfigError(f"{path} has no choices and labels_sha256; give the JSON that the page exports")
    if content["labels_sha256"] != (own := sha256(labels)):
        raise ConfigError(
            f"{path} was exported from the page of another file: its labels_sha256 is "
            f"{show(content['labels_sha256'])} and that of {labels} is {own}; give the file that the page was made from"
        )
    wrong = [(name, choice) for name, choice in choices.items() if choice not in CHOICES]
    if wrong:
        name, choice = wrong[0]
        raise ConfigError(
            f"{path}: {len(wrong)} choices are none of {', '.join(CHOICES)}, the first is {show(choice)} for "
            f"annotation {show(name)}; export them again"
        )
    by_text = {str(number): number for number in ids}
    unknown = [name for name in choices if name not in by_text]
    if unknown:
        raise AnnotationError(
            f"{path}: {len(unknown)} of {len(choices)} choices are for annotations that {labels} does not have, the "
            f"first is {show(unknown[0])}; export them again"
        )
    return {by_text[name]: choice for name, choice in choices.items()}


def reviewed(coco: CocoDict, choices: dict[int, str]) -> CocoDict:
    """A file of masks as it was chosen: every other annotation and field survives."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    annotations = []
    for annotation in coco["annotations"]:
        choice = choices.get(annotation["id"])
        if choice == "box":
            annotations.append(_filled(annotation, *sizes[annotation["image_id"]]))
        elif choice != "reject":
            annotations.append(annotation)
    return {**coco, "annotations": annotations}


def _filled(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """An annotation whose mask is its box: a polygon where it was polygons, else an RLE."""
    x, y, w, h = annotation["bbox"]
    left, top = (min(max(int(np.floor(start)), 0), side - 1) for start, side in ((x, width), (y, height)))
    right = max(min(int(np.ceil(x + w)), width), left + 1)
    bottom = max(min(int(np.ceil(y + h)), height), top + 1)
    segmentation: Any
    if isinstance(annotation["segmentation"], list):
        segmentation = [[left, top, right, top, right, bottom, left, bottom]]
    else:
        columns = np.arange(left, right) * height
        edges = np.stack([columns + top, columns + bottom], axis=1).ravel()
        if bottom - top == height:  # columns that touch are one run
            edges = edges[[0, -1]]
        segmentation = encode_runs(edges, height=height, width=width)
    kept = {key: value for key, value in annotation.items() if key not in MEASURED}
    label = {"segmentation": segmentation, "area": (right - left) * (bottom - top)}
    return {**kept, **label, "flagged": True, "flag_reason": BY_HAND}


def _check_out(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    if out.resolve() in {path.resolve() for path in inputs}:
        raise ConfigError(f"--out {out} is also an input, which would be overwritten; name another file")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file")
    if out.exists() and not overwrite:
        raise ConfigError(f"--out {out} exists; name another file, or replace it with --overwrite")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mal.review", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    page = commands.add_parser("page", help="write the page on which masks are looked at", allow_abbrev=False)
    page.add_argument("labels", type=Path, metavar="MASKS.json", help="what mal.label wrote (rle or polygon)")
    page.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    page.add_argument(
        "--limit", type=_limit, default=LIMIT, metavar="N", help="most doubtful masks; default: %(default)s"
    )
    page.set_defaults(run=make_page)
    apply = commands.add_parser("apply", help="carry out the choices that the page exported", allow_abbrev=False)
    apply.add_argument("labels", type=Path, metavar="MASKS.json", help="the file that the page was made from")
    apply.add_argument("choices", type=Path, metavar="CHOICES.json", help="what the page exported")
    apply.set_defaults(run=apply_choices)
    for part in (page, apply):
        part.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
        part.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of masks; give 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
