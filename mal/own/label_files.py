"""What mal/label.py does once its options are understood: boxes, points or expressions and a labeler in, masks out."""

import argparse
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

from mal.config import Config
from mal.config_checks import check
from mal.data.annotations import CocoDict, check_images, file_name
from mal.data.box_findings import box_findings
from mal.data.flags import all_flagged
from mal.data.mask_kinds import verdicts
from mal.data.point_findings import point_findings
from mal.data.sources import unreadable
from mal.data.views import VIEWS, read_for
from mal.engine.files import digest, sha256, write_json
from mal.engine.findings import NOTE, STOPS
from mal.engine.runtime import pick_device
from mal.engine.store.fingerprints import looks
from mal.engine.turns import turn
from mal.errors import AnnotationError, ConfigError
from mal.methods.labelling import label_dataset, with_fields_of
from mal.methods.mal.labeler_file import config_of
from mal.own.label_outputs import CALL_DIGITS, check_output, given, plan_output, unfinished, write_output
from mal.own.labelers import Labeler, open_labeler

AGAIN = "all of this was there already, written by the same call and unchanged since; --overwrite labels again"


def label_files(options: argparse.Namespace) -> str:
    """Label the boxes, points or expressions of a file, write them in the format asked for, and say what was done.

    An interrupted call goes on where it was: finished shards lie beside `out` until everything is written.

    Raises:
        MalError: an input that cannot be used, or an output that cannot be written or would replace what is there.
        AnnotationError: nothing got a mask of its own; what was written is filled boxes, or the pixels of points.
    """
    place = check_output(options)
    device = pick_device(options.device)
    view, file = given(options)
    labeler = open_labeler(options.checkpoint, view)
    config = with_options(config_of(labeler.state, source=options.checkpoint), labeler, options)
    original, coco = _read(view, file, options.images)
    _look(coco, labeler, config, file, view)
    check_images(coco, options.images)
    work = {
        "checkpoint": sha256(options.checkpoint),
        view: sha256(file),
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
        masks_of = labeler.own_files.labeler(labeler.state, config, device, coco, options.checkpoint)
        write_json(shards / "call.json", work)
        if options.on_bad_image == "skip":
            coco["unreadable_images"] = unreadable(coco, options.images, workers=options.workers)
        labels = label_dataset(
            coco,
            options.images,
            masks_of,
            folder=shards,
            shard_images=config.label.shard_images,
            fallback=labeler.method.fallback,
        )
        said = write_output(with_fields_of(original, labels), labels, options, output, shards / "output")
        ours.check()
        if not options.overwrite:
            output.check(resumed=True)  # hours have passed since the last look
        said += output.publish(shards / "output", said)
        shutil.rmtree(shards, ignore_errors=True)
        said += unfinished(place)
    if all_flagged(labels["annotations"]):
        raise AnnotationError("; ".join(said))
    return "\n".join(said)


def _read(view: str, file: Path, images: Path) -> tuple[CocoDict, CocoDict]:
    """A file, and what of it a labeler may see.

    Raises:
        AnnotationError: it cannot be read or trusted.
    """
    original = read_for(view, file, images)
    return original, VIEWS[view](original, **({} if view == "boxes" else {"source": str(file)}))


def _look(coco: CocoDict, labeler: Labeler, config: Config, file: Path, view: str) -> None:
    """Say on standard error what is odd about a view of a file.

    Raises:
        AnnotationError: the labeler cannot label it; all the reasons.
    """
    if view == "points":
        odd = point_findings(coco)
    else:  # boxes of which there is but a note are too small: they will be flagged
        odd = [finding for finding in box_findings(coco, verdicts(coco)) if finding.level != NOTE]
    found = [*odd, *labeler.own_files.look(labeler.state, config, coco)]
    if stops := [finding.text for finding in found if finding.level == STOPS]:
        raise AnnotationError(f"{file}: {'. Also '.join(stops)}")
    for finding in found:
        print(f"note: {file}: {finding.text}", file=sys.stderr, flush=True)


def with_options(config: Config, labeler: Labeler, options: argparse.Namespace) -> Config:
    """A labeler's config with this call's labelling options.

    Raises:
        ConfigError: an option is out of range, is nothing that the labeler's method reads, or asks for a network that
            the labeler has not got.
    """
    named = {name: getattr(options, name) for name in ("network", "flip", "batch", "threshold")}
    named = {name: value for name, value in named.items() if value is not None}
    if unread := [f"--{name}" for name in named if name not in labeler.own_files.options]:
        raise ConfigError(
            f"{options.checkpoint} is {labeler.method.name}'s, which does not read {' and '.join(unread)}; leave "
            f"{'it' if len(unread) == 1 else 'them'} out"
        )
    if len(named.get("threshold", ())) == 1:
        named["threshold"] = named["threshold"] * 3
    config = replace(config, label=replace(config.label, **named), train=replace(config.train, workers=options.workers))
    labeler.own_files.check(labeler.state, config, options.checkpoint)
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
