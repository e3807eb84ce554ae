"""AttentionShift's stages: points → network → labels, and its own detector's predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mal.config import Config
from mal.context import Context, Json
from mal.data.annotations import CocoDict
from mal.data.sources import Split
from mal.data.stages import readable
from mal.engine import ranks
from mal.engine.files import atomic_write, read_json, write_json
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.settings import Reads, settings
from mal.engine.snapshots import kept
from mal.errors import AnnotationError, ConfigError
from mal.methods.attentionshift.own_files import OWN_FILES
from mal.methods.attentionshift.reads import DETECTION, FORMER, KEY_POINTS, LABELLING, LOOKS, MAPS, TRAINING
from mal.methods.labelling import ShardLabeler, at_points
from mal.methods.spec import Labels, Method, Training
from mal.metrics.masks import select_images

if TYPE_CHECKING:
    from mal.methods.attentionshift.checkpoint import Trained

# torchvision and timm, which a dry run need not wait for, are imported where a stage works


def train(context: Context) -> Stage:
    """ViT, token heads and detector learn from the training points."""
    config, split = context.config, context.labeler_train
    found = _settings(context, TRAINING)
    if config.data.class_agnostic:
        found["class_agnostic"] = True
    sources = dict(split.sources)
    for name, checkpoint in _files(config).items():
        if checkpoint:
            sources[name] = context.fingerprints.file(checkpoint)

    def work(workdir: Workdir) -> Result:
        from mal.methods.attentionshift import train as training

        coco = read_json(workdir.inputs["points"] / "points.json")
        figures = training.train(coco, split.images, config, folder=workdir.folder, device=workdir.device)
        return Result(figures, {"": int(figures["images"])})

    inputs = {"points": context.view(split, "points")}
    columns = {**context.columns(split), "labeler": "attentionshift", **_columns(config)}
    return Stage("train_attentionshift", 1, found, work, inputs, sources, columns, shared=True)


def labels(context: Context, _: Split) -> Labels:
    """Masks of the network that was trained."""
    config = context.config
    found = _settings(context, LABELLING)

    def make(workdir: Workdir, _: CocoDict) -> ShardLabeler:
        from mal.methods.attentionshift import label

        return label.labeler(_trained(workdir, config), config, workdir.device)

    elsewhere = context.labeler_train.dataset
    named = {} if elsewhere is None else {"labeler": f"attentionshift:{elsewhere}"}
    return Labels(make, found, {"network": train(context)}, columns={**_columns(config), **named}, seeded=True)


def detect(context: Context) -> Stage:
    """What its own detector finds on the validation images, without any points, in COCO's results format."""
    config, split, trained = context.config, context.required_val, train(context)
    found = _settings(context, DETECTION)

    def work(workdir: Workdir) -> Result:
        from mal.methods.attentionshift.predict import predict

        network = _trained(workdir, config)
        annotations = readable(split, workdir)
        results = predict(network, config, annotations=annotations, images=split.images, device=workdir.device)
        ranks.on_first(lambda: write_json(workdir.folder / "predictions.json", results))
        return Result({"predictions": len(results)})

    inputs = {"network": trained, **split.inputs, **context.skipped(split)}
    return Stage("detect_attentionshift", 1, found, work, inputs, dict(split.sources), trained.columns, shared=True)


def looks(context: Context) -> list[Stage]:
    """How good its maps are where human masks tell, its key-points where parts do, and pictures where asked for."""
    own, val = context.config.attentionshift, context.required_val
    masked = val.has_masks
    stages = [maps(context)] if masked else []
    if masked and val.parts is not None and own.steps.mask_points.source == "parts":
        stages.append(key_points(context, val.parts.file))
    stages += [course(context)] if masked and own.learning.snapshots else []
    return [*stages, pictures(context)] if own.looks.enabled else stages


def maps(context: Context) -> Stage:
    """Attention maps and candidate boxes of the validation images' objects against human masks, by depth."""
    config, split, trained = context.config, context.required_val, train(context)
    found = {**_settings(context, MAPS), **_selection(config)}

    def work(workdir: Workdir) -> Result:
        from mal.methods.attentionshift.map_quality import map_quality

        network = _trained(workdir, config)
        points, human = _looked_at(context, workdir)
        figures = map_quality(network, config, points, human, split.images, workdir.device)
        return Result(figures, {"": len(human["annotations"])})

    inputs = {"points": context.view(split, "points"), "network": trained, **split.inputs}
    return Stage("maps_val", 1, found, work, inputs, dict(split.sources), trained.columns)


def key_points(context: Context, file: Path) -> Stage:
    """Key-points of the validation images' objects against the masks of these and of their parts.

    Args:
        file: of the parts.
    """
    config, split, trained = context.config, context.required_val, train(context)
    sources = dict(split.sources) | ({} if split.drawn else {"parts": context.fingerprints.file(file)})

    def work(workdir: Workdir) -> Result:
        from mal.data.object_parts import read_parts
        from mal.methods.attentionshift.part_quality import part_quality

        points, human = _looked_at(context, workdir)
        parts, network = read_parts(file, split.annotations).coco, _trained(workdir, config)
        figures, count = part_quality(network, config, points, human, parts, split.images, workdir.device)
        return Result(figures, {"": count})

    inputs = {"points": context.view(split, "points"), "network": trained, **split.inputs}
    found = {**_settings(context, KEY_POINTS), **_selection(config)}
    return Stage("key_points_val", 1, found, work, inputs, sources, trained.columns)


def course(context: Context) -> Stage:
    """Cosines between features after K of N equal parts of the training, by the networks that
    `attentionshift.learning.snapshots` keeps of it: `cosines.cosines`, their names followed by _K."""
    config, split, trained = context.config, context.required_val, train(context)
    found = {**_settings(context, MAPS), **_selection(config)}

    def work(workdir: Workdir) -> Result:
        from mal.methods.attentionshift.checkpoint import load
        from mal.methods.attentionshift.cosines import feature_cosines

        points, human = _looked_at(context, workdir)
        figures: dict[str, float] = {}
        count = 0
        snapshots = kept(workdir.inputs["network"], config.attentionshift.learning.snapshots)
        for part, path in enumerate(snapshots, start=1):
            network = load(path, config, workdir.device)
            means, count = feature_cosines(network, config, points, human, split.images, workdir.device)
            figures |= {f"{name}_{part}": mean for name, mean in means.items()}
        return Result(figures, {"": count})

    inputs = {"points": context.view(split, "points"), "network": trained, **split.inputs}
    return Stage("course_val", 1, found, work, inputs, dict(split.sources), trained.columns)


def pictures(context: Context) -> Stage:
    """Maps, parts and masks of some objects of the validation images: parts.npz, drawn by `analysis.figures.parts`."""
    config, split = context.config, context.required_val
    found = {**_settings(context, LABELLING), "looks": settings(config.attentionshift.looks, LOOKS)}
    trained = train(context)

    def work(workdir: Workdir) -> Result:
        from mal.methods.attentionshift import looks

        network = _trained(workdir, config)
        points = read_json(workdir.inputs["points"] / "points.json")
        arrays = looks.looks(network, config, points, split.images, workdir.device)
        with atomic_write(workdir.folder / "parts.npz", "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub: a name may be allow_pickle
        return Result({}, {"": len(arrays["ids"])})

    inputs = {"points": context.view(split, "points"), "network": trained, **split.inputs}
    return Stage("parts_val", 1, found, work, inputs, dict(split.sources), trained.columns)


def check(config: Config) -> None:
    """
    Raises:
        ConfigError: a setting that does not go with another.
    """
    own = config.attentionshift
    learning, scale = own.learning, own.scale
    if (learning.epochs is None) == (learning.steps is None):
        raise ConfigError(
            "set exactly one of attentionshift.learning.epochs and attentionshift.learning.steps (the other to null)"
        )
    for name in ("epochs", "steps"):
        value = getattr(learning, name)
        if value is not None and value <= 0:
            raise ConfigError(f"attentionshift.learning.{name}={value} must be positive")
    if learning.batch % learning.accumulate:
        raise ConfigError(
            f"attentionshift.learning.batch={learning.batch} is not divisible by attentionshift.learning.accumulate="
            f"{learning.accumulate}"
        )
    if len(scale.test_long_sides) not in (1, len(scale.test_short_sides)):
        raise ConfigError(
            f"attentionshift.scale.test_long_sides has {len(scale.test_long_sides)} sides for "
            f"{len(scale.test_short_sides)} in test_short_sides; give one for each, or one for all"
        )
    taught = own.steps.mask_points
    if (taught.supervision, taught.source) != ("points", "parts") and own.steps.shift.method != "shift":
        raise ConfigError(
            f"attentionshift.steps.mask_points has supervision={taught.supervision}, source={taught.source}: "
            f"steps.shift.method={own.steps.shift.method} has no part in that; leave it at shift"
        )


def check_files(context: Context, splits: list[Split]) -> None:
    """
    Raises:
        AnnotationError: an image has more objects than the network has point tokens.
    """
    config = context.config
    if config.data.points.kind == "quasi_centre":
        return  # some objects have no point then, so that the view must be waited for
    most = config.attentionshift.tokens.count
    counted = [(split.census, split) for split in splits if split.census is not None]
    census, split = max(counted, key=lambda each: each[0].most_objects, default=(None, None))
    if census is not None and split is not None and census.most_objects > most:
        raise AnnotationError(
            f"{split.annotations}: {census.most_objects_on} has {census.most_objects} objects, and the network {most} "
            f"tokens for them; set attentionshift.tokens.count={census.most_objects} or more"
        )


def preflight(config: Config, _: torch.device, names: set[str]) -> None:
    """
    Raises:
        ConfigError, WeightsError: the network cannot be built, or its weights cannot be had.
    """
    if "train_attentionshift" in names:
        from mal.methods.attentionshift.network import AttentionShift

        AttentionShift(config, classes=1)


def _settings(context: Context, reads: Reads) -> Json:
    """What a stage reads, and the precision, which is the device's."""
    found = settings(context.config, reads, former=FORMER)
    return {**found, "precision": context.precision}


def _selection(config: Config) -> Json:
    """Which validation images are looked at; records of all of them are older than there being a choice."""
    which = config.data.val_images
    return {} if which == "all" else {"images": which}


def _looked_at(context: Context, workdir: Workdir) -> tuple[CocoDict, CocoDict]:
    """Points and human masks of the validation images that scores are measured on."""
    which, points = context.config.data.val_images, read_json(workdir.inputs["points"] / "points.json")
    return select_images(points, which), select_images(context.required_val.human(), which)


def _trained(workdir: Workdir, config: Config) -> "Trained":
    """The network that the stage's input holds, on its device."""
    from mal.methods.attentionshift.checkpoint import FILE, load

    return load(workdir.inputs["network"] / FILE, config, workdir.device)


def _files(config: Config) -> dict[str, str | Path | None]:
    """The files whose weights training starts from."""
    from mal.methods.attentionshift.stem import stem_path

    stem = config.attentionshift.tokens.stem
    return {
        "encoder": config.encoder.checkpoint,
        "stem": stem_path(stem.checkpoint) if stem.timm is not None and stem.checkpoint is not None else None,
    }


def _columns(config: Config) -> Json:
    """What a table says of it, beside data and seed."""
    steps = config.attentionshift.steps
    return {
        "recipe": config.recipe,
        "encoder": config.encoder.name,
        "key_points": steps.shift.method,
        "taught_by": f"{steps.mask_points.source} {steps.mask_points.supervision}",
    }


ATTENTIONSHIFT = Method(
    "attentionshift",
    labels,
    view="points",
    train=train,
    trainings=(Training("train_attentionshift", "attentionshift.learning.batch"),),
    detect=detect,
    looks=looks,
    shared=True,
    fallback=at_points,
    own_files=OWN_FILES,
    check=check,
    check_files=check_files,
    preflight=preflight,
)
