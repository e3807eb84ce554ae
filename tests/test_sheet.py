"""The contact sheet: its pictures fill it, outlines show on any ground, and an image costs what is shown of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from matplotlib.figure import Figure
from PIL import Image

from analysis import sheet
from analysis.drawing import DOT, PSEUDO, draw_box, load_picture, load_pixels, overlay, sample_mask
from mal.data.annotations import decode_mask, encode_mask, write
from mal.data.images import load

GREY = 128


def scene(folder: Path, boxes: list[list[float]], size: tuple[int, int], *, colour: int = GREY) -> Path:
    """One plain image with boxes whose masks fill them, as a pseudo-label file."""
    width, height = size
    Image.new("RGB", size, (colour, colour, colour)).save(folder / "a.png")
    annotations = []
    for number, (x, y, w, h) in enumerate(boxes, start=1):
        mask = np.zeros((height, width), bool)
        mask[int(y) : int(y + h), int(x) : int(x + w)] = True
        box = {"id": number, "image_id": 1, "category_id": 1, "bbox": [x, y, w, h]}
        annotations.append({**box, "segmentation": encode_mask(mask), "area": int(mask.sum())})
    image = {"id": 1, "file_name": "a.png", "width": width, "height": height}
    write(
        folder / "labels.json", {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    )
    return folder / "labels.json"


def drawn(folder: Path, *arguments: object, human: bool = False, **options: object) -> np.ndarray:
    labels = scene(folder, *arguments, **options)
    out = sheet.draw_sheet(labels, folder, human=labels if human else None, out=folder / "sheet.png")
    return np.asarray(Image.open(out).convert("RGB")).astype(int)


@pytest.mark.parametrize("human", [False, True])
def test_pictures_fill_the_sheet_whatever_the_shape_of_box_and_image(tmp_path, human):
    boxes = [[100, 150, 180, 20], [300, 20, 18, 160], [0, 0, 400, 200], [350, 0, 50, 40], [10, 100, 390, 30]]
    pixels = drawn(tmp_path, boxes, (400, 200), human=human)
    columns = 4 if human else 3
    assert pixels.shape[1] == columns * (sheet.CELL + sheet.GAP) + sheet.GAP
    for column in set(range(columns)) - ({2} if human else set()):  # where the IoUs are written
        start = sheet.GAP + column * (sheet.CELL + sheet.GAP)
        cell = pixels[sheet.HEADER :, start : start + sheet.CELL]
        blank = (cell == 255).all(axis=(1, 2))
        assert blank.sum() == 5 * (sheet.GAP + (sheet.LINE if human else 0)) + sheet.GAP  # what parts the rows
        assert (cell[~blank] != 255).any(axis=2).mean() > 0.97


def test_points_are_drawn_where_they_lie_and_shown_also_beside_the_box(tmp_path):
    labels = scene(tmp_path, [[40, 40, 60, 60]], (400, 200))
    coco = json.loads(labels.read_text())
    coco["annotations"][0]["points"] = points = [[50.5, 60.5], [180, 90]]
    write(labels, coco)
    out = sheet.draw_sheet(labels, tmp_path, human=None, out=tmp_path / "sheet.png", shows="points")
    pixels = np.asarray(Image.open(out).convert("RGB")).astype(int)
    left, top, width, height = sheet.window([40, 40, 140, 60], (400, 200))
    start, scale = sheet.GAP * 2 + sheet.CELL, sheet.CELL / width
    rows, columns = (pixels == [0, 255, 0]).all(axis=2).nonzero()
    rows = rows - sheet.HEADER - sheet.GAP - (round(sheet.CELL * height / width) - round(height * scale)) // 2
    for x, y in points:
        at = (x - left) * scale, (y - top) * scale
        near = np.hypot(columns + 0.5 - start - at[0], rows + 0.5 - at[1])
        assert (near <= DOT + 0.1).sum() == pytest.approx(np.pi * DOT**2, rel=0.15)
    assert len(rows) == pytest.approx(2 * np.pi * DOT**2, rel=0.15)  # and nowhere else, least of all a box


@pytest.mark.parametrize("human", [False, True])
def test_an_expression_stands_above_its_row(tmp_path, human, monkeypatch):
    labels = scene(tmp_path, [[40, 40, 60, 60], [200, 40, 60, 60]], (400, 200))
    coco = json.loads(labels.read_text())
    coco["annotations"][0]["expressions"] = ["the $100 plum on the left " * 4, "left"]
    coco["annotations"][1]["expressions"] = ["pear"]
    write(labels, coco)
    texts: list[str] = []
    real = Figure.text

    def text(self, x, y, s, **more):
        texts.append(s)
        return real(self, x, y, s, **more)

    monkeypatch.setattr(Figure, "text", text)
    out = sheet.draw_sheet(
        labels, tmp_path, human=labels if human else None, out=tmp_path / "sheet.png", shows="expressions"
    )
    assert {it for it in texts if it[0] == "“"} == {
        "“the $100 plum on the left the $100 plum on the left t…” and 1 more", "“pear”",
    }  # fmt: skip
    pixels = np.asarray(Image.open(out).convert("RGB"))
    above = pixels[sheet.HEADER + sheet.GAP :][: sheet.LINE - 1, : 2 * sheet.CELL]
    assert (above < 128).any()


@given(
    box=st.tuples(st.floats(-3, 90), st.floats(-3, 60), st.floats(1, 100), st.floats(1, 70)),
    size=st.tuples(st.integers(1, 120), st.integers(1, 80)),
)
def test_what_is_shown_is_a_square_around_the_box_as_far_as_the_image_allows(box, size):
    left, top, width, height = sheet.window(list(box), size)
    side = np.ceil(max(box[2:]) * 1.5)
    for start, length, limit, low, extent in zip((left, top), (width, height), size, box[:2], box[2:], strict=True):
        assert length == min(side, limit)
        assert 0 <= start <= limit - length
        inside = max(low, 0), min(low + extent, limit)
        if inside[0] < inside[1]:
            assert start <= inside[0]
            assert start + length >= inside[1] - 1


@pytest.mark.parametrize(
    "colour", [*np.eye(3) * 255, *(255 - np.eye(3) * 255), (0, 0, 0), (255, 255, 255), 255 * PSEUDO]
)
def test_an_outline_shows_on_any_colour(colour):
    ground = np.full((20, 20, 3), colour, dtype=np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    painted = overlay(ground, mask, PSEUDO)
    assert (painted[5, 5:15] == 255).all()  # the light line, just inside
    assert (painted[4, 5:15] == 0).all()  # the dark one, just outside
    np.testing.assert_array_equal(painted[:3], ground[:3])
    expected = 0.65 * np.array(colour).astype(np.uint8) + 0.35 * 255 * PSEUDO
    np.testing.assert_allclose(painted[9, 9], expected, atol=1)


def test_a_mask_cut_by_the_picture_has_no_line_at_the_cut():
    painted = overlay(np.full((9, 9, 3), 99, dtype=np.uint8), np.ones((9, 9), bool), PSEUDO)
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) == 1


def test_a_box_is_drawn_inside_its_edges_and_along_the_picture_s_where_it_is_larger():
    picture = np.full((30, 30, 3), GREY, dtype=np.uint8)
    draw_box(picture, 5, -4, 25, 20)
    lime = (picture == (0, 255, 0)).all(axis=2)
    assert lime[:19, [6, 7, 22, 23]].all()
    assert lime[[17, 18], 6:24].all()
    assert lime[0, 6:24].all()  # the upper edge lies above the picture
    assert not lime[2:15, 8:22].any()
    assert (picture[:20, [5, 24]] == 0).all()
    assert (picture[20:] == GREY).all()


@given(
    mask=st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    seed=st.integers(0, 2**31),
)
def test_a_mask_is_sampled_as_if_it_were_decoded(mask, seed):
    height, width = mask.shape
    record, draw = {"height": height, "width": width}, np.random.default_rng(seed)
    rows, columns = draw.integers(0, height, 5), draw.integers(0, width, 7)
    coded = encode_mask(mask)
    runs = [0, *np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=~mask[0, 0], append=~mask[-1, -1]))).tolist()]
    as_list = {"size": [height, width], "counts": runs if mask[0, 0] else runs[1:]}
    for segmentation in (coded, as_list):
        found = sample_mask(segmentation, record, rows, columns)
        np.testing.assert_array_equal(found, mask[np.ix_(rows, columns)])
    polygon = [[0.3, 0.2, width - 0.5, 0.4, width / 2, height - 0.1]]
    whole = decode_mask(polygon, height=height, width=width)
    np.testing.assert_array_equal(sample_mask(polygon, record, rows, columns), whole[np.ix_(rows, columns)])


@pytest.mark.parametrize("name", ["deep.png", "deep.pgm"])
def test_pictures_show_twelve_bits_in_sixteen_as_they_show_eight(tmp_path, name):
    draw = np.random.default_rng(0)
    shades = draw.integers(0, 256, (9, 8), dtype=np.uint8)
    shades[0, 0] = 255  # the brightest pixel sets the range
    Image.fromarray(shades.astype(np.uint16) * 16).save(tmp_path / name)
    colours = draw.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    Image.fromarray(shades).save(tmp_path / "grey.png")
    grey = np.repeat(shades[..., None], 3, axis=2).astype(int)
    for file, expected in {name: grey, "grey.png": grey, "rgb.png": colours}.items():
        record = {"file_name": file, "width": 8, "height": 9}
        picture = np.asarray(load_picture(record, tmp_path))
        assert abs(picture.astype(int) - expected).max() <= (1 if file == name else 0)
        np.testing.assert_array_equal(load_pixels(record, tmp_path), picture / 255)


def test_transparent_pixels_are_as_white_as_the_labeler_sees_them(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (9, 8, 4), dtype=np.uint8)
    colours[:4, ..., 3] = 0
    Image.fromarray(colours).save(tmp_path / "a.png")
    picture = np.asarray(load_picture({"file_name": "a.png", "width": 8, "height": 9}, tmp_path))
    assert (picture[:4] == 255).all()
    np.testing.assert_array_equal(picture, load(tmp_path / "a.png").permute(1, 2, 0).numpy())


def test_an_image_is_decoded_once_for_all_its_rows(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(sheet, "load_picture", lambda *a: loaded.append(a) or load_picture(*a))
    drawn(tmp_path, [[10, 10, 30, 30], [50, 20, 40, 30], [20, 60, 60, 25]], (120, 100))
    assert len(loaded) == 1


def test_a_large_object_s_outline_is_as_wide_as_a_small_one_s(tmp_path):
    """Lines are drawn on the sheet, not in the image, which is shrunk by eight here."""
    pixels = drawn(tmp_path, [[400, 400, 1000, 1000]], (2000, 2000))
    start = sheet.GAP + 2 * (sheet.CELL + sheet.GAP)
    middle = pixels[sheet.HEADER + sheet.GAP + sheet.CELL // 2, start : start + sheet.CELL]
    assert [tuple(v) for v in middle if v.max() == 0] == [(0, 0, 0)] * 2
    assert [tuple(v) for v in middle if v.min() == 255] == [(255, 255, 255)] * 2


def test_points_stand_in_the_place_of_the_box_and_the_picture_holds_them_and_the_human_mask(tmp_path):
    labels = scene(tmp_path, [[100, 20, 40, 40]], (400, 200))
    human = json.loads(labels.read_text())
    coco = json.loads(labels.read_text())
    coco["annotations"][0] |= {"point": [180.0, 60.0], "points": [[180.0, 60.0], [110.0, 110.0]]}
    human["annotations"][0] |= {"bbox": [150, 20, 60, 60], "segmentation": [[150, 20, 210, 20, 210, 80, 150, 80]]}
    write(labels, coco)
    write(tmp_path / "human.json", human)
    out = sheet.draw_sheet(labels, tmp_path, human=tmp_path / "human.json", out=tmp_path / "sheet.png", shows="points")
    pixels = np.asarray(Image.open(out).convert("RGB")).astype(int)
    left, top, width, height = sheet.window([100, 20, 110, 90], (400, 200))
    tall = round(sheet.CELL * height / width)
    rows = slice(len(pixels) - sheet.GAP - tall, len(pixels) - sheet.GAP)
    cells = [pixels[rows, sheet.GAP + n * (sheet.CELL + sheet.GAP) :][:, : sheet.CELL] for n in range(4)]
    lime = (cells[1] == (0, 255, 0)).all(2)
    scale = sheet.CELL / width
    for x, y in ((180, 60), (110, 110)):
        assert lime[round((y - top) * scale), round((x - left) * scale)]
    assert lime.sum() < 2 * 45  # two dots, and no box
    assert (cells[0] == GREY).all()
    tinted = (cells[3] != GREY).any(2)
    columns = tinted.any(0).nonzero()[0]
    assert abs(columns[0] - (150 - left) * scale) <= 2
    assert abs(columns[-1] - (210 - left) * scale) <= 2
