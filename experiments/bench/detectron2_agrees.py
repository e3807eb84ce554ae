"""Do detectron2 and torchvision train the same segmenter to the same AP? Human masks of the shapes, a few seeds.

python experiments/bench/detectron2_agrees.py              six trainings of the demo's length
python experiments/bench/detectron2_agrees.py --seeds 0 --out /tmp/log.md profile=smoke

It goes through the stages and the store of a run, so what was trained once is not trained again, and a killed call goes
on where it was. The log it writes says when, with which versions, and what came out.
"""

import argparse
import json
import shlex
import statistics
import sys
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mal import segmenters
from mal.config import Config
from mal.config_checks import check
from mal.engine.files import atomic_write
from mal.engine.graph import execute, in_order
from mal.engine.runtime import pick_device
from mal.engine.store import Store
from mal.errors import MalError
from mal.evaluation import score
from mal.request import Graph
from mal.segmenters.config_checks import check as check_segmenter

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "experiments" / "conf"
BACKENDS = {  # → what it is told to do as the other does
    "torchvision": ("segmenter.heads.start=detectron2", "segmenter.heads.mask_targets=binary",
                    "segmenter.proposals.exact_anchors=true"),
    "detectron2": (),
}  # fmt: skip
METRICS = {"mask_ap": "mask AP", "mask_ap50": "mask AP50", "box_ap": "box AP"}
WEAKEST = 0.15  # mask AP below which the comparison says nothing

Records = dict[str, dict[str, Any]]  # of one training: stage → its run.json


def composed(backend: str, seed: int, overrides: list[str]) -> Config:
    """The config of one training, checked.

    Raises:
        ConfigError: a value is wrong, or detectron2 is not installed.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        alike = [f"segmenter.backend={backend}", *BACKENDS[backend]]
        settings = compose("config", overrides=[*alike, f"seed={seed}", *overrides])
    config: Config = OmegaConf.to_object(settings)  # type: ignore[assignment]
    check(config)
    check_segmenter(config.segmenter)
    segmenters.check_built(config.segmenter)
    return config


def measure(config: Config) -> Records:
    """Train on the human masks, predict, score; or read what the store has of that."""
    device, store = pick_device(config.device), Store(config.store)
    graph = Graph(config, store, device)
    stages = in_order([score(graph.context, graph.segmenters.detect(graph.segmenters.train(None)))])
    for stage in stages:
        if not store.is_done(stage.name, stage.key):
            execute(stage, store, device=device)
    return {stage.name: store.read(stage.name, stage.key) for stage in stages}


def values(runs: list[Records], metric: str) -> list[float]:
    return [records["ap_val"]["metrics"][metric]["value"] for records in runs]


def table(results: dict[str, list[Records]], seeds: list[int]) -> str:
    """A line a seed and backend, and below them each backend's mean, standard deviation and range."""
    lines = [
        f"| backend | seed | {' | '.join(METRICS.values())} | training, min |",
        f"|---|---|{'---|' * (len(METRICS) + 1)}",
    ]
    for backend, runs in results.items():
        for seed, records in zip(seeds, runs, strict=True):
            scores = " | ".join(f"{values([records], metric)[0]:.4f}" for metric in METRICS)
            lines.append(f"| {backend} | {seed} | {scores} | {records['train_segmenter']['seconds'] / 60:.1f} |")
    for backend, runs in results.items():
        summaries = []
        for metric in METRICS:
            found = values(runs, metric)
            deviation = f" ± {statistics.stdev(found):.4f}" if len(found) > 1 else ""
            summaries.append(f"{statistics.mean(found):.4f}{deviation} ({min(found):.4f} to {max(found):.4f})")
        lines.append(f"| {backend} | mean ± sd (range) | {' | '.join(summaries)} | |")
    return "\n".join(lines)


def verdict(results: dict[str, list[Records]]) -> str:
    """Whether the backends' means lie no farther apart than the seeds of one of them do."""
    found = [values(runs, "mask_ap") for runs in results.values()]
    apart = abs(statistics.mean(found[0]) - statistics.mean(found[1]))
    spread = max(max(scores) - min(scores) for scores in found)
    if min(map(statistics.mean, found)) < WEAKEST:
        return f"Mean mask APs differ by {apart:.4f}, but are too weak (below {WEAKEST:g}) to compare."
    if len(found[0]) < 2:
        return f"Mask APs differ by {apart:.4f}. One seed has no spread to compare that with."
    agree = "They agree: that is within" if apart <= spread else "They do not agree: that is more than"
    lower, higher = sorted(BACKENDS, key=lambda backend: statistics.mean(values(results[backend], "mask_ap")))
    separate = max(values(results[lower], "mask_ap")) < min(values(results[higher], "mask_ap"))
    beside = f" Yet every run of {higher} lies above every run of {lower}: not all of it is chance." if separate else ""
    return (
        f"Mean mask APs differ by {apart:.4f}. {agree} the seed spread (highest − lowest of a backend), "
        f"{spread:.4f}.{beside}"
    )


def installed_commit() -> str:
    """The commit that pip built detectron2 from; it only knows it of a repository's address."""
    origin = json.loads(distribution("detectron2").read_text("direct_url.json") or "{}")
    return origin.get("vcs_info", {}).get("commit_id", "unknown")


def log(results: dict[str, list[Records]], seeds: list[int], *, commit: str) -> str:
    """The log, in Markdown."""
    last = results["detectron2"][-1]
    record, columns = last["train_segmenter"], last["train_segmenter"]["columns"]
    origin, segmenter = record["provenance"], record["config"]["segmenter"]
    hardware, schedule = origin["hardware"], segmenter["schedule"]
    length = f"{schedule['steps']} steps" if schedule["steps"] is not None else f"{schedule['epochs']:g} epochs"
    packages = ", ".join(f"{name} {version}" for name, version in origin["packages"].items())
    return f"""# detectron2 and torchvision, the same segmenter

{datetime.now(UTC):%Y-%m-%d}. `python {shlex.join(["experiments/bench/detectron2_agrees.py", *sys.argv[1:]])}`

{segmenter["name"]}, {length} of {schedule["batch"]} images, trained on human masks of {columns["data"]} (profile
{columns["profile"]}), scored on {last["ap_val"]["metrics"]["mask_ap"]["n"]} validation images.

Body and its initial weights, pyramid, anchors, heads, mask targets, losses, optimiser, schedule, images and their order
are the same, and so are the distributions that the other initial weights are drawn from. Each library's own are these
draws, the samplers and pasting.

{table(results, seeds)}

{verdict(results)}

- Versions: Python {origin["python"]}, {packages}.
- detectron2's source: github.com/facebookresearch/detectron2, commit {commit}.
- Machine: {hardware["cpu"]}, {hardware["cores"]} cores, {hardware["threads"]} threads, GPU {hardware["gpu"] or "none"}.
- Suite: commit {origin["commit"]}{f" with changes {origin['diff']}" if origin["diff"] else ""}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "detectron2_agreement.md")
    parser.add_argument("--commit", help="of detectron2's source, where it was installed from a folder")
    parser.add_argument("overrides", nargs="*", help="as for experiments/run.py")
    arguments = parser.parse_intermixed_args()
    ConfigStore.instance().store("schema", Config)
    try:
        configs = {b: [composed(b, seed, arguments.overrides) for seed in arguments.seeds] for b in BACKENDS}
        results = {backend: [measure(config) for config in wanted] for backend, wanted in configs.items()}
    except MalError as error:
        sys.exit(f"error: {error}")
    text = log(results, arguments.seeds, commit=arguments.commit or installed_commit())
    with atomic_write(arguments.out) as file:
        file.write(text)
    print(f"{text}\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
