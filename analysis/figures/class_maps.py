"""Class maps of weak-shot segmentation: the re-trained methods side by side, as in Figures 1 and 2 of SimFormer's
supplement, and those of one run.

They are of miou_val stages, and read the class maps (mal/data/semantic.py) of the segment_val and semantic_val stages
that these come from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from analysis.columns import METHOD, labeler_name
from analysis.figures.drawn import NAMES, PAGE, sheet
from analysis.figures.photographs import Photographs, fit, frame, photographs
from analysis.figures.results import Group, LeftOut, Results
from analysis.figures.series import Drawing, Sketches, draw_one, each, provenance
from analysis.recipes import recipe_name
from analysis.records import Record, address, grouped
from mal.data.semantic import FILE, IGNORED, MappedImage, SemanticFile, read_semantic
from mal.errors import MalError

IMAGES = 6
SIDE = 320  # pixels of a picture, at most
BASE, NOVEL = (0.84, 0.15, 0.16), (0.12, 0.35, 0.85)  # the paper's red and blue
NAMED = 24  # classes that have a place in the key
RETRAINED: dict[str, dict[str, object]] = {  # column → what a run's columns hold
    "cam*": {"pseudo": "cam"},
    "complement*": {"pseudo": "complement"},
    "SimFormer*": {"pseudo": "own", "pairs": "cross"},
}
WHOLE = {"supervision": "weak", "pairs": "cross"}  # of a run with all of SimFormer


@dataclass(frozen=True)
class Truth:
    """The images of a split that may be shown, and their classes."""

    record: Record  # of the semantic_* stage
    semantic: SemanticFile
    novel: tuple[int, ...]
    images: Photographs

    @cached_property
    def entries(self) -> dict[int, MappedImage]:
        """The images that may be shown, in the file's order."""
        return {image.id: image for image in self.semantic.images if image.id in self.images.records}

    def chosen(self) -> list[int]:
        """Of `IMAGES` equal stretches of the file each one's first image with novel pixels.

        Raises:
            LeftOut: no image has any.
        """
        stretches = np.array_split(np.array(list(self.entries)), IMAGES)
        found = [next((int(i) for i in stretch if self._shows_novel(int(i))), None) for stretch in stretches]
        if not any(image is not None for image in found):
            raise LeftOut(f"{address(self.record)}: no image that may be shown has pixels of novel classes")
        return [image for image in found if image is not None]

    def map(self, image: int) -> np.ndarray:
        return _map(self.semantic, self.entries[image])

    def kinds(self, image: int) -> np.ndarray:
        """Base red, novel blue, unlabelled black: (H, W, 3) in [0, 1]."""
        colours = np.tile(BASE, (IGNORED + 1, 1))
        colours[list(self.novel)], colours[IGNORED] = NOVEL, 0
        return colours[shrunk(self.map(image))]

    def _shows_novel(self, image: int) -> bool:
        return bool(np.isin(self.map(image), self.novel).any())


def retrained(*, ade: bool) -> Sketches:
    """Figure 1 (COCO-Stuff, and other data) or Figure 2 (ADE20K): image, truth, base and novel, the starred methods."""

    @each("miou_val", lambda record: record["columns"]["data"].startswith("ade") == ade)
    def draw(groups: list[Group], results: Results) -> Drawing:
        runs = side_by_side(groups)
        columns = next(iter(runs.values()))["columns"]
        figure, caption, notes = _drawn(runs, results)
        if absent := [name for name in RETRAINED if name not in runs]:
            place = f"split {columns.get('split')}, seed {columns.get('seed')}"
            notes = (*notes, f"{', '.join(absent)}: not in the store for {place}")
        return figure, f"Class maps of networks that were trained again on pseudo-labels (*). {caption}", notes

    return draw


@each("miou_val")
def one_run(groups: list[Group], results: Results) -> Drawing:
    """The class maps of one run: of SimFormer's first, or where there is none, of another."""
    record = next((group for group in groups if WHOLE.items() <= group[0]["columns"].items()), groups[0])[0]
    figure, caption, notes = _drawn({method_name(record): record}, results)
    return figure, caption, (*notes, f"{len(groups) - 1} other runs on this data") if groups[1:] else notes


def draw_class_maps(store: Path, records: Sequence[Record], out: Path) -> Path:
    """The sheet of one miou_val stage; see `draw_one`.

    Raises:
        LeftOut: its images are not on this machine, or show nothing of novel classes.
    """
    return draw_one("miou_val", lambda one, results: _drawn({method_name(one): one}, results), store, records, out)


def side_by_side(groups: list[Group]) -> dict[str, Record]:
    """Column → its run; all of one split, seed and encoder: of those with most of the columns the first.

    Raises:
        LeftOut: no run was trained again.
    """
    records = [record for group in groups for record in group]
    alike = grouped(records, lambda r: tuple(r["columns"].get(name) for name in ("split", "seed", "encoder")))
    found = []
    for some in alike.values():
        first = {
            name: next((one for one in some if wanted.items() <= one["columns"].items()), None)
            for name, wanted in RETRAINED.items()
        }
        found.append({name: record for name, record in first.items() if record is not None})
    best = max(found, key=len)
    if not best:
        raise LeftOut("no run was trained again on pseudo-labels: simformer.pseudo.kind=own, cam or complement does so")
    return best


def method_name(record: Record) -> str:
    """What a column of a figure is called: `SimFormer*` is SimFormer, trained again on its own pseudo-labels."""
    columns = record["columns"]
    pseudo = columns.get("pseudo")
    if pseudo in ("cam", "complement"):
        return f"{pseudo}*"
    name = labeler_name(columns.get("labeler", "")) if columns.get("supervision") == "weak" else "all masks"
    return f"{name}*" if pseudo == "own" else name


def palette(classes: int) -> np.ndarray:
    """Colours of classes, (256, 3) in [0, 1], neighbours far apart; black from the last class on, so 255 too."""
    place = np.arange(classes)
    tones = np.array([(0.85, 0.9), (0.5, 1.0), (0.9, 0.55)])[place // 6 % 3]  # saturation and value
    colours = np.zeros((IGNORED + 1, 3))
    colours[:classes] = hsv_to_rgb(np.column_stack([place * 0.618034 % 1, tones]))
    return colours


def shrunk(values: np.ndarray) -> np.ndarray:
    """A class map at a picture's size, by the nearest pixel; see `fit`."""
    height, width = values.shape
    share = min(1, SIDE / max(height, width))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))


def _drawn(runs: Mapping[str, Record], results: Results) -> Drawing:
    """A row an image; columns: image, truth, base and novel, the runs."""
    first = next(iter(runs.values()))
    predicted = {name: _maps(results, results.source(record, "segment_val")) for name, record in runs.items()}
    truth = _truth(first, results)
    for name, record in runs.items():
        if results.source(record, "semantic_") != truth.record:
            raise LeftOut(f"{address(record)} ({name}) is measured on other class maps than {address(first)}")
    chosen = truth.chosen()
    colours = palette(len(truth.semantic.classes))
    titles = ["image", "truth", "base and novel", *(f"{name}{_score(r)}" for name, r in runs.items())]
    figure = sheet(PAGE * len(titles) / 6, 0.3 + sum(_heights(chosen, truth)))
    grid = figure.subplots(len(chosen), len(titles), squeeze=False, height_ratios=_heights(chosen, truth))
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    seen: set[int] = set()
    for line, image in zip(grid, chosen, strict=True):
        maps = [truth.map(image), *(_map(one, _entry(one, image, name)) for name, one in predicted.items())]
        seen |= {int(value) for one in maps for value in np.unique(one)}
        flat = [colours[shrunk(one)] for one in maps]
        pictures = [fit(truth.images.pixels(image), SIDE), flat[0], truth.kinds(image), *flat[1:]]
        for axes, picture in zip(line, pictures, strict=True):
            frame(axes)
            axes.imshow(picture)
    _key(figure, truth, colours, sorted(seen - {IGNORED}))
    return figure, _caption(runs, truth, chosen, results), truth.images.notes()


def _caption(runs: Mapping[str, Record], truth: Truth, chosen: list[int], results: Results) -> str:
    first = next(iter(runs.values()))
    split = first["columns"].get("split")
    said = "; ".join(f"{name}: {', '.join(_settings(record, results))}" for name, record in runs.items())
    shown = f"{len(chosen)} of {len(truth.semantic.images)} images"
    return (
        f"Truth and predictions in the colours of their classes; base pixels red, novel ones blue ({len(truth.novel)} "
        f"of {len(truth.semantic.classes)} classes, split {split}, whose masks no training saw but an oracle's), "
        f"unlabelled ones black. {said}. Rule: the file's images in {IMAGES} equal stretches, of each the first with "
        "novel pixels. " + provenance([list(runs.values())], shown) + truth.images.attribution(chosen)
    )


def _settings(record: Record, results: Results) -> Iterator[str]:
    """The recipe and a method's columns, in words."""
    recipe = recipe_name(record, results.known)
    if recipe is not None:
        yield f"recipe {recipe}"
    idle = ("points", "student") if record["columns"].get("pairs") == "none" else ()
    for name in METHOD:
        value = record["columns"].get(name)
        if value is not None and name not in ("recipe", "split", "novel", "pseudo", *idle):
            words = {"points": f"J = {value}", "complement": f"CompLoss {'on' if value else 'off'}"}
            yield words.get(name, f"{name} {value}")


def _key(figure: Figure, truth: Truth, colours: np.ndarray, seen: list[int]) -> None:
    """Names of the classes that are seen, above the pictures, unless they are many; it makes the figure higher."""
    if len(seen) > NAMED:
        return
    names = [truth.semantic.classes[i] + (" (novel)" if i in truth.novel else "") for i in seen]
    width, height = figure.get_size_inches()
    columns = max(1, int(width * 72 / (0.55 * NAMES * (max(map(len, names)) + 6))))
    lines = -(-len(names) // columns)
    figure.set_size_inches(width, height + (lines + 0.5) * 1.5 * NAMES / 72)
    patches = [Patch(facecolor=tuple(colours[i]), label=name) for i, name in zip(seen, names, strict=True)]
    figure.legend(handles=patches, loc="outside upper left", ncols=columns, handlelength=1)


def _heights(chosen: list[int], truth: Truth) -> list[float]:
    """Inches of each row: its image in a column's width."""
    return [PAGE / 6 * min(truth.entries[i].height / truth.entries[i].width, 1.4) for i in chosen]


def _score(record: Record) -> str:
    found = record["metrics"].get("novel_miou")
    return "" if found is None else f"\nnovel mIoU {100 * found['value']:.1f} %"


def _truth(record: Record, results: Results) -> Truth:
    """The split that a run is measured on.

    Raises:
        LeftOut: a file is missing, or nothing may be shown.
    """
    source = results.source(record, "semantic_")
    return Truth(source, _maps(results, source), tuple(record["config"]["novel"]), photographs(results, source))


def _maps(results: Results, record: Record) -> SemanticFile:
    """Raises LeftOut: the folder's file is absent or broken."""
    try:
        return read_semantic(results.store / address(record) / FILE)
    except MalError as error:
        raise LeftOut(f"{address(record)}: {error}") from error


def _entry(semantic: SemanticFile, image: int, name: str) -> MappedImage:
    """Raises LeftOut: the image is not among them."""
    for entry in semantic.images:
        if entry.id == image:
            return entry
    raise LeftOut(f"{name} has no map of image {image}")


def _map(semantic: SemanticFile, entry: MappedImage) -> np.ndarray:
    """Raises LeftOut: the map is absent or broken."""
    try:
        return semantic.map_of(entry)
    except MalError as error:
        raise LeftOut(str(error)) from error
