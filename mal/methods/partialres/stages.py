"""Partial-RES's stages: expressions → boxes (REC) → contours of few masks (RES) → pseudo masks → contours again."""

from pathlib import Path

import torch

from mal.config import Config
from mal.context import Context, Json
from mal.data.annotations import CocoDict
from mal.data.sources import Split
from mal.engine import ranks
from mal.engine.files import read_json, write_json
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.settings import Reads, settings
from mal.methods.labelling import ShardLabeler
from mal.methods.partialres import checks, columns, evaluation, lessons
from mal.methods.partialres.course import course_of_masks
from mal.methods.partialres.opening import open_trained
from mal.methods.partialres.own_files import OWN_FILES
from mal.methods.partialres.reads import BOXES, FEW, FORMER, GUESSES, LABELS, PREDICTION, PSEUDO, REC, RES
from mal.methods.partialres.text.known_words import check_files
from mal.methods.partialres.text.subwords import files_of
from mal.methods.spec import Labels, Method, Training

# torchvision, timm and OpenCV, which a dry run need not wait for, are imported where a stage works
VIEW = "expressions"


def train_rec(context: Context) -> Stage:
    """The network learns the boxes of all training objects that have expressions."""
    config = lessons.for_boxes(context.config)
    inputs = {VIEW: context.view(context.labeler_train, VIEW)}
    return _train(context, "train_rec", config, REC, inputs, told=columns.of_boxes(context))


def few_masks(context: Context) -> Stage:
    """The masks of some training objects: few.json. No other stage of training opens human masks."""
    split, percent, seed = context.labeler_train, context.config.partialres.few.percent, context.config.seed

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.few import draw, human_masks, look, masked
        from mal.methods.partialres.known_masks import FEW as FILE
        from mal.methods.partialres.objects import referred
        from mal.methods.partialres.pseudo import others

        human = split.human()
        objects = referred(_seen(workdir))
        known = masked(human, [each.id for each in objects])
        drawn = draw(known, percent, seed)
        look(human, drawn)
        if context.config.partialres.pseudo.kind != "none":
            others(objects, drawn)  # before a network is trained whose predictions nobody would ask for
        masks = human_masks(human, drawn)
        write_json(workdir.folder / FILE, masks)
        return Result({"masks": len(masks)}, {"": len(known)})

    inputs = {VIEW: context.view(split, VIEW), **split.inputs}
    found = settings(context.config, FEW)
    return Stage("few_masks", 1, found, work, inputs, dict(split.sources), columns.of_few(context))


def train_few(context: Context) -> Stage:
    """The network that learns the few masks."""
    return _res(context, {}, pseudo=False)


def refer_train(context: Context) -> Stage:
    """Predictions of the first network for an expression of every object whose mask is not seen: refer.json."""
    config, split = context.config, context.labeler_train
    found = _settings(context, GUESSES, config)

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.known_masks import read_known
        from mal.methods.partialres.objects import referred
        from mal.methods.partialres.predictions import refer
        from mal.methods.partialres.pseudo import others, questions

        own = config.partialres
        objects = others(referred(_seen(workdir)), read_known(workdir.inputs["few"]))
        asked = questions(objects, expression=own.pseudo.expression, seed=config.seed)
        trained = open_trained(workdir, config, own.pseudo.weights)
        answers = refer(trained, asked, split.images, batch=own.testing.batch, boxes=False)
        return _write(workdir, answers)

    network = train_few(context)
    inputs = {VIEW: context.view(split, VIEW), "few": few_masks(context), "network": network, **split.inputs}
    return Stage("refer_train", 1, found, work, inputs, dict(split.sources), network.columns, shared=True)


def pseudo_points(context: Context) -> Stage:
    """Pseudo masks of the objects whose masks are not seen, and which of them agree with the boxes: points.json."""
    config, split = context.config, context.labeler_train
    own = config.partialres
    found = settings(config, PSEUDO)
    inputs = {VIEW: context.view(split, VIEW), "few": few_masks(context)}
    if own.pseudo.kind == "model":
        inputs["answers"] = refer_train(context)
    else:  # every one is kept
        found = {"partialres": {"pseudo": {"kind": own.pseudo.kind}}}

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.known_masks import PSEUDO as FILE
        from mal.methods.partialres.known_masks import read_known
        from mal.methods.partialres.objects import referred
        from mal.methods.partialres.predictions import read_answers
        from mal.methods.partialres.pseudo import judged, others

        objects = others(referred(_seen(workdir)), read_known(workdir.inputs["few"]))
        answers = read_answers(workdir.inputs["answers"]) if "answers" in workdir.inputs else None
        rows = judged(objects, answers, own.pseudo, fill=own.sequence.fill)
        write_json(workdir.folder / FILE, rows)
        kept = sum(row["kept"] for row in rows)
        return Result({"kept": kept, "share_kept": kept / len(rows)}, {"": len(rows)})

    return Stage("pseudo_points", 1, found, work, inputs, columns=columns.of_masks(context))


def train_final(context: Context) -> Stage:
    """The last network of a run. With pseudo masks it is trained anew, from the same start as the first one."""
    if context.config.partialres.pseudo.kind == "none":
        return train_few(context)
    return _res(context, {"points": pseudo_points(context)}, pseudo=True)


def labels(context: Context, _: Split) -> Labels:
    """Masks of the network that was trained, in the given boxes."""
    config = context.config

    def make(workdir: Workdir, _: CocoDict) -> ShardLabeler:
        from mal.methods.partialres import label

        return label.labeler(open_trained(workdir, config, config.partialres.testing.weights), config)

    elsewhere = context.labeler_train.dataset
    named = {} if elsewhere is None else {"labeler": f"partialres:{elsewhere}"}
    told = {**columns.of_method(config), **named}
    found = _settings(context, LABELS, config)
    return Labels(make, found, {"network": train_final(context)}, columns=told, seeded=True)


def scored(context: Context) -> list[Stage]:
    """What boxes, masks and pseudo masks are worth, and where the network attends in some expressions."""
    config, split, train = context.config, context.required_val, context.labeler_train
    own, found = config.partialres, []
    if own.res.start == "rec":
        found.append(evaluation.boxes(context, locate(context, train_rec(context))))
    elif lessons.task_of(config) == "taskwise":
        found.append(evaluation.boxes(context, locate(context, train_final(context))))
    if split.has_masks:
        found.append(evaluation.masks(context, refer(context)))
        if own.res.snapshots:
            found.append(course_of_masks(context, train_final(context)))
        if own.testing.looks and own.network.model == "sequence":
            found.append(evaluation.attended(context, train_final(context), refer(context)))
    if own.pseudo.kind != "none" and train.has_masks:
        found.append(evaluation.pseudo_masks(context, pseudo_points(context)))
    return found or [refer(context)]


def refer(context: Context) -> Stage:
    """The masks that the final network makes of every validation expression: refer.json."""
    return _asked(context, "refer_val", train_final(context), PREDICTION, boxes=False)


def locate(context: Context, trained: Stage) -> Stage:
    """The boxes that a network gives for every validation expression: refer.json."""
    return _asked(context, "locate_val", trained, BOXES, boxes=True)


def preflight(config: Config, _: torch.device, names: set[str]) -> None:
    """
    Raises:
        ConfigError, WeightsError: the network cannot be built, or its weights cannot be had.
    """
    if names & {"train_rec", "train_res"}:
        from mal.methods.partialres.checkpoint import build
        from mal.methods.partialres.text.lexicon import lexicon_of

        settings = lessons.for_masks(config)
        build(settings, lexicon=lexicon_of(settings.partialres, ()))


def _res(context: Context, more: dict[str, Stage], *, pseudo: bool) -> Stage:
    last = pseudo or context.config.partialres.pseudo.kind == "none"
    config = lessons.for_masks(context.config, last=last)
    inputs = {VIEW: context.view(context.labeler_train, VIEW), "few": few_masks(context), **more}
    if config.partialres.res.start == "rec":
        inputs["rec"] = train_rec(context)
    return _train(context, "train_res", config, RES, inputs, told=columns.of_masks(context, pseudo=pseudo))


def _train(context: Context, name: str, config: Config, reads: Reads, inputs: dict[str, Stage], *, told: Json) -> Stage:
    """
    Args:
        config: as `lessons` gives it.
        inputs: of masks, `few` and perhaps `points`; `rec`, where it starts from that.
        told: its columns.
    """
    split = context.labeler_train
    task = "box" if name == "train_rec" else lessons.task_of(config)

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres import train as training
        from mal.methods.partialres.known_masks import read_known
        from mal.methods.partialres.objects import referred
        from mal.methods.partialres.pseudo import others

        given, seen = workdir.inputs, _seen(workdir)
        masks = read_known(given["few"], given.get("points")) if "few" in given else None
        if masks is not None and "points" not in given and context.config.partialres.pseudo.kind != "none":
            others(referred(seen), masks)  # as few_masks does, which an earlier run may have left
        figures = training.train(
            seen,
            split.images,
            config,
            task=task,
            masks=masks,
            start=given.get("rec"),
            folder=workdir.folder,
            device=workdir.device,
        )
        return Result(figures, {"": int(figures["objects"])})

    found, sources = _settings(context, reads, config), dict(split.sources)
    text = config.partialres.network.text
    files = {"encoder": config.encoder.checkpoint, "vectors": text.vectors}
    model = files_of(Path(text.checkpoint)) if text.checkpoint else {}
    sources |= {kind: context.fingerprints.file(file) for kind, file in {**files, **model}.items() if file}
    return Stage(name, 1, found, work, {**inputs, **split.inputs}, sources, told, shared=True)


def _asked(context: Context, name: str, trained: Stage, reads: Reads, *, boxes: bool) -> Stage:
    """A network's predictions for the validation expressions."""
    config, split = context.config, context.required_val

    def work(workdir: Workdir) -> Result:
        from mal.methods.partialres.label import asked_of
        from mal.methods.partialres.predictions import refer
        from mal.methods.partialres.text.unknown import check_known, say_unread

        asked = asked_of(_seen(workdir))
        own, rec = config.partialres, trained.name == "train_rec"
        network = open_trained(workdir, config, own.testing.weights, rec=rec)
        read = own.network.text.words
        texts = [each.words for each in asked]
        ranks.on_first(lambda: check_known(texts, network.lexicon, read))
        ranks.on_first(lambda: say_unread(texts, read, whose="validation"))
        answers = refer(network, asked, split.images, batch=own.testing.batch, boxes=boxes)
        return _write(workdir, answers)

    inputs = {VIEW: context.view(split, VIEW), "network": trained, **split.inputs}
    found = _settings(context, reads, config)
    return Stage(name, 1, found, work, inputs, dict(split.sources), trained.columns, shared=True)


def _write(workdir: Workdir, answers: list[Json]) -> Result:
    from mal.methods.partialres.predictions import FILE

    ranks.on_first(lambda: write_json(workdir.folder / FILE, answers))
    empty = sum(answer["box"] is None for answer in answers)
    return Result({"empty": empty}, {"": len(answers)})


def _settings(context: Context, reads: Reads, config: Config) -> Json:
    """The settings that a stage reads, and the precision that the device gives."""
    return {**settings(config, reads, former=FORMER), "precision": context.precision}


def _seen(workdir: Workdir) -> CocoDict:
    found: CocoDict = read_json(workdir.inputs[VIEW] / f"{VIEW}.json")
    return found


def has(context: Context, split: str) -> bool:
    """Training objects are labelled for a segmenter, or where there are no others: there are many, and each expression
    of theirs is asked."""
    return split != "train" or context.config.segmenter.name != "none" or context.val is None


PARTIALRES = Method(
    "partialres",
    labels,
    view=VIEW,
    train=train_final,
    trainings=(Training("train_rec", "partialres.rec.batch"), Training("train_res", "partialres.res.batch")),
    looks=scored,
    shared=True,
    has=has,
    own_files=OWN_FILES,
    check=checks.check,
    check_files=check_files,
    preflight=preflight,
)
