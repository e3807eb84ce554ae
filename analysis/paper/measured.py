"""What some results that differ in their seed alone say of a quantity of the paper: cells of text."""

from dataclasses import dataclass

from analysis.denominators import Kept, usable
from analysis.intervals import interval
from analysis.lineage import ancestors
from analysis.paper.results import Group, Result, Results
from analysis.paper_numbers import Printed, Quantity
from analysis.records import Record
from analysis.rendering import spread

NOTHING = "-"
ABSENT = (NOTHING, "the AP with human masks is missing")  # what computing the row again would mend
PER_CENT = "per cent"
MORE = {"mask_ap_r": "AP_r", "mask_ap_c": "AP_c", "mask_ap_f": "AP_f"}  # ours alone: LVIS's rare, common, frequent
MORE_CLUSTERING = {
    "clustering_S": "score S",
    "clustering_M": "score M",
    "clustering_L": "score L",
    "clustering_global": "one pair of centres for all",
}


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
    kind = quantity.measured
    per_cent = quantity.unit == PER_CENT
    if kind == "testdev":
        return Measured((_test(group, results),), 1)
    if kind == "testdev_retention":
        return Measured((_test_ratio(group, results),), 1)
    if kind == "retention":
        found = [retention(result, results) for result in group]
        return Measured(tuple(one if isinstance(one, str) else one[0] for one in found), 1)
    return Measured(tuple(_metric(result, str(kind), 100 if per_cent else 1) for result in group), 1 if per_cent else 3)


def retention(result: Result, results: Results) -> tuple[float, float, float] | str:
    """Retention and its interval over images, in per cent; or why there is none."""
    found = usable(Kept(result.record, result.retention), results.known)
    if isinstance(found, str):
        return found
    value, low, high = (100 * found["metrics"][f"retention{end}"]["value"] for end in ("", "_low", "_high"))
    return value, low, high


def intervals(quantity: Quantity, group: Group, results: Results) -> str:
    """The 95 % interval over images of each seed's value, in the quantity's unit; empty where no seed has one."""
    if quantity.measured == "retention":
        kept = [retention(result, results) for result in group]
        return _each(group, [None if isinstance(one, str) else one[1:] for one in kept], 1)
    scale, decimals = (100, 1) if quantity.unit == PER_CENT else (1, 3)
    return _intervals(str(quantity.measured), group, [result.record for result in group], results, scale, decimals)


def iou_intervals(group: Group, results: Results) -> str:
    """The same of the masks' mean IoU."""
    return _intervals("iou", group, [result.quality for result in group], results, 1, 3)


def _intervals(
    metric: str, group: Group, records: list[Record | None], results: Results, scale: float, decimals: int
) -> str:
    found = [None if record is None else interval(record, metric, results.store) for record in records]
    return _each(group, [None if one is None else (scale * one.low, scale * one.high) for one in found], decimals)


def _each(group: Group, bounds: list[tuple[float, float] | None], decimals: int) -> str:
    if not any(bounds):
        return ""
    cells = [NOTHING if one is None else f"[{one[0]:.{decimals}f}, {one[1]:.{decimals}f}]" for one in bounds]
    if len(cells) == 1:
        return cells[0]
    return "; ".join(f"{result.seed}: {cell}" for result, cell in zip(group, cells, strict=True))


def more(metric: str, group: Group, scale: float, decimals: int) -> str:
    """A metric that the paper has no numbers of; empty where no seed has it."""
    measured = Measured(tuple(_metric(result, metric, scale) for result in group), decimals)
    return "" if measured.mean is None else measured.cell


def iou(group: Group) -> str:
    """Mean IoU of the masks with human ones on the validation images, in [0, 1]."""
    known = [result.quality for result in group if result.quality is not None]
    if not known or len(known) < len(group):
        return ""
    return spread([quality["metrics"]["iou"]["value"] for quality in known], "{:.3f}")


def count(group: Group) -> str:
    """How many images, masks or crops the numbers are means over."""
    stage = group[0].record["stage"]
    metric, what = {"quality_val": ("iou", "masks"), "clustering_val": ("clustering", "crops or images")}.get(
        stage, ("box_ap", "images")
    )
    found = {result.record["metrics"][metric]["n"] for result in group if metric in result.record["metrics"]}
    return f"{' or '.join(map(str, sorted(found)))} {what}" if found else NOTHING


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


def _metric(result: Result, name: str, scale: float) -> float | str:
    entry = result.record["metrics"].get(name)
    return NOTHING if entry is None else scale * entry["value"]


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
