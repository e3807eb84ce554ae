"""What Partial-RES's networks are called: the model, what masks start from, the parts, what else it learned from."""

from collections.abc import Mapping
from typing import Any

from analysis.columns import labeler_name, method_of

METHOD = "partialres"
RIVAL = "Partial-RES's rival, a query"
STARTS = {"rec": "from boxes", "none": "from scratch"}
CCTF = {"matched": "CCTF", "transposed": "CCTF transposed"}
PSEUDO = {"box": "filled boxes", "ellipse": "ellipses", "model": "own predictions"}


def method_name(columns: Mapping[str, Any]) -> str:
    """A labeler in words; of Partial-RES's the network's."""
    return network_name(columns) if method_of(columns) == METHOD else labeler_name(columns["labeler"])


def network_name(columns: Mapping[str, Any]) -> str:
    """`Partial-RES (from boxes, CCTF, PMCA, learnable [TASK], own predictions of d < 0.1)`; of boxes the model alone. A
    language model in place of the GRU is named first.

    Args:
        columns: of a record. The share of the masks, the length and such are no part of the name.
    """
    query = columns.get("model") == "query"
    name = RIVAL if query else labeler_name(columns["labeler"])
    taskwise = columns.get("task") == "taskwise"
    told = [columns.get("text", "")]
    told += ["boxes and masks at once" if taskwise else STARTS.get(columns.get("start", ""), "")]
    if not query:
        told += [CCTF.get(columns.get("cctf", ""), ""), "PMCA" if columns.get("pmca") else ""]
        told += [f"{columns['task']} [TASK]" if "task" in columns and not taskwise else ""]
    pseudo, threshold = PSEUDO.get(columns.get("pseudo", ""), ""), columns.get("threshold")
    told += [f"{pseudo} of d < {threshold:g}" if pseudo and threshold is not None else pseudo]
    return f"{name} ({', '.join(kept)})" if (kept := [text for text in told if text]) else name
