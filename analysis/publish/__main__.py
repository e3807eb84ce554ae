"""Copy finished results for everyone to see: records and per-image numbers, without paths, hosts or photographs.

python -m analysis.publish [KEY …] [--profile demo --data shapes …] [--keep] [--store DIR] [--into results/published]
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis import sources
from analysis.columns import COLUMNS
from analysis.lineage import ancestors, chosen
from analysis.publish.sanitise import clean, clean_record, leaks
from analysis.records import ELSEWHERE, PUBLISHED, Json, Record, UnreadableRecordError, address, by_address, finished
from analysis.sources import command, writing
from mal.data.semantic import FILE, read_semantic, write_semantic

NUMBERS = {  # stage → files that hold numbers alone: of any data
    "quality_val": ["instances.csv"],
    "ap_val": ["matches_*.npz"],
    "own_ap_val": ["matches_*.npz"],
    "miou_val": ["iou.npz"],
    "res_val": ["iou.npz"],
    "rec_val": ["iou.npz"],
    "clustering_val": ["instances.csv"],
    "train_labeler": ["curves.jsonl"],
    "train_attentionshift": ["curves.jsonl"],
    "train_class_maps": ["curves.jsonl"],
    "train_bestie": ["curves.jsonl"],
    "train_simformer": ["curves.jsonl"],
    "train_rec": ["curves.jsonl"],
    "train_res": ["curves.jsonl"],
    "train_segmenter": ["curves.jsonl"],
}
LOOKS = {  # stage → its pictures, or what is drawn on them
    "attention_val": "attention.npz",
    "parts_val": "parts.npz",
    "looks_val": "looks.npz",
    "refer_val": "refer.json",
}
DETECTED = ("detect_val", "detect_attentionshift", "detect_bestie")
MAPPED = ("semantic_val", "segment_val")
PICTURED = ("shapes_val", "label_val", *DETECTED, *MAPPED, *LOOKS)  # not numbers alone: of procedural data alone
IMAGES = 24  # the first, by id
SCORE = 0.3  # lowest, of a published prediction; an image's best is published whatever it has


class PublishError(UnreadableRecordError):
    """What cannot be published; the message says why."""


def publish(
    records: Iterable[Record], everything: Sequence[Record], store: Path, into: Path, *, keep: bool = False
) -> list[Path]:
    """Copy some stages, and all they come from, into `into`/<stage>/<key>/; the same store gives the same bytes.

    All is written elsewhere and searched for paths, hosts and pictures first: what should not be seen is never in
    `into`.

    Args:
        records: what is asked for. everything: all finished records of the store.
        keep: whether what is in `into` stays. What is added to it and comes from results that ended otherwise there, as
            trainings do on another machine, names these (ELSEWHERE).

    Returns:
        The folders that were written, sorted.

    Raises:
        PublishError: a file is missing, or something in one should not be seen.
    """
    known = by_address(everything)
    names = sorted({name for record in records for name in ancestors(record, known) if name in known})
    into.mkdir(parents=True, exist_ok=True)
    others = _others(names, known, into) if keep else []
    names = [name for name in names if not (keep and (into / name).exists())]
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=into) as place:
        for name in names:
            behind = [other for other in others if other in ancestors(known[name], known)]
            drawn = is_procedural(known[name], known)
            _copy(known[name], store / name, Path(place) / name, drawn=drawn, elsewhere=behind)
        if found := leaks(Path(place)):
            more = f" (and {len(found) - 1} more like it)" if found[1:] else ""
            raise PublishError(
                f"nothing was published: {found[0]}{more}; compute the stage without it, or leave it out"
            )
        for name in names:
            target = into / name
            if target.exists():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(place) / name).rename(target)
    return [into / name for name in names]


def _others(names: Iterable[str], known: Mapping[str, Record], into: Path) -> list[str]:
    """Those that are published with other metrics, without those that come from such ones."""
    found = []
    for name in names:
        if (into / name / "run.json").is_file():
            there, here = _read(into / name / "run.json"), clean_record(known[name])
            found += [name] if there.get("metrics") != here.get("metrics") else []
    return [name for name in found if not {*ancestors(known[name], known)} & {*found} - {name}]


def is_procedural(record: Record, known: Mapping[str, Record]) -> bool:
    """Whether every image behind a result was drawn by us: it comes from shapes_*, and from no file of images."""
    behind = ancestors(record, known)
    if any(it is None or {"annotations", "images"} & (it.get("sources") or {}).keys() for it in behind.values()):
        return False
    return any(name.startswith(("shapes_train/", "shapes_val/")) for name in behind)


def _copy(record: Record, source: Path, target: Path, *, drawn: bool, elsewhere: list[str]) -> None:
    target.mkdir(parents=True)
    stage = record["stage"]
    said: Json = {}
    try:
        for pattern in NUMBERS.get(stage, ()):
            for path in sorted(source.glob(pattern)):
                shutil.copyfile(path, target / path.name)
        if drawn and stage in PICTURED:
            said = _copy_pictured(stage, source, target)
        elif stage in PICTURED:
            said = {"left_out": "images, masks and predictions: they are not of procedural data"}
    except (OSError, ValueError, KeyError) as error:
        raise PublishError(f"{source} is not whole ({error}); compute the stage again, or leave it out") from error
    said |= {ELSEWHERE: elsewhere} if elsewhere else {}
    told = {**clean_record(record), **({PUBLISHED: said} if said else {})}
    _write(target / "run.json", told, indent=1)


def _copy_pictured(stage: str, source: Path, target: Path) -> Json:
    """Copy what shows procedural images or masks on them; returns what was left out of it."""
    if stage in LOOKS:
        shutil.copyfile(source / LOOKS[stage], target / LOOKS[stage])
        return {}
    if stage in MAPPED:
        return _copy_maps(source, target)
    if stage == "label_val":
        labels = _read(source / "labels.json")
        _write(target / "labels.json", {k: v if k == "annotations" else clean(v) for k, v in labels.items()})
        return {}
    if stage in DETECTED:
        predictions = _read(source / "predictions.json")
        best: dict[int, float] = {}
        for each in predictions:
            best[each["image_id"]] = max(best.get(each["image_id"], 0), each["score"])
        kept = [each for each in predictions if each["score"] >= min(SCORE, best[each["image_id"]])]
        _write(target / "predictions.json", kept)
        told = f"score >= {SCORE}, or the best of an image"
        return {"predictions": told, "predictions_kept": f"{len(kept)} of {len(predictions)}"}
    annotations = _read(source / "annotations.json")
    _write(target / "annotations.json", annotations)
    images = sorted(annotations["images"], key=lambda image: image["id"])
    (target / "images").mkdir()
    for image in images[:IMAGES]:
        shutil.copyfile(source / "images" / image["file_name"], target / "images" / image["file_name"])
    shown = min(IMAGES, len(images))
    return {"images": f"the first {shown} of {len(images)} by id"} if shown < len(images) else {}


def _copy_maps(source: Path, target: Path) -> Json:
    """Copy the class maps of the images that are published."""
    every = read_semantic(source / FILE)
    images = sorted(every.images, key=lambda image: image.id)[:IMAGES]
    for image in images:
        if image.map is not None:
            (target / image.map).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / image.map, target / image.map)
    write_semantic(target / FILE, replace(every, images=tuple(images)))
    return {"maps": f"the first {len(images)} of {len(every.images)} by id"} if every.images[len(images) :] else {}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: Any, *, indent: int | None = None) -> None:
    separators = (",", ":") if indent is None else None
    path.write_text(json.dumps(value, indent=indent, separators=separators, allow_nan=False) + "\n", encoding="utf-8")


def named(records: Sequence[Record], keys: Sequence[str]) -> list[Record]:
    """The records whose key, or stage/key, starts as given.

    Raises:
        PublishError: one fits none.
    """
    found = []
    for key in keys:
        fitting = [r for r in records if r["key"].startswith(key) or address(r).startswith(key)]
        if not fitting:
            raise PublishError(f"no finished result is called {key}; python -m mal.store list shows what there is")
        found += fitting
    return found


@command
def main(arguments: Sequence[str] | None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m analysis.publish", description=__doc__.splitlines()[0])
    parser.add_argument("keys", nargs="*", metavar="KEY", help="the start of a key, of stage/key, or a stage's name")
    parser.add_argument("--keep", action="store_true", help="add to what is there, and replace nothing of it")
    parser.add_argument("--into", type=Path, default=Path("results/published"), help="default: %(default)s")
    for name in [*COLUMNS, "seed"]:
        parser.add_argument(f"--{name}", nargs="+", metavar="VALUE", help=f"only results with this {name}")
    sources.add_options(parser)
    options = parser.parse_args(arguments)
    wanted = {name: values for name in [*COLUMNS, "seed"] if (values := getattr(options, name))}
    if not options.keys and not wanted:
        raise PublishError("say what to publish: keys, or filters such as --profile demo --data shapes")
    store = sources.opened(options)
    everything = finished(store)
    records = named(everything, options.keys) if options.keys else everything
    records = chosen(records, by_address(everything), wanted, ())
    if not records:
        raise PublishError("no finished result fits; python -m mal.store list shows what there is")
    with writing(options.into, option="--into"):
        folders = publish(records, everything, store, options.into, keep=options.keep)
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    print(f"{len(folders)} stages in {options.into}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
