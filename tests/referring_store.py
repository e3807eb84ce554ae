"""A store of Partial-RES's results written by hand: drawn images of an ellipse each, answers, looks, courses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from test_figure_numbers import record

Json = dict[str, Any]
PLACE = {"data": "scenes", "profile": "smoke"}
COLUMNS = {
    **PLACE, "seed": 0, "labeler": "partialres", "recipe": "ours", "encoder": "pyramid_nano", "model": "sequence",
    "percent": 5.0, "start": "rec", "cctf": "none", "pmca": False, "task": "learnable", "pseudo": "none",
    "contour_points": 8, "steps": 100,
}  # fmt: skip
FULL = {"cctf": "matched", "pmca": True, "pseudo": "model", "threshold": 0.1}
HEIGHT, WIDTH, COUNT, POINTS = 48, 64, 10, 8
GRID = 8  # cells a side of the square
ANGLES = np.linspace(0, -2 * np.pi, POINTS, endpoint=False) - np.pi / 2  # from the top, anticlockwise on screen


def ellipse(image: int) -> tuple[float, float, float, float]:
    """Centre x and y, and half the width and height, of the object of an image."""
    return 20.0 + 2 * image, 24.0, 10.0 + image % 3, 14.0


def inside(image: int) -> np.ndarray:
    """Its human mask, (HEIGHT, WIDTH) bool."""
    x, y, a, b = ellipse(image)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (((columns - x) / a) ** 2 + ((rows - y) / b) ** 2) <= 1


def contour(image: int, scale: float = 1.0, angles: np.ndarray = ANGLES) -> np.ndarray:
    """(N, 2) points on it."""
    x, y, a, b = ellipse(image)
    return np.stack([x + scale * a * np.cos(angles), y + scale * b * np.sin(angles)], axis=1)


def uncompressed(mask: np.ndarray) -> Json:
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return {"size": [*mask.shape], "counts": np.diff([0, *edges, flat.size]).tolist()}


def add(root: Path, one: Json, **metrics: float) -> Path:
    """Write a record; returns its folder."""
    one["metrics"] = {name: {"value": value, "n": COUNT} for name, value in metrics.items()}
    folder = root / one["stage"] / one["key"]
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(one))
    return folder


def write_images(root: Path) -> None:
    """A noisy grey ground with a coloured ellipse."""
    folder = add(root, record("shapes_val", "s", **PLACE))
    (folder / "images").mkdir()
    entries, annotations = [], []
    for image in range(1, COUNT + 1):
        Image.fromarray(pixels(image)).save(folder / "images" / f"{image}.png")
        entries.append({"id": image, "file_name": f"{image}.png", "height": HEIGHT, "width": WIDTH})
        x, y, a, b = ellipse(image)
        annotations.append(
            {"id": 100 + image, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [x - a, y - b, 2 * a, 2 * b],
             "segmentation": uncompressed(inside(image)), "expressions": [expression(image)]}
        )  # fmt: skip
    whole = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "ellipse"}]}
    (folder / "annotations.json").write_text(json.dumps(whole))


def pixels(image: int) -> np.ndarray:
    noise = np.random.default_rng(image).integers(80, 140, (HEIGHT, WIDTH, 1))
    return np.where(inside(image)[..., None], [200, 60, 60], noise).astype(np.uint8)


def expression(image: int) -> str:
    return f"the red ellipse number {image}" + " of the drawn ones that are on a grey ground" * (image % 2)


def write_run(root: Path, key: str, iou: float, *, snapshots: int = 4, **columns: Any) -> None:
    """A network, its answers, their IoUs, what it looks at. An answer's contour is the true one, larger or smaller.

    Args:
        snapshots: networks kept during its training, whose course is measured.
    """
    columns = COLUMNS | columns
    res = {"steps": columns["steps"]} | ({"snapshots": snapshots} if snapshots else {})
    config = {"seed": columns["seed"], "partialres": {"res": res}}
    add(root, record("train_res", key, config=config, **columns))
    answered = add(root, record("refer_val", key, inputs=[f"train_res/{key}", "shapes_val/s"], **columns))
    (answered / "refer.json").write_text(json.dumps([answer(image, columns) for image in range(1, COUNT + 1)]))
    bounds = {"mean_iou": iou, "mean_iou_low": iou - 0.02, "mean_iou_high": iou + 0.03}
    scored = add(root, record("res_val", key, inputs=[f"refer_val/{key}", "shapes_val/s"], **columns), **bounds)
    ids = np.arange(1, COUNT + 1)
    np.savez(scored / "iou.npz", ids=100 + ids, image_ids=ids, iou=iou + 0.01 * ids)
    if snapshots:
        course = {f"mean_iou_{part}": iou * part / snapshots for part in range(1, snapshots + 1)}
        add(root, record("course_val", key, inputs=["expressions_val/e", f"train_res/{key}"], **columns), **course)
    if columns["model"] == "sequence":
        seen = add(root, record("looks_val", key, inputs=[f"train_res/{key}", "shapes_val/s"], **columns))
        np.savez(seen / "looks.npz", **looks(columns))


def answer(image: int, columns: Json) -> Json:
    about = {"id": 100 + image, "image_id": image, "expression": expression(image), "box": [0, 0, 1, 1]}
    if columns["model"] == "query":
        return {**about, "segmentation": uncompressed(inside(image))}
    return {**about, "points": contour(image, 0.7 + 0.05 * image).tolist()}


def looks(columns: Json) -> dict[str, np.ndarray]:
    """Of three expressions, in a square of 64 pixels; the third's contour ends after five points. With all parts
    attention is on the cells at the point, without them it is spread evenly."""
    chosen = (1, 4, 7)
    images = np.full((3, WIDTH, WIDTH, 3), 127, dtype=np.uint8)
    truth = np.zeros((3, WIDTH, WIDTH), dtype=bool)
    attention = np.full((3, 2 * POINTS, GRID, GRID), np.nan, dtype=np.float32)
    uneven = np.stack([contour(i, 0.9, ANGLES * np.linspace(1, 0.7, POINTS)) for i in chosen])
    uneven[2, 5:] = np.nan
    for place, image in enumerate(chosen):
        images[place, :HEIGHT], truth[place, :HEIGHT] = pixels(image), inside(image)
        for token, point in enumerate(uneven[place]):
            if np.isnan(point).any():
                continue
            maps = np.zeros((GRID, GRID))
            rows = HEIGHT * GRID // WIDTH  # those that the image takes
            maps[:rows] = 1 / (rows * GRID)
            if columns["pmca"]:
                maps = np.zeros((GRID, GRID))
                maps[tuple((point[::-1] * GRID / WIDTH).astype(int))] = 1
            attention[place, 2 * token : 2 * token + 2] = maps
    even = np.stack([contour(image, 0.9) for image in chosen])
    return {
        "ids": np.array(chosen) + 100, "image_ids": np.array(chosen), "images": images, "truth": truth, "mask": truth,
        "expressions": np.array([expression(image) for image in chosen]), "valid": np.full((3, 2), (WIDTH, HEIGHT)),
        "points": uneven, "resampled": even, "true_points": np.stack([contour(image) for image in chosen]),
        "attention": attention,
    }  # fmt: skip
