"""Stages that score REC's boxes, RES's masks and pseudo masks against human annotations."""

from typing import Any

import numpy as np

from mal.context import Context
from mal.engine.files import atomic_write, read_json
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.settings import settings
from mal.methods.partialres.opening import open_trained
from mal.methods.partialres.reads import LOOKS, SCORE
from mal.methods.partialres.truths import Truths
from mal.metrics import referring
from mal.metrics.masks import select_images

Json = dict[str, Any]
FILE = "iou.npz"


def masks(context: Context, referred: Stage) -> Stage:
    """IoU of the masks of the validation images' expressions, each of which counts once; FILE has them."""
    config, split = context.config, context.required_val
    own, which = config.partialres, config.data.val_images
    drawn = {"resamples": config.evaluate.bootstrap, "seed": config.seed}
    sequence = own.network.model == "sequence"
    found: Json = {"images": which, **drawn, **settings(config, SCORE)}

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.polygons import ceiling
        from mal.methods.partialres.predictions import mask_in, read_answers

        truths = Truths(select_images(split.human(), which))
        rows, ceilings, quirks = [], [], []
        for answer in truths.known(read_answers(workdir.inputs["answers"])):
            true, segmentation = truths.mask(answer["id"])
            mask = mask_in(answer, height=true.shape[0], width=true.shape[1], fill=own.sequence.fill)
            rows.append((answer["id"], answer["image_id"], *referring.mask_overlap(mask, true)))
            if sequence:
                ceilings.append(ceiling(true, own.sequence, own.image.side))
            if own.testing.crowd_quirk:
                in_parts = referring.is_in_parts(segmentation, true)
                quirks.append(referring.crowd_iou(mask, true, in_parts=in_parts))
        scores = referring.scores(rows)
        metrics = referring.mask_metrics(scores, **drawn)
        metrics |= {"ceiling": float(np.mean(ceilings))} if ceilings else {}
        metrics |= {"crowd_iou": float(np.mean(quirks))} if quirks else {}
        referring.write_scores(workdir.folder / FILE, scores)
        return Result(metrics, {"": len(rows)})

    inputs = {"answers": referred, **split.inputs}
    return Stage("res_val", 1, found, work, inputs, dict(split.sources), referred.columns)


def boxes(context: Context, located: Stage) -> Stage:
    """Accuracy of the boxes of the validation images' expressions. With human masks also the IoU of the filled boxes
    and of their inscribed ellipses, which learned shapes must exceed. FILE has the values of each expression."""
    config, split = context.config, context.required_val
    which = config.data.val_images
    drawn = {"resamples": config.evaluate.bootstrap, "seed": config.seed}

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.predictions import read_answers
        from mal.methods.partialres.projection import filled_box, filled_ellipse

        view = read_json(workdir.inputs["expressions"] / "expressions.json")
        given = {a["id"]: a["bbox"] for a in select_images(view, which)["annotations"]}
        answers = [answer for answer in read_answers(workdir.inputs["answers"]) if answer["id"] in given]
        truths = Truths(select_images(split.human(), which)) if split.has_masks else None
        if truths is not None:  # the expressions that masks are scored on
            answers = truths.known(answers)
        shares: dict[str, list[float]] = {"box_iou": [], "ellipse_iou": []}
        rows = []
        for answer in answers:
            overlap = referring.box_overlap(answer["box"], given[answer["id"]])
            rows.append((answer["id"], answer["image_id"], *overlap))
            if truths is not None:
                true, _ = truths.mask(answer["id"])
                size = (true.shape[0], true.shape[1])
                for name, fill in (("box_iou", filled_box), ("ellipse_iou", filled_ellipse)):
                    common, either = referring.mask_overlap(fill(answer["box"], size), true)
                    shares[name].append(common / either if either else 0.0)
        scores = referring.scores(rows)
        measured = {name: np.array(values) for name, values in shares.items() if values}
        referring.write_scores(workdir.folder / FILE, scores, **measured)
        means = {name: float(values.mean()) for name, values in measured.items()}
        return Result({**referring.box_metrics(scores, **drawn), **means}, {"": len(rows)})

    found = {"images": which, **drawn}
    inputs = {"answers": located, "expressions": context.view(split, "expressions"), **split.inputs}
    return Stage("rec_val", 1, found, work, inputs, dict(split.sources), located.columns)


def pseudo_masks(context: Context, made: Stage) -> Stage:
    """IoU of the pseudo masks that were kept, and of those that were rejected."""
    split = context.labeler_train

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.known_masks import PSEUDO
        from mal.methods.partialres.pseudo import pseudo_quality

        figures, number = pseudo_quality(read_json(workdir.inputs["pseudo"] / PSEUDO), split.human())
        return Result(figures, {"": number})

    inputs = {"pseudo": made, **split.inputs}
    return Stage("pseudo_quality_train", 1, {}, work, inputs, dict(split.sources), made.columns)


def attended(context: Context, trained: Stage, referred: Stage) -> Stage:
    """Where the network attends, and its points, in some of the validation images' expressions: looks.npz."""
    config, split = context.config, context.required_val
    found = {"images": config.data.val_images, **settings(config, LOOKS), "precision": context.precision}

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.looking import look
        from mal.methods.partialres.predictions import read_answers

        human = select_images(split.human(), config.data.val_images)
        network = open_trained(workdir, config, config.partialres.testing.weights)
        arrays = look(network, read_answers(workdir.inputs["answers"]), Truths(human), split.images)
        with atomic_write(workdir.folder / "looks.npz", "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub: a name may be allow_pickle
        return Result({}, {"": len(arrays["ids"])})

    inputs = {"network": trained, "answers": referred, **split.inputs}
    return Stage("looks_val", 1, found, work, inputs, dict(split.sources), trained.columns)
