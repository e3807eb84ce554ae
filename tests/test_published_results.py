"""What results/ shows is what results/published gives: tables to the letter, figures to the pixel."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import tables
from analysis.figures import draw_all
from analysis.records import finished

RESULTS = Path(__file__).resolve().parents[1] / "results"
PUBLISHED = RESULTS / "published"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
AGAIN = "make published renders them again"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_tables_are_those_of_the_published_results(tmp_path: Path) -> None:
    assert tables.main(["--store", str(PUBLISHED), "--out", str(tmp_path)]) == 0
    assert names(tmp_path / "tables") == names(RESULTS / "tables"), AGAIN
    for path in (tmp_path / "tables").iterdir():
        assert path.read_text() == (RESULTS / "tables" / path.name).read_text(), f"{path.name}: {AGAIN}"


@pytest.mark.slow
def test_the_figures_are_those_of_the_published_results(tmp_path: Path) -> None:
    draw_all(PUBLISHED, tmp_path, redistributable=True)
    assert names(tmp_path / "figures") == names(RESULTS / "figures"), AGAIN
    for path in (tmp_path / "figures").glob("*.png"):
        new, old = (
            np.asarray(Image.open(p).convert("L"), dtype=float) for p in (path, RESULTS / "figures" / path.name)
        )
        assert new.shape == old.shape, f"{path.name}: {AGAIN}"
        assert (abs(new - old) > 8).mean() < 1e-3, f"{path.name}: {AGAIN}"  # a processor's rounding may move a pixel


def test_every_published_number_names_the_commit_it_was_measured_with() -> None:
    assert all(re.fullmatch("[0-9a-f]{40}", record["provenance"]["commit"]) for record in finished(PUBLISHED))


def test_no_photograph_is_published_or_shown() -> None:
    drawn = set(PUBLISHED.glob("shapes_val/*/images/*.png"))
    folders = ("figures", "paper", "published", "tables")  # what git keeps
    pictures = {path for name in folders for path in (RESULTS / name).rglob("*") if path.suffix in SUFFIXES}
    figures = {path for path in pictures if path.parent == RESULTS / "figures"}
    assert pictures == drawn | figures
    shown = {path.stem for path in figures if path.stem.startswith(("fig4", "fig5", "fig6", "fig8"))}
    assert all("_shapes_" in name for name in shown)
