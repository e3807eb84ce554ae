"""Where tracking goes: one rule for every command, and no password on a screen, in a file or in a process list."""

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mal.errors import MalError

DEFAULT_STORE = "results/runs"
DEFAULT_URI = "sqlite:///results/mlflow.db"
DEFAULT_EXPERIMENT = "mal"
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"  # MLflow's own
USER_VARIABLE, PASSWORD_VARIABLE = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"  # MLflow's own too

_CREDENTIALS = re.compile(r"(?P<scheme>https?://)(?P<user>[^/?#:@]*):(?P<password>[^/?#]*)@(?P<rest>.*)", re.DOTALL)


def tracking_uri(setting: str | None = None) -> str:
    """The address: what was set explicitly, else MLFLOW_TRACKING_URI, else the file in results/."""
    return setting or os.environ.get(URI_VARIABLE) or DEFAULT_URI


def experiment_name(setting: str | None = None) -> str:
    """MLflow's experiment: what was set explicitly, else MLFLOW_EXPERIMENT_NAME, else `mal`."""
    return setting or os.environ.get(EXPERIMENT_VARIABLE) or DEFAULT_EXPERIMENT


def is_server(uri: str) -> bool:
    """Whether an address is a server's, which other machines reach too; otherwise it is a database."""
    return uri.startswith(("http://", "https://"))


def without_password(uri: str) -> tuple[str, dict[str, str]]:
    """Split `http://USER:PASSWORD@HOST` into the bare address and the variables in which MLflow looks for the rest.

    MLflow prints the address that it is given, so it is given the bare one.
    """
    match = _CREDENTIALS.fullmatch(uri)
    if match is None or not match["user"] or not match["password"]:
        return uri, {}
    variables = {USER_VARIABLE: unquote(match["user"]), PASSWORD_VARIABLE: unquote(match["password"])}
    return match["scheme"] + match["rest"], variables


def hide_password(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """A command's arguments without the password of a tracking address, and the variables that hold it instead.

    The address may be an argument of its own, or follow a `=`, as in `--uri=http://…` and `tracking.uri=http://…`.
    """
    kept: list[str] = []
    variables: dict[str, str] = {}
    for argument in arguments:
        head, address = re.fullmatch(r"((?:[\w.+-]*=)?[\"']?)(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
        bare, found = without_password(address)
        kept.append(head + bare)
        variables |= found
    return kept, variables


def shown(uri: str) -> str:
    """A tracking address, or a text with addresses in it, without the passwords it may hold."""
    return re.sub(r"(?<!sqlite)://[^\s\"']*@", "://…@", uri)


def sync_command(store_root: str | Path, *, uri: str | None, experiment: str | None) -> str:
    """The command that sends what is missing, without what it would assume anyway in this environment."""
    uri, experiment = tracking_uri(uri), experiment_name(experiment)
    parts = ["python -m mal.tracking sync"]
    if Path(store_root) != Path(DEFAULT_STORE):
        parts.append(f"--store {shlex.quote(str(store_root))}")
    if uri != tracking_uri():
        bare, secret = without_password(uri)
        parts.append(f"--uri {_quoted(bare)}")
        if secret:
            parts.insert(0, f"{USER_VARIABLE}=… {PASSWORD_VARIABLE}=…")
    if experiment != experiment_name():
        parts.append(f"--experiment {shlex.quote(experiment)}")
    return " ".join(parts)


def ui_command(uri: str | None = None) -> str:
    """How to look at what was sent."""
    uri = tracking_uri(uri)
    if is_server(uri):
        return f"open {shown(without_password(uri)[0])} in a browser"
    folder = Path(sys.executable).parent
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return f"{shlex.quote(str(folder / 'mlflow'))} ui --backend-store-uri {_quoted(uri)}"


def resolve(uri: str) -> tuple[str, Path | None]:
    """The address with an absolute path, and the path of its SQLite file if it is one.

    Raises:
        MalError: an address that MLflow 3 cannot use.
    """
    if match := re.fullmatch(r"sqlite:///(?P<path>[^?]+)(?P<query>\?.*)?", uri):
        path = Path(match["path"]).resolve()
        return f"sqlite:///{path}{match['query'] or ''}", path
    try:
        usable = urlsplit(uri).scheme not in ("", "file", "sqlite")
    except ValueError:  # a bracket that is not closed, say
        usable = False
    if not usable:
        raise MalError(
            f"{shown(uri)} is no tracking address that MLflow 3 can use; give sqlite:///FILE or http://HOST:PORT (as "
            f"tracking.uri, --uri or {URI_VARIABLE})"
        )
    return uri.rstrip("/"), None


def _quoted(uri: str) -> str:
    """For the shell; what stands for a password is not quoted."""
    text = shown(uri)
    return text if re.fullmatch(r"[\w@%+=:,./…-]+", text) else shlex.quote(text)
