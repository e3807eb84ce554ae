"""Fit the predicted IoU (mal/metrics/predicted.json) to human masks that no labeler saw, and check it on other data.

python experiments/fit_quality.py --fit NAME LABELER HUMAN.json IMAGES even \
    --check NAME LABELER HUMAN.json IMAGES odd [--check …] \
    --out mal/metrics/predicted.json --plot results/quality/reliability.png

LABELER is a file, or `default` for the shipped one; it sees the boxes alone. Without --fit the coefficients in use
are checked, and nothing but the plot is written.
"""

import mal  # noqa: F401 - before torch: it sets how torch's threads wait

# isort: split
import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from scipy.optimize import minimize

from mal.config import Config
from mal.data.annotations import read, strip
from mal.data.rois import labelling_batches
from mal.engine.commands import command
from mal.engine.files import sha256, write_json
from mal.engine.runtime import pick_device, provenance
from mal.methods.mal.label import measured_crops
from mal.methods.mal.labeler_file import NETWORKS, read_labeler
from mal.methods.mal.network import load_networks
from mal.methods.mal.shipped import labeler_path
from mal.metrics import predicted as quality
from mal.metrics.masks import is_scored, mask_quality, select_images

RIDGE = 3.0  # penalty on the squared weights of standardised features; the loss is a sum over masks
BINS = 8  # of equal counts, in the plot
Json = dict[str, Any]


def measure(labeler: str, human_file: Path, images: Path, which: str, device: torch.device) -> pd.DataFrame:
    """One row per mask: `FEATURES`, score and measured IoU. Boxes too small to label, and empty masks, are left out."""
    human = select_images(read(human_file, masks=True), which)
    checkpoint = read_labeler(labeler)
    saved = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(checkpoint["config"]))
    config: Config = OmegaConf.to_object(saved)  # type: ignore[assignment]
    held = [network for network in NETWORKS if network in checkpoint]
    if len(held) == 1:
        config = replace(config, label=replace(config.label, network=held[0]))
    boxes = strip(human)
    around = quality.surroundings(boxes["annotations"])
    batches = labelling_batches(boxes, images, config=config.roi, batch=config.label.batch, workers=1)
    labelled, rows = [], []
    for annotations, labels, cues in measured_crops(
        load_networks(checkpoint, config, device), batches, config, device=device
    ):
        values = quality.features(cues, annotations, around)
        for annotation, label, row in zip(annotations, labels, values, strict=True):
            if label["area"] and is_scored(annotation):
                labelled.append({**annotation, **label})
                rows.append({"annotation_id": annotation["id"], "score": label["score"]} | _named(row))
    kept = {annotation["id"] for annotation in labelled}
    scored = {**human, "annotations": [a for a in human["annotations"] if a["id"] in kept]}
    _, instances = mask_quality({**boxes, "annotations": labelled}, scored)
    return instances[["annotation_id", "iou"]].merge(pd.DataFrame(rows), on="annotation_id")


def fit(measured: pd.DataFrame) -> tuple[float, Json]:
    """Bias and weights of the logistic curve that best fits the IoU, by cross-entropy with a ridge penalty."""
    values, iou = measured[list(quality.FEATURES)].to_numpy(), measured["iou"].to_numpy()
    centre, spread = values.mean(axis=0), values.std(axis=0) + 1e-9
    standard = np.column_stack([np.ones(len(values)), (values - centre) / spread])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = standard @ weights
        penalty = np.concatenate([[0], RIDGE * weights[1:]])
        slope = standard.T @ (1 / (1 + np.exp(-logits)) - iou) + penalty
        return float((np.logaddexp(0, logits) - iou * logits).sum() + weights @ penalty / 2), slope

    found = minimize(loss, np.zeros(standard.shape[1]), jac=True, method="BFGS").x
    weights = found[1:] / spread
    return float(found[0] - weights @ centre), _named(weights)


def check(measured: pd.DataFrame, predicted: np.ndarray) -> Json:
    """How well predictions rank and tell the IoU, beside the score, of the same masks."""
    iou, score = measured["iou"], measured["score"]
    return {
        "masks": len(measured),
        "iou": round(float(iou.mean()), 3),
        "predicted": round(float(predicted.mean()), 3),
        "spearman_quality": round(float(iou.corr(pd.Series(predicted), method="spearman")), 3),
        "spearman_score": round(float(iou.corr(score, method="spearman")), 3),
        "mean_error_quality": round(float(np.abs(predicted - iou).mean()), 3),
        "mean_error_score": round(float((score - iou).abs().mean()), 3),
        "worst_tenth_found_quality": round(_worst_found(iou, pd.Series(predicted)), 3),
        "worst_tenth_found_score": round(_worst_found(iou, score), 3),
    }


def _worst_found(iou: pd.Series, ranking: pd.Series) -> float:
    """Share of the tenth of masks with the lowest IoU that is among the fifth which is ranked lowest."""
    worst = iou.nsmallest(max(1, len(iou) // 10)).index
    return float(worst.isin(ranking.nsmallest(max(1, len(iou) // 5)).index).mean())


def reliability(sets: dict[str, tuple[pd.DataFrame, np.ndarray]], out: Path) -> None:
    """Draw measured against predicted IoU, bins of equal counts; the score in grey."""
    figure = Figure(figsize=(3.2 * len(sets), 3.3), layout="constrained")
    for axes, (name, (measured, predicted)) in zip(
        figure.subplots(1, len(sets), squeeze=False)[0], sets.items(), strict=True
    ):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for values, colour, label in ((measured["score"], "0.55", "score"), (predicted, "C0", "quality")):
            bins = pd.qcut(pd.Series(np.asarray(values)), BINS, labels=False, duplicates="drop")
            groups = pd.DataFrame({"told": values, "iou": measured["iou"]}).groupby(bins)
            told, mean, half = groups["told"].mean(), groups["iou"].mean(), 1.96 * groups["iou"].sem()
            axes.errorbar(told, mean, half, fmt="o-", markersize=3, linewidth=1, color=colour, label=label)
        axes.set(title=f"{name} ({len(measured)} masks)", xlabel="predicted IoU", xlim=(0.3, 1), ylim=(0.3, 1))
        axes.set_aspect("equal")
    axes.legend(loc="lower right", frameon=False)
    figure.axes[0].set_ylabel("measured IoU, mean and 95 % interval")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


@command
def main(arguments: Sequence[str] | None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if not options.fit and not options.check:
        print("error: there is nothing to do; give --fit or --check", file=sys.stderr)
        return 1
    run(options)
    return 0


def run(options: argparse.Namespace) -> None:
    """Measure, fit, check, draw; every number is printed."""
    device = pick_device(options.device)
    named = {entry[0]: entry for entry in [*([options.fit] if options.fit else []), *options.check]}
    sets = {}
    for name, (_, labeler, human, images, which) in named.items():
        sets[name] = measure(labeler, Path(human), Path(images), which, device)
        print(f"{name}: {len(sets[name])} masks measured", flush=True)
    if options.fit:
        bias, weights = fit(sets[options.fit[0]])
    else:
        bias, weights = quality.coefficients()
    results = {}
    for name, measured in sets.items():
        predicted = quality.predicted_iou(measured[list(quality.FEATURES)].to_numpy(), (bias, weights))
        results[name] = (measured, predicted)
    checks = {name: check(*pair) for name, pair in results.items()}
    print(pd.DataFrame(checks).to_string())
    if options.plot:
        reliability(results, options.plot)
    if options.fit and options.out:
        origin = {
            name: {"labeler_sha256": sha256(labeler_path(entry[1])), "images": entry[4]}
            for name, entry in named.items()
        }
        fitted = {"bias": bias, "weights": weights, "fitted_to": options.fit[0], "data": origin, "checks": checks}
        about = {"date": datetime.now(UTC).date().isoformat(), "commit": provenance()["commit"], "ridge": RIDGE}
        write_json(options.out, fitted | about, indent=1)


def _named(values: np.ndarray) -> Json:
    return dict(zip(quality.FEATURES, values.tolist(), strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    names = ("NAME", "LABELER", "HUMAN.json", "IMAGES", "all|even|odd")
    parser.add_argument(
        "--fit", nargs=5, metavar=names, help="what to fit to; it must not be what the labeler learned from"
    )
    parser.add_argument("--check", nargs=5, metavar=names, action="append", default=[], help="what to check on")
    parser.add_argument("--out", type=Path, help="where the coefficients go")
    parser.add_argument("--plot", type=Path, help="PNG of predicted and measured IoU")
    parser.add_argument("--device", default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(main())
