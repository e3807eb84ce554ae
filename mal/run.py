"""One run: plan its stages, refuse what cannot work, compute what is missing, show what came out."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mal import segmenters
from mal.config import Config
from mal.config_checks import check
from mal.data.annotations import write
from mal.data.flags import flag_sentence
from mal.data.sources import Split
from mal.engine import ranks
from mal.engine.files import explain, read_json
from mal.engine.graph import Stage, execute, in_order
from mal.engine.history import outlook
from mal.engine.mirror import start_mirror, ui_command
from mal.engine.runtime import pick_device
from mal.engine.store import Store
from mal.errors import AnnotationError
from mal.methods.mal import looks
from mal.methods.registry import find
from mal.pictures import draw_attention, draw_class_maps, draw_expressions, draw_sheet, shown_beside, summary
from mal.request import Graph
from mal.run_notes import notes_of
from mal.segmenters.config_checks import check as check_segmenter


def run(config: Config, *, notes: Sequence[str] = ()) -> None:
    """Do all that a config asks for, reusing what the store holds.

    Args:
        notes: to be said at its start.

    Raises:
        MalError: something in the request, the data or the machine, before the first step wherever it can be known.
    """
    check_all(config)
    device = pick_device(config.device)
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    with ranks.joined(device):
        _run(config, device, notes)


def check_all(config: Config) -> None:
    """Refuse a request that cannot work.

    Raises:
        ConfigError.
    """
    check(config)
    if config.segmenter.name != "none":
        check_segmenter(config.segmenter)
        segmenters.check_built(config.segmenter)


def _run(config: Config, device: torch.device, notes: Sequence[str]) -> None:
    store = Store(config.store)
    graph = Graph(config, store, device)
    stages = in_order(graph.targets())
    done = ranks.on_first(lambda: [store.is_done(stage.name, stage.key) for stage in stages])  # one answer for all
    todo = [stage for stage, finished in zip(stages, done, strict=True) if not finished]
    ahead = ranks.on_first(lambda: outlook(stages, store, processes=ranks.size(), gpu=device.type == "cuda"))
    say(f"{plan_lines(stages, todo)}\n{ahead}" if config.dry_run else ahead)
    for line in graph.censuses():
        say(line)
    for note in [*notes, *notes_of(graph), *ranks.on_first(graph.turned_images)]:
        say(f"note: {note}")
    graph.check()
    if config.dry_run:
        return
    ranks.on_first(lambda: preflight(config, todo, device))
    tracking = config.tracking
    mirrored = tracking.enabled and ranks.is_first()
    mirror = start_mirror(store.root, enabled=mirrored, uri=tracking.uri, experiment=tracking.experiment)
    try:
        data = graph.data()
        for stage in [s for s in in_order(data) if s in todo]:
            execute(stage, store, device=device)
        for stage in todo:
            execute(stage, store, device=device)
        ranks.on_first(lambda: show(graph, store, stages))
        if tracking.enabled:
            say(f"MLflow:   {ui_command(tracking.uri)}")
    finally:
        mirror.stop()


def sweep_ahead(rows: Sequence[Config]) -> str:
    """What the rows of a sweep need together, what of it is done, and how long the rest takes. Nothing is computed.

    Raises:
        MalError: in the request or the data of any row.
    """
    stages: dict[Stage, None] = {}
    for config in rows:
        check_all(config)
        device = pick_device(config.device)
        graph = Graph(config, Store(config.store), device)
        graph.check()
        stages |= dict.fromkeys(in_order(graph.targets()))
    ahead = outlook(stages, Store(config.store), processes=ranks.size(), gpu=device.type == "cuda")
    return f"{len(rows)} rows: {ahead}"


def plan_lines(stages: list[Stage], todo: list[Stage]) -> str:
    """One line per stage: is it done, its name and key."""
    return "\n".join(f"{'to do' if stage in todo else 'done ':5}  {stage.name:<16} {stage.key}" for stage in stages)


def preflight(config: Config, todo: list[Stage], device: torch.device) -> None:
    """Build every network that will be needed, with its weights, so that what cannot be had is known now.

    Raises:
        ConfigError, WeightsError.
    """
    by_method: dict[str, set[str]] = {}
    for stage in todo:
        if "labeler" in stage.columns and "segmenter" not in stage.columns:
            by_method.setdefault(stage.columns["labeler"].partition(":")[0], set()).add(stage.name)
    for name, stages in by_method.items():
        find(name).preflight(config, device, stages)
    names = {stage.name for stage in todo}
    looks.preflight(config, names)
    if "train_segmenter" in names:
        segmenters.find(config.segmenter).build(config.segmenter, classes=1)


def show(graph: Graph, store: Store, stages: list[Stage]) -> None:
    """Print the run's table, and draw a sheet of its masks where it made any."""
    say("\n" + summary([store.read(stage.name, stage.key) for stage in stages]))
    for stage in stages:
        if stage.name == "attention_val":
            folder = store.folder(stage.name, stage.key)
            out = folder / "attention.png"
            say(f"\nattention maps: {_drawn(partial(draw_attention, folder / 'attention.npz', out), out)}")
        if stage.name == "refer_val":
            say(f"\nexpressions: {store.folder(stage.name, stage.key) / 'refer.json'}")
        if stage.name == "res_val":
            say(f"pictures:    {_drawn_of(stage, draw_expressions, store)}")
        if stage.name == "miou_val":
            maps = stage.inputs["maps"]
            network = maps.inputs["network"]
            say(f"\nnetwork:  {store.folder(network.name, network.key) / 'simformer.pt'}")
            say(f"maps:     {store.folder(maps.name, maps.key)}")
            say(f"pictures: {_drawn_of(stage, draw_class_maps, store)}")
    labelled = graph.labelled_by_its_method()
    if not labelled:
        return
    split = labelled[-1]  # the validation images, where there are any
    labels = graph.labels(split)
    folder = store.folder(labels.name, labels.key)
    out, shows = folder / "sheet.png", shown_beside("boxes" if graph.method is None else graph.method.view)
    sheet = _drawn(partial(_draw_masks, split, folder / "labels.json", out, shows=shows), out)
    if graph.method is not None and graph.method.train is not None:
        trained = graph.method.train(graph.context)
        say(f"\nlabeler:  {store.folder(trained.name, trained.key) / 'labeler.pt'}")
    say(f"masks:    {folder / 'labels.json'}\npictures: {sheet}")
    tell_flagged(graph, store)


def _draw_masks(split: Split, labels: Path, out: Path, *, shows: str) -> None:
    """A sheet of a split's masks, beside human ones where there are any."""
    with TemporaryDirectory() as folder:
        draw_sheet(labels, split.images, human=human_masks(split, Path(folder)), out=out, shows=shows)


def human_masks(split: Split, folder: Path) -> Path | None:
    """The file with a split's human masks, or one in `folder` with those that can be decoded; None without any."""
    if not split.has_masks:
        return None
    census = split.census
    if census is None or not census.annotations - census.masks:
        return split.annotations
    write(folder / "human.json", split.human())
    return folder / "human.json"


def tell_flagged(graph: Graph, store: Store) -> None:
    """Say how many boxes of each split have no mask of their own, and why.

    Raises:
        AnnotationError: none of any split has one.
    """
    silent, sentences = True, []
    view = "boxes" if graph.method is None else graph.method.view
    for split in graph.labelled_by_its_method():
        labels = graph.labels(split)
        counts = {name: entry["value"] for name, entry in store.read(labels.name, labels.key)["metrics"].items()}
        silent = silent and counts["flagged"] == counts["labels"]
        if counts["flagged"]:
            annotations = read_json(store.folder(labels.name, labels.key) / "labels.json")["annotations"]
            sentences.append(f"{split.name}: {flag_sentence(annotations, view)}")
    if silent:
        raise AnnotationError("; ".join(sentences))
    for sentence in sentences:
        say(f"note: {sentence}")


def _drawn_of(stage: Stage, draw: Callable[[Path, list[dict[str, Any]], Path], str], store: Store) -> str:
    """Where the sheet of a stage of scores is, drawn of it and of all that it comes from; see `_drawn`."""
    records = [store.read(one.name, one.key) for one in in_order([stage])]
    out = store.folder(stage.name, stage.key) / "sheet.png"
    return _drawn(partial(draw, store.root, records, out), out)


def _drawn(draw: Callable[[], object], out: Path) -> str:
    """Where a picture is; in a store that cannot be written, that of an earlier run, or why there is none."""
    try:
        found = draw()
    except OSError as error:
        return str(out) if out.is_file() else f"none, {explain(error, out)}"
    return found if isinstance(found, str) else str(out)  # it may say why there is none


def say(text: str) -> None:
    """Print to standard output at once, so that a log keeps its order; of several processes the first speaks."""
    if ranks.is_first():
        print(text, file=sys.stdout, flush=True)
