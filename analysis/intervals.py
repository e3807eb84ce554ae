"""How far a result may be off: the 95 % bootstrap interval over images, from the arrays beside its run.json."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.records import Record, UnreadableRecordError, address
from analysis.stats import ByImage, Interval, bias_corrected, image_weights, percentile
from mal.metrics.bootstrap import METRICS, ap_samples
from mal.metrics.matches import MatchArrays

RESAMPLES = 1000
MATCHES = {"mask": "matches_segm.npz", "box": "matches_bbox.npz"}
MEANS = {
    "iou": ("iou", ""),
    "boundary_iou": ("boundary_iou", ""),
    "clustering": ("score", "tokens"),
}  # of which column of instances.csv; weighted by which


def interval(record: Record, metric: str, store: Path) -> Interval | None:
    """The interval of a metric such as mask_ap, box_ap50, iou or clustering, in its own unit (0 to 1 for AP and IoU).

    A mean's is the percentile interval, an AP's the bias-corrected one (see analysis/stats.py); a record that has
    METRIC_low and METRIC_high says it itself.

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
    low, high = (record["metrics"].get(f"{metric}_{end}", {}).get("value") for end in ("low", "high"))
    if low is not None and high is not None:
        return Interval(value, low, high)
    if metric in MEANS and (folder / "instances.csv").is_file():
        return percentile(value, _means(folder / "instances.csv", *MEANS[metric]))
    if kind in MATCHES and name in METRICS and (folder / MATCHES[kind]).is_file():
        return bias_corrected(value, _aps(folder / MATCHES[kind], name))
    return None


@cache  # a page asks twice, and an AP of 5,000 images takes half a minute
def _aps(path: Path, name: str) -> np.ndarray:
    matches = MatchArrays.load(path)
    return ap_samples(matches, image_weights(len(matches.image_ids), RESAMPLES), metric=name)


@cache
def _means(path: Path, column: str, weight: str) -> np.ndarray:
    frame = read_instances(path, columns=("image_id", column, *([weight] if weight else [])))
    weights = frame[weight].to_numpy() if weight else np.ones(len(frame), dtype=np.int64)
    sums = ByImage.of(frame[column] * weights, frame["image_id"]).sums
    grouped = ByImage(sums, ByImage.of(weights, frame["image_id"]).sums.astype(np.int64))
    return grouped.resampled(image_weights(len(grouped.sums), RESAMPLES))


def read_instances(path: Path, *, index: str | None = None, columns: Iterable[str] = ()) -> pd.DataFrame:
    """instances.csv of a stage, sorted by its index where one is named.

    Raises:
        UnreadableRecordError: it is absent, cut off, or has no such columns.
    """
    try:
        frame = pd.read_csv(path)
        if absent := {*columns, *([index] if index else [])} - {*frame.columns}:
            raise KeyError(f"it has no column {', '.join(sorted(absent))}")
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableRecordError(
            f"{path} cannot be read ({error}); compute the stage again, or leave it out"
        ) from error
    return frame.set_index(index).sort_index() if index else frame
