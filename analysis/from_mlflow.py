"""The records and small arrays of an MLflow server, as files in a store's layout: what tracking sent, back.

A mirror made before the arrays were sent has run.json and pictures only: remove the
stages' mlflow.json and send them again (python -m mal.tracking sync).
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.records import UnreadableRecordError
from mal.engine.mlflow_server import import_mlflow, own_artifacts, reason
from mal.engine.tracking_address import is_server, resolve, shown, without_password

RECORD = "run.json"
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
        raise UnreadableRecordError(f"cannot read the tracking server {shown(uri)}: {reason(error)}") from error
    if not runs:
        raise UnreadableRecordError(
            f"the tracking server {shown(uri)} holds no finished stage in an experiment {experiment}; name another "
            f"with --experiment, or send some with python -m mal.tracking sync --uri {shown(uri)}"
        )
    for (stage, key), run in sorted(runs.items()):
        if not (target / stage / key / RECORD).exists():
            try:
                _copy(client, run, target / stage / key, database=database)
            except Exception as error:
                raise UnreadableRecordError(
                    f"cannot download {stage}/{key} from {shown(uri)}: {reason(error)}; run the command again, "
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
    beside = own_artifacts(database, run.info.run_id, run.info.artifact_uri)
    beside = beside if beside and beside.is_dir() else None
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


def _client(uri: str) -> tuple[Any, Path | None]:
    """A client of a server that is there, and the path of its SQLite file; one that is not would be made, empty."""
    bare, secret = without_password(uri)
    if not is_server(bare) and not bare.startswith("sqlite:///"):
        raise UnreadableRecordError(
            f"--mlflow {uri} is no address of a server; give sqlite:///FILE or http://HOST:PORT"
        )
    address, path = resolve(bare)
    if path is not None and not path.is_file():
        raise UnreadableRecordError(f"there is no database {path.name} at {uri}; give the one that was sent to")
    os.environ.update(secret, MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
    try:
        mlflow = import_mlflow()
    except ImportError as error:
        raise UnreadableRecordError(
            "reading from a tracking server needs mlflow, which is not installed: pip install mlflow, or read a "
            "store's folder with --store"
        ) from error
    return mlflow.MlflowClient(tracking_uri=address), path
