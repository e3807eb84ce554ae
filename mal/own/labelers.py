"""Whose a labeler.pt is: the methods' records know their own."""

from pathlib import Path
from typing import NamedTuple

from mal.context import Json
from mal.errors import ConfigError
from mal.methods.mal.labeler_file import read_state
from mal.methods.registry import METHODS
from mal.methods.spec import Method, OwnFiles


class Labeler(NamedTuple):
    """A method, how it labels a file of one's own, and what it left in its file."""

    method: Method
    own_files: OwnFiles
    state: Json


def open_labeler(path: Path, view: str) -> Labeler:
    """
    Args:
        path: a labeler.pt, or a small file of `labeler_file`.
        view: what a user gives, of `mal.data.views.VIEWS`.

    Raises:
        MalError: the file is absent or cannot be read.
        ConfigError: it is no labeler, or labels something else.
    """
    state, stages = read_state(path), []
    for method in METHODS.values():
        if method.own_files is None:
            continue
        if method.own_files.wrote(state):
            if method.view != view:
                raise ConfigError(
                    f"{path} is {method.name}'s and makes masks from {method.view}, not from {view}; give "
                    f"it a file of {method.view}: python -m mal.label --{method.view} FILE"
                )
            return Labeler(method, method.own_files, state)
        if method.view == view:
            stages.append(method.trainings[-1].name)  # the one that leaves it
    raise ConfigError(f"{path} is not a labeler; give the labeler.pt of a {' or '.join(stages)} stage")
