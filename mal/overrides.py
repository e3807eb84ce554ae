"""Overrides of a command line, `key=value`, as people write them: paths are quoted for Hydra, errors become sentences.

Hydra reads a value as an expression: `=`, quotes, brackets, commas, `#` and blanks mean something, and a path that has
one is refused. A path means itself here, so that it is given as the shell alone wants it.
"""

import difflib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

PATHS = frozenset(
    {
        f"data.{split}.{kind}"
        for split in ("train", "val", "test", "labeler_train")
        for kind in ("annotations", "images")
    }
    | {
        "data.root",
        "data.labeler_train.root",
        "data.val.parts",
        "roots.coco",
        "roots.lvis",
        "roots.voc",
        "roots.coco_stuff",
        "roots.ade20k",
        "roots.refcoco",
        "encoder.checkpoint",
        "labeler.file",
        "labeler.val_file",
        "labeler.checkpoint",
        "attentionshift.tokens.stem.checkpoint",
        "simformer.network.checkpoint",
        "partialres.network.text.vectors",
        "partialres.network.text.checkpoint",
        "store",
        "train.start",
    }
    | {"segmenter.checkpoint", "segmenter.human_checkpoint", "launcher.cluster", "tracking.uri", "tracking.experiment"}
    | {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
)
_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
FULL_ERROR = "HYDRA_FULL_ERROR"


def quoted(arguments: Sequence[str]) -> list[str]:
    """A command's arguments, with the paths among its overrides quoted for Hydra.

    Left as they are: what needs no quotes, `null`, what is quoted already, and with -m a list `A,B` to sweep over,
    unless a file has that name. A leading `~/` becomes the home folder, which the shell does not replace behind a `=`.
    """
    sweeps = any(it == "--multirun" or re.fullmatch(r"-\w*m\w*", it) for it in arguments)
    found = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key.lstrip("+") in PATHS:
            argument = f"{key}={_as_path(value, sweeps=sweeps)}"
        found.append(argument)
    return found


def quote(value: str) -> str:
    """A text as Hydra reads it back: in double quotes."""
    value = re.sub(r'(\\*)"', r'\1\1\\"', value)  # backslashes count only before a quote
    return '"' + re.sub(r"(\\+)\Z", r"\1\1", value) + '"'


def _as_path(value: str, *, sweeps: bool) -> str:
    is_there = _exists(value)
    if value in ("", "null", "None", "???") or (_is_quoted(value) and not is_there):
        return value
    if sweeps and not is_there and re.match(r"(choice|range|interval|glob|sort|shuffle)\(", value):
        return value
    if sweeps and not is_there and "," in value:
        parts = value.split(",")
        return ",".join(_as_path(part, sweeps=False) for part in parts) if all(map(_exists, parts)) else value
    if value.startswith("~/") and not is_there:
        value = str(Path(value).expanduser())
    if is_there:
        value = value.replace("${", r"\${")  # the name of a file, not of another setting
    return value if _is_plain(value) else quote(value)


def _is_plain(value: str) -> bool:
    """Whether Hydra reads it as a text, and as this one."""
    if value.lower() in ("null", "true", "false", "nan", "inf"):
        return False
    return re.fullmatch(r"[A-Za-z_/.][A-Za-z0-9_/.-]*", value) is not None and not re.fullmatch(r"\.[\d_]+.*", value)


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _exists(value: str) -> bool:
    return bool(value) and os.path.lexists(value)


def unread(arguments: Sequence[str], config: Any) -> list[str]:
    """What of a command's overrides the run's labeler does not read: settings of another method, and where expressions
    come from. What experiments and profiles set is none of the command's.

    Args:
        config: a whole one, `mal.config.Config`.
    """
    from mal.methods.registry import METHODS

    chosen = config.labeler.name
    found = []
    for argument in arguments:
        key, equals, _ = argument.lstrip("+~").partition("=")
        method = key.partition(".")[0]
        if not equals or "." not in key:
            continue
        if method in METHODS and method != chosen and hasattr(config, method):
            found.append(f"{argument} is not read: labeler={chosen} reads no setting of {method}")
        elif key.startswith("data.expressions.") and (chosen not in METHODS or METHODS[chosen].view != "expressions"):
            found.append(f"{argument} is not read: labeler={chosen} reads no expressions")
    return found


def menu(conf: Path) -> str:
    """What may be chosen, group by group, and where the rest is found; Hydra's own help takes seconds to say it."""
    groups = sorted(path for path in conf.iterdir() if path.is_dir() and path.name != "hydra")
    named = {g.name: sorted(str(file.relative_to(g).with_suffix("")) for file in g.rglob("*.yaml")) for g in groups}
    chosen = [f"{group}={'|'.join(names)}" for group, names in named.items()]
    lines = ["choose from (experiments/conf):", *(f"  {it}" for it in chosen), "  hydra/launcher=local|slurm", ""]
    lines += ["any setting: KEY=VALUE; mal/config.py lists them, --cfg job shows their values, --hydra-help the flags"]
    return "\n".join(lines)


def sentence(error: Exception, arguments: Sequence[str]) -> str:
    """What Hydra or OmegaConf complain of, as one sentence with a way out.

    Args:
        error: an exception of theirs.
        arguments: the command's.
    """
    text = f"{error}\n{error.__cause__ or ''}".replace(r"\'", "'")
    lines = [line.strip() for line in text.splitlines() if line.strip() and "https://" not in line]
    first = lines[0] if lines else type(error).__name__
    if override := getattr(error, "override", None):
        return f"the override {override} cannot be read; {_way_to_quote(override)}"
    if match := re.match(r"Ambiguous value for argument '(?P<override>.*)'$", first):
        key, _, value = match["override"].partition("=")
        listed = shlex.quote(f"{key}=[{value}]")
        way = f"add -m to sweep over its values, or write a list {listed}; {_way_to_quote(match['override'])}"
        return f"{match['override']} has a comma outside of brackets and quotes: {way}"
    if file := getattr(error, "missing_cfg_file", None):
        group, _, name = str(file).rpartition("/")
        options = list(getattr(error, "options", None) or [])
        if group and options:
            return f"{group}={name} is not on the menu{_similar(name, options)}; choose one of {', '.join(options)}"
    if match := re.search(r"Key '(?P<key>[^']*)' (?:is )?not in '\w+'", text):
        key = _full_key(text) or match["key"]
        return f"there is no setting {key}{_similar(key, list(settings()))}; mal/config.py lists them all"
    if match := re.match(r"Error merging override (?P<override>.*)", first):
        key = match["override"].partition("=")[0].lstrip("+")
        if key in settings():
            return f"{match['override']}: {key} is {_describe(settings()[key])}; give {key}=VALUE"
        return f"{match['override']}: {key} is a group of settings; give one of them, {key}.NAME=VALUE"
    if match := re.search(r"Could not override '(?P<group>[^']*)'\.", text):
        return f"there is no setting or menu {match['group']}{_similar(match['group'], list(settings()))}"
    if first.startswith("Config group override"):
        wrong = [it for it in arguments if re.fullmatch(r"[+~]*(=.*|\w+=-?[\d.]+)", it)]
        return f"{' '.join(wrong) or first}: a menu, KEY=NAME, has names and no numbers; experiments/conf shows them"
    said = [
        line.rstrip(".")
        for line in lines
        if not re.match(r"(full_key: |reference_type=|object_type=|provider=|Config search)", line)
    ]
    return "; ".join(said) + (f" (in {_full_key(text)})" if _full_key(text) else "")


@cache
def settings() -> dict[str, Any]:
    """Dotted name → type of every setting in the schema."""
    from mal.config import Config

    return dict(_leaves(Config, ""))


def _leaves(group: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(group).items():
        if is_dataclass(kind):
            yield from _leaves(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}", kind


def _describe(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_describe(it) for it in get_args(kind))
    if get_origin(kind) is list:
        return f"a list of {_TYPES[get_args(kind)[0]].split()[-1]}s, as in [A,B]"
    return _TYPES.get(kind, "a group of names and values, as in {A:1}")


def _full_key(text: str) -> str:
    match = re.search(r"full_key: (\S+)", text)
    return match[1] if match else ""


def _similar(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near += [it for it in names if it.split(".")[-1] == name.split(".")[-1] and it not in near]
    return f" (did you mean {' or '.join(near[:3])}?)" if near else ""


def _way_to_quote(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or not key:
        return "write KEY=VALUE"
    if value[:1] in "[{" and not _is_quoted(value):
        return f"close its brackets, or, if it is text, write {shlex.quote(f'{key}={quote(value)}')}"
    return f"text with such characters is quoted twice, {shlex.quote(f'{key}={quote(value)}')}"


def in_sentences(main: Callable[[], object], *, hydra_errors: tuple[type[Exception], ...]) -> int:
    """Call a Hydra application; its exit code, after what Hydra refuses was printed as one sentence.

    With HYDRA_FULL_ERROR=1 in the environment Hydra's own text and a traceback come instead.
    """
    if os.environ.get(FULL_ERROR) == "1":
        main()
        return 0
    os.environ[FULL_ERROR] = "1"  # Hydra raises what it would print
    try:
        main()
    except hydra_errors as error:
        text = str(error)
        print(text if text.startswith("error: ") else f"error: {sentence(error, sys.argv[1:])}", file=sys.stderr)
        return 1
    except ValueError as error:
        where = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts
        if "hydra" not in where:
            raise  # a bug
        print(f"error: {sentence(error, sys.argv[1:])}", file=sys.stderr)
        return 1
    return 0
