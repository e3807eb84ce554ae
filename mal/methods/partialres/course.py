"""How masks from expressions get better in the course of training."""

from collections.abc import Sequence
from typing import Any

from mal.context import Context
from mal.engine.files import read_json
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.settings import settings
from mal.engine.snapshots import kept
from mal.methods.partialres.reads import PREDICTION
from mal.methods.partialres.truths import Truths
from mal.metrics.masks import select_images
from mal.metrics.referring import interval, mask_overlap, of_mean, scores

Json = dict[str, Any]


def course_of_masks(context: Context, trained: Stage) -> Stage:
    """Mean IoU of the validation expressions after K of N equal parts of a training, mean_iou_K, by the networks that
    `partialres.res.snapshots` keeps of it."""
    config, split = context.config, context.required_val
    own, which = config.partialres, config.data.val_images
    found = {"images": which, **settings(config, PREDICTION), "precision": context.precision}

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.checkpoint import load
        from mal.methods.partialres.label import asked_of
        from mal.methods.partialres.predictions import refer

        truths = Truths(select_images(split.human(), which))
        view = read_json(workdir.inputs["expressions"] / "expressions.json")
        asked = [each for each in asked_of(view) if each.id in truths.annotations]
        means = {}
        for part, path in enumerate(kept(workdir.inputs["network"], own.res.snapshots), start=1):
            network = load(path, config, workdir.device, weights=own.testing.weights)
            answers = refer(network, asked, split.images, batch=own.testing.batch, boxes=False)
            means[f"mean_iou_{part}"] = mean_iou(answers, truths, own.sequence.fill)
        return Result(means, {"": len(asked)})

    inputs = {"expressions": context.view(split, "expressions"), "network": trained, **split.inputs}
    return Stage("course_val", 1, found, work, inputs, dict(split.sources), trained.columns)


def mean_iou(answers: Sequence[Json], truths: Truths, fill: str) -> float:
    """In [0, 1], of answers about objects that have a mask.

    Raises:
        MalError: there is none.
    """
    from mal.methods.partialres.predictions import mask_in

    rows = []
    for answer in answers:
        true, _ = truths.mask(answer["id"])
        mask = mask_in(answer, height=true.shape[0], width=true.shape[1], fill=fill)
        rows.append((answer["id"], answer["image_id"], *mask_overlap(mask, true)))
    return interval(scores(rows), of_mean, resamples=1).value
