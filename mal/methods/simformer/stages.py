"""SimFormer's stages: class maps → the view of them that weak-shot learning may see → network → class maps → IoU."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mal.config import Config
from mal.context import Context, Json
from mal.data import semantic, stages, weak_view
from mal.data.sources import Split
from mal.engine.findings import some
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.settings import Reads, settings
from mal.errors import ConfigError
from mal.methods.simformer.config.augment import reads_truth
from mal.methods.simformer.config.distillation import DistillationConfig
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.config.similarity import SimilarityConfig
from mal.methods.simformer.evaluation import miou, pseudo_quality, scored
from mal.methods.simformer.reads import CLASSIFIER, ENCODER, NETWORK, PREDICTION, PSEUDO, SIMILARITY, TRAINING
from mal.methods.simformer.splits import novel_of
from mal.methods.spec import Method, Training

if TYPE_CHECKING:
    from mal.methods.simformer.infer import Predictor

# torchvision, transformers and timm, which a dry run need not wait for, are imported where a stage works


def targets(context: Context) -> list[Stage]:
    """What a run ends in: mean IoU on the validation images, and how right what it learned from was.

    Raises:
        ConfigError, MalError: a split is missing, or its classes are not those of `simformer.split`.
    """
    config = context.config
    if context.labeler_train.dataset is not None:
        raise ConfigError("labeler=simformer learns from the classes that it is measured on; set labeler_data=null")
    kind = config.simformer.pseudo.kind
    trained = first(context) if kind == "none" else retrained(context)
    found = [class_maps(context, context.required_val), segment_and_score(context, trained)]
    if kind != "none":
        found.append(pseudo_score(context))
    if supervision(config) == "weak" and kind in ("none", "own"):
        found.append(similarity(context, first(context)))
    return found


def class_maps(context: Context, split: Split) -> Stage:
    """Which class each pixel of a split is of."""
    data = context.config.data
    return stages.class_maps(split, context.data_columns(split), data.semantic, form=data.format)


def weak(context: Context) -> Stage:
    """What weak-shot learning may see of the training images: base classes by pixels, novel ones by tags."""
    truth, hidden = class_maps(context, context.train), novel(context)

    def work(workdir: Workdir) -> Result:
        written = weak_view.weak_view(
            semantic.read_semantic(workdir.inputs["data"] / semantic.FILE), hidden, workdir.folder
        )
        tags = sum(len(image.tags or ()) for image in written.images)
        alone = sum(len(image.tags or ()) == 1 for image in written.images)
        return Result({"tags": tags, "one_tag": alone}, {"": len(written.images)})

    columns = {**truth.columns, **_split_columns(context)}
    return Stage("weak_train", 1, {"novel": list(hidden)}, work, {"data": truth}, columns=columns)


def first(context: Context) -> Stage:
    """The network that learns from the weak view; or, as a bound, from all masks."""
    if context.config.simformer.network.weights == "published":
        return published(context)
    if supervision(context.config) == "oracle":
        plain = without_weak_losses(context.config, true_masks=False)
        return _train(context, plain, {"maps": class_maps(context, context.train)}, semantic.FILE)
    config, own = context.config, context.config.simformer
    # what re-training may fall back to is not for this one
    config = replace(config, simformer=replace(own, augment=replace(own.augment, true_masks_after=None)))
    return _train(context, config, {"maps": weak(context)}, weak_view.FILE)


def retrained(context: Context) -> Stage:
    """The network that learns pseudo-labels as if they were masks."""
    plain = without_weak_losses(context.config, true_masks=True)
    return _train(context, plain, {"maps": pseudo(context)}, semantic.FILE, pseudo=context.config.simformer.pseudo.kind)


def _train(context: Context, config: Config, inputs: dict[str, Stage], file: str, *, pseudo: str = "none") -> Stage:
    """
    Args:
        config: what is learned with, be it the context's or not.
        file: below the folder of the input `maps`.
    """
    split, found = context.train, _settings(context, TRAINING, config)
    if sees_hidden(config):
        inputs = {**inputs, "hidden": class_maps(context, split)}

    def work(workdir: Workdir) -> Result:
        from mal.methods.simformer import train as training

        hidden = workdir.inputs["hidden"] / semantic.FILE if "hidden" in workdir.inputs else None
        view = workdir.inputs["maps"] / file
        figures = training.train(
            view, split.images, config, folder=workdir.folder, device=workdir.device, hidden=hidden
        )
        return Result(figures, {"": int(figures["images"])})

    columns = _columns(context, pseudo=pseudo)
    everything = {**inputs, **split.inputs}
    return Stage("train_simformer", 1, found, work, everything, _sources(context), columns, shared=True)


def published(context: Context) -> Stage:
    """MaskFormer's published network for these classes, in place of training.

    Raises:
        ConfigError, WeightsError: none is published for the data, or it cannot be reached.
    """
    from mal.methods.simformer import published as weights

    config, own, classes = context.config, context.config.simformer, _classes(context)
    file = weights.locate(own.network, config.encoder, data=config.data.name, classes=classes)
    reads = settings(config, {**ENCODER, "simformer": NETWORK})

    def work(workdir: Workdir) -> Result:
        from mal.methods.simformer import checkpoint

        state = weights.published_state(file, config.encoder, own.network, classes=classes)
        checkpoint.save(workdir.folder, state, reads, similarity=None, classes=classes, novel=())
        return Result()

    found, sources = {**reads, "classes": classes}, {"weights": context.fingerprints.file(file)}
    columns = _columns(context, pseudo="none")
    return Stage("published_simformer", 1, found, work, sources=sources, columns=columns)


def pseudo(context: Context) -> Stage:
    """Maps of the training images to learn again from; nothing here sees novel pixels' classes."""
    config, split, view = context.config, context.train, weak(context)
    kind = config.simformer.pseudo.kind
    found = {"kind": kind, **_settings(context, PSEUDO[kind])}
    inputs = {"weak": view, **split.inputs}
    if kind == "own":
        inputs["network"] = first(context)
    if kind == "cam":
        inputs["network"] = classifier(context)

    def work(workdir: Workdir) -> Result:
        from mal.methods.simformer import maps

        seen = semantic.read_semantic(workdir.inputs["weak"] / weak_view.FILE)
        if kind == "complement":
            maps.complement_labels(seen, workdir.folder)
        elif kind == "cam":
            from mal.methods.simformer import classifier as classifying

            network = classifying.Activations(workdir.inputs["network"], config, workdir.device)
            maps.cam_labels(network, seen, split.images, config, workdir.folder)
        else:
            maps.own_labels(_trained(workdir, config), seen, split.images, config, workdir.folder)
        return Result({}, {"": len(seen.images)})

    return Stage("pseudo_train", 1, found, work, inputs, columns=_columns(context, pseudo=kind), shared=True)


def classifier(context: Context) -> Stage:
    """A network that tells an image's classes, base and novel alike, from the tags: the baseline's maps come of it."""
    config, split = context.config, context.train
    found = _settings(context, CLASSIFIER)

    def work(workdir: Workdir) -> Result:
        from mal.methods.simformer import classifier as classifying

        view = workdir.inputs["weak"] / weak_view.FILE
        figures = classifying.train(view, split.images, config, folder=workdir.folder, device=workdir.device)
        return Result(figures, {"": int(figures["images"])})

    columns, inputs = _columns(context, pseudo="cam"), {"weak": weak(context), **split.inputs}
    return Stage("train_classifier", 1, found, work, inputs, _sources(context), columns, shared=True)


def segment_and_score(context: Context, trained: Stage) -> Stage:
    """Mean IoU of a network's class maps of the validation images."""
    config, split = context.config, context.required_val
    truth, found = class_maps(context, split), _settings(context, PREDICTION)

    def work(workdir: Workdir) -> Result:
        from mal.methods.simformer import maps

        seen = semantic.read_semantic(workdir.inputs["data"] / semantic.FILE)
        maps.segment(_trained(workdir, config), seen, split.images, config, workdir.folder)
        return Result({}, {"": len(seen.images)})

    inputs = {"network": trained, "data": truth, **{f"drawn_{name}": it for name, it in split.inputs.items()}}
    segmented = Stage("segment_val", 1, found, work, inputs, columns=trained.columns, shared=True)
    asked = {"novel": novel(context)}
    if config.simformer.testing.subset is not None:
        asked["subset"] = _subset(context)
    return miou(context, segmented, truth, asked)


def pseudo_score(context: Context) -> Stage:
    """What share of the novel pixels the pseudo-labels label, and how much of that rightly."""
    made, hidden = pseudo(context), novel(context)

    def work(workdir: Workdir) -> Result:
        made, true = (workdir.inputs[name] / semantic.FILE for name in ("pseudo", "data"))
        return Result(pseudo_quality(made, true, hidden))

    inputs = {"pseudo": made, "data": class_maps(context, context.train)}
    return Stage("pseudo_quality_train", 1, {"novel": list(hidden)}, work, inputs, columns=made.columns)


def similarity(context: Context, trained: Stage) -> Stage:
    """Whether teacher and student tell pairs of hidden novel pixels apart."""
    config, split, hidden = context.config, context.required_val, novel(context)
    which = config.data.val_images
    found = {**_settings(context, SIMILARITY), "novel": list(hidden), "images": which}

    def work(workdir: Workdir) -> Result:
        from mal.methods.simformer import diagnostics

        truth = scored(semantic.read_semantic(workdir.inputs["data"] / semantic.FILE), which)
        figures, number = diagnostics.aucs(
            workdir.inputs["network"], truth, split.images, hidden, config, workdir.device
        )
        return Result(figures, {"": number})

    inputs = {"network": trained, "data": class_maps(context, split)}
    inputs |= {f"drawn_{name}": it for name, it in split.inputs.items()}
    return Stage("similarity_val", 1, found, work, inputs, columns=trained.columns)


def novel(context: Context) -> tuple[int, ...]:
    """The novel classes, by their places among all.

    Raises:
        ConfigError: the data has no such split, or no such classes.
    """
    split = context.config.simformer.split
    return novel_of(_classes(context), split.classes or split.name)


def _subset(context: Context) -> tuple[int, ...]:
    """The classes of `testing.subset`.

    Raises:
        ConfigError: some are base classes in this run, whose mean would be of another kind.
    """
    classes, name = _classes(context), str(context.config.simformer.testing.subset)
    found, hidden = novel_of(classes, name), novel(context)
    if others := [classes[place] for place in found if place not in hidden]:
        raise ConfigError(
            f"simformer.testing.subset={name} has classes that are not novel in the run's split ({some(others)}); name "
            "a split that is part of it, or null"
        )
    return found


def supervision(config: Config) -> str:
    """What the first network knows of novel classes: weak | oracle | published."""
    own = config.simformer
    return own.learning.supervision if own.network.weights == "trained" else own.network.weights


def without_weak_losses(config: Config, *, true_masks: bool) -> Config:
    """The same training of a plain MaskFormer: every class has masks, so that neither pairs nor a complement help.

    Args:
        true_masks: whether it may fall back to them where the settings say so.
    """
    own = config.simformer
    after = own.augment.true_masks_after if true_masks and own.augment.crop else None
    plain = replace(
        own,
        losses=replace(own.losses, complement=0.0),
        augment=replace(own.augment, tags="image", redraw="paper", true_masks_after=after),
        pairs=PairsConfig(kind="none"),
        similarity=SimilarityConfig(),
        distillation=DistillationConfig(),
    )
    return replace(config, simformer=plain)


def sees_hidden(config: Config) -> bool:
    """Whether training reads hidden masks, as the released program does in places."""
    own = config.simformer
    counts = own.similarity.counts == "released" and own.pairs.kind not in ("none", "sampler")
    return reads_truth(own.augment) or counts


def check(config: Config) -> None:
    """
    Raises:
        ConfigError: a setting that does not go with another.
    """
    own = config.simformer
    if own.pairs.kind != "none" and own.learning.batch % 2:
        raise ConfigError(
            f"simformer.learning.batch={own.learning.batch} must be even for pairs; set simformer.pairs.kind=none, or "
            "another batch"
        )
    teaches = own.pairs.kind not in ("none", "sampler") and supervision(config) == "weak"
    if teaches and own.distillation.weight and not own.similarity.weight:
        raise ConfigError(
            f"simformer.distillation.weight={own.distillation.weight} would hand on what SimNet has not learned with "
            "simformer.similarity.weight=0; set simformer.distillation.weight=0 too"
        )
    if own.pseudo.kind != "none" and supervision(config) != "weak":
        raise ConfigError(
            f"simformer.pseudo.kind={own.pseudo.kind} replaces masks that supervision={supervision(config)} has; set "
            "simformer.pseudo.kind=none"
        )


def preflight(config: Config, _: torch.device, names: set[str]) -> None:
    """
    Raises:
        ConfigError, WeightsError: the network cannot be built, or its weights cannot be had.
    """
    if "train_simformer" in names:
        from mal.methods.simformer.network import SimFormer

        SimFormer(config.encoder, config.simformer.network, classes=1)
    if "train_classifier" in names:
        from mal.methods.simformer.classifier import Classifier

        Classifier(config, classes=1)


def _settings(context: Context, reads: Reads, config: Config | None = None) -> Json:
    """What a stage reads, and the precision, which is the device's."""
    found = settings(config or context.config, reads)
    return {**found, "precision": context.precision}


def _sources(context: Context) -> dict[str, str]:
    """Images by their content, and the weights that training starts from."""
    found, checkpoint = dict(context.train.sources), context.config.encoder.checkpoint
    return {**found, "encoder": context.fingerprints.file(checkpoint)} if checkpoint else found


def _trained(workdir: Workdir, config: Config) -> "Predictor":
    """The network that the stage's input holds, on its device."""
    from mal.methods.simformer.checkpoint import FILE, load

    return load(workdir.inputs["network"] / FILE, config, workdir.device)


def _classes(context: Context) -> list[str]:
    data = context.config.data
    return stages.class_names(context.train, data, context.fingerprints)


def _split_columns(context: Context) -> Json:
    split = context.config.simformer.split
    return {"split": "own" if split.classes else split.name, "novel": len(novel(context))}


def _columns(context: Context, *, pseudo: str) -> Json:
    """What a table says of it, beside data and seed."""
    config, own = context.config, context.config.simformer
    plain = supervision(config) != "weak" or pseudo in ("cam", "complement")
    return {
        **context.columns(context.train),
        "labeler": "simformer",
        "recipe": config.recipe,
        "encoder": config.encoder.name,
        **_split_columns(context),
        "pairs": "none" if plain else own.pairs.kind,
        "points": own.pairs.points,
        "complement": not plain and own.losses.complement > 0,
        "student": own.distillation.student,
        "supervision": supervision(config),
        "pseudo": pseudo,
    }


def _together(settings: Json) -> int:
    """An image and its reference are of one process."""
    return 1 if settings["simformer"]["pairs"]["kind"] == "none" else 2


SIMFORMER = Method(
    "simformer",
    labels=None,
    targets=targets,
    trainings=(
        Training("train_simformer", "simformer.learning.batch", together=_together),
        Training("train_classifier", "simformer.learning.batch"),
    ),
    shared=True,
    check=check,
    preflight=preflight,
)
