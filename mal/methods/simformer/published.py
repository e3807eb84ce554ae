"""MaskFormer's published weights, as transformers saves them, as ours: the row that knows all masks, without training.

The hub has `facebook/maskformer-resnet50-coco-stuff` and `-ade`. Nothing is loaded in part, and classes are compared by
name, because the row's numbers would be wrong, not missing, were they in another order.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig
from transformers.utils import cached_file

from mal.encoders.config import EncoderConfig
from mal.errors import ConfigError, WeightsError
from mal.methods.simformer.config.network import NetworkConfig
from mal.methods.simformer.network import SimFormer
from mal.segmenters.published.files import read
from mal.segmenters.weights import first_line, mismatches, refuse, unfit

HUB = {"coco_stuff_10k": "facebook/maskformer-resnet50-coco-stuff", "ade20k_150": "facebook/maskformer-resnet50-ade"}
SETTING = "simformer.network.checkpoint"
CONFIG, WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
WAY_OUT = (
    f"give the folder of a MaskFormer on a ResNet-50 as transformers saves it with {SETTING}=FOLDER, or train with "
    "simformer.network.weights=trained"
)
FITTING = "the hub's are those of profile=paper encoder=resnet50; choose these, or set what differs"
ALIKE = 0.5  # share of classes that must have the same name in both lists; the others' names may be synonyms
RESNET = (  # keys of the library's ResNet → timm's, by stage, block and convolution
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.", "layer{0}.{1}.downsample.0."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.", "layer{0}.{1}.downsample.1."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.", "layer{0}.{1}.conv{2}."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.", "layer{0}.{1}.bn{2}."),
)
FROM = (1, 0, 1)  # what timm counts stages, blocks and convolutions from; the library counts all from 0
PARTS = (  # of the library's model → ours
    ("model.pixel_level_module.encoder.", "backbone.backbone."),
    ("model.pixel_level_module.decoder.", "pixel_decoder."),
    ("model.transformer_module.", "transformer."),
)
UNREAD = "criterion."  # the weights of the library's losses


def locate(config: NetworkConfig, encoder: EncoderConfig, *, data: str, classes: Sequence[str]) -> Path:
    """The weights file of `checkpoint`, or of the data's model in the hub's own cache; config.json is beside it. What
    is not there is downloaded, config.json first: weights that would not fit stay where they are.

    Args:
        config, encoder: of the network that takes them.
        data: the name of the data set. classes: their names, in order.

    Raises:
        ConfigError: no model is published for the data.
        WeightsError: there is no such folder, or the hub cannot be reached; or see `check`.
    """
    if config.checkpoint is not None:
        folder = Path(config.checkpoint)
        found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        if not found or not (folder / CONFIG).is_file():
            raise WeightsError(f"{SETTING}={folder} holds no {' or '.join(WEIGHTS)} with a {CONFIG}; {WAY_OUT}")
        check(folder / CONFIG, config, encoder, classes)
        return found[0]
    if data not in HUB:
        raise ConfigError(
            f"simformer.network.weights=published: none are published for data={data}, only for {', '.join(HUB)}; "
            f"{WAY_OUT}"
        )
    check(_cached(HUB[data], CONFIG), config, encoder, classes)
    return _cached(HUB[data], WEIGHTS[0])


def _cached(model: str, file: str) -> Path:
    try:
        return Path(cached_file(model, file))
    except Exception as error:  # hubs fail in as many ways as there are networks
        raise WeightsError(f"{file} of {model} cannot be reached ({first_line(error)}); {WAY_OUT}") from error


def published_state(
    file: Path, encoder: EncoderConfig, config: NetworkConfig, *, classes: Sequence[str]
) -> dict[str, Tensor]:
    """Our state dict of a published model, every key and shape accounted for.

    Args:
        file: its weights; config.json is beside it.
        encoder, config: of the network that takes them.
        classes: the names of the data's classes, in order.

    Raises:
        WeightsError: it is another network; or see `check`.
    """
    theirs = check(file.parent / CONFIG, config, encoder, classes)
    weights = read(file, setting=SETTING)
    network, report = MaskFormerForInstanceSegmentation.from_pretrained(
        None, config=theirs, state_dict=weights.tensors, output_loading_info=True, ignore_mismatched_sizes=True
    )
    refuse(
        unfit(report, absent=(UNREAD,)),
        source=weights.source,
        model=f"config in {file.parent / CONFIG}",
        way_out=WAY_OUT,
    )
    state = {_renamed(key): value for key, value in network.state_dict().items() if not key.startswith(UNREAD)}
    ours = SimFormer(encoder, config, classes=len(classes), load=False).state_dict()
    refuse(mismatches(ours, state), source=weights.source, model="network", way_out=WAY_OUT)
    return state


def check(source: Path, config: NetworkConfig, encoder: EncoderConfig, classes: Sequence[str]) -> MaskFormerConfig:
    """What a config.json says of its model, which is to be the network that a run builds.

    Args:
        source: the file.

    Raises:
        WeightsError: another kind of model, of another size, or with other classes or in another order.
    """
    theirs = MaskFormerConfig.from_pretrained(source.parent)
    backbone, decoder = theirs.backbone_config, theirs.decoder_config
    if not isinstance(backbone, ResNetConfig):
        raise WeightsError(f"{source} is of a MaskFormer on {backbone.model_type}; {WAY_OUT}")
    needed = (
        ("backbone layer_type", backbone.layer_type, "bottleneck"),
        ("backbone downsample_in_bottleneck", backbone.downsample_in_bottleneck, False),
        ("backbone downsample_in_first_stage", backbone.downsample_in_first_stage, False),
        ("backbone hidden_act", backbone.hidden_act, "relu"),
        ("decoder activation_function", decoder.activation_function, "relu"),
        ("mask_feature_size", theirs.mask_feature_size, decoder.d_model),
    )
    for name, their, our in needed:
        if their != our:
            raise WeightsError(f"{source} says {name}={their}, but this network has {our}; {WAY_OUT}")
    network = {
        "width": decoder.d_model,
        "queries": decoder.num_queries,
        "layers": decoder.decoder_layers,
        "heads": decoder.decoder_attention_heads,
        "feed_forward": decoder.decoder_ffn_dim,
        "memory": "stride32",
    }
    others = [f"simformer.network.{name}={it}" for name, it in network.items() if it != getattr(config, name)]
    others += [] if encoder.timm.startswith("resnet") else ["encoder=resnet50"]
    if others:
        raise WeightsError(f"{source} is of a network with {' '.join(others)}, and the run's is another; {FITTING}")
    check_classes([theirs.id2label[i] for i in range(len(theirs.id2label))], classes, source=source)
    return theirs


def check_classes(theirs: Sequence[str], ours: Sequence[str], *, source: Path) -> None:
    """Refuse a model whose classes are not ours in our order.

    Publishers write names as they please ("floor-wood", "Floor wood"; one of several synonyms), so a class may go by
    another name as long as that is not the name of another class of ours, and at least half go by the same.

    Raises:
        WeightsError: names the first class in another place.
    """
    if len(theirs) != len(ours):
        raise WeightsError(f"{source} has {len(theirs)} classes, and the data {len(ours)}; {WAY_OUT}")
    known = [_names(name) for name in ours]
    alike = 0
    for place, name in enumerate(theirs):
        said = _names(name)
        if said & known[place]:
            alike += 1
        elif others := [i for i, names in enumerate(known) if said & names]:
            raise WeightsError(
                f"{source} has {name} as class {place}, which is class {others[0]} of the data: the orders differ; "
                f"{WAY_OUT}"
            )
    if alike < ALIKE * len(ours):
        raise WeightsError(f"{source} has the names of only {alike} of the data's {len(ours)} classes; {WAY_OUT}")


def _names(name: str) -> set[str]:
    """The synonyms of a class in small letters, without what parts words."""
    return {re.sub(r"[\W_]+", "", part.lower()) for part in name.split(",")} - {""}


def _renamed(key: str) -> str:
    for theirs, ours in PARTS:
        if key.startswith(theirs):
            rest = key.removeprefix(theirs)
            return ours + (_resnet(rest) if ours.startswith("backbone.") else rest)
    return key


def _resnet(key: str) -> str:
    for theirs, ours in RESNET:
        if match := re.match(theirs, key):
            numbers = (int(number) + first for number, first in zip(match.groups(), FROM, strict=False))
            return ours.format(*numbers) + key[match.end() :]
    return key
