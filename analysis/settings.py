"""All settings behind a result, its own and those of what it comes from, and in which of them results differ."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from analysis.records import Record, UnreadableRecordError, address
from analysis.seeds import SEEDED

Settings = dict[str, str]
ABSENT = "absent"  # stands for a setting that a result does not have
COLUMNS = ("profile", "data", "labeler", "recipe", "encoder", "decoder", "theta", "segmenter", "supervision")
WEIGHTS = {"trained": "trained by MAL", "given": "as given", "random": "with random weights"}
_LABELER = r"(train_labeler|label_\w+|boxes_train|shapes_train)\..+|recipe|encoder|decoder|theta"
_RECIPE = "|".join(
    [
        r"train_labeler\.loss\.(mil|smooth|box_mask|mil_weight|crf_weight)",
        r"train_labeler\.crf\..+",
        r"train_labeler\.augment\.(jitter|jitter_p|grey_p|blur_p)(\..+)?",
        r"train_labeler\.roi\.(expansion|theta|border|repeats|flip|min_side|max_area)",
        r"train_labeler\.decoder\.(pool|key_layers|upsample_before|scale|key_gain)",
        r"train_labeler\.encoder\.(fuse|width)",
        r"train_labeler\.train\.(final_lr|betas|eps|weight_decay|ema)",
        r"label_\w+\.(label\..+|label_expansion)",
    ]
)
BELONGS = {  # what is compared → the settings that are part of it, so that two of its values may differ in them
    "encoder": r"\w+\.(sources\.)?encoder|\w+\.encoder\.(?!(fuse|width)$).+",  # those two are the recipe's
    "decoder": r"train_labeler\.decoder\..+",
    "theta": r"train_labeler\.roi\.theta",
    "recipe": _RECIPE,
    "labeler": _LABELER,
    "segmenter": r"(train_segmenter|published_segmenter|detect_val)\..+",
}


def settings_of(record: Record, known: Mapping[str, Record]) -> Settings:
    """`stage.setting` → value as text, of a record and all it comes from, but the run's seed.

    Beside a stage's config these are its version, the digests of its source files, and its input where that is not
    among the records. The columns (`encoder`, `theta`, …) stand under their own names.

    Args:
        record: a run.json. known: all records, by address.
    """
    found = {name: shown(record["columns"].get(name)) for name in COLUMNS if record["columns"].get(name) is not None}
    waiting, seen = [address(record)], {address(record)}
    for name in waiting:
        here = known.get(name) if name != address(record) else record
        if here is None:
            found[f"{name.partition('/')[0]}.key"] = name  # absent here: its key stands for all of it
            continue
        stage = here["stage"]
        seedless = {k: v for k, v in here["config"].items() if k != "seed" or stage not in SEEDED}
        found |= {f"{stage}.{key}": shown(value) for key, value in flat(seedless)}
        found |= {f"{stage}.sources.{key}": value for key, value in (here.get("sources") or {}).items()}
        found[f"{stage}.version"] = shown(here.get("version"))
        new = [other for other in here["inputs"].values() if other not in seen]
        if stage == "train_segmenter" and "data" in here["inputs"]:
            found[f"{stage}.data"] = here["inputs"]["data"]
        seen |= set(new)
        waiting += new
    return found


def weights_of(record: Record) -> str:
    """Which weights the encoder of a clustering score had: `given` ones, `random` ones, or `trained` by MAL."""
    if "labeler" in record["columns"]:
        return "trained"
    return "given" if record["config"]["encoder"]["pretrained"] or "encoder" in record["sources"] else "random"


def shown(value: Any) -> str:
    """A setting as it stands in an error and as `--where` takes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else str(value)


def chosen(
    records: Iterable[Record], known: Mapping[str, Record], wanted: Mapping[str, list[str]], where: Iterable[str]
) -> list[Record]:
    """The records whose columns are among those wanted and whose settings are those of `where` (`KEY=VALUE`).

    Raises:
        UnreadableRecordError: an entry of `where` that is no KEY=VALUE.
    """
    pairs = [entry.partition("=") for entry in where]
    for key, equals, _ in pairs:
        if not equals:
            raise UnreadableRecordError(f"--where {key} is no KEY=VALUE, such as train_labeler.train.steps=800")
    kept = []
    for record in records:
        columns = {name: shown(record["columns"].get(name)) for name in wanted}
        if any(columns[name] not in values for name, values in wanted.items()):
            continue
        settings = settings_of(record, known) if pairs else {}
        if all(settings.get(key, ABSENT) == value for key, _, value in pairs):
            kept.append(record)
    return kept


def apart_from(compared: str, settings: Settings) -> Settings:
    """The settings without one that is compared, a key of `BELONGS`, and without what belongs to it."""
    pattern = re.compile(BELONGS[compared])
    return {name: value for name, value in settings.items() if name != compared and not pattern.fullmatch(name)}


def differing(
    all_settings: list[Settings], *, by: str | None = None, along: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Setting → its different values, over some results; those that belong to what is compared are left out.

    Args:
        by: the compared setting, a key of `BELONGS`; None: nothing may differ.
        along: more settings that may differ.
    """
    names = sorted(set().union(*(apart_from(by, settings) if by else settings for settings in all_settings)))
    found = {}
    for name in names:
        if name in along:
            continue
        values = sorted({settings.get(name, ABSENT) for settings in all_settings})
        if len(values) > 1:
            found[name] = values
    return found


def choices(differences: Mapping[str, list[str]], among: list[Settings]) -> str:
    """What differs, and flags that choose one of the results: by columns first, since the rest often follows from them.

    Args:
        differences: see `differing`. among: the settings of the results that differ.
    """
    columns = [name for name in COLUMNS if name in differences]
    rest = [name for name in differences if name not in COLUMNS]
    listed = columns + rest[: 3 if columns else 8]
    told = "; ".join(f"{name} ({', '.join(map(_short, differences[name]))})" for name in listed)
    more = len(differences) - len(listed)
    flags = [f"--{name} {among[0][name]}" for name in columns if name in among[0]]
    flags = flags or [f"--where {' '.join(f'{name}={among[0].get(name, ABSENT)}' for name in rest[:3])}"]
    return f"{told}{f' and {more} more' if more else ''}; choose, for instance with {' '.join(flags)}"


def _short(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:12]}…"


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """`{"a": {"b": 1}}` as ("a.b", 1); lists stay whole."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
