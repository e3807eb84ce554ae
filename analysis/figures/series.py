"""Groups of runs as series of a plot: what they are called, how they look, how sure they are."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from analysis.columns import LABELERS, METHOD, labeler_name, method_of
from analysis.figures.drawn import Sketch, styled
from analysis.figures.results import Group, LeftOut, Results
from analysis.lettering import lettered
from analysis.lineage import Settings, differing, lineage, settings_of, told_apart
from analysis.recipes import recipe_name
from analysis.records import Record, address
from analysis.referring_names import network_name
from analysis.referring_rows import row_of
from analysis.stats import LEVEL, image_weights

# Okabe and Ito's colours, readable with every kind of colour blindness; its yellow and grey are too light for a line
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SETTINGS = (*METHOD, "segmenter")
OWN = ("labeler", "supervision", *SETTINGS)  # columns, which a name says in words
RESAMPLES = 1000
Look = dict[str, Any]
Ends = tuple[float, float, float]  # a value, and the lower and upper end of its band
Drawing = tuple[Figure, str, Sequence[str]]
Draw = Callable[[list[Group], Results], Drawing]
Sketches = Callable[[Results], Iterator[Sketch]]


def looks(groups: Sequence[Group]) -> list[Look]:
    """Keyword arguments of `Axes.plot` for each group: baselines in grey, everything else in a colour of its own."""
    found, place = [], 0
    for group in groups:
        own = LABELERS.get(group[0]["columns"].get("labeler"))
        if own and own.look:
            colour, dashes, marker = own.look
            found.append({"color": colour, "linestyle": dashes, "marker": marker})
        else:
            dashes = "solid" if place < len(COLOURS) else (0, (5, 1))
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(COLOURS)]
            found.append({"color": colour, "linestyle": dashes, "marker": marker})
            place += 1
    return found


def alpha(look: Look) -> float:
    """How opaque the band of a line is: of the greys, which lie over each other, less."""
    return 0.1 if look["color"] in {own.look[0] for own in LABELERS.values() if own.look} else 0.18


def labeler(record: Record) -> str:
    """The labeler of a record, in words; of Partial-RES's networks, which of its rows it is."""
    columns = record["columns"]
    name = labeler_name(columns.get("labeler", "no labeler"))
    if "contour_points" not in columns:
        return name
    row = row_of(record)
    return network_name(columns) if row is None else f"{name}: {row.name}"


def is_mal(record: Record) -> bool:
    """Whether a result is MAL's; `mal:coco` is MAL too."""
    return method_of(record["columns"]) == "mal"


def names(groups: Sequence[Group], results: Results, subject: Callable[[Record], str] = labeler) -> list[str]:
    """What tells groups apart: a subject, the settings in which two of a name differ, else the config values (but those
    that most have), and the number of seeds where there are several."""
    found = [subject(group[0]) for group in groups]
    for setting in SETTINGS:
        values = [group[0]["columns"].get(setting) for group in groups]
        if setting == "recipe" and len({value for value in values if value is not None}) > 1:
            # where it names a series it must not name two methods
            values = [recipe_name(group[0], results.known) for group in groups]
        found = told_apart(found, values, "θ {}" if setting == "theta" else "{}")
    found = _with_changes(found, [settings_of(group[0], results.known) for group in groups])
    found = told_apart(found, [lineage(group[0], results.known) for group in groups], "#{}")
    return [name if len(g) == 1 else f"{name} ({len(g)} seeds)" for name, g in zip(found, groups, strict=True)]


def _with_changes(found: Sequence[str], settings: Sequence[Settings]) -> list[str]:
    """Append what tells those of the same name apart: the values that are not most others', and where no value is, all.

    At most three a name, since a legend has only so much room.
    """
    told = list(found)
    for name in dict.fromkeys(found):
        places = [place for place, other in enumerate(found) if other == name]
        alike = [settings[place] for place in places]
        usual = {key: _usual([own.get(key) for own in alike]) for key in differing(alike, along=OWN)}
        for place, own in zip(places, alike, strict=True):
            unlike = [key for key, value in usual.items() if own.get(key) not in (None, value)]
            told[place] = ", ".join([name, *(f"{key.partition('.')[2]}={own[key]}" for key in unlike[:3])])
    return told


def _usual(values: Sequence[str | None]) -> str | None:
    """Of values that differ, the one that is most frequent; None where two are."""
    (first, most), (_, second) = Counter(values).most_common(2)
    return first if most > second else None


def bin_means(values: np.ndarray, bins: np.ndarray, count: int) -> np.ndarray:
    """The mean of the values in each bin: (count,), nan where a bin is empty. `bins` (n,) counts from 0."""
    filled = np.bincount(bins, minlength=count)
    with np.errstate(invalid="ignore"):
        return np.bincount(bins, values, count) / np.where(filled > 0, filled, np.nan)


def bin_interval(values: np.ndarray, bins: np.ndarray, count: int, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of each bin's mean under resampling of the images: percentile bootstrap, 1,000 resamples.

    Instances of an image are alike, so whole images are drawn. Resamples in which a bin is empty do not count for it.

    Args:
        values: (n,). bins: (n,) ints from 0 to count − 1. images: (n,) ids.

    Returns:
        The lower and the upper end, (count,) each.
    """
    image, places = np.unique(images, return_inverse=True)
    cells = places * count + bins
    sums = np.bincount(cells, values, len(image) * count).reshape(len(image), count)
    filled = np.bincount(cells, minlength=len(image) * count).reshape(len(image), count)
    weights = image_weights(len(image), RESAMPLES)
    total = weights @ filled
    means = (weights @ sums) / np.where(total > 0, total, np.nan)
    tail = (1 - LEVEL) / 2
    ends = [
        np.quantile(defined, [tail, 1 - tail]) if len(defined := column[~np.isnan(column)]) else (np.nan, np.nan)
        for column in means.T
    ]
    low, high = np.array(ends).T
    return low, high


def over_seeds_or_images(
    tables: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean in each bin over seeds, and a band: the seeds' range, or of one seed the interval over images.

    Args:
        tables: for each seed (values, bins, images), as `bin_interval` takes them.

    Returns:
        mean, low, high: (count,) each.
    """
    each = np.array([bin_means(values, bins, count) for values, bins, _ in tables])
    if len(tables) > 1:
        return each.mean(axis=0), each.min(axis=0), each.max(axis=0)
    values, bins, images = tables[0]
    return each[0], *bin_interval(values, bins, count, images)


def mean_iou(frames: Sequence[pd.DataFrame]) -> Ends:
    """The mean IoU of the instances that each seed's table has, and its band; see `over_seeds_or_images`."""
    parts = [(f["iou"].to_numpy(), np.zeros(len(f), dtype=int), f["image_id"].to_numpy()) for f in frames]
    mean, low, high = over_seeds_or_images(parts, 1)
    return float(mean[0]), float(low[0]), float(high[0])


def draw_band(axes: Axes, x: ArrayLike, ends: Sequence[np.ndarray], look: Look, **more: Any) -> None:
    """A line with its band: the value, the lower and the upper end at each x."""
    axes.plot(x, ends[0], **look, **more)
    axes.fill_between(x, ends[1], ends[2], color=look["color"], alpha=alpha(look), linewidth=0)


def over_course(record: Record, name: str) -> list[float]:
    """A metric of a course_val after each of the equal parts of the training, NAME_1 … NAME_N.

    Raises:
        LeftOut: the record has none.
    """
    metrics = record["metrics"]
    found: list[float] = []
    while entry := metrics.get(f"{name}_{len(found) + 1}"):
        found.append(float(entry["value"]))
    if not found:
        raise LeftOut(f"{address(record)}: it has no {name}_1; compute it again")
    return found


def bands(groups: Sequence[Group]) -> str:
    """What the bands of a plot of these groups are, in words."""
    said = {
        "the range of the seeds" if len(g) > 1 else "of one seed the 95 % bootstrap interval over images"
        for g in groups
    }
    return "Bands: " + ", ".join(sorted(said, reverse=True)) + "."


def provenance(groups: Sequence[Group], counts: str) -> str:
    """Profile, data, how many, seeds and commit of all that is shown."""
    records = [record for group in groups for record in group]
    columns = records[0]["columns"]
    seeds = sorted({r["columns"]["seed"] for r in records if isinstance(r["columns"].get("seed"), int)})
    commits = {
        str(p.get("commit"))[:7] + ("+changes" if p.get("diff") else "")
        for p in (record.get("provenance") or {} for record in records)
    }
    seeded = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; " if seeds else ""
    return (
        f"Profile {columns['profile']}, data {columns['data']}; {counts}; {seeded}commit {', '.join(sorted(commits))}."
    )


def file_part(data: str, profile: str) -> str:
    """What tells the files of several data sets and scales apart."""
    return "_".join("".join(c if c.isalnum() else "-" for c in part) for part in (data, profile))


def each(stage: str, wanted: Callable[[Record], bool] = lambda _: True) -> Callable[[Draw], Sketches]:
    """A figure of each data set and profile among a stage's results, or why there is none.

    It decorates what makes of their groups a figure, its caption, and sentences about what is left out of it, or
    raises LeftOut with such sentences.
    """

    def decorate(draw: Draw) -> Sketches:
        def sketches(results: Results) -> Iterator[Sketch]:
            for (data, profile), groups in results.groups(stage, wanted).items():
                try:
                    figure, caption, left_out = draw(groups, results)
                    yield Sketch(file_part(data, profile), figure, caption, tuple(left_out))
                except LeftOut as error:
                    yield Sketch(file_part(data, profile), None, left_out=error.args)

        return sketches

    return decorate


def draw_one(
    stage: str, draw: Callable[[Record, Results], Drawing], store: Path, records: Iterable[Record], out: Path
) -> Path:
    """Draw the PNG of a stage's one result, which a run prints.

    Args:
        draw: makes a figure of its record. records: of the stage, and of all that it comes from.

    Returns:
        `out`.

    Raises:
        LeftOut: it cannot be shown.
    """
    results = Results.of(store, records)
    record = next(record for record in results.records if record["stage"] == stage)
    with styled():
        figure, _, _ = draw(record, results)
        with lettered(figure):
            figure.savefig(out)
    return out
