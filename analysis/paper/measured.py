"""What some results that differ in their seed alone say of a quantity: cells of text."""

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.denominators import Kept, usable
from analysis.intervals import interval
from analysis.lineage import ancestors
from analysis.paper.results import Group, Result, Results
from analysis.paper.table import UNITS, Printed, Quantity
from analysis.records import Record
from analysis.rendering import spread

NOTHING = "-"
ABSENT = (NOTHING, "the AP with human masks is missing")  # what computing the row again would mend


@dataclass(frozen=True)
class Measured:
    """Each seed's value, or why it has none."""

    values: tuple[float | str, ...]  # in the quantity's unit
    decimals: int

    @property
    def mean(self) -> float | None:
        """The mean over seeds; None unless every seed has a value."""
        numbers = [value for value in self.values if not isinstance(value, str)]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(self.values) else None

    @property
    def cell(self) -> str:
        """The mean and, of several seeds, the lowest and the highest; or why there is none."""
        if self.mean is None:
            reasons = dict.fromkeys(value for value in self.values if isinstance(value, str))
            return next((reason for reason in reasons if reason != NOTHING), NOTHING)
        return spread([value for value in self.values if not isinstance(value, str)], f"{{:.{self.decimals}f}}")

    @property
    def each(self) -> str:
        """The seeds' values in their order."""
        texts = [v if isinstance(v, str) else f"{v:.{self.decimals}f}" for v in self.values]
        return ", ".join(texts)

    def difference(self, printed: Printed | None) -> str:
        """Ours − the paper's, to the paper's last decimal."""
        if self.mean is None or printed is None:
            return NOTHING
        return f"{self.mean - float(printed.value):+z.{printed.decimals}f}"


def measure(quantity: Quantity, group: Group, results: Results) -> Measured:
    """What a group says of a quantity."""
    scale, decimals = UNITS[quantity.unit]
    if quantity.measured == "testdev":
        return Measured((_test(group, results),), decimals)
    if quantity.measured == "testdev_retention":
        return Measured((_test_ratio(group, results),), decimals)
    if quantity.measured == "retention":
        found = [retention(result, results) for result in group]
        return Measured(tuple(one if isinstance(one, str) else one[0] for one in found), decimals)
    metric = str(quantity.measured)
    records = [_source(result, metric) for result in group]
    values = [NOTHING if one is None else scale * one["metrics"][metric]["value"] for one in records]
    return Measured(tuple(values), decimals)


def retention(result: Result, results: Results) -> tuple[float, float, float] | str:
    """Retention and its interval over images, in per cent; or why there is none."""
    found = usable(Kept(result.record, result.retention), results.known)
    if isinstance(found, str):
        return found
    value, low, high = (100 * found["metrics"][f"retention{end}"]["value"] for end in ("", "_low", "_high"))
    return value, low, high


def intervals(quantity: Quantity, group: Group, results: Results) -> str:
    """The 95 % interval over images of each seed's value, in the quantity's unit; empty where no seed has one."""
    scale, decimals = UNITS[quantity.unit]
    bounds: list[tuple[float, float] | None] = []
    for result in group:
        if quantity.measured == "retention":
            kept = retention(result, results)
            bounds.append(None if isinstance(kept, str) else kept[1:])
        else:
            record = _source(result, str(quantity.measured))
            found = None if record is None else interval(record, str(quantity.measured), results.store)
            bounds.append(None if found is None else (scale * found.low, scale * found.high))
    if not any(bounds):
        return ""
    cells = [NOTHING if one is None else f"[{one[0]:.{decimals}f}, {one[1]:.{decimals}f}]" for one in bounds]
    if len(cells) == 1:
        return cells[0]
    return "; ".join(f"{result.seed}: {cell}" for result, cell in zip(group, cells, strict=True))


def count(quantities: Iterable[Quantity], group: Group) -> str:
    """How many images, masks or crops the first quantity that the results have is a mean over."""
    for quantity in quantities:
        entries = [result.record["metrics"].get(quantity.measured) for result in group]
        if found := {entry["n"] for entry in entries if entry is not None and entry.get("n") is not None}:
            return f"{' or '.join(map(str, sorted(found)))} {quantity.count}".strip()
    return NOTHING


def commits(group: Group, results: Results) -> str:
    """The commits of all that the results come from; + where the tree was changed."""
    found: dict[str, None] = {}
    for result in group:
        for start in (result.record, result.retention):
            for ancestor in ({} if start is None else ancestors(start, results.known)).values():
                made = (ancestor or {}).get("provenance") or {}
                if made.get("commit"):
                    found[made["commit"][:8] + ("+" if made.get("diff") else "")] = None
    return ", ".join(found) or NOTHING


def _source(result: Result, metric: str) -> Record | None:
    """The record that has a metric: the result's, or that of its masks' quality."""
    records = [record for record in (result.record, result.quality) if record is not None]
    return next((one for one in records if one["metrics"].get(metric, {}).get("value") is not None), None)


def _test(group: Group, results: Results) -> float | str:
    """The server's AP, a mean over seeds; or what to do for it: `submit`, or nothing to submit yet (-)."""
    addresses = [results.submission(result.record) for result in group]
    missing = [name for name in addresses if name is not None and name not in results.testdev]
    if missing:
        return f"submit {', '.join(missing)}"
    if not addresses or None in addresses:
        return NOTHING
    return 100 * sum(results.testdev[name] for name in addresses if name) / len(addresses)


def _test_ratio(group: Group, results: Results) -> float | str:
    humans = [results.known.get(r.retention["inputs"]["human"]) for r in group if r.retention is not None]
    below = _test([Result(record) for record in humans if record is not None], results)
    above = _test(group, results)
    if isinstance(above, str) or isinstance(below, str) or len(humans) < len(group) or None in humans:
        return NOTHING
    return 100 * above / below
