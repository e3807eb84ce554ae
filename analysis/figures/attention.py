"""Figure 5: crops beside what layers of a plain ViT look at. Reads the attention.npz of attention_val stages."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.drawn import PAGE, Sketch, sheet, styled
from analysis.figures.photographs import frame, photographs
from analysis.figures.results import LeftOut, Results
from analysis.figures.series import file_part, provenance
from analysis.records import Record, address, grouped

MEMBERS = ("pixels", "maps", "layers", "ids")
QUERIES = {
    "centre": "where the crop's centre looks",
    "mean": "where all patches look, on average",
    "class": "where the class token looks",
}
Arrays = dict[str, np.ndarray]


def draw_attention(arrays: Path, out: Path) -> Path:
    """Draw the PNG of one attention_val stage, which a run prints: a row a crop, a column a layer.

    Args:
        arrays: .npz with pixels (n, S, S, 3) uint8, maps (n, layers, h, w), layers (layers,) counted from 1.

    Returns:
        `out`.
    """
    with np.load(arrays) as found, styled():
        _grid({name: found[name] for name in MEMBERS}, {"": found["maps"]}).savefig(out)
    return out


def attention(results: Results) -> Iterator[Sketch]:
    """Crops, and what layers look at before MAL's training and after it; a picture a ViT."""
    for (data, profile), groups in results.groups("attention_val").items():
        pairs = grouped((group[0] for group in groups), lambda record: str(record["columns"].get("encoder")))
        for encoder, found in sorted(pairs.items()):
            of = f"{file_part(data, profile)}_{encoder}"
            try:
                yield _one(found, encoder, results, of)
            except LeftOut as error:
                yield Sketch(of, None, left_out=(str(error),))


def _one(records: list[Record], encoder: str, results: Results, of: str) -> Sketch:
    """The attention of one ViT, of the training that most results are built on, beside that before training.

    Raises:
        LeftOut: a file or image is missing.
    """
    trained = [record for record in records if "recipe" in record["columns"]][:1]
    before = [record for record in records if "recipe" not in record["columns"]]
    first = (trained or before)[0]
    alike = [r for r in before if all(r["config"].get(k) == first["config"].get(k) for k in ("query", "layers", "roi"))]
    parts = {
        title: results.arrays(record, "attention.npz", MEMBERS)
        for title, record in (
            *(("before", record) for record in alike[:1]),
            *(("after training", record) for record in trained),
        )
    }
    arrays = next(iter(parts.values()))
    parts = {title: part for title, part in parts.items() if np.array_equal(part["ids"], arrays["ids"])}
    images = photographs(results, first)
    of_image = {int(i): images.humans[int(i)]["image_id"] for i in arrays["ids"] if int(i) in images.humans}
    kept = np.array([of_image.get(int(i)) in images.records for i in arrays["ids"]])
    if not kept.any():
        raise LeftOut(f"{address(first)}: none of its crops may be shown")
    arrays = {name: values if name == "layers" else values[kept] for name, values in arrays.items()}
    figure = _grid(arrays, {title: part["maps"][kept] for title, part in parts.items()})
    count = int(kept.sum())
    caption = (
        f"Attention of {encoder}: {QUERIES.get(first['config'].get('query'), 'attention')}, mean over the heads, in "
        f"layers {', '.join(map(str, arrays['layers']))}{'' if 'before' not in parts else _weights(alike[0])}. Rule: "
        "boxes at equal steps of the file's order. Each map has its own scale, from its smallest value (dark) to its "
        "largest: maps compare in shape alone. "
        + provenance([[record] for record in (*alike[:1], *trained)], f"{count} crops")
    )
    chosen = [of_image[int(i)] for i in arrays["ids"]]
    return Sketch(of, figure, caption + images.attribution(chosen), images.notes())


def _weights(record: Record) -> str:
    """What the encoder was before training, in words."""
    encoder = record["config"].get("encoder", {})
    given = encoder.get("pretrained") or "encoder" in record["sources"]
    return f"; before training its weights are {'pre-trained' if given else 'random'}"


def _grid(arrays: Arrays, parts: dict[str, np.ndarray]) -> Figure:
    """A row a crop: the crop, then for each part a column a layer."""
    crops, layers = len(arrays["pixels"]), len(arrays["layers"])
    columns = 1 + len(parts) * layers
    size = min(0.85, PAGE / columns)
    figure = sheet(size * columns, size * crops + 0.35)
    grid = figure.subplots(crops, columns, squeeze=False)
    for axes in grid.flat:
        frame(axes)
    grid[0, 0].set_title("crop")
    for line, crop in zip(grid, arrays["pixels"], strict=True):
        line[0].imshow(crop)
    for place, (title, maps) in enumerate(parts.items()):
        block = grid[:, 1 + place * layers : 1 + (place + 1) * layers]
        for axes, layer in zip(block[0], arrays["layers"], strict=True):
            axes.set_title(f"{title}\nlayer {layer}".strip() if axes is block[0][0] else f"layer {layer}")
        _fill(block, maps)
    return figure


def _fill(block: np.ndarray, maps: np.ndarray) -> None:
    for line, pictures in zip(block, maps, strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture, cmap="viridis")
