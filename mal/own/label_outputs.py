"""What labelling a file of boxes writes for its user, and where."""

import argparse
import glob
import shutil
from pathlib import Path

from mal.data.annotations import CocoDict, file_name, write
from mal.data.export import FOLDERS, FORMATS, planned_files
from mal.data.flags import flag_sentence
from mal.data.views import VIEWS
from mal.engine.files import digest, explain
from mal.errors import ConfigError
from mal.own.outputs import Output
from mal.pictures import can_be_shown, draw_sheet, shown_beside, write_review

CALL_DIGITS = 12  # of the digest that names a call's folder of shards


def given(options: argparse.Namespace) -> tuple[str, Path]:
    """What a file is labelled from, of `mal.data.views.VIEWS`, and the file."""
    named = ((view, getattr(options, view, None)) for view in VIEWS)
    return next((view, file) for view, file in named if file is not None)


def check_output(options: argparse.Namespace) -> Path:
    """Where to write.

    Raises:
        ConfigError: a file is named where the format writes a folder, or the reverse, or the output is an input.
    """
    place: Path = options.out.resolve()
    if options.format in FOLDERS and place.is_file():
        raise ConfigError(
            f"--out {options.out} is a file, and --format {options.format} writes a folder; name a folder"
        )
    if options.format not in FOLDERS and place.is_dir():
        raise ConfigError(f"--out {options.out} is a folder, and --format {options.format} writes a file; name a file")
    if options.format in FOLDERS and options.review:
        raise ConfigError(
            f"--review is for one file of masks, and --format {options.format} writes a folder; use rle or polygon"
        )
    view, file = given(options)
    for name, path in (("images", options.images), (view, file), ("checkpoint", options.checkpoint)):
        if place == path.resolve():
            raise ConfigError(f"--out {options.out} is also --{name}, which would be overwritten; name another place")
    return place


def plan_output(options: argparse.Namespace, coco: CocoDict, place: Path, *, call: dict[str, str]) -> Output:
    """The files that will be written.

    Raises:
        MalError: the format cannot hold these annotations, or a file to be written is an input.
    """
    files = planned_files(coco, options.format, place)
    if options.preview:
        files.append(place.with_name(f"{place.stem}_preview.png"))
    if options.review:
        files.append(place.with_name(f"{place.stem}_review.html"))
    inputs = {given(options)[1].resolve(), options.checkpoint.resolve()}
    inputs |= {(options.images / file_name(image)).resolve() for image in coco["images"]}
    if taken := [path for path in files if path in inputs]:
        raise ConfigError(f"--out {options.out} would overwrite {len(taken)} inputs ({taken[0]}); name another place")
    call = call | {"options": digest([call["options"], options.format, options.preview, bool(options.review)])}
    return Output(options.out, place, files, call, FOLDERS.get(options.format))


def write_output(
    labels: CocoDict, seen: CocoDict, options: argparse.Namespace, output: Output, staged: Path
) -> list[str]:
    """Write the files to a folder, from where they will be moved, and say what is in them.

    Args:
        labels: the user's file with masks. seen: the same masks beside what the labeler saw, for the preview.

    Raises:
        MalError: they cannot be written.
    """
    shutil.rmtree(staged, ignore_errors=True)
    lost = FORMATS[options.format](labels, staged / output.place.name)
    said = [f"{len(labels['annotations'])} masks: {options.out}"]
    if flagged := flag_sentence(labels["annotations"], given(options)[0]):
        said.append(flagged)
    said += lost
    try:
        return said + _pictures(seen, options, output, staged)
    except OSError as error:  # such as a full disk
        raise explain(error, options.out) from error


def _pictures(seen: CocoDict, options: argparse.Namespace, output: Output, staged: Path) -> list[str]:
    """Draw what is to be looked at beside the masks, and say where."""
    said = []
    if options.preview:
        plain, sheet = staged / "labels.json", staged / f"{output.place.stem}_preview.png"
        write(plain, seen)
        draw_sheet(
            plain,
            options.images,
            human=None,
            out=sheet,
            examples=options.preview,
            shows=shown_beside(given(options)[0]),
        )
        there = sum(map(can_be_shown, seen["annotations"]))
        fewer = f" ({there} of {options.preview} examples: others are flagged, crowds or tiny)"
        said.append(f"preview: {output.place.with_name(sheet.name)}{fewer if there < options.preview else ''}")
    if options.review:
        page = staged / f"{output.place.stem}_review.html"
        write_review(staged / output.place.name, options.images, page)
        said.append(f"masks to look at first: {output.place.with_name(page.name)} (open it in a browser)")
    return said


def unfinished(place: Path) -> list[str]:
    """What other calls for the same output have left: those with finished shards are named, empty ones removed."""
    left = []
    for folder in sorted(place.parent.glob(f".{glob.escape(place.name)}.{'[0-9a-f]' * CALL_DIGITS}")):
        if any(folder.glob("shards/*.json")):
            left.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if not left:
        return []
    names = ", ".join(str(folder) for folder in left[:3]) + (", …" if len(left) > 3 else "")
    return [
        f"unfinished, of {len(left)} calls with other inputs or options: {names}; delete them, or finish those calls"
    ]
