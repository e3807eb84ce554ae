"""What a file of boxes, points or expressions, and its images, would do to a run: said before one is started.

python -m mal.check IN.json --images DIR [--val VAL.json --val-images DIR]
python -m mal.check IN.json --images DIR --points         # for methods that learn from points
python -m mal.check IN.json --images DIR --expressions    # … from expressions
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mal.data.annotations import CocoDict, check_images, file_name, read
from mal.data.census import Census, crowd_sentence, take, words
from mal.data.expressions import words_in
from mal.data.headers import ABSENT, Header, read_headers, size_fits, turned_sentence
from mal.data.joins import compare_categories
from mal.data.view_findings import LOOKS
from mal.data.views import read_for
from mal.engine.commands import command
from mal.engine.findings import MASKS, MISLEADS, NOTE, STOPS, Finding, number, some
from mal.errors import AnnotationError, ImageError

TITLES = {
    STOPS: "stops a run",
    MISLEADS: "misleads",
    MASKS: "stops a run that trains or measures on human masks",
    NOTE: "note",
}
WAYS_OUT = {"points": " (with boxes, data.points.kind=box_centre draws them)", "expressions": ""}
CROWDS = 0.1  # share of the masks from which on crowds are looked at twice


@dataclass(frozen=True)
class Report:
    """What was found: the report's lines, and the findings behind them."""

    lines: list[str]
    findings: list[Finding] = field(default_factory=list)

    @property
    def stops(self) -> bool:
        """Whether masks cannot be made of these boxes at all."""
        return self._any(STOPS)

    @property
    def misleads(self) -> bool:
        """Whether a run would end well, with masks or numbers that are not what they seem."""
        return self._any(MISLEADS)

    @property
    def code(self) -> int:
        """The command's exit code: 1 if anything would stop or mislead any run."""
        return int(self._any(STOPS, MISLEADS, MASKS))

    def _any(self, *levels: str) -> bool:
        return any(finding.level in levels for finding in self.findings)


@command
def main(arguments: Sequence[str] | None) -> int:
    """Print the report; 0 if nothing in it would stop or mislead a run, else 1."""
    options = _parser().parse_args(arguments)
    try:
        val_images = options.val_images or options.images
        asked = {"lvis": options.lvis, "view": options.view}
        found = report(options.boxes, options.images, val=options.val, val_images=val_images, **asked)
    except KeyboardInterrupt:
        return 130
    print("\n".join(found.lines))
    return found.code


def report(
    boxes: Path,
    images: Path,
    *,
    val: Path | None = None,
    val_images: Path | None = None,
    lvis: bool = False,
    skip: bool = False,
    view: str = "boxes",
) -> Report:
    """Look at a file of boxes and its images, and at those of a validation split beside it.

    Of every image the header is read, no pixels.

    Args:
        boxes: a COCO or LVIS instance file. images: the folder of its images.
        val, val_images: the same of the validation split; both or neither.
        lvis: whether AP is to follow LVIS's protocol.
        skip: whether images that cannot be used are to be skipped, so that they stop nothing.
        view: what is learned from, one of `views.VIEWS`.

    Returns:
        The report. What is wrong with the files is in it; nothing is raised for it.
    """
    lines, findings, splits = [], [], []
    for path, folder in [(boxes, images), (val, val_images)]:
        if path is None or folder is None:
            continue
        seen = _seen(path, folder, view, lvis=lvis, skip=skip)
        lines += [f"{path}: {seen.told}", *_lines(seen.findings)]
        findings += seen.findings
        splits.append(seen)
    if len(splits) == 2 and all(seen.census for seen in splits):
        first, second = splits
        between = [*_between(first.census, second.census), *_strangers(first.words, second.words)]  # type: ignore[arg-type]
        lines += [f"{boxes} and {val}:", *_lines(between)] if between else []
        findings += between
    lines.append(_summary(findings))
    return Report(lines, findings)


class Seen(NamedTuple):
    """What a file holds for a view."""

    told: str  # in words
    census: Census | None  # None where the file cannot be used
    findings: list[Finding]
    words: frozenset[str] = frozenset()  # of its expressions, where these are looked at


def _seen(path: Path, folder: Path, view: str, *, lvis: bool, skip: bool) -> Seen:
    if view == "boxes":
        census, found = look(path, folder, lvis=lvis, skip=skip)
        return Seen("cannot be used" if census is None else words(census), census, found)
    try:
        coco = read_for(view, path, folder)
    except AnnotationError as error:
        text = str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")
        return Seen("cannot be used", None, [Finding(STOPS, text + WAYS_OUT[view])])
    census, found = look(path, folder, lvis=lvis, skip=skip, texts=view == "expressions")
    if census is None:
        return Seen("cannot be used", None, found)
    counted, own = LOOKS[view](coco)
    known = frozenset(words_in(coco) if view == "expressions" else ())
    return Seen(f"{counted}; {words(census)}", census, [*own, *found], known)


def look(
    path: Path, folder: Path, *, lvis: bool = False, skip: bool = False, texts: bool = False
) -> tuple[Census | None, list[Finding]]:
    """The census of a file, None where it cannot be read or trusted, and all findings about it and its images.

    Args:
        texts: whether something is said of objects.
    """
    try:
        coco = read(path, masks=False, boxes=False)
    except AnnotationError as error:
        return None, [Finding(STOPS, str(error).removeprefix(f"{path}: "))]
    census = take(coco)
    found = [*census.findings, *_about_masks(census), *_about_images(coco, folder, skip=skip, texts=texts)]
    if census.has_masks and census.lvis_problem is not None and (lvis or _seems_lvis(coco)):
        text = (
            f"LVIS's evaluation (data=lvis) lacks what it needs: {census.lvis_problem}; with data=coco it is not needed"
        )
        found.append(Finding(MASKS, text))
    unused = [category for category in census.categories if not category.annotations]
    if unused:
        text = f"{len(unused)} of {number(len(census.categories), 'category', 'categories')} without an annotation"
        found.append(Finding(NOTE, f"{text} ({some(unused)}): AP does not count them"))
    return census, found


def _seems_lvis(coco: CocoDict) -> bool:
    """Whether a file has anything that only LVIS's have."""
    image, category = coco["images"][0], coco["categories"][0]
    lists = ("neg_category_ids", "not_exhaustive_category_ids")
    return "frequency" in category or any(key in image for key in lists) or "file_name" not in image


def _about_masks(census: Census) -> Iterator[Finding]:
    if census.broken:
        yield Finding(
            MASKS,
            f"{number(census.broken, 'segmentation')} cannot be read as a mask: {some(census.first_broken, most=1)}",
        )
    missing = census.unmasked + census.crowds_unmasked
    if census.has_masks and missing:
        where = f" ({some(census.first_unmasked)})" if census.first_unmasked else ""
        yield Finding(
            MASKS,
            f"{missing} of {census.annotations} annotations have no mask{where}: made masks are compared with those "
            "there are; a segmenter is not trained or measured on the file unless all have one",
        )
    if census.repeats and not census.usable:
        yield Finding(
            NOTE, f"each of its {number(census.repeats, 'mask')} just repeats its box: they count as boxes only"
        )
    elif census.repeats > CROWDS * census.masks:
        yield Finding(
            NOTE,
            f"{census.repeats} of {number(census.masks, 'mask')} just repeat their box: if these objects are no "
            "rectangles, IoU is measured against boxes there",
        )
    if census.crowd_masks > CROWDS * census.masks:
        yield Finding(MISLEADS, crowd_sentence(census))
    if census.bad_areas:
        yield Finding(
            MASKS, f"{number(census.bad_areas, 'area is', 'areas are')} no number of pixels: {census.first_bad_area[0]}"
        )


def _about_images(coco: CocoDict, folder: Path, *, skip: bool, texts: bool) -> Iterator[Finding]:
    try:
        check_images(coco, folder)
    except ImageError as error:
        yield Finding(STOPS, str(error))
        if not folder.is_dir():
            return
    read = read_headers(coco["images"], folder)
    present = [(entry, header) for entry, header in read if header != ABSENT]
    unusable = NOTE if skip else STOPS
    unreadable = [f"{file_name(entry)}: {header}" for entry, header in present if isinstance(header, str)]
    if unreadable:
        way_out = (
            "they are skipped" if skip else "replace them, or skip them (data.on_bad_image=skip, --on-bad-image skip)"
        )
        yield Finding(
            unusable, f"{len(unreadable)} of {len(read)} images cannot be opened ({some(unreadable)}); {way_out}"
        )
    other = [
        f"{file_name(entry)} is {header.width} x {header.height}, annotated {entry['width']} x {entry['height']}"
        for entry, header in present
        if isinstance(header, Header) and not size_fits(entry, header)
    ]
    if other:
        way_out = "give the images that were annotated, or scale the annotations to these"
        yield Finding(
            unusable,
            f"{len(other)} of {len(read)} images have another size than their annotations say ({some(other)}); "
            f"{'they are skipped' if skip else way_out}",
        )
    turned = turned_sentence(present, texts=texts)
    if turned is not None:
        yield Finding(MISLEADS, turned)


def _between(train: Census, val: Census) -> Iterator[Finding]:
    """What two splits are to each other."""
    found = compare_categories(train.categories, val.categories)
    if found.renumbered:
        yield Finding(
            MISLEADS,
            f"their categories are numbered differently: {some(found.renumbered)}; give both files the same ids (a run "
            "that trains a segmenter on categories stops)",
        )
    if found.lacking:
        yield Finding(MASKS, f"the second lacks categories of the first: {some(found.lacking)}; list them in both")
    if found.unlearned:
        yield Finding(
            MISLEADS,
            f"the second has objects of categories that the first does not list: {some(found.unlearned)}; nothing "
            "learns them, and AP counts them as missed",
        )
    if train.has_masks and not val.has_masks:
        yield Finding(NOTE, "the first has human masks and the second has none: no segmenter can be measured")


def _strangers(known: frozenset[str], asked: frozenset[str]) -> Iterator[Finding]:
    """That two files' expressions have no word in common."""
    if known and asked and not known & asked:
        text = f"no expression of the second ({some(sorted(asked))}) has a word that the first's have"
        way_out = (
            "use the same words (only a language model, partialres.network.text.encoder=transformer, knows others)"
        )
        yield Finding(MISLEADS, f"{text} ({some(sorted(known))}); {way_out}")


def _lines(findings: list[Finding]) -> list[str]:
    ordered = sorted(findings, key=lambda finding: list(TITLES).index(finding.level))
    return [f"  {TITLES[finding.level]}: {finding.text}" for finding in ordered]


def _summary(findings: list[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in TITLES}
    if not any(counts[level] for level in (STOPS, MISLEADS, MASKS)):
        return "nothing found that would stop or mislead a run"
    parts = [f"{counts[STOPS]} would stop it", f"{counts[MISLEADS]} would mislead"]
    masks = f", {counts[MASKS]} would stop one that needs human masks" if counts[MASKS] else ""
    return f"of what was found, {' and '.join(parts)}{masks}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mal.check",
        description="Say what a file of boxes, points or expressions would do to a run.",
        allow_abbrev=False,
    )
    parser.add_argument("boxes", type=Path, metavar="IN.json", help="COCO or LVIS file; it needs no masks")
    view = parser.add_mutually_exclusive_group()
    for name in LOOKS:
        view.add_argument(
            f"--{name}", dest="view", action="store_const", const=name, help=f"for methods that learn from its {name}"
        )
    parser.set_defaults(view="boxes")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its images")
    parser.add_argument("--val", type=Path, metavar="VAL.json", help="file of the validation images")
    parser.add_argument("--val-images", type=Path, metavar="DIR", help="their folder; default: that of --images")
    parser.add_argument("--lvis", action="store_true", help="AP is to follow LVIS's protocol (data=lvis)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
