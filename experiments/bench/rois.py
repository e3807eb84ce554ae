"""RoIs a second of the data path alone: decode, expand, crop, resize to 512 × 512, on one core.

python experiments/bench/rois.py --annotations FILE --images FOLDER [--size 512] [--repeats 3]
"""

import mal  # noqa: F401 - before torch: it sets how torch's threads wait

# isort: split
import argparse
import statistics
import time
from pathlib import Path

import torch

from mal.data.annotations import read
from mal.data.config import RoiConfig
from mal.data.rois import TrainingRois

RELEASED_MS = 21.0  # one training RoI of the released program on one core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rois", type=int, help="default: one epoch, so that every image is decoded once")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = RoiConfig(options.size, "released", 1.2, 0.3, "wrap", 0.5, 2, 2048, 1e10)
    coco = read(options.annotations, masks=False)
    batch = 32
    costs = []
    for repeat in range(options.repeats):
        rois = TrainingRois(coco, options.images, config=config, batch=batch, pool_images=256, seed=repeat, workers=0)
        steps = (options.rois or rois.count) // batch
        clock = time.process_time()  # CPU seconds of this process, which does all of it
        for _ in rois.batches(0, steps):
            pass
        costs.append((time.process_time() - clock) / (steps * batch) * 1e3)
    median = statistics.median(costs)
    print(
        f"{options.size}²: {median:.2f} ms of one core a RoI (of {options.repeats}: {min(costs):.2f} to "
        f"{max(costs):.2f}), {1e3 / median:.0f} RoIs a second, {RELEASED_MS / median:.1f} × the released program's "
        f"{RELEASED_MS:g} ms"
    )


if __name__ == "__main__":
    main()
