"""Label your own boxes with a trained labeler.

python -m mal.label --images DIR --boxes IN.json --checkpoint labeler.pt --out OUT.json
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from analysis.sheet import draw_sheet
from mal.annotations import check_images, file_name, read, strip, write
from mal.config import Config
from mal.config_checks import check
from mal.errors import ConfigError, MalError
from mal.export import FOLDERS, FORMATS, file_names
from mal.files import digest, sha256, write_json
from mal.labelers.mal import load_networks
from mal.labelling import label_dataset, mal_labeler
from mal.runtime import load_checkpoint, pick_device
from mal.sources import unreadable
from mal.store.fingerprints import looks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every box has a mask."""
    options = _parser().parse_args(arguments)
    try:
        print(label_files(options))
    except MalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def label_files(options: argparse.Namespace) -> str:
    """Label the boxes of a file, write them in the format asked for, and say what was done.

    An interrupted call goes on where it was: finished shards lie beside `out` until everything is written.

    Raises:
        MalError: an input that cannot be used, or an output that cannot be written.
    """
    out = check_output(options)
    device = pick_device(options.device)
    checkpoint = load_checkpoint(options.checkpoint)
    config = restore(checkpoint, options)
    coco = strip(read(options.boxes, masks=False))
    check_images(coco, options.images)
    if options.format in FOLDERS:
        file_names(coco, options.format)
    networks = load_networks(checkpoint, config, device, crops=len(coco["annotations"]))
    if options.on_bad_image == "skip":
        coco["unreadable_images"] = unreadable(coco, options.images, workers=options.workers)
    call = {
        "checkpoint": sha256(options.checkpoint),
        "boxes": sha256(options.boxes),
        "images": [str(options.images.resolve()), looks(options.images, [file_name(it) for it in coco["images"]])],
        "skipped": coco.get("unreadable_images", []),
        "label": asdict(config.label),
    }
    shards = out.with_name(f".{out.name}.{digest(call)[:12]}")
    write_json(shards / "call.json", call)  # before hours of work: can anything be written here?
    labels = label_dataset(
        coco,
        options.images,
        mal_labeler(networks, config, device),
        folder=shards,
        shard_images=config.label.shard_images,
    )
    FORMATS[options.format](labels, out)
    said = [f"{len(labels['annotations'])} masks: {options.out}"]
    flagged = sum(a.get("flagged", False) for a in labels["annotations"])
    if flagged:
        said.append(f"{flagged} of them are their filled box, flagged: too small, unreadable or empty")
    if options.preview:
        plain, sheet = shards / "labels.json", out.with_name(f"{out.stem}_preview.png")
        write(plain, labels)
        said.append(f"preview: {draw_sheet(plain, options.images, human=None, out=sheet, examples=options.preview)}")
    shutil.rmtree(shards, ignore_errors=True)
    return "\n".join(said)


def check_output(options: argparse.Namespace) -> Path:
    """Where to write, once nothing of the user's would be overwritten.

    Raises:
        ConfigError: a file is named where the format writes a folder, or the reverse, or the output is an input.
    """
    out: Path = options.out.resolve()
    if options.format in FOLDERS and out.is_file():
        raise ConfigError(
            f"--out {options.out} is a file, and --format {options.format} writes a folder; name a folder"
        )
    if options.format not in FOLDERS and out.is_dir():
        raise ConfigError(f"--out {options.out} is a folder, and --format {options.format} writes a file; name a file")
    for name in ("images", "boxes", "checkpoint"):
        if out == getattr(options, name).resolve():
            raise ConfigError(f"--out {options.out} is also --{name}, which would be overwritten; name another place")
    return out


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mal.label", description="Give every box of a COCO file a mask.", allow_abbrev=False
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--boxes", type=Path, required=True, metavar="IN.json", help="COCO file; it needs no masks")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="C", help="labeler.pt of a training run")
    parser.add_argument("--out", type=Path, required=True, help="file (rle, polygon) or folder (png, yolo) to write")
    parser.add_argument("--format", choices=list(FORMATS), default="rle", help="default: rle, COCO's compressed masks")
    parser.add_argument("--preview", type=_count, default=0, metavar="N", help="also draw N examples beside the output")
    parser.add_argument("--network", choices=["student", "teacher", "both"], help="default: as trained")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, help="average with the mirrored crop's mask")
    parser.add_argument("--threshold", type=float, nargs="+", metavar="T", help="one number, or three for S, M and L")
    parser.add_argument("--batch", type=int, help="boxes at a time")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images; 0: none but this")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--on-bad-image", choices=["error", "skip"], default="error")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of examples; give 0 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
