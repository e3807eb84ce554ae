"""Seconds, FLOPs and peak memory of a training step of a segmenter at its largest image size, on noise with boxes.

FLOPs are two a multiplication and addition of the matrix products, convolutions and attentions, forward and backward;
not counted is what torch does not know how to count, such as deformable convolutions and RoIAlign.

python experiments/bench/segmenters.py segmenter=cascade_convnext_s segmenter.pretrained=false \\
    segmenter.schedule.batch=1
"""

import mal  # noqa: F401 - before torch: it sets how torch's threads wait

# isort: split
import statistics
import sys
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from mal import segmenters
from mal.config import Config
from mal.config_checks import check
from mal.engine.precision import network_dtype
from mal.engine.runtime import peak_memory_gib, pick_device, reset_peak_memory, seed_everything
from mal.segmenters.config import ScaleConfig
from mal.segmenters.config_checks import check as check_segmenter
from mal.segmenters.data import Sample, resized
from mal.segmenters.optimizer import build_optimizer

REPEATS = {"cpu": 1, "cuda": 10}
OBJECTS, CLASSES = 8, 80  # about COCO's
CONF = Path(__file__).resolve().parents[1] / "conf"


def noise(scale: ScaleConfig) -> Sample:
    """A 4 : 3 image (a square under jitter) at the longest of the short sides, with filled boxes of all sizes."""
    height, width = resized(480, 480 if scale.jitter else 640, short=max(scale.short_sides), long=scale.long_side)
    sides = torch.logspace(-1.5, -0.2, OBJECTS)[:, None] * torch.tensor([width, height])
    corners = torch.rand(OBJECTS, 2) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat([corners, corners + sides], dim=1)
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return Sample(image, boxes, torch.randint(1, CLASSES + 1, (OBJECTS,)), masks, image_id=1)


def main() -> None:
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole: Config = OmegaConf.to_object(compose("config", overrides=sys.argv[1:]))  # type: ignore[assignment]
    check(whole)
    config, device = whole.segmenter, pick_device(whole.device)
    check_segmenter(config)
    network = segmenters.find(config)
    seed_everything(0)
    model = network.build(config, classes=CLASSES).to(device).train()
    network.lowered(model, config, device=device)
    dtype = network_dtype(config.precision, device)
    optimizer = build_optimizer(model, config.optimizer)
    batch = [noise(config.scale) for _ in range(config.schedule.batch)]
    batch = [sample.pin_memory() for sample in batch] if device.type == "cuda" else batch

    def step() -> tuple[float, float]:
        clock, cpu = time.perf_counter(), time.process_time()
        loss = torch.stack(list(network.losses(model, batch).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - clock, time.process_time() - cpu

    with FlopCounterMode(display=False) as flops:
        step()
    for _ in range(REPEATS[device.type]):  # warms up: libraries choose their kernels
        step()
    reset_peak_memory(device)
    times = [step() for _ in range(REPEATS[device.type])]
    seconds, cpu = (statistics.median(each) for each in zip(*times, strict=True))
    tera = flops.get_total_flops() / 1e12
    memory = ", ".join(f"{name} {value:.2f}" for name, value in peak_memory_gib(device).items())
    height, width = batch[0].image.shape[1:]
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(
        f"{config.name}{' dcn' if config.dcn else ''}, {millions:.0f} M parameters, {height} × {width}, batch "
        f"{len(batch)}, {dtype}, {device}, {torch.get_num_threads()} threads: training step {seconds:.3g} s "
        f"({cpu:.3g} s of CPU), {tera:.3g} TFLOP, {tera / seconds:.3g} TFLOP/s, {memory}"
    )


if __name__ == "__main__":
    main()
