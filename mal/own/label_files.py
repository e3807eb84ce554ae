"""What mal/label.py does once its options are understood: boxes and a labeler in, masks out."""

import argparse
import shutil
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from mal.config import Config
from mal.config_checks import check
from mal.data.annotations import check_images, file_name, read, strip
from mal.data.flags import all_flagged
from mal.data.sources import unreadable
from mal.engine.files import digest, sha256, write_json
from mal.engine.runtime import pick_device
from mal.engine.store.fingerprints import looks
from mal.engine.turns import turn
from mal.errors import AnnotationError, ConfigError
from mal.methods.labelling import label_dataset, with_fields_of
from mal.methods.mal.label import mal_labeler
from mal.methods.mal.labeler_file import NETWORKS, config_of, read_labeler
from mal.methods.mal.network import load_networks
from mal.own.label_outputs import CALL_DIGITS, check_output, plan_output, unfinished, write_output

AGAIN = "all of this was there already, written by the same call and unchanged since; --overwrite labels again"


def label_files(options: argparse.Namespace) -> str:
    """Label the boxes of a file, write them in the format asked for, and say what was done.

    An interrupted call goes on where it was: finished shards lie beside `out` until everything is written.

    Raises:
        MalError: an input that cannot be used, or an output that cannot be written or would replace what is there.
        AnnotationError: no box got a mask; what was written is filled boxes.
    """
    place = check_output(options)
    device = pick_device(options.device)
    checkpoint = read_labeler(options.checkpoint)
    config = with_options(config_of(checkpoint, source=options.checkpoint), checkpoint, options)
    original = read(options.boxes, masks=False)
    coco = strip(original)
    check_images(coco, options.images)
    work = {
        "checkpoint": sha256(options.checkpoint),
        "boxes": sha256(options.boxes),
        "images": digest([str(options.images.resolve()), looks(options.images, map(file_name, coco["images"]))]),
        "options": digest([asdict(config.label), options.on_bad_image]),
    }
    shards = place.with_name(f".{place.name}.{digest(work)[:CALL_DIGITS]}")
    output = plan_output(options, coco, place, call=work)
    if (said := output.finished()) is not None and not options.overwrite:
        return "\n".join([*said, AGAIN])
    if not options.overwrite:
        output.check(resumed=shards.is_dir())
    with turn(place.with_name(f".{place.name}.lock"), call=digest(output.call), out=options.out) as ours:
        if ours.waited and (said := output.finished()) is not None:
            return "\n".join([*said, AGAIN])
        if not options.overwrite:
            output.check(resumed=shards.is_dir())
        networks = networks_of(checkpoint, config, device, options, crops=len(coco["annotations"]))
        write_json(shards / "call.json", work)
        if options.on_bad_image == "skip":
            coco["unreadable_images"] = unreadable(coco, options.images, workers=options.workers)
        labels = label_dataset(
            coco,
            options.images,
            mal_labeler(networks, config, device),
            folder=shards,
            shard_images=config.label.shard_images,
        )
        said = write_output(with_fields_of(original, labels), options, output, shards / "output")
        ours.check()
        if not options.overwrite:
            output.check(resumed=True)  # hours have passed since the last look
        said += output.publish(shards / "output", said)
        shutil.rmtree(shards, ignore_errors=True)
        said += unfinished(place)
    if all_flagged(labels["annotations"]):
        raise AnnotationError("; ".join(said))
    return "\n".join(said)


def with_options(config: Config, checkpoint: dict[str, Any], options: argparse.Namespace) -> Config:
    """A labeler's config with this call's labelling options.

    Raises:
        ConfigError: an option is out of range, or asks for a network that the labeler has not got.
    """
    given = {name: getattr(options, name) for name in ("network", "flip", "batch", "threshold")}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given.get("threshold", ())) == 1:
        given["threshold"] = given["threshold"] * 3
    config = replace(config, label=replace(config.label, **given), train=replace(config.train, workers=options.workers))
    wanted = NETWORKS if config.label.network == "both" else (config.label.network,)
    if missing := [name for name in wanted if name not in checkpoint]:
        (there,) = set(NETWORKS) - set(missing)
        raise ConfigError(
            f"{options.checkpoint} holds the {there} alone, without the {missing[0]}; use --network {there}"
        )
    try:
        check(config)
    except ConfigError as error:  # it names the settings that these options stand for
        text = str(error)
        for setting, option in (
            ("label.threshold", "threshold"),
            ("label.batch", "batch"),
            ("train.workers", "workers"),
        ):
            text = text.replace(f"{setting}=", f"--{option} ")
        raise ConfigError(text) from error
    return config


def networks_of(
    checkpoint: Any, config: Config, device: torch.device, options: argparse.Namespace, *, crops: int
) -> list[nn.Module]:
    """The networks of a labeler.

    Raises:
        ConfigError: its weights are not those of the network that its config describes, or no numbers.
    """
    try:
        networks = load_networks(checkpoint, config, device, crops=crops)
    except RuntimeError as error:  # torch names every key
        raise ConfigError(
            f"the weights in {options.checkpoint} do not fit the network that it describes; copy the labeler.pt again"
        ) from error
    if not all(weight.isfinite().all() for network in networks for weight in network.parameters()):
        raise ConfigError(
            f"weights in {options.checkpoint} are NaN or infinite; copy the labeler.pt again, or learn anew"
        )
    return networks
