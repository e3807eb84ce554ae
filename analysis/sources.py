"""Where an analysis command reads records from: a run store, or an MLflow server that mirrors one."""

import argparse
import atexit
import os
import tempfile
from pathlib import Path

from analysis.records import DEFAULT_STORE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command `--store`, `--mlflow`, `--experiment` and `--copy`; see `opened`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--store", type=Path, default=DEFAULT_STORE, help="folder of results; default: %(default)s")
    where.add_argument("--mlflow", metavar="URI", help="read the results from a tracking server or its SQLite file")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "mal"
    parser.add_argument(
        "--experiment", default=experiment, help="of --mlflow; default: $MLFLOW_EXPERIMENT_NAME, else mal"
    )
    parser.add_argument("--copy", type=Path, metavar="DIR", help="keep here what --mlflow downloads, for the next time")


def opened(options: argparse.Namespace) -> Path:
    """The folder with the records that a command's options name, in a store's layout.

    What is downloaded without `--copy` lies in a temporary folder that is removed when the process ends.

    Raises:
        UnreadableRecordError: the server cannot be read, or mlflow is not installed.
    """
    if options.mlflow is None:
        return options.store
    from analysis.from_mlflow import download  # mlflow takes seconds to import

    if options.copy is None:
        folder = tempfile.TemporaryDirectory(prefix="mal-mlflow-")
        atexit.register(folder.cleanup)
        target = Path(folder.name)
    else:
        target = options.copy
    download(options.mlflow, target, experiment=options.experiment)
    return target
