"""Which of a table's rows some results are, and why they cannot stand beside the numbers that a paper prints."""

from collections.abc import Mapping
from typing import Any

from analysis.columns import METHOD
from analysis.lineage import ancestors, weights_of
from analysis.paper.results import Group, Results
from analysis.paper.selection import described
from analysis.paper.table import PaperTable, Row
from mal.engine.payload import flatten

LABELER = ("labeler", *METHOD)  # settings that a result with human masks has not


def columns_of(group: Group) -> dict[str, Any]:
    """A group's columns, and what is read off them."""
    return described(group[0].record)


def row_of(table: PaperTable, group: Group) -> Row | None:
    """The row of the paper that some results are to be compared with, other things being equal."""
    for row in table.rows:
        if row.ours is not None and _is(row.ours, columns_of(group)):
            return row
    return None


def _is(wanted: Mapping[str, Any], columns: Mapping[str, Any]) -> bool:
    left_out = LABELER if wanted.get("supervision") in ("human", "boxes") else ()
    if "segmenter" not in columns:  # masks that no segmenter was trained on, or no masks at all
        left_out = (*left_out, "segmenter", *({"supervision"} - columns.keys()))
    return all(columns.get(name) == value for name, value in wanted.items() if name not in left_out)


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
