"""MAL's stages: boxes → student and teacher → labels."""

import torch

from mal.config import Config
from mal.context import Context, Json
from mal.data.annotations import CocoDict
from mal.data.sources import Split
from mal.engine.files import read_json
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.runtime import load_checkpoint
from mal.engine.settings import settings
from mal.methods.labelling import ShardLabeler
from mal.methods.mal.cost import v100_seconds
from mal.methods.mal.crf import backend
from mal.methods.mal.label import mal_labeler
from mal.methods.mal.network import load_networks, starting_network
from mal.methods.mal.own_files import OWN_FILES
from mal.methods.mal.reads import DECODERS, FORMER, LABELLING, TRAINING
from mal.methods.mal.shipped import labeler_path
from mal.methods.mal.train import train_labeler
from mal.methods.spec import Labels, Method, Training


def train(context: Context) -> Stage:
    """Student and teacher learn masks from the training boxes."""
    config, split = context.config, context.labeler_train
    found = settings(config, TRAINING, former=FORMER)
    found["decoder"] |= settings(config.decoder, DECODERS.get(config.decoder.name, {}))
    if "swin" in config.encoder.timm:
        # a Swin's teacher once averaged its table of relative positions: those results alone are others
        found["encoder"]["whole_numbers"] = "copied"
    found["train"]["precision"] = context.precision
    sources = dict(split.sources)
    if config.encoder.checkpoint:
        sources["encoder"] = context.fingerprints.file(config.encoder.checkpoint)
    if config.train.start:
        sources["start"] = context.fingerprints.file(labeler_path(config.train.start))

    def work(workdir: Workdir) -> Result:
        coco = read_json(workdir.inputs["boxes"] / "boxes.json")
        figures = train_labeler(coco, split.images, config, folder=workdir.folder, device=workdir.device)
        return Result(figures, {"": int(figures["boxes"])})

    inputs = {"boxes": context.view(split, MAL.view)}
    columns = {**context.columns(split), "labeler": MAL.name, **_columns(config)}
    return Stage("train_labeler", 1, found, work, inputs, sources, columns, shared=True)


def labels(context: Context, _: Split) -> Labels:
    """Masks of the network that was trained."""
    config = context.config
    found = settings(config, LABELLING, former=FORMER) | {"label_expansion": config.roi.label_expansion}
    found["precision"] = context.precision

    def make(workdir: Workdir, coco: CocoDict) -> ShardLabeler:
        checkpoint = load_checkpoint(workdir.inputs["labeler"] / "labeler.pt", parts=("student", "teacher"))
        networks = load_networks(checkpoint, config, workdir.device, crops=len(coco["annotations"]))
        return mal_labeler(networks, config, workdir.device)

    elsewhere = context.labeler_train.dataset  # MAL, trained on that
    named = {} if elsewhere is None else {"labeler": f"{MAL.name}:{elsewhere}"}
    return Labels(make, found, {"labeler": train(context)}, columns={**_columns(config), **named}, seeded=True)


def preflight(config: Config, device: torch.device, names: set[str]) -> None:
    """
    Raises:
        ConfigError, WeightsError: the network cannot be built, or its weights cannot be had.
    """
    if "train_labeler" not in names:
        return  # what labels is in the store
    backend(config.crf, device)
    starting_network(config)


def _columns(config: Config) -> Json:
    """What a table says of MAL, beside data and seed."""
    return {
        "recipe": config.recipe,
        "encoder": config.encoder.name,
        "decoder": config.decoder.name,
        "theta": config.roi.theta,
    }


TRAININGS = (Training("train_labeler", "train.batch", v100_seconds),)
MAL = Method("mal", labels, train=train, trainings=TRAININGS, shared=True, own_files=OWN_FILES, preflight=preflight)
