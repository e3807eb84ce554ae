"""A mask for every object of a split, by whatever method."""

from mal.context import Context, Json
from mal.data.annotations import write
from mal.data.sources import Split
from mal.engine import ranks
from mal.engine.files import read_json
from mal.engine.graph import Result, Stage, Workdir
from mal.methods.labelling import label_dataset
from mal.methods.spec import Method


def label(context: Context, split: Split, method: Method) -> Stage:
    """Pseudo-labels: labels.json is the view with a mask for every annotation."""
    assert method.labels is not None  # a run of one without asks for none
    config, labels = context.config, method.labels(context, split)
    settings: Json = {"labeler": method.name, "on_bad_image": config.data.on_bad_image, **labels.settings}

    def work(workdir: Workdir) -> Result:
        coco = read_json(workdir.inputs[method.view] / f"{method.view}.json")
        labelled = label_dataset(
            coco,
            split.images,
            labels.make(workdir, coco),
            folder=workdir.folder,
            shard_images=config.label.shard_images,
            fallback=method.fallback,
            name=f"label {split.name} ({method.name})",
        )
        ranks.on_first(lambda: write(workdir.folder / "labels.json", labelled))
        count = len(labelled["annotations"])
        flagged = sum(a.get("flagged", False) for a in labelled["annotations"])
        return Result({"labels": count, "flagged": flagged}, {"": count})

    inputs = {method.view: context.view(split, method.view), **labels.inputs}
    about = context.columns() if labels.seeded else context.data_columns()
    columns = {**about, "labeler": method.name, **labels.columns}
    sources = dict(split.sources) | labels.sources
    return Stage(f"label_{split.name}", 1, settings, work, inputs, sources, columns, shared=method.shared)
