"""What a run leaves out, and what must be said of it before it starts."""

from mal import needs
from mal.data.sources import Split
from mal.request import Graph
from mal.segmenters import unread


def notes_of(graph: Graph) -> list[str]:
    """What this run leaves out, and why."""
    if graph.trains_nothing:
        return ["segmenter.weights=published: nothing is trained or labelled, a published segmenter is evaluated"]
    said = [] if (same := _one_file_note(graph)) is None else [same]
    if graph.ends_elsewhere:
        return [*said, *_label_remarks(graph)]
    segmenter = graph.config.segmenter
    if (file := segmenter.human_checkpoint) is not None and not segmenter.mask_head:
        said.append(
            f"segmenter.human_checkpoint={file} has nothing to do without masks (segmenter.mask_head=none): the "
            "detector learns from boxes alone, and no retention is taken"
        )
    elif file is not None and graph.trains_segmenters:
        found = graph.segmenters.found
        what = found.layout.title if found.printed is None else found.printed.name
        if (printed := graph.segmenters.printed_here) is not None:
            what = printed.words
        said.append(f"segmenter.human_checkpoint={file}: no segmenter is trained on human masks; {what} stands for it")
    if graph.trains_segmenters and (unlike := unread.note(segmenter)) is not None:
        said.append(unlike)
    if small := _stand_ins(graph):
        said.append(f"{graph.config.experiment}: in place of the paper's models, small ones: {', '.join(small)}")
    for split in graph.files():
        said += needs.notes(split, graph.config)
    for split in graph.splits:
        if not split.has_masks and split.census is not None:
            said.append(needs.without_masks(split) + _lost_without_masks(graph, split))
    said += _label_remarks(graph)
    if (parts := _parts_note(graph)) is not None:
        said.append(parts)
    if graph.val is None:
        said.append("no validation split is named (data.val.annotations, data.val.images): nothing is scored on one")
    if graph.method is None:
        said.append("labeler=none: the run makes no masks")
    elif graph.config.segmenter.name == "none":
        said.append("segmenter=none: the run ends at mask quality")
    looked_at = [part.encoder for part in (graph.config.clustering, graph.config.attention) if part.enabled]
    if "pretrained" in looked_at and not graph.config.encoder.pretrained and graph.config.encoder.checkpoint is None:
        said.append(f"encoder={graph.config.encoder.name} has no pre-trained weights: its features are random ones")
    return said


def _one_file_note(graph: Graph) -> str | None:
    """Whose scores say less than they seem to, as it is scored on files whose answers it has learned.

    A labeler that learns from boxes or points has not: it is for the masks of the very images that it learns from.
    """
    answers = graph.method is not None and (
        graph.ends_elsewhere or graph.method.detect is not None or graph.method.view == "expressions"
    )
    learned = graph.context.labeler_train if answers and graph.learns else None
    named = "data.train" if learned is None or learned.dataset is None else "data.labeler_train"
    segmented = graph.train if graph.trains_segmenters else None
    scored = [
        (named, learned, f"labeler={graph.config.labeler.name}"),
        ("data.train", segmented, f"segmenter={graph.config.segmenter.name}"),
    ]
    same = [
        f"{files} and data.val are the same files, so {name} is scored on what it learned from"
        for files, split, name in scored
        if split is not None and graph.val is not None and split.sources and split.sources == graph.val.sources
    ]
    return "; ".join(same) or None


def _parts_note(graph: Graph) -> str | None:
    """What must be said of the validation objects' parts."""
    if graph.config.data.val.parts is None:
        return None
    if not any(stage.name == "key_points_val" for stage in graph.targets()):
        return (
            "data.val.parts: this run scores no key-points (labeler=attentionshift does, with "
            "attentionshift.steps.mask_points.source=parts, on validation images in files with human masks)"
        )
    return None if graph.val is None or graph.val.parts is None else graph.val.parts.remark


def _label_remarks(graph: Graph) -> list[str]:
    """What must be said of the labels of each split, as their method says it."""
    read = [split for split in (graph.train, graph.val) if split is not None]
    remarks = [method.remark(graph.context, split) for split in read for method in graph.named(split)]
    return [remark for remark in remarks if remark]


def _stand_ins(graph: Graph) -> list[str]:
    """The small models that an experiment of the paper's uses in place of the paper's."""
    config = graph.config
    if not (config.experiment or "").rpartition("/")[2].startswith(("tab", "fig")):
        return []
    models = {"encoder": config.encoder.name, "segmenter": config.segmenter.name}
    return [f"{group}={name}" for group, name in models.items() if name.endswith(("_nano", "_tiny"))]


def _lost_without_masks(graph: Graph, split: Split) -> str:
    """What a run does without because a split has no human masks."""
    if not graph.wants_segmenters or not graph.config.segmenter.mask_head:
        return ""
    measured = ", nor to measure mask AP on" if split.name == "val" else ""
    return f"{measured}, so no segmenter is trained"
