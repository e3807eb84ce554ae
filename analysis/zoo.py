"""Printed numbers of the paper that are those of a public zoo's models: results/paper/zoo.yaml.

`models` are the zoo's, with what it prints for them and the cells of the paper where the same models' numbers stand;
`gains` are pairs of models, plain and deformable, that show what deformable convolutions add.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from analysis.paper.table import PaperTable
from analysis.paper_numbers import PAPER, PaperNumbersError, find_cell, find_row
from analysis.rendering import Table

DEFORMABLE = "-DCN"  # in the paper's names of backbones
METRICS = {"mask_ap": "mask AP", "box_ap": "box AP"}


@dataclass(frozen=True)
class Comparison:
    """A printed cell beside the number that the zoo prints."""

    place: str
    backbone: str  # as the paper names it
    printed: str
    zoo: str  # the zoo's number
    model: str  # and its model
    deformable: bool  # whether that is

    @property
    def equal(self) -> bool:
        return self.printed == self.zoo

    @property
    def verdict(self) -> str:
        """Whether the numbers are equal, and whether the names then say the same of the model."""
        if not self.equal:
            return "another number"
        kind = "a deformable" if self.deformable else "a plain"
        return "equal" if self.named_deformable == self.deformable else f"equal, but it is {kind} model's"

    @property
    def named_deformable(self) -> bool:
        return DEFORMABLE in self.backbone


def comparisons(tables: Mapping[str, PaperTable], folder: Path = PAPER) -> list[Comparison]:
    """Every cell that zoo.yaml names, beside the zoo's number.

    Raises:
        PaperNumbersError: the file is missing, or names what there is not.
    """
    found = []
    for metric in METRICS:
        for model in _read(folder)["models"]:
            reference = model["cells"][metric]
            row, _, quantity = reference.rpartition(".")
            table = tables[row.partition(".")[0]]
            printed = find_cell(reference, table, tables)
            backbone = find_row(row, table, tables).names["backbone"].partition(" [")[0]  # without what we say of it
            place = f"{table.place}, human masks, {table.quantities[quantity].title}"
            zoo, deformable = str(model["printed"][metric]), bool(model["deformable"])
            found.append(Comparison(place, backbone, printed.text, zoo, model["config"], deformable))
    return found


def report(tables: Mapping[str, PaperTable], folder: Path = PAPER) -> Table:
    """The comparisons as a table of the audit, and what deformable convolutions add where the zoo has both kinds.

    Raises:
        PaperNumbersError: as above.
    """
    raw, found = _read(folder), comparisons(tables, folder)
    equal = [one for one in found if one.equal]
    wrong = [one for one in equal if one.named_deformable != one.deformable]
    gains = "; ".join(f"{backbone} {metric} +{gain}" for backbone, metric, gain in _gains(raw))
    return Table(
        "audit_zoo",
        "Printed numbers that a public zoo prints for its models",
        ("where", "backbone, as printed", "printed", "zoo", "the zoo's model", "verdict"),
        tuple((one.place, one.backbone, one.printed, one.zoo, one.model, one.verdict) for one in found),
        (
            f"{raw['source']}: {raw['about']}.",
            f"{len(equal)} of {len(found)} are equal, {len(wrong)} of them under a name that says {DEFORMABLE}.",
            f"What deformable convolutions add where the zoo has both kinds ({raw['gains']['source']}): {gains}.",
        ),
        text=frozenset({"where", "backbone, as printed", "the zoo's model", "verdict"}),
    )


def _gains(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for pair in raw["gains"]["models"]:
        for metric, title in METRICS.items():
            yield pair["backbone"], title, f"{float(pair['deformable'][metric]) - float(pair['plain'][metric]):.1f}"


def _read(folder: Path) -> Mapping[str, Any]:
    path = folder / "zoo.yaml"
    try:
        raw: Any = OmegaConf.to_container(OmegaConf.load(path))
        if not {"source", "about", "models", "gains"} <= raw.keys():
            raise PaperNumbersError(f"{path} lacks source, about, models or gains; analysis/zoo.py says what they are")
    except (OSError, AttributeError) as error:
        raise PaperNumbersError(f"{path}: {error}; analysis/ reads it from a checkout of the repository") from error
    return raw
