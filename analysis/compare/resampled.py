"""What is compared, resampled: mask IoU, mask AP and retention of some runs on other images, the same for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.intervals import read_instances
from analysis.records import Record, UnreadableRecordError, address
from analysis.stats import ByImage, Counts, Floats, image_weights, ratio
from mal.metrics.bootstrap import PAIRED, ap_samples
from mal.metrics.matches import MatchArrays


class ComparisonError(UnreadableRecordError):
    """Results that cannot be compared; the message says what to choose, or what to compute."""


@dataclass(frozen=True)
class Sampled:
    """A number of one run, and what it would be on other images: (R,) samples under weights that all runs share."""

    value: float
    samples: Floats
    images: int
    grouped: ByImage | None = None  # where the number is a mean over instances


Runs = dict[int | None, Record]  # by seed; a result without randomness has the seed None, and serves every seed
Measured = dict[str, dict[int | None, Sampled]]  # name → seed → number


def mask_iou(runs: Mapping[str, Runs], store: Path, *, resamples: int, seed: int) -> Measured:
    """Mean mask IoU over instances (quality_val/instances.csv); all runs must have the same instances.

    Raises:
        ComparisonError: a file is missing, or the instances differ.
    """
    tables = {
        name: {s: read_instances(store / address(r) / "instances.csv", index="annotation_id") for s, r in group.items()}
        for name, group in runs.items()
    }
    first = next(frame for group in tables.values() for frame in group.values())
    weights: Counts | None = None
    found: Measured = {}
    for name, group in tables.items():
        for s, frame in group.items():
            if not frame.index.equals(first.index) or not frame["image_id"].equals(first["image_id"]):
                raise ComparisonError(
                    f"{address(runs[name][s])} does not measure the same instances as the others; choose results of "
                    "the same images, for instance by --where quality_val.images=even, or compute it again"
                )
            grouped = ByImage.of(frame["iou"], frame["image_id"])
            weights = image_weights(len(grouped.sums), resamples, seed=seed) if weights is None else weights
            found.setdefault(name, {})[s] = Sampled(
                grouped.mean, grouped.resampled(weights), len(grouped.sums), grouped
            )
    return found


def mask_ap(
    runs: Mapping[str, Runs],
    humans: Mapping[str, Mapping[str, Record]],
    store: Path,
    *,
    resamples: int,
    seed: int,
) -> tuple[Measured, dict[str, Measured]]:
    """Mask AP, and for each denominator the retention where there is one, under the same weights for all.

    Args:
        humans: denominator → address of an AP with pseudo-labels → the one with human masks.

    Raises:
        ComparisonError: match arrays of other images.
    """
    shared: MatchArrays | None = None
    weights: Counts = np.ones((1, 0), dtype=np.int64)
    sampled: dict[str, Floats] = {}
    ap: Measured = {}
    kept: dict[str, Measured] = {over: {} for over in humans}
    for name, group in runs.items():
        for s, record in group.items():
            denominators = {over: found[address(record)] for over, found in humans.items() if address(record) in found}
            for one in [record, *denominators.values()]:
                if address(one) not in sampled:
                    matches = MatchArrays.load(store / address(one) / "matches_segm.npz")
                    if shared is None:
                        shared, images = matches, len(matches.image_ids)
                        drawn = image_weights(images, resamples, seed=seed)
                        weights = np.concatenate([np.ones((1, images), dtype=np.int64), drawn])
                    if any(not np.array_equal(getattr(matches, it), getattr(shared, it)) for it in PAIRED):
                        raise ComparisonError(f"{address(one)} was measured on other annotations than the others")
                    sampled[address(one)] = ap_samples(matches, weights)
            own = sampled[address(record)]
            ap.setdefault(name, {})[s] = Sampled(float(own[0]), own[1:], weights.shape[1])
            for over, human in denominators.items():
                share = ratio(own, sampled[address(human)])
                kept[over].setdefault(name, {})[s] = Sampled(float(share[0]), share[1:], weights.shape[1])
    return ap, kept


def per_cent(measured: Measured) -> Measured:
    """The same, times 100."""
    return {
        name: {s: Sampled(100 * run.value, 100 * run.samples, run.images) for s, run in group.items()}
        for name, group in measured.items()
    }
