"""The finished parts of a labelling that was interrupted: files that tell whether they are still what was written."""

import sys
from pathlib import Path
from typing import Any

from mal.engine.files import digest, read_json, write_json

Label = dict[str, Any]


def write_shard(path: Path, labels: dict[int, Label]) -> None:
    """Write the labels of some images, by annotation id, with their digest.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    kept = {str(key): label for key, label in labels.items()}
    write_json(path, {"digest": digest(kept), "labels": kept})


def read_shard(path: Path) -> dict[int, Label] | None:
    """What `write_shard` wrote; None where there is nothing, or not what was written, which is said.

    An annotation without a label is filled with its box, so a shard that lost some must not pass for a whole one.
    """
    try:
        shard = read_json(path)
        if digest(shard["labels"]) == shard["digest"]:
            return {int(key): label for key, label in shard["labels"].items()}
        problem = "its labels are not those that were written"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    print(f"{path} is not used, its images are labelled again: {problem}", file=sys.stderr, flush=True)
    return None
