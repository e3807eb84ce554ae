"""What the commands of analysis share: where they read records from, and how they end where that fails."""

import argparse
import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.records import UnreadableRecordError
from mal.engine.commands import command
from mal.engine.tracking_address import DEFAULT_STORE, experiment_name

__all__ = ["add_options", "command", "opened", "writing"]


@contextmanager
def writing(folder: Path, *, option: str = "--out") -> Iterator[None]:
    """A block that writes below a folder, which an option names.

    Raises:
        UnreadableRecordError: it cannot.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnreadableRecordError(
            f"cannot write below {folder}: {error.strerror or error}; name another folder with {option}"
        ) from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command `--store`, `--mlflow`, `--experiment` and `--copy`; see `opened`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--store", type=Path, default=DEFAULT_STORE, help="folder of results; default: %(default)s")
    where.add_argument("--mlflow", metavar="URI", help="read the results from a tracking server or its SQLite file")
    parser.add_argument(
        "--experiment", default=experiment_name(), help="of --mlflow; default: $MLFLOW_EXPERIMENT_NAME, else mal"
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
