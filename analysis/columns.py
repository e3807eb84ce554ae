"""The columns of a record and the labelers: how they are called and ordered, for every table, figure and command.

A further method is one line of LABELERS, and a setting of its own that a table should say is one line of METHOD.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Labeler:
    """What makes masks of weak annotations.

    Attributes:
        title: in words.
        line: its place among the lines of a figure; in tables the order is that of LABELERS.
        learns: from the annotations, so that whether it has learned anything is a finding.
        floor: the others' gain on it is shown: what an annotation gives without any learning.
        look: colour, dashes and marker of its lines; None: a colour of its own.
    """

    title: str
    line: int = 0
    learns: bool = True
    floor: bool = False
    look: tuple[str, Any, str] | None = None


GREY = "#8a8a8a"  # of baselines, which dashes and markers tell apart
LABELERS = {
    "mal": Labeler("MAL"),
    "attentionshift": Labeler("AttentionShift", 8),
    "bestie": Labeler("BESTIE", 9),
    "simformer": Labeler("SimFormer", 10),
    "partialres": Labeler("Partial-RES", 11),
    "box": Labeler("filled box", 5, learns=False, floor=True, look=(GREY, (0, (1, 1)), "s")),
    "ellipse": Labeler("inscribed ellipse", 4, learns=False, floor=True, look=(GREY, (0, (4, 2)), "o")),
    "grabcut": Labeler("GrabCut", 3, learns=False, look=(GREY, (0, (4, 1, 1, 1)), "^")),
    "disc": Labeler("disc at the point", 7, learns=False, look=(GREY, (0, (1, 2)), "D")),
    "sam": Labeler("SAM", 1),
    "file": Labeler("given file", 2, learns=False),
    "gt": Labeler("human masks", 6, learns=False, look=("#444444", "solid", "*")),
}
RUN = {"profile": "str", "data": "str"}  # column → its type in a data frame
METHOD = {  # what a method says of its masks
    "recipe": "str",
    "encoder": "str",
    "decoder": "str",
    "theta": "float64",
    "key_points": "str",
    "taught_by": "str",
    "split": "str",  # of the classes into base and novel ones
    "novel": "Int64",  # how many of them are
    "pairs": "str",
    "points": "Int64",
    "complement": "boolean",
    "student": "str",
    "pseudo": "str",
    "model": "str",
    "text": "str",  # of a language model in place of the GRU
    "percent": "float64",  # of the objects that training sees the masks of
    "start": "str",
    "cctf": "str",
    "pmca": "boolean",
    "task": "str",
    "threshold": "float64",  # of the projection distance d, below which a prediction is learned from
    "contour_points": "Int64",
    "steps": "Int64",  # of the training of masks
}
COLUMNS = {**RUN, "labeler": "str", **METHOD, "segmenter": "str", "supervision": "str"}
PUBLISHED = {  # what a retention is divided by, and which published file an AP is of
    "denominator": "str",
    "published_file": "str",
    "printed_mask_ap": "float64",
}
KNOWN = {*COLUMNS, "seed", *PUBLISHED, "printed_by"}  # columns of records; the last is words for the one before it
PAPER_DATA = ("coco", "lvis")
_RECIPE = "|".join(
    [
        r"train_labeler\.loss\.(mil|smooth|box_mask|mil_weight|crf_weight)",
        r"train_labeler\.crf\..+",
        r"train_labeler\.augment\.(jitter|jitter_p|grey_p|blur_p)(\..+)?",
        r"train_labeler\.roi\.(expansion|theta|border|repeats|flip|min_side|max_area)",
        r"train_labeler\.decoder\.(pool|key_layers|upsample_before|scale|key_gain)",
        r"train_labeler\.encoder\.(fuse|width)",
        r"train_labeler\.train\.(final_lr|betas|eps|weight_decay|ema)",
        r"label_\w+\.(label\..+|label_expansion)",
    ]
)
BELONGS = {  # what is compared → the settings that are part of it, so that two of its values may differ in them
    "encoder": r"\w+\.(sources\.)?encoder|\w+\.encoder\.(?!(fuse|width)$).+",  # those two are the recipe's
    "decoder": r"train_labeler\.decoder\..+",
    "theta": r"train_labeler\.roi\.theta",
    "recipe": _RECIPE,
    "labeler": rf"(train_labeler|label_\w+|boxes_train|shapes_train)\..+|{'|'.join(METHOD)}",
    "segmenter": r"(train_segmenter|published_segmenter|detect_val)\..+",
    "key_points": r"train_attentionshift\.attentionshift\.steps\.shift\.method",
    "taught_by": r"train_attentionshift\.attentionshift\.steps\.mask_points\.(supervision|source)",
    "pairs": r"train_simformer\.simformer\.pairs\.kind",
    "points": r"train_simformer\.simformer\.pairs\.points",
    "model": r"train_re[cs]\.partialres\.network\.(model|query\..+)|train_rec\.key",
    "text": r"train_re[cs]\.(partialres\.network\.text\.(?!words$).+|sources\.\w+\.(json|safetensors))|train_rec\.key",
    "percent": r"few_masks\..+|train_res\.partialres\.few\..+",
    "start": r"train_rec\..+|train_res\.partialres\.res\.(start|start_from)",
    "cctf": r"train_res\.partialres\.parts\.cctf",
    "pmca": r"train_res\.partialres\.parts\.pmca\w*",
    "task": r"train_re[cs]\.partialres\.sequence\.task",
    "threshold": r"pseudo_points\.(partialres\.pseudo\.)?threshold",
    "contour_points": r"(train_res|refer_val)\.partialres\.sequence\.points",
    "steps": r"train_res\.partialres\.res\.(steps|epochs)",
}


def method_of(columns: Mapping[str, Any]) -> str:
    """The labeler without the data that it was trained on where those are others: `mal:coco` is mal."""
    return str(columns.get("labeler", "")).partition(":")[0]


def learns(columns: Mapping[str, Any]) -> bool:
    """Whether masks are those of a labeler that learned from weak annotations."""
    name = method_of(columns)
    return bool(name) and (name not in LABELERS or LABELERS[name].learns)


def rank(columns: Mapping[str, Any]) -> int:
    """The place of masks among others in a table, by their labeler."""
    name = method_of(columns)
    return list(LABELERS).index(name) if name in LABELERS else len(LABELERS)


def line(columns: Mapping[str, Any]) -> int:
    """The place of masks among the lines of a figure, by their labeler."""
    name = method_of(columns)
    return LABELERS[name].line if name in LABELERS else 9


def labeler_name(labeler: str, of: str = "") -> str:
    """A labeler in words; `mal:coco` is MAL trained on coco, not on the data that it labels."""
    name, _, data = labeler.partition(":")
    title = LABELERS[name].title if name in LABELERS else name
    return " ".join(filter(None, (title, of, data and f"(labeler trained on {data})")))


def supervision_name(columns: Mapping[str, Any]) -> str:
    """What a segmenter was trained on, in words; published weights by their file, and the mask AP that is printed of
    them where that is of this data."""
    supervision = columns["supervision"]
    if supervision == "published":
        file, printed = columns.get("published_file"), columns.get("printed_mask_ap")
        name = "published weights" + (f" {file}" if file else "")
        return name + (f" (printed mask AP .{round(10 * printed):03d})" if printed is not None else "")
    if supervision != "pseudo":
        return {"human": "human masks", "boxes": "boxes, no mask head"}[supervision]
    return "human masks, copied" if columns["labeler"] == "gt" else labeler_name(columns["labeler"], "masks")
