"""Which results belong to a table, what they are called in it, and which of the paper's rows they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.columns import METHOD, method_of
from analysis.lineage import ancestors, weights_of
from analysis.paper.names import (
    DATA,
    DECODERS,
    ENCODERS,
    LVIS,
    MASK_LABELS,
    SEGMENTERS,
    backbone_and_model,
    bare,
)
from analysis.paper.results import Group, Results
from analysis.paper_numbers import PaperTable, Row
from analysis.records import Record
from mal.engine.payload import flatten

LABELER = ("labeler", *METHOD)  # settings that a result with human masks has not
USUAL = {"decoder": "attention", "theta": 1.2}  # the paper's choices, which only Tables 3 and 5 vary


@dataclass(frozen=True)
class Kind:
    """What a table is about."""

    groups: Callable[[Results], list[Group]]
    names: Callable[[Mapping[str, Any]], dict[str, str]]  # a record's columns → the table's identity cells
    place: Callable[[Mapping[str, Any]], tuple[Any, ...]]  # a record's columns → where it stands among ours
    named: tuple[str, ...]  # the settings that the identity cells say
    varied: str = ""  # the setting that the table compares, all else alike
    quality: bool = False  # whether masks that no segmenter was trained on have a row


def columns_of(group: Group) -> dict[str, Any]:
    """A group's settings; a segmenter without its backend's name."""
    return group[0].record["columns"]


def row_of(table: PaperTable, group: Group) -> Row | None:
    """The row of the paper that some results are to be compared with, other things being equal."""
    for row in table.rows:
        if row.ours is not None and _is(row.ours, columns_of(group)):
            return row
    return None


def _is(wanted: Mapping[str, Any], columns: Mapping[str, Any]) -> bool:
    left_out = LABELER if wanted.get("supervision") in ("human", "boxes") else ()
    if "segmenter" not in columns:  # masks that no segmenter was trained on, or no masks at all
        left_out = (*left_out, "segmenter", "supervision")
    found = {**columns, "segmenter": bare(columns.get("segmenter", ""))}
    return all(found.get(name) == value for name, value in wanted.items() if name not in left_out)


def why_not_comparable(table: PaperTable, row: Row | None, group: Group, results: Results) -> str:
    """Why results cannot stand beside the paper's numbers; nothing where they can."""
    profiles = sorted({result.record["columns"]["profile"] for result in group})
    data = columns_of(group)["data"]
    where = f"profile {' and '.join(profiles)}, data {data}"
    of_the_paper = {one.ours["data"] for one in table.rows if one.ours is not None}
    other = [
        *(["another scale"] if profiles != ["paper"] else []),
        *(["other data"] if data not in of_the_paper else []),
    ]
    if other:
        return f"{where}: {', '.join(other)}"
    unlike = [*_unlike_any(group), *([] if row is None else _unlike_scale(row, group, results))]
    return f"{where}, but {'; '.join(unlike)}" if unlike else ""


def _unlike_any(group: Group) -> dict[str, None]:
    """What no number of the paper's was measured with, in words; each once."""
    found: dict[str, None] = {}
    for result in group:
        images = result.record["config"].get("images", "all")
        if images != "all":
            found[f"measured on the {images}-placed images alone"] = None
        if result.record["stage"] == "clustering_val" and weights_of(result.record) == "random":
            found["the encoder's weights are random"] = None
    return found


def _unlike_scale(row: Row, group: Group, results: Results) -> dict[str, None]:
    """How results were trained at another scale than the row's, in words; each once."""
    found: dict[str, None] = {}
    for result in group:
        for name, ancestor in ancestors(result.record, results.known).items():
            stage = name.split("/")[0]
            if stage not in row.scale:
                continue
            if ancestor is None:
                found[f"the store has no record of {name}, whose scale is therefore unknown"] = None
                continue
            config = dict(flatten(ancestor["config"]))
            for key, value in row.scale[stage].items():
                if config.get(key) != value:
                    found[f"{stage} has {key}={config.get(key)}, not {value}"] = None
    return found


def _by_mal(record: Record, *, elsewhere: bool = False) -> bool:
    """Whether labels are MAL's; `elsewhere`: trained on another data set, too."""
    columns = record["columns"]
    return method_of(columns) == "mal" and (elsewhere or columns["labeler"] == "mal")


def _by_humans(record: Record) -> bool:
    """Whether a segmenter learned from human masks, here or at its publisher's."""
    return record["columns"]["supervision"] in ("human", "published")


def _usual(record: Record, *names: str) -> bool:
    return all(record["columns"].get(name, USUAL[name]) == USUAL[name] for name in names)


def _segmenters(*, lvis: bool) -> Callable[[Results], list[Group]]:
    """Tables 1 and 2: segmenters on human masks, published ones too, and on MAL's; those of Table 2 and all on LVIS
    (`lvis`), or all others.

    In Table 2 MAL may have been trained on another data set.
    """

    def wanted(record: Record) -> bool:
        columns = record["columns"]
        by = _by_humans(record) or (columns["supervision"] == "pseudo" and _by_mal(record, elsewhere=lvis))
        return by and _of_lvis(columns) == lvis and _usual(record, "decoder", "theta")

    return lambda results: results.scores(wanted)


def _of_lvis(columns: Mapping[str, Any]) -> bool:
    return bare(columns["segmenter"]) in LVIS or columns["data"].startswith("lvis")


def _labelers(*usual: str) -> Callable[[Results], list[Group]]:
    """Tables 3 to 5: MAL, with a segmenter on its masks or without."""

    def wanted(record: Record) -> bool:
        return _by_mal(record) and _usual(record, *usual)

    return lambda results: results.scores(wanted) + results.qualities_without_scores(wanted)


def _detectors(results: Results) -> list[Group]:
    """Table 7: the detectors that were trained without masks too."""

    def wanted(record: Record) -> bool:
        supervision = record["columns"]["supervision"]
        by = supervision == "boxes" or _by_humans(record) or (supervision == "pseudo" and _by_mal(record))
        return by and _usual(record, "decoder", "theta")

    def detector(group: Group) -> tuple[Any, ...]:
        columns = columns_of(group)
        return columns["profile"], columns["data"], columns["segmenter"]

    groups = results.scores(wanted)
    compared = {detector(group) for group in groups if columns_of(group)["supervision"] == "boxes"}
    return [group for group in groups if detector(group) in compared]


def _method(columns: Mapping[str, Any]) -> dict[str, str]:
    backbone, model = backbone_and_model(columns["segmenter"])
    if columns["supervision"] in ("human", "published"):
        return {"method": model, "labeler": "-", "backbone": backbone, "model": model, "sup": "Mask"}
    encoder = ENCODERS.get(columns["encoder"], columns["encoder"])
    return {"method": "Mask Auto-Labeler", "labeler": encoder, "backbone": backbone, "model": model, "sup": "Box"}


def _encoder(columns: Mapping[str, Any]) -> dict[str, str]:
    return {"encoder": ENCODERS.get(columns["encoder"], columns["encoder"])}


def _training_data(columns: Mapping[str, Any]) -> dict[str, str]:
    data = columns.get("labeler", "").partition(":")[2] or columns["data"]
    return {"training_data": DATA.get(data, data) if columns["supervision"] == "pseudo" else "-"}


def _detector(columns: Mapping[str, Any]) -> dict[str, str]:
    backbone, model = backbone_and_model(columns["segmenter"])
    data = DATA.get(columns["data"], columns["data"])
    return {
        "backbone": f"{backbone} ({model})",
        "dataset": data,
        "mask_labels": MASK_LABELS[columns["supervision"]],
    }


def _place(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    known = list(SEGMENTERS)
    segmenter = bare(columns["segmenter"])
    return known.index(segmenter) if segmenter in known else len(known), columns["segmenter"]


def _human_first(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    return columns["supervision"] == "pseudo", ":" in columns.get("labeler", ""), *_place(columns)


def _listed(names: Mapping[str, str], setting: str) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    known = list(names)

    def place(columns: Mapping[str, Any]) -> tuple[Any, ...]:
        value = columns[setting]
        return known.index(value) if value in known else len(known), value

    return place


KINDS = {
    "tab1_coco": Kind(_segmenters(lvis=False), _method, _human_first, ("encoder", "segmenter")),
    "tab2_lvis": Kind(
        _segmenters(lvis=True),
        lambda c: _method(c) | _training_data(c),
        _human_first,
        ("labeler", "encoder", "segmenter"),
    ),
    "tab3_decoder": Kind(
        _labelers("theta"),
        lambda c: {"decoder": DECODERS.get(c["decoder"], c["decoder"])},
        _listed(DECODERS, "decoder"),
        ("decoder",),
        varied="decoder",
        quality=True,
    ),
    "tab4_encoder": Kind(
        _labelers("decoder", "theta"),
        _encoder,
        _listed(ENCODERS, "encoder"),
        ("encoder",),
        varied="encoder",
        quality=True,
    ),
    "tab5_theta": Kind(
        _labelers("decoder"),
        lambda c: {"theta": str(float(c["theta"]))},
        lambda c: (c["theta"],),
        ("theta",),
        varied="theta",
        quality=True,
    ),
    "tab6_clustering": Kind(Results.clusterings, _encoder, _listed(ENCODERS, "encoder"), ("encoder",)),
    "tab7_detection": Kind(
        _detectors,
        _detector,
        lambda c: (*_place(c), c["data"], list(MASK_LABELS).index(c["supervision"])),
        ("segmenter",),
    ),
}
