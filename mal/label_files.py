"""What mal/label.py does once its options are understood: boxes and a labeler in, masks out."""

import argparse
import glob
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from analysis.sheet import draw_sheet
from mal.annotations import CocoDict, check_images, file_name, read, strip, write
from mal.config import Config
from mal.config_checks import check
from mal.errors import ConfigError
from mal.export import FOLDERS, FORMATS, planned_files
from mal.files import digest, sha256, write_json
from mal.labelers.mal import load_networks
from mal.labelling import label_dataset, mal_labeler
from mal.outputs import Output
from mal.runtime import load_checkpoint, pick_device
from mal.sources import unreadable
from mal.store.fingerprints import looks
from mal.turns import turn

CALL_DIGITS = 12  # of the digest that names a call's folder of shards
AGAIN = "all of this was there already, written by the same call and unchanged since; --overwrite labels again"


def label_files(options: argparse.Namespace) -> str:
    """Label the boxes of a file, write them in the format asked for, and say what was done.

    An interrupted call goes on where it was: finished shards lie beside `out` until everything is written.

    Raises:
        MalError: an input that cannot be used, or an output that cannot be written or would replace what is there.
    """
    place = check_output(options)
    device = pick_device(options.device)
    checkpoint = load_checkpoint(options.checkpoint)
    config = restore(checkpoint, options)
    coco = strip(read(options.boxes, masks=False))
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
        said = write_output(labels, options, output, shards / "output")
        ours.check()
        said += output.publish(shards / "output", said)
        shutil.rmtree(shards, ignore_errors=True)
        said += unfinished(place)
    return "\n".join(said)


def check_output(options: argparse.Namespace) -> Path:
    """Where to write.

    Raises:
        ConfigError: a file is named where the format writes a folder, or the reverse, or the output is an input.
    """
    place: Path = options.out.resolve()
    if options.format in FOLDERS and place.is_file():
        raise ConfigError(
            f"--out {options.out} is a file, and --format {options.format} writes a folder; name a folder"
        )
    if options.format not in FOLDERS and place.is_dir():
        raise ConfigError(f"--out {options.out} is a folder, and --format {options.format} writes a file; name a file")
    for name in ("images", "boxes", "checkpoint"):
        if place == getattr(options, name).resolve():
            raise ConfigError(f"--out {options.out} is also --{name}, which would be overwritten; name another place")
    return place


def plan_output(options: argparse.Namespace, coco: CocoDict, place: Path, *, call: dict[str, str]) -> Output:
    """The files that will be written.

    Raises:
        MalError: the format cannot hold these annotations, or a file to be written is an input.
    """
    files = planned_files(coco, options.format, place)
    if options.preview:
        files.append(place.with_name(f"{place.stem}_preview.png"))
    inputs = {options.boxes.resolve(), options.checkpoint.resolve()}
    inputs |= {(options.images / file_name(image)).resolve() for image in coco["images"]}
    if taken := [path for path in files if path in inputs]:
        raise ConfigError(f"--out {options.out} would overwrite {len(taken)} inputs ({taken[0]}); name another place")
    call = call | {"options": digest([call["options"], options.format, options.preview])}
    return Output(options.out, place, files, call, FOLDERS.get(options.format))


def networks_of(
    checkpoint: Any, config: Config, device: torch.device, options: argparse.Namespace, *, crops: int
) -> list[nn.Module]:
    """The networks of a labeler.

    Raises:
        ConfigError: its weights are not those of the network that its config describes.
    """
    try:
        return load_networks(checkpoint, config, device, crops=crops)
    except RuntimeError as error:  # torch names every key
        raise ConfigError(
            f"the weights in {options.checkpoint} do not fit the network that it describes; copy the labeler.pt again"
        ) from error


def write_output(labels: CocoDict, options: argparse.Namespace, output: Output, staged: Path) -> list[str]:
    """Write the files to a folder, from where they will be moved, and say what is in them.

    Raises:
        MalError: they cannot be written.
    """
    shutil.rmtree(staged, ignore_errors=True)
    lost = FORMATS[options.format](labels, staged / output.place.name)
    said = [f"{len(labels['annotations'])} masks: {options.out}"]
    reasons = Counter(a["flag_reason"] for a in labels["annotations"] if a.get("flagged"))
    if reasons:
        counts = "; ".join(f"{count} because {reason}" for reason, count in reasons.most_common())
        said.append(f"{reasons.total()} of them are their filled box, flagged: {counts}")
    said += lost
    if options.preview:
        sheet, plain = output.files[-1], staged / "labels.json"
        write(plain, labels)
        draw_sheet(plain, options.images, human=None, out=staged / sheet.name, examples=options.preview)
        said.append(f"preview: {sheet}")
    return said


def unfinished(place: Path) -> list[str]:
    """What other calls for the same output have left: those with finished shards are named, empty ones removed."""
    left = []
    for folder in sorted(place.parent.glob(f".{glob.escape(place.name)}.{'[0-9a-f]' * CALL_DIGITS}")):
        if any(folder.glob("shards/*.json")):
            left.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if not left:
        return []
    names = ", ".join(str(folder) for folder in left[:3]) + (", …" if len(left) > 3 else "")
    return [
        f"unfinished, of {len(left)} calls with other inputs or options: {names}; delete them, or finish those calls"
    ]


def restore(checkpoint: Any, options: argparse.Namespace) -> Config:
    """The config a labeler was trained with, and this call's labelling options.

    Raises:
        ConfigError: the file is no labeler, or an option is out of range.
    """
    if not isinstance(checkpoint, dict) or not {"student", "teacher", "config"} <= checkpoint.keys():
        raise ConfigError(f"{options.checkpoint} is not a labeler; give the labeler.pt of a train_labeler stage")
    try:
        saved = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(checkpoint["config"]))
        config: Config = OmegaConf.to_object(saved)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{options.checkpoint} was written by another version of this program: {reason}") from error
    given = {name: getattr(options, name) for name in ("network", "flip", "batch", "threshold")}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given.get("threshold", ())) == 1:
        given["threshold"] *= 3
    config = replace(
        config,
        label=replace(config.label, **given),
        train=replace(config.train, workers=options.workers),
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
