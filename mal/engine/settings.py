"""Which settings a stage's key is made of: those that the stage names, and no others.

A stage that names what it reads keeps its key when a setting is added that it does not read. One that it does read it
must name too (tests/test_reads.py holds that), and say with what value its results were computed before there was such
a setting: keys that mean the same must stay the same, so they do not mention it then.
"""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
# part → the names of the settings in it, in one text, or deeper parts; "" → those beside the parts
Reads = Mapping[str, "str | Reads"]


def settings(config: Any, reads: Reads, *, former: Mapping[str, Any] | None = None) -> Json:
    """The settings that a stage reads, as plain values, to hash.

    Args:
        config: a dataclass of settings and of further such dataclasses.
        reads: what the stage names.
        former: dotted name → the value of a setting that is newer than some results, with which they were computed.

    Raises:
        AttributeError: there is no setting of a name.
    """
    return _settings(config, reads, former or {}, "")


def _settings(config: Any, reads: Reads, former: Mapping[str, Any], place: str) -> Json:
    found: Json = {}
    for part, inside in reads.items():
        if isinstance(inside, str):
            owner, below = (config, place) if part == "" else (getattr(config, part), f"{place}{part}.")
            values = {name: getattr(owner, name) for name in inside.split()}
            kept = {k: v for k, v in values.items() if f"{below}{k}" not in former or v != former[f"{below}{k}"]}
            if part == "":
                found |= kept
            else:
                found[part] = kept
        else:
            found[part] = _settings(getattr(config, part), inside, former, f"{place}{part}.")
    return found


def names(reads: Reads, place: str = "") -> set[str]:
    """The dotted names in it."""
    found: set[str] = set()
    for part, inside in reads.items():
        below = f"{place}{part}." if part else place
        found |= {f"{below}{n}" for n in inside.split()} if isinstance(inside, str) else names(inside, below)
    return found
