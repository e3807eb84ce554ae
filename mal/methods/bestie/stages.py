"""BESTIE's stages: points → class network → class maps → instance network → labels, and its own detections."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mal.config import Config
from mal.context import Context, Json
from mal.data.annotations import CocoDict
from mal.data.sources import Split
from mal.data.stages import readable
from mal.engine import ranks
from mal.engine.files import read_json, write_json
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.settings import Reads, settings
from mal.errors import ConfigError
from mal.methods.bestie.own_files import OWN_FILES
from mal.methods.bestie.reads import CLASSES, DETECTION, LABELLING, MAPS, TRAINING
from mal.methods.labelling import ShardLabeler, at_points
from mal.methods.spec import Labels, Method, Training

if TYPE_CHECKING:
    import torch

    from mal.methods.bestie.checkpoint import Trained
    from mal.methods.bestie.network import InstanceNetwork

# torchvision, timm and OpenCV, which a dry run need not wait for, are imported where a stage works
VIEW = "points"
MAPS_FOLDER = "maps"


def train_classes(context: Context) -> Stage:
    """The class network learns from the training points where each class is."""

    def work(workdir: Workdir) -> Result:
        from mal.methods.bestie.train_classes import train

        config, split = context.config, context.labeler_train
        figures = train(_points(workdir), split.images, config, folder=workdir.folder, device=workdir.device)
        return Result(figures, {"": int(figures["images"])})

    return _training(context, "train_class_maps", CLASSES, {}, work)


def class_maps(context: Context) -> Stage:
    """Its maps of the training images, classes without a point of an image left out there."""
    config, split, trained = context.config, context.labeler_train, train_classes(context)

    def work(workdir: Workdir) -> Result:
        from mal.methods.bestie.checkpoint import CLASSES_FILE, load
        from mal.methods.bestie.network import ClassNetwork
        from mal.methods.bestie.train_classes import write_maps

        network = load(workdir.inputs["network"] / CLASSES_FILE, config, workdir.device, kind=ClassNetwork)
        count = write_maps(network, _points(workdir), split.images, config, workdir.folder / MAPS_FOLDER)
        return Result({"maps": count}, {"": count})

    inputs = {VIEW: context.view(split, VIEW), "network": trained}
    found = _settings(context, MAPS)
    return Stage("class_maps_train", 1, found, work, inputs, dict(split.sources), trained.columns, shared=True)


def train(context: Context) -> Stage:
    """The instance network learns classes, centres and offsets from the maps and the points."""
    maps = class_maps(context)

    def work(workdir: Workdir) -> Result:
        from mal.methods.bestie.train import train as learn

        config, images = context.config, context.labeler_train.images
        places = {"maps": workdir.inputs["maps"] / MAPS_FOLDER, "folder": workdir.folder}
        figures = learn(_points(workdir), images, config, **places, device=workdir.device)
        return Result(figures, {"": int(figures["images"])})

    return _training(context, "train_bestie", TRAINING, {"maps": maps}, work)


def labels(context: Context, _: Split) -> Labels:
    """Masks of the instance network."""
    config = context.config

    def make(workdir: Workdir, _: CocoDict) -> ShardLabeler:
        from mal.methods.bestie.label import labeler

        return labeler(_trained(workdir, config), config)

    elsewhere = context.labeler_train.dataset
    named = {} if elsewhere is None else {"labeler": f"bestie:{elsewhere}"}
    found = _settings(context, LABELLING)
    return Labels(make, found, {"network": train(context)}, columns={**_columns(config), **named}, seeded=True)


def detect(context: Context) -> Stage:
    """What the instance network finds on the validation images, without any points, in COCO's results format."""
    config, split, trained = context.config, context.required_val, train(context)

    def work(workdir: Workdir) -> Result:
        from mal.methods.bestie.predict import predict

        annotations = readable(split, workdir)
        results = predict(_trained(workdir, config), config, annotations=annotations, images=split.images)
        ranks.on_first(lambda: write_json(workdir.folder / "predictions.json", results))
        return Result({"predictions": len(results)})

    inputs = {"network": trained, **split.inputs, **context.skipped(split)}
    found = _settings(context, DETECTION)
    return Stage("detect_bestie", 1, found, work, inputs, dict(split.sources), trained.columns, shared=True)


def looks(context: Context) -> list[Stage]:
    """How good the class maps are where human masks tell."""
    return [map_quality(context)] if context.required_val.has_masks else []


def map_quality(context: Context) -> Stage:
    """Class maps of the validation images, made as those of the training images are, against human masks."""
    config, split, trained = context.config, context.required_val, train_classes(context)

    def work(workdir: Workdir) -> Result:
        from mal.methods.bestie.checkpoint import CLASSES_FILE, load
        from mal.methods.bestie.map_quality import map_quality as measure
        from mal.methods.bestie.network import ClassNetwork

        network = load(workdir.inputs["network"] / CLASSES_FILE, config, workdir.device, kind=ClassNetwork)
        human = split.human()
        figures = measure(network, _points(workdir), human, split.images, config)
        return Result(figures, {"": len(human["images"])})

    inputs = {VIEW: context.view(split, VIEW), "network": trained, **split.inputs}
    found = _settings(context, MAPS)
    return Stage("class_maps_val", 1, found, work, inputs, dict(split.sources), trained.columns)


def check(config: Config) -> None:
    """
    Raises:
        ConfigError: a setting that does not go with another.
    """
    if config.bestie.detection.window % 2 == 0:
        raise ConfigError(
            f"bestie.detection.window={config.bestie.detection.window} has no pixel in its middle; choose an odd number"
        )


def preflight(config: Config, _: "torch.device", names: set[str]) -> None:
    """
    Raises:
        ConfigError, WeightsError: a network cannot be built, or its weights cannot be had.
    """
    from mal.methods.bestie.network import ClassNetwork, InstanceNetwork

    if "train_class_maps" in names:
        ClassNetwork(config, classes=1)
    if "train_bestie" in names:
        InstanceNetwork(config, classes=1)


def _training(
    context: Context, name: str, reads: Reads, inputs: dict[str, Stage], work: Callable[[Workdir], Result]
) -> Stage:
    """A stage of training on the points view of what the labeler learns from."""
    config, split = context.config, context.labeler_train
    found, sources = _settings(context, reads), dict(split.sources)
    if config.data.class_agnostic:
        found["class_agnostic"] = True
    if config.encoder.checkpoint:
        sources["encoder"] = context.fingerprints.file(config.encoder.checkpoint)
    columns = {**context.columns(split), "labeler": "bestie", **_columns(config)}
    every = {VIEW: context.view(split, VIEW), **inputs}
    return Stage(name, 1, found, work, every, sources, columns, shared=True)


def _settings(context: Context, reads: Reads) -> Json:
    """What a stage reads, and the precision, which is the device's."""
    return {**settings(context.config, reads), "precision": context.precision}


def _points(workdir: Workdir) -> CocoDict:
    return read_json(workdir.inputs[VIEW] / "points.json")


def _trained(workdir: Workdir, config: Config) -> "Trained[InstanceNetwork]":
    """The network that the stage's input holds, on its device."""
    from mal.methods.bestie.checkpoint import FILE, load
    from mal.methods.bestie.network import InstanceNetwork

    return load(workdir.inputs["network"] / FILE, config, workdir.device, kind=InstanceNetwork)


def _columns(config: Config) -> Json:
    """What a table says of it, beside data and seed."""
    return {"recipe": config.recipe, "encoder": config.encoder.name}


BESTIE = Method(
    "bestie",
    labels,
    view=VIEW,
    train=train,
    trainings=(
        Training("train_class_maps", "bestie.learning.batch"),
        Training("train_bestie", "bestie.learning.batch"),
    ),
    detect=detect,
    looks=looks,
    shared=True,
    fallback=at_points,
    own_files=OWN_FILES,
    check=check,
    preflight=preflight,
)
