"""How far a result may be off: the 95 % bootstrap interval over images, from the arrays beside its run.json."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.ap import METRICS, ap_samples, load_matches
from analysis.records import Record, UnreadableRecordError, address
from analysis.stats import ByImage, Interval, bias_corrected, image_weights, percentile

RESAMPLES = 1000
MATCHES = {"mask": "matches_segm.npz", "box": "matches_bbox.npz"}
MEANS = {"iou": ("iou", ""), "clustering": ("score", "tokens")}  # of which column of instances.csv; weighted by which


def interval(record: Record, metric: str, store: Path) -> Interval | None:
    """The interval of a metric such as mask_ap, box_ap50, iou or clustering, in its own unit (0 to 1 for AP and IoU).

    A mean's is the percentile interval, an AP's the bias-corrected one (see analysis/stats.py).

    Returns:
        None where the record has no such metric, it is no AP and no mean, or the store lacks the arrays.

    Raises:
        UnreadableRecordError: the arrays are there but cannot be read.
    """
    value = record["metrics"].get(metric, {}).get("value")
    kind, _, name = metric.partition("_")
    folder = store / address(record)
    if value is None:
        return None
    if metric in MEANS and (folder / "instances.csv").is_file():
        return percentile(value, _means(folder / "instances.csv", *MEANS[metric]))
    if kind in MATCHES and name in METRICS and (folder / MATCHES[kind]).is_file():
        return bias_corrected(value, _aps(folder / MATCHES[kind], name))
    return None


@cache  # a page asks twice, and an AP of 5,000 images takes half a minute
def _aps(path: Path, name: str) -> np.ndarray:
    matches = load_matches(path)
    return ap_samples(matches, image_weights(len(matches.image_ids), RESAMPLES), metric=name)


@cache
def _means(path: Path, column: str, weight: str) -> np.ndarray:
    try:
        frame = pd.read_csv(path)
        weights = frame[weight].to_numpy() if weight else np.ones(len(frame), dtype=np.int64)
        sums = ByImage.of(frame[column] * weights, frame["image_id"]).sums
        grouped = ByImage(sums, ByImage.of(weights, frame["image_id"]).sums.astype(np.int64))
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableRecordError(f"{path} cannot be used ({error}); compute the stage again") from error
    return grouped.resampled(image_weights(len(grouped.sums), RESAMPLES))
