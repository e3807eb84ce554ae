"""What a recipe's name means today, and where a result was made otherwise under the same name.

A recipe's settings may change while results keep its name: a table that says `recipe=best` of both would call two
methods alike. Here the recipe is composed from experiments/conf as a run composes it, and set against what the records
say.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from analysis.lineage import ancestors
from analysis.records import Record, UnreadableRecordError
from mal.engine.payload import flatten
from mal.methods.mal.reads import FORMER

CONF = Path(__file__).resolve().parents[1] / "experiments" / "conf"
OWN_COLUMN = ("recipe", "roi.theta")  # set by a recipe, and said by a column of its own
Settings = dict[str, Any]  # dotted name → value


def recipe_name(record: Record, known: Mapping[str, Record]) -> str | None:
    """A result's recipe, and the settings in which it differs from what that name means today; None without one.

    E.g. `best label.antialias=true label.threshold=[0.4,0.4,0.4]`.

    Args:
        record: of any stage. known: all records, by address.
    """
    name = record["columns"].get("recipe")
    if name is None:
        return None
    return " ".join([str(name), *shown(departures(record, known))])


def departures(record: Record, known: Mapping[str, Record]) -> Settings:
    """The settings of a labeler's training and labelling that its recipe sets otherwise today: the result's values.

    Raises:
        UnreadableRecordError: the recipe's file cannot be read.
    """
    columns = record["columns"]
    if columns.get("recipe") is None:
        return {}
    wanted = recipe(str(columns["recipe"]), profile=str(columns["profile"]), data=str(columns["data"]))
    found = {}
    for stage, settings in _made_with(record, known):
        for key, value in wanted.items():
            if _reads(stage, key, settings) and key not in OWN_COLUMN:
                there = settings[key] if key in settings else FORMER.get(key, value)
                if there != value:
                    found[key] = there
    return dict(sorted(found.items()))


def common_departures(records: Iterable[Record], known: Mapping[str, Record]) -> dict[str, list[str]]:
    """Recipe → the departures that all results of that name share, as `shown`; recipes without any are left out."""
    shared: dict[str, list[str]] = {}
    for record in records:
        if (name := record["columns"].get("recipe")) is not None:
            here = shown(departures(record, known))
            shared[name] = [entry for entry in shared.get(name, here) if entry in here]
    return {name: entries for name, entries in sorted(shared.items()) if entries}


def shown(settings: Settings) -> list[str]:
    """`name=value` each, as a table says them and a command line takes them."""

    def text(value: Any) -> str:
        if value is None:
            return "null"
        return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")

    return [f"{key}={text(value)}" for key, value in settings.items()]


def recipe(name: str, *, profile: str, data: str) -> Settings:
    """What a recipe sets today, with what a profile and a data set change of it; empty where there is no such recipe.

    Raises:
        UnreadableRecordError: a file of experiments/conf cannot be read.
    """
    own = dict(flatten(_composed(CONF, "recipe", name)))
    whole = dict(own)
    for group, option in (
        ("data", data),
        ("profile", profile),
        ("data_recipe", f"{data}_{name}"),
    ):  # as config.yaml
        whole |= {key: value for key, value in flatten(_composed(CONF, group, option)) if key in own}
    return whole


@cache
def _composed(conf: Path, group: str, option: str) -> dict[str, Any]:
    """A file of a config group that sets global values, over the files of its group that its defaults list names."""
    path = conf / group / f"{option}.yaml"
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    if "@package _global_" not in text:
        return {}
    try:
        own: Any = OmegaConf.to_container(OmegaConf.create(text))
    except Exception as error:  # yaml and omegaconf have many kinds
        raise UnreadableRecordError(f"{path} cannot be read: {error}; mend it, or restore it") from error
    whole: Any = OmegaConf.create({})
    for entry in own.pop("defaults", ["_self_"]):
        if isinstance(entry, str):  # the others choose options of other groups, which the record names
            whole = OmegaConf.merge(whole, own if entry == "_self_" else _composed(conf, group, entry))
    return OmegaConf.to_container(whole)  # type: ignore[return-value]


def _made_with(record: Record, known: Mapping[str, Record]) -> Iterator[tuple[str, Settings]]:
    """The labelling and the training of the labeler behind a result, nearest first: which, and its settings."""
    seen = set()
    for here in filter(None, ancestors(record, known).values()):
        stage = here["stage"].removesuffix("_train").removesuffix("_val")
        kind = {"label": "label", "train_labeler": "train"}.get(stage)
        if kind is not None and kind not in seen:
            seen.add(kind)
            yield kind, _as_config(dict(flatten(here["config"])))


def _as_config(settings: Settings) -> Settings:
    """A stage's settings under the config's names."""
    return {"roi.label_expansion" if key == "label_expansion" else key: value for key, value in settings.items()}


def _reads(stage: str, key: str, settings: Settings) -> bool:
    """Whether a stage reads a setting of the config: that of its kind, in a part of the config that its record has."""
    labels = key.startswith("label.") or key == "roi.label_expansion"
    part = key.partition(".")[0]
    return labels == (stage == "label") and any(name.partition(".")[0] == part for name in settings)
