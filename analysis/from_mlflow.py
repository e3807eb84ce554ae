"""The records and small arrays of an MLflow server, as files in a store's layout: what tracking sent, back.

The only file of analysis that imports mlflow. A mirror made before the arrays were sent has run.json and pictures only:
remove the stages' mlflow.json and send them again (python -m mal.tracking sync).
"""

import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from analysis.records import UnreadableRecordError

RECORD = "run.json"
ARTIFACTS = "mlflow-artifacts"  # beside the SQLite file
# what mal/engine/tracking.py sends beside run.json and pictures; anything else on the server is not ours
WANTED = re.compile(r"run\.json|instances\.csv|curves\.jsonl|attention\.npz|matches_\w+\.npz")
NAME = re.compile(r"\w[\w.-]*")  # of a stage or key: one folder, below the target


def download(uri: str, target: Path, *, experiment: str = "mal") -> int:
    """Copy the finished stages of an experiment into `target`/<stage>/<key>/; those that are there already stay.

    A stage that was sent more than once (its mlflow.json was lost, say) is taken from the run that ended last.
    A folder gets its name once it is whole, so a download that breaks off goes on where it was.

    Args:
        uri: http://HOST:PORT, or sqlite:///FILE.

    Returns:
        How many stages `target` holds of the experiment.

    Raises:
        UnreadableRecordError: mlflow is not installed, the server does not answer, or it has no such experiment or no
            finished stage in it.
    """
    client, database = _client(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        runs = {} if found is None else _finished(client, found.experiment_id)
    except Exception as error:  # mlflow, requests and sqlalchemy raise dozens of kinds
        raise UnreadableRecordError(f"cannot read the tracking server {_shown(uri)}: {_reason(error, uri)}") from error
    if not runs:
        raise UnreadableRecordError(
            f"the tracking server {_shown(uri)} holds no finished stage in an experiment {experiment}; name another "
            f"with --experiment, or send some with python -m mal.tracking sync --uri {_shown(uri)}"
        )
    for (stage, key), run in sorted(runs.items()):
        if not (target / stage / key / RECORD).exists():
            try:
                _copy(client, run, target / stage / key, database=database)
            except Exception as error:
                raise UnreadableRecordError(
                    f"cannot download {stage}/{key} from {_shown(uri)}: {_reason(error, uri)}; run the command again, "
                    "or read the store that was sent"
                ) from error
    return len(runs)


def _finished(client: Any, experiment_id: str) -> dict[tuple[str, str], Any]:
    """(stage, key) → the newest finished run of it."""
    newest: dict[tuple[str, str], Any] = {}
    for run in _pages(client, experiment_id):
        name = run.data.tags.get("stage", ""), run.data.tags.get("key", "")
        if name[0] == "sweep" or not all(NAME.fullmatch(part) for part in name):
            continue  # a run that stands for a sweep, or somebody else's
        ended = (run.info.end_time or 0, run.info.run_id)
        if name not in newest or ended > (newest[name].info.end_time or 0, newest[name].info.run_id):
            newest[name] = run
    return newest


def _pages(client: Any, experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], "attributes.status = 'FINISHED'", max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _copy(client: Any, run: Any, folder: Path, *, database: Path | None) -> None:
    """Download a run's files next to where they belong, then give the folder its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = None if database is None else _beside(database, run)
    there = (
        (it.name for it in beside.iterdir()) if beside else (it.path for it in client.list_artifacts(run.info.run_id))
    )
    names = [name for name in there if WANTED.fullmatch(name)]
    if RECORD not in names:
        raise FileNotFoundError("its run has no run.json")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        whole = Path(place) / folder.name
        whole.mkdir()
        for name in sorted(names):
            if beside:
                shutil.copyfile(beside / name, whole / name)
            else:
                client.download_artifacts(run.info.run_id, name, str(whole))
        if folder.exists():  # without its record: left by something else
            shutil.rmtree(folder)
        whole.rename(folder)


def _beside(database: Path, run: Any) -> Path | None:
    """The folder of a run's files beside its SQLite file, which MLflow looks for where the file was once."""
    folder = database.parent / ARTIFACTS / run.info.run_id / "artifacts"
    return folder if run.info.artifact_uri.endswith("/".join(folder.parts[-3:])) and folder.is_dir() else None


def _client(uri: str) -> tuple[Any, Path | None]:
    """A client of a server that is there, and the path of its SQLite file; one that is not would be made, empty."""
    path = None
    match = re.fullmatch(r"sqlite:///(?P<path>[^?]+)(?P<query>\?.*)?", uri)
    if match:
        path = Path(match["path"]).resolve()
        if not path.is_file():
            raise UnreadableRecordError(f"there is no database {path.name} at {uri}; give the one that was sent to")
        uri = f"sqlite:///{path}{match['query'] or ''}"
    elif not uri.startswith(("http://", "https://")):
        raise UnreadableRecordError(
            f"--mlflow {uri} is no address of a server; give sqlite:///FILE or http://HOST:PORT"
        )
    if match := re.fullmatch(r"(https?://)([^/?#:@]+):([^/?#]+)@(.*)", uri):  # mlflow's own messages have the address
        os.environ.update(MLFLOW_TRACKING_USERNAME=unquote(match[2]), MLFLOW_TRACKING_PASSWORD=unquote(match[3]))
        uri = match[1] + match[4]
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", GIT_PYTHON_REFRESH="quiet")
    os.environ.update(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its default is minutes of retries
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
    except ImportError as error:
        raise UnreadableRecordError(
            "reading from a tracking server needs mlflow, which is not installed: pip install mlflow, or read a "
            "store's folder with --store"
        ) from error
    return mlflow.MlflowClient(tracking_uri=uri), path


def _shown(uri: str) -> str:
    """The address without its password."""
    return re.sub(r"(?<!sqlite)://[^\s\"']*@", "://…@", uri)


def _reason(error: Exception, uri: str) -> str:
    text = " ".join(str(error).split()).replace(uri, _shown(uri))
    if "API request to" in text and (why := re.search(r"\[Errno -?\d+\] ([^\"')]+)|Read timed out", text)):
        return f"it does not answer ({why[1] or 'time-out'})"
    return text[:300] or type(error).__name__
