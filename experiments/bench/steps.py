"""Seconds and peak memory of a training step and of labelling, for any config, on random crops.

python experiments/bench/steps.py profile=paper encoder=mae_b encoder.pretrained=false train.batch=4
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mal.config import Config
from mal.config_checks import check
from mal.labelers.mal import predict
from mal.rois import RoiBatch
from mal.runtime import peak_memory_gib, pick_device, seed_everything
from mal.train import build_learner, training_step

REPEATS = 3
CONF = Path(__file__).resolve().parents[1] / "conf"


def random_batch(config: Config) -> RoiBatch:
    """Crops of noise around boxes of all three sizes."""
    count, size = config.train.batch, config.roi.size
    window = torch.tensor([0, 0, 400, 400]).expand(count, 4)
    return RoiBatch(
        pixels=torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8),
        windows=window,
        spans=torch.tensor([80, 100, 300, 280]).expand(count, 4),
        images=torch.tensor([0, 0, 640, 480]).expand(count, 4),
        sizes=torch.arange(count) % 3,
        flipped=torch.zeros(count, dtype=torch.bool),
        padded=torch.zeros(count, dtype=torch.bool),
        draws=torch.rand(count, 12),
        ids=torch.arange(count),
    )


def main() -> None:
    ConfigStore.instance().store("schema", Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Config = OmegaConf.to_object(compose("config", overrides=sys.argv[1:]))  # type: ignore[assignment]
    check(config)
    device = pick_device(config.device)
    seed_everything(0)
    learner = build_learner(config, device)
    batch = random_batch(config).to(device)

    def seconds(work: object) -> float:
        times = []
        for _ in range(REPEATS + 1):
            clock = time.perf_counter()
            work()  # type: ignore[operator]
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - clock)
        return statistics.median(times[1:])  # the first call warms up

    step = seconds(lambda: training_step(learner, batch, config, weights=(4.0, 0.5)))

    def label() -> None:
        predict([learner.student.eval()], batch, flip=config.label.flip, dtype=learner.dtype)

    labelling = seconds(label)
    count = config.train.batch
    memory = ", ".join(f"{name} {value:.2f}" for name, value in peak_memory_gib(device).items())
    print(
        f"{config.encoder.name} at {config.roi.size}², batch {count} in {config.train.accumulate} parts, "
        f"{learner.dtype}, {device}, {torch.get_num_threads()} threads: "
        f"training step {step:.2f} s ({count / step:.1f} RoIs/s), "
        f"labelling {labelling:.2f} s ({count / labelling:.1f} RoIs/s), {memory}"
    )


if __name__ == "__main__":
    main()
