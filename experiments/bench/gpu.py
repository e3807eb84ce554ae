"""What a training step and labelling cost on this machine: parts, FLOPs, share of the device's own matrix rate, memory.

python experiments/bench/gpu.py                                      mae_b at the paper's scale, random weights
python experiments/bench/gpu.py --encoders deit_s swin_b train.batch=16
python experiments/bench/gpu.py --annotations FILE --images FOLDER   also end to end, on photographs

It adds what it measured to results/bench/<device>.json; `--table` prints the README's table of all those files.
Overrides are those of experiments/run.py; the defaults are profile=paper, recipe=released, no download. On a CPU give
smaller numbers: profile=demo encoder=vit_nano.
"""

import mal  # noqa: F401 - before torch: it sets how torch's threads wait

# isort: split
import argparse
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from mal.config import Config
from mal.config_checks import check
from mal.data.annotations import read, strip
from mal.data.rois import RoiBatch, labelling_batches
from mal.encoders.normalise import normalise
from mal.engine.files import read_json, write_json
from mal.engine.precision import autocast
from mal.engine.runtime import peak_memory_gib, pick_device, provenance, reset_peak_memory, seed_everything
from mal.methods.mal.crf import mean_field
from mal.methods.mal.label import label_crops
from mal.methods.mal.network import halfway, predict
from mal.methods.mal.train import Learner, build_learner, train_labeler, training_step
from mal.metrics.predicted import surroundings
from mal.own.forecast import random_batch

ROOT = Path(__file__).resolve().parents[2]
CONF, RESULTS = ROOT / "experiments" / "conf", ROOT / "results" / "bench"
DEFAULTS = ["profile=paper", "recipe=released", "encoder.pretrained=false", "segmenter=none"]
GROUPS, CALLS = 5, 4
Json = dict[str, Any]


def composed(encoder: str | None, overrides: list[str]) -> Config:
    chosen = [f"encoder={encoder}"] if encoder else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Config = OmegaConf.to_object(  # type: ignore[assignment]
            compose("config", overrides=[*DEFAULTS, *chosen, *overrides])
        )
    check(config)
    return config


def milliseconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of a call among others, as in training: the median of several groups, the first of which warms up.

    A device is waited for after each group, not after each call.
    """
    times = []
    for _ in range(GROUPS + 1):
        clock = time.perf_counter()
        for _ in range(CALLS):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - clock) / CALLS)
    return statistics.median(times[1:])


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a square matrix product: what the device can do at most."""
    side = 8192 if device.type == "cuda" else 1024
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / (milliseconds(lambda: first @ second, device) / 1e3)


def parts(learner: Learner, batch: RoiBatch, config: Config, device: torch.device) -> dict[str, float]:
    """Milliseconds of each part of a training step, one at a time."""
    plain, side = batch.pixels.float() / 255, config.roi.size // config.loss.stride
    small = normalise(
        torch.nn.functional.interpolate(plain, size=(side, side), mode="bilinear", antialias=config.crf.antialias)
    )
    inside, masks = batch.box_mask(side, form=config.loss.box_mask), torch.rand(len(batch), side, side, device=device)

    def learn(encoder_alone: bool) -> None:
        with autocast(device, learner.dtype):
            found = (
                learner.student.encoder(plain).last if encoder_alone else learner.network(plain, batch.sizes, side=side)
            )
        found.float().mean().backward()

    def look() -> None:
        with torch.no_grad(), autocast(device, learner.dtype):
            learner.teacher(plain, batch.sizes, side=side)

    return {
        "student": milliseconds(lambda: learn(encoder_alone=False), device),
        "its encoder": milliseconds(lambda: learn(encoder_alone=True), device),
        "teacher": milliseconds(look, device),
        "mean field": milliseconds(lambda: mean_field(masks, small, inside, config.crf), device),
        "photometrics": milliseconds(lambda: learner.photometrics(plain, batch.draws), device),
        "optimizer": milliseconds(learner.optimizer.step, device),
        "EMA": milliseconds(lambda: learner.teacher.update(learner.student), device),
    }


def flops(config: Config, batch: RoiBatch, device: torch.device) -> tuple[float, float]:
    """Of a training step and of labelling a batch; torch counts matrix products, convolutions and attention."""
    learner = build_learner(replace(config, train=replace(config.train, compile=False)), device)
    counts = []
    for work in (
        lambda: training_step(learner, batch, config, weights=(4.0, 0.5)),
        lambda: predict(
            [learner.student.eval()], batch, flip=config.label.flip, through=halfway(config), dtype=learner.dtype
        ),
    ):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(float(counter.get_total_flops()))
    return counts[0], counts[1]


def measure(config: Config, device: torch.device, rate: float) -> Json:
    """One encoder: a training step, its parts, and labelling by the network alone."""
    seed_everything(0)
    batch = random_batch(config).to(device)
    step_flops, label_flops = flops(config, batch, device)
    seed_everything(0)
    learner = build_learner(config, device)
    clock = time.perf_counter()
    training_step(learner, batch, config, weights=(4.0, 0.5))
    started = time.perf_counter() - clock
    reset_peak_memory(device)
    step = milliseconds(lambda: training_step(learner, batch, config, weights=(4.0, 0.5)), device)
    memory = peak_memory_gib(device)
    found = {"first step, s": started, "parts": parts(learner, batch, config, device)}
    network = learner.student.eval()
    label = milliseconds(
        lambda: predict([network], batch, flip=config.label.flip, through=halfway(config), dtype=learner.dtype), device
    )
    count = len(batch)
    return {
        "settings": {"size": config.roi.size, "batch": count, "recipe": config.recipe, "dtype": str(learner.dtype),
                     "compile": config.train.compile},
        "step_ms": step, "rois_per_s": 1e3 * count / step, "step_tflop": step_flops / 1e12,
        "share": step_flops / (step / 1e3) / rate,
        "label_ms": label, "labels_per_s": 1e3 * count / label, "label_share": label_flops / (label / 1e3) / rate,
        "memory": memory, **found,
    }  # fmt: skip


def end_to_end(config: Config, annotations: Path, images: Path, device: torch.device, *, steps: int) -> Json:
    """The command's own functions on real images: RoIs a second of training, boxes a second of labelling."""
    boxes = strip(read(annotations, masks=False))
    config = replace(config, train=replace(config.train, steps=steps, epochs=None, checkpoint_seconds=1e9))
    with tempfile.TemporaryDirectory() as folder:
        train_labeler(boxes, images, config, folder=Path(folder), device=device)
        lines = [json.loads(line) for line in (Path(folder) / "curves.jsonl").read_text().splitlines()]
        late = [line for line in lines if line["step"] >= steps // 3]  # the loaders have filled their queues by then
        seconds = late[-1]["time"] - late[0]["time"]
        trained = (late[-1]["step"] - late[0]["step"]) * config.train.batch / seconds
    network, around = build_learner(config, device).student.eval(), surroundings(boxes["annotations"])
    for _ in range(2):  # the first compiles
        clock = time.perf_counter()
        batches = labelling_batches(
            boxes, images, config=config.roi, batch=config.label.batch, workers=config.train.workers,
            pin=device.type == "cuda",
        )  # fmt: skip
        labels = label_crops([network], batches, config, device=device, around=around)
        arrivals = [time.perf_counter() - clock for _ in labels]
    start = len(arrivals) // 4  # by then the processes that read have filled their queues
    return {
        "images": len(boxes["images"]),
        "boxes": len(arrivals),
        "workers": config.train.workers,
        "rois_per_s": trained,
        "labels_per_s": len(arrivals) / arrivals[-1],
        "label_s": arrivals[-1],
        "first_label_s": arrivals[0],
        "labels_per_s_once_started": (len(arrivals) - start) / (arrivals[-1] - arrivals[start]),
    }


def table(results: list[Json]) -> str:
    """The README's table, a row per device and encoder."""
    lines = [
        "| device | encoder | step | RoIs/s | of matrix rate | on photographs | labels, network | whole | memory |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        for name, found in result["encoders"].items():
            whole = found.get("end_to_end", {})
            memory = found["memory"].get("peak_gpu_memory_gib", found["memory"]["peak_memory_gib"])
            lines.append(
                f"| {result['device']} | `{name}` | {found['step_ms']:.0f} ms | {found['rois_per_s']:.0f} | "
                f"{found['share']:.0%} | {_rate(whole.get('rois_per_s'))} | {found['labels_per_s']:.0f}/s | "
                f"{_rate(whole.get('labels_per_s'))} | {memory:.1f} GiB |"
            )
    return "\n".join(lines)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}/s"


def shown(name: str, found: Json) -> str:
    pieces = ", ".join(f"{part} {value:.2f}" for part, value in found["parts"].items())
    whole = found.get("end_to_end")
    return (
        f"{name}, {found['settings']}\n"
        f"  step {found['step_ms']:.1f} ms, {found['rois_per_s']:.0f} RoIs/s, {found['step_tflop']:.2f} TFLOP, "
        f"{found['share']:.0%} of the matrix rate; first step {found['first step, s']:.0f} s\n"
        f"  ms of its parts: {pieces}\n"
        f"  labelling, network alone: {found['label_ms']:.1f} ms, {found['labels_per_s']:.0f} boxes/s, "
        f"{found['label_share']:.0%}; memory {found['memory']}" + (f"\n  end to end: {whole}" if whole else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="*", default=[])
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--steps", type=int, default=90, help="of training end to end")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the README's table and measure nothing")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    if options.table:
        print(table([read_json(path) for path in sorted(options.out.glob("*.json"))]))
        return
    ConfigStore.instance().store("schema", Config)
    configs = [composed(name, options.overrides) for name in options.encoders or [None]]
    device = pick_device(configs[0].device)
    origin = provenance()
    name = origin["hardware"]["gpu"] if device.type == "cuda" else f"CPU ({platform.machine()})"
    path = options.out / f"{re.sub(r'[^a-z0-9]+', '-', str(name).lower()).strip('-')}.json"
    result: Json = read_json(path) if path.is_file() else {"encoders": {}}
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rate = matrix_rate(dtype, device)
    result |= {"device": name, "hardware": {key: origin["hardware"][key] for key in ("cpu", "cores", "gpu")}}
    origin = {"commit": origin["commit"], "diff": origin["diff"], "packages": origin["packages"]}
    print(
        f"{name}, {os.cpu_count()} cores, torch {torch.__version__}: {rate / 1e12:.1f} TFLOP/s of {dtype}", flush=True
    )
    for config in configs:
        found = measure(config, device, rate)
        if options.annotations:
            found["end_to_end"] = end_to_end(config, options.annotations, options.images, device, steps=options.steps)
        when = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "matrix_tflops": rate / 1e12}
        result["encoders"][config.encoder.name] = found | when | origin
        print(shown(config.encoder.name, found), flush=True)
        write_json(path, result, indent=1)


if __name__ == "__main__":
    main()
