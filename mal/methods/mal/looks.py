"""Stages that look at an encoder instead of at masks: clustering score (Table 6), attention maps (Figure 5)."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from mal.config import Config
from mal.context import Context, Json
from mal.data.annotations import CocoDict
from mal.data.boxes import SIZE_NAMES
from mal.data.rois import labelling_batches, usable
from mal.data.stages import unreadable_images, without_images
from mal.encoders.attention import attention_maps, attention_picture, check_layers, check_query
from mal.encoders.encoder import Encoder
from mal.engine import ranks
from mal.engine.files import atomic_write, read_json, write_csv
from mal.engine.graph import Result, Stage, Workdir
from mal.engine.precision import allow_tf32, autocast, network_dtype
from mal.engine.runtime import load_checkpoint, seed_everything
from mal.engine.settings import Reads, settings
from mal.errors import AnnotationError
from mal.methods.mal.network import load_networks
from mal.methods.mal.stages import train
from mal.metrics.clustering import clustering_score
from mal.metrics.masks import select_images

# The encoder's last map alone is read; its checkpoint is a file, known by its content.
ENCODER: Reads = {"encoder": "timm pretrained mean std options"}
CROPS: Reads = {"roi": "size label_expansion border min_side"}
ATTENTION: Reads = {"": "layers query examples"}


@dataclass(frozen=True)
class EncoderSource:
    """Where a stage's encoder comes from, and what of that defines its result."""

    config: Config
    labeler: Stage | None  # the training whose encoder is meant; None for the weights that encoder= names
    settings: Json
    sources: dict[str, str]
    columns: Json

    @property
    def inputs(self) -> dict[str, Stage]:
        return {} if self.labeler is None else {"labeler": self.labeler}

    def load(self, workdir: Workdir) -> Encoder:
        """The encoder on the stage's device, in evaluation mode.

        Raises:
            ConfigError, WeightsError.
        """
        if self.labeler is not None:
            checkpoint = load_checkpoint(workdir.inputs["labeler"] / "labeler.pt", parts=("student", "teacher"))
            encoder = load_networks(checkpoint, self.config, workdir.device)[0].get_submodule("encoder")
            assert isinstance(encoder, Encoder)
            return encoder
        return pretrained(self.config).to(workdir.device).eval()


def encoder_source(context: Context, which: str) -> EncoderSource:
    """What a result depends on: the crops' side and border, the precision, and the encoder's weights.

    Args:
        which: `trained`, in this run: the labelling network's (`label.network`; of `both`, the student's);
            `pretrained`, as `encoder=` gives it.
    """
    config = context.config
    sources: dict[str, str] = {}
    found = settings(config, CROPS)
    found["precision"] = context.precision
    labeler = train(context) if which == "trained" else None
    if labeler is not None:
        found["network"] = config.label.network
        return EncoderSource(config, labeler, found, sources, labeler.columns)
    found |= settings(config, ENCODER)
    if config.encoder.checkpoint is not None:
        sources["encoder"] = context.fingerprints.file(config.encoder.checkpoint)
    elif not config.encoder.pretrained:
        found["seed"] = config.seed  # the weights are drawn
    return EncoderSource(config, None, found, sources, {**context.columns(), "encoder": config.encoder.name})


def pretrained(config: Config) -> Encoder:
    """The encoder as `encoder=` gives it; without weights, as training would start it.

    Raises:
        ConfigError, WeightsError.
    """
    seed_everything(config.seed, "labeler")
    return Encoder(replace(config.encoder, levels=None, fuse=False), image_size=config.roi.size)


def preflight(config: Config, names: set[str]) -> None:
    """Build the encoders that the stages of these names look at.

    Raises:
        ConfigError, WeightsError.
    """
    looked = {"clustering_val": config.clustering.encoder, "attention_val": config.attention.encoder}
    if "pretrained" in {looked[name] for name in names & looked.keys()}:
        pretrained(config)
    if "attention_val" in names:
        # whose layers are asked for, not its weights: a trained encoder's are in the store
        bare = replace(config.encoder, pretrained=False, checkpoint=None)
        encoder = pretrained(replace(config, encoder=bare))
        check_layers(encoder, config.attention.layers)
        check_query(encoder, config.attention.query)


def clustering(context: Context) -> Stage:
    """Clustering score of the encoder's features against human masks of the validation images (Eq. 6, Table 6)."""
    config, split, device = context.config, context.required_val, context.device
    source = encoder_source(context, config.clustering.encoder)
    found = {**source.settings, "source": config.clustering.source, "images": config.data.val_images}

    def work(workdir: Workdir) -> Result:
        human = select_images(split.human(), config.data.val_images)
        human = without_images(human, unreadable_images(read_json(workdir.inputs["boxes"] / "boxes.json")))
        metrics, instances = clustering_score(
            human,
            split.images,
            source.load(workdir),
            config=config.roi,
            source=config.clustering.source,
            batch=config.label.batch,
            workers=config.train.workers,
            device=workdir.device,
            dtype=network_dtype(config.train.precision, device),
        )
        if ranks.is_first():
            write_csv(workdir.folder / "instances.csv", instances)
        counts = {f"clustering_{size}": int(metrics[f"n_{size}"]) for size in SIZE_NAMES if f"n_{size}" in metrics}
        figures = {k: v for k, v in metrics.items() if k.startswith("clustering")}
        return Result({**figures, "left_out": metrics["n_left_out"]}, {"": int(metrics["n"]), **counts})

    inputs = {"boxes": context.view(split, "boxes"), **source.inputs, **split.inputs}
    sources = dict(split.sources) | source.sources
    return Stage("clustering_val", 1, found, work, inputs, sources, source.columns, shared=True)


def attention(context: Context) -> Stage:
    """Where the layers of a plain ViT look, on some crops: attention.npz, drawn by `analysis.figures.attention`
    (Figure 5)."""
    config, split = context.config, context.required_val
    source = encoder_source(context, config.attention.encoder)
    found = {**source.settings, **settings(config.attention, ATTENTION)}
    found["roi"] = {**found["roi"], "min_area": config.roi.min_area, "max_area": config.roi.max_area}

    def work(workdir: Workdir) -> Result:
        boxes = read_json(workdir.inputs["boxes"] / "boxes.json")
        coco = without_images(boxes, unreadable_images(boxes))
        encoder, dtype = source.load(workdir), network_dtype(config.train.precision, workdir.device)
        allow_tf32(workdir.device, dtype)
        ids, pixels, pictures = [], [], []
        for annotations, rois in labelling_batches(
            _examples(coco, config), split.images, config=config.roi, batch=1, workers=0
        ):
            with autocast(workdir.device, dtype):
                maps = attention_maps(encoder, rois.pixels.to(workdir.device).float() / 255, config.attention.layers)
            prefix = getattr(encoder.backbone, "num_prefix_tokens", 0)
            shown = [attention_picture(m, prefix=prefix, query=config.attention.query) for m in maps.values()]
            ids.append(annotations[0]["id"])
            pixels.append(rois.pixels[0].permute(1, 2, 0).numpy())
            pictures.append(torch.cat(shown).cpu().numpy())
        layers = np.array(config.attention.layers)
        with atomic_write(workdir.folder / "attention.npz", "wb") as file:
            np.savez_compressed(
                file, pixels=np.stack(pixels), maps=np.stack(pictures), layers=layers, ids=np.array(ids)
            )
        return Result({}, {"": len(pixels)})

    inputs = {"boxes": context.view(split, "boxes"), **source.inputs, **split.inputs}
    return Stage("attention_val", 1, found, work, inputs, dict(split.sources) | source.sources, source.columns)


def _examples(coco: CocoDict, config: Config) -> CocoDict:
    """Boxes at equal steps of the file's order, among those that training would use: nothing is picked by hand.

    Raises:
        AnnotationError: there is none.
    """
    annotations = [a for a in coco["annotations"] if usable(a, config.roi, training=True) and not a.get("iscrowd")]
    if not annotations:
        raise AnnotationError("no validation box is large enough to show attention on; lower roi.min_area")
    places = np.linspace(0, len(annotations) - 1, min(config.attention.examples, len(annotations))).round().astype(int)
    return {**coco, "annotations": [annotations[index] for index in places]}
