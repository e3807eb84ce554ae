"""Which instances the gallery shows, where they are cut out, and what their masks look like."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.drawing import HUMAN
from analysis.records import UnreadableRecordError, by_address, finished
from analysis.report.gallery import LONGEST, build, mask_png
from analysis.report.instances import Selection, equal_steps, find, names, select
from analysis.review.crops import window
from tests.report_store import drawn_store, ellipse, write_images, write_labelled, write_record

SOURCES = {"annotations": "a", "images": "i"}


def selected(store: Path, limit: int = 1000, *, redistributable: bool = False) -> tuple[list[Selection], list[str]]:
    known = by_address(finished(store))
    splits, absent = find(known, store)
    return select(splits, limit, redistributable=redistributable), absent


def photographs(store: Path, folder: Path, licences: list[int | None]) -> None:
    """A split of photographs outside the store, one licence an image, with one labelled set."""
    folder.mkdir()
    human = write_images(folder, len(licences), 3)
    for image, licence in zip(human["images"], licences, strict=True):
        if licence is not None:
            image["license"] = licence
    human["licenses"] = [
        {"id": 3, "url": "http://creativecommons.org/licenses/by-nc-nd/2.0/", "name": "Attribution-NonCommercial"},
        {"id": 4, "url": "http://creativecommons.org/licenses/by/2.0/", "name": "Attribution License"},
    ]
    (folder / "annotations.json").write_text(json.dumps(human))
    places = {"annotations": str(folder / "annotations.json"), "images": str(folder / "images")}
    write_record(store, "boxes_val", "b", sources=SOURCES, places=places, columns={"data": "photos"})
    write_labelled(store, "ellipse", human, data=None, sources=SOURCES, columns={"data": "photos"})


def test_a_small_split_is_shown_whole_with_every_labelers_masks(tmp_path: Path) -> None:
    human = drawn_store(tmp_path)
    selections, absent = selected(tmp_path)
    assert absent == []
    gallery = build(selections)
    (part,) = gallery.sets
    assert part["labelers"] == ["MAL", "filled box", "inscribed ellipse"]
    assert sorted(item["id"] for item in part["items"]) == [a["id"] for a in human["annotations"]]
    assert all(len(item["masks"]) == 3 and all(item["masks"]) for item in part["items"])
    scores = pd.read_csv(tmp_path / "quality_val" / "box" / "instances.csv").set_index("annotation_id")["iou"]
    for item in part["items"]:
        assert item["iou"][1] == pytest.approx(scores[item["id"]], abs=1e-4)
    assert gallery.left_out == []


def test_of_many_instances_equal_steps_of_the_ranking_are_shown() -> None:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"iou": rng.choice([0.1, 0.2, 0.5, 0.9], 40)}, index=rng.permutation(40))
    ranked = sorted(rows.index, key=lambda name: (-rows.at[name, "iou"], name))  # best first, ties sorted by id
    assert equal_steps(rows, 40) == ranked
    assert equal_steps(rows, 100) == ranked
    assert equal_steps(rows, 14) == ranked[::3]  # 0, 3, …, 39
    assert equal_steps(rows, 0) == []


def test_splits_share_the_limit_and_the_page_says_the_rule(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs", images=4, each=5)
    photographs(tmp_path / "runs", tmp_path / "photos", [4, None])
    selections, _ = selected(tmp_path / "runs", limit=10)
    assert {s.split.name: len(s.ids) for s in selections} == {"photos (profile demo)": 5, "shapes (profile demo)": 5}
    selections, _ = selected(tmp_path / "runs", limit=16)
    assert {s.split.name: len(s.ids) for s in selections} == {"photos (profile demo)": 6, "shapes (profile demo)": 10}
    (sentence,) = build(selections).left_out
    assert "10 of 20 instances are shown, those at equal steps of the IoU ranking of MAL" in sentence


def test_photographs_that_may_not_be_passed_on_stay_out_and_are_counted(tmp_path: Path) -> None:
    photographs(tmp_path / "runs", tmp_path / "photos", [3, 4, None, 4])
    everything = build(selected(tmp_path / "runs")[0])
    assert everything.count == 12
    free = build(selected(tmp_path / "runs", redistributable=True)[0])
    assert {item["image"] for part in free.sets for item in part["items"]} == {"000002.png", "000004.png"}
    assert all("CC BY" in item["credit"] for part in free.sets for item in part["items"])
    (sentence,) = free.left_out
    assert "2 photographs may not be passed on" in sentence
    assert "1 under Attribution-NonCommercial, 1 under no licence" in sentence
    assert "6 of 12 instances" in sentence


def test_drawn_images_are_free(tmp_path: Path) -> None:
    drawn_store(tmp_path)
    assert build(selected(tmp_path, redistributable=True)[0]).count == 20


def test_labelled_sets_whose_images_are_gone_are_named(tmp_path: Path) -> None:
    photographs(tmp_path / "runs", tmp_path / "photos", [4])
    (tmp_path / "photos" / "annotations.json").unlink()
    selections, absent = selected(tmp_path / "runs")
    assert selections == []
    (sentence,) = absent
    assert sentence.startswith("photos (profile demo): 1 labelled sets of 3 instances are not in the gallery")


def test_an_image_that_cannot_be_read_costs_its_own_instances_only(tmp_path: Path) -> None:
    drawn_store(tmp_path)
    (tmp_path / "shapes_val" / "s" / "images" / "000002.png").write_bytes(b"not an image")
    gallery = build(selected(tmp_path)[0])
    assert gallery.count == 15
    assert any("1 images could not be read" in s and "000002.png" in s for s in gallery.left_out)


def test_a_score_file_cut_off_is_named(tmp_path: Path) -> None:
    drawn_store(tmp_path)
    (tmp_path / "quality_val" / "box" / "instances.csv").write_text("")
    with pytest.raises(UnreadableRecordError, match=r"quality_val/box/instances\.csv cannot be read"):
        selected(tmp_path)


def test_names_say_in_what_two_labelers_differ() -> None:
    def record(key: str, **columns: object) -> dict[str, object]:
        return {"key": key, "columns": {"profile": "demo", **columns}}

    records = [record("a1", seed=0), record("b2", seed=1), record("c3", seed=1), record("d4")]
    assert names(records, ["MAL", "MAL", "MAL", "box"], {}) == [
        "MAL, seed 0",
        "MAL, seed 1, key b2",
        "MAL, seed 1, key c3",
        "box",
    ]


def test_a_crop_is_the_box_and_a_quarter_of_it_on_each_side() -> None:
    shown = window([100, 200, 40, 80], width=1000, height=1000, longest=LONGEST)
    assert (shown.left, shown.top, shown.right, shown.bottom) == (90, 180, 151, 301)
    assert (shown.width, shown.height) == (61, 121)


def test_a_crop_ends_at_the_image_and_is_shrunk_to_192_pixels() -> None:
    shown = window([0, 0, 400, 800], width=400, height=800, longest=LONGEST)
    assert (shown.left, shown.top, shown.right, shown.bottom) == (0, 0, 400, 800)
    assert (shown.width, shown.height) == (96, 192)


def test_a_mask_is_tinted_inside_opaque_at_its_edge_and_clear_outside() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:20, 12:24] = True
    shown = window([0, 0, 40, 40], width=40, height=40, longest=LONGEST)
    data = base64.b64decode(mask_png(mask, shown, HUMAN))
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert pixels.shape == (40, 40, 4)
    alpha = pixels[..., 3]
    assert np.array_equal(alpha > 0, mask)
    edge = mask.copy()
    edge[11:19, 13:23] = False
    assert np.array_equal(alpha == 255, edge)
    assert np.allclose(pixels[mask][:, :3], np.round(255 * HUMAN), atol=1)


def test_a_mask_cut_by_the_crop_has_no_edge_there() -> None:
    mask = ellipse([0, 0, 96, 96])
    shown = window([40, 40, 8, 8], width=96, height=96, longest=LONGEST)  # all inside
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask_png(mask, shown, HUMAN)))).convert("RGBA"))[..., 3]
    assert (alpha < 255).all()
    assert (alpha > 0).all()
