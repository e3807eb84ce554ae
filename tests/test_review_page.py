"""The page of masks: what stands on it, in which order, and what a card shows of its mask."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from analysis.drawing import opened
from analysis.review import page as review
from analysis.review.crops import Window, crop_webp, mask_part, outline_path, reasons, window
from analysis.review.page import write_review
from analysis.review.ranking import covered, rank
from mal.data.annotations import encode_mask
from tests.review_files import HOSTILE, write_labels


def data_of(page: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the script reads: about the file, and a card per mask."""
    text = page.read_text(encoding="utf-8")
    about = re.search(r'id="about">(.*?)</script>', text, re.DOTALL)
    assert about is not None
    parts = re.findall(r'class="part">(.*?)</script>', text, re.DOTALL)
    return json.loads(about[1]), [card for part in parts for card in json.loads(part)]


def annotation(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "bbox": [0, 0, 4, 4], **fields}


def test_doubtful_masks_come_first_and_flagged_ones_before_them():
    annotations = [
        annotation(1, quality=0.9),
        annotation(2, quality=0.2),
        annotation(3),
        annotation(4, quality=0.99, flagged=True, flag_reason="the mask is empty"),
        annotation(5, quality=0.2),
    ]
    ranking = rank(annotations, None)
    assert [a["id"] for a in ranking.annotations] == [4, 3, 2, 5, 1]
    assert ranking.by == "quality"
    assert [ranking.value(a) for a in ranking.annotations] == [None, None, 0.2, 0.2, 0.9]
    assert [a["id"] for a in rank(annotations, 2).annotations] == [4, 3]


@pytest.mark.parametrize(
    ("fields", "by", "order"),
    [
        ([{"score": 0.9}, {"score": 0.5}], "score", [2, 1]),
        ([{"score": 0.9, "quality": 0.6}, {"score": 0.5, "quality": 0.8}], "quality", [1, 2]),
        ([{}, {}], "file", [1, 2]),
        ([{"quality": "good"}, {"quality": float("nan")}], "file", [1, 2]),
        ([{"quality": "good", "score": 0.9}, {"quality": None, "score": 0.1}], "score", [2, 1]),
    ],
)
def test_without_a_predicted_iou_the_score_orders_and_without_that_the_file(fields, by, order):
    ranking = rank([annotation(number, **values) for number, values in enumerate(fields, 1)], None)
    assert (ranking.by, [a["id"] for a in ranking.annotations]) == (by, order)


def test_the_page_lists_the_most_doubtful_and_says_of_how_many(tmp_path):
    labels = write_labels(tmp_path, images=3, each=4)
    about, cards = data_of(write_review(labels, tmp_path / "images", tmp_path / "all.html"))
    values = [value for _, _, value in about["items"]]
    assert len(cards) == len(values) == 12
    assert values == sorted(values)
    page = write_review(labels, tmp_path / "images", tmp_path / "few.html", 5)
    few, cards = data_of(page)
    assert few["items"] == about["items"][:5]
    assert len(cards) == 5
    assert "The 5 most doubtful of 12 masks" in page.read_text(encoding="utf-8")


def test_cards_beyond_one_part_stay_in_order(tmp_path, monkeypatch):
    labels = write_labels(tmp_path, images=3, each=4)
    whole = data_of(write_review(labels, tmp_path / "images", tmp_path / "a.html"))
    monkeypatch.setattr(review, "PART", 5)
    split = data_of(write_review(labels, tmp_path / "images", tmp_path / "b.html"))
    assert split[1] == whole[1]
    assert (tmp_path / "b.html").read_text(encoding="utf-8").count('class="part"') == 3


def test_an_image_is_opened_once_for_all_its_boxes(tmp_path, monkeypatch):
    labels = write_labels(tmp_path, images=3, each=4)
    seen = []
    monkeypatch.setattr(review, "opened", lambda record, images: seen.append(record["id"]) or opened(record, images))
    write_review(labels, tmp_path / "images", tmp_path / "page.html")
    assert sorted(seen) == [1, 2, 3]


def test_nothing_that_a_name_holds_is_markup(tmp_path):
    labels = write_labels(tmp_path, images=2, each=6, names=HOSTILE, flag_reason=lambda place: HOSTILE[place % 6],
                          flagged=lambda place: place < 6)  # fmt: skip
    labels = labels.rename(tmp_path / "<script>alert(1)</script> & co.json".replace("/", "\u2215"))
    page = write_review(labels, tmp_path / "images", tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    about, cards = data_of(page)
    assert list(about["categories"].values()) == list(HOSTILE)
    assert [card["why"] for card in cards[:6]] == [[name] for name in HOSTILE]
    assert text.count("<script") == 3  # the two pieces of data, and the page's own
    assert "onerror=" not in re.sub(r"<script type.*?</script>", "", text, flags=re.DOTALL)
    assert "<img" not in text


def test_a_card_has_what_was_said_of_its_object(tmp_path):
    said = [{"expressions": ["the red one", "left"]}, {"expression": HOSTILE[0]}, {"expressions": [3, "x"]}, {},
            {"expressions": ["a", "b", "c", "d", "e"]}]  # fmt: skip
    labels = write_labels(tmp_path, images=1, each=5)
    coco = json.loads(labels.read_text())
    coco["annotations"] = [{**each, **more} for each, more in zip(coco["annotations"], said, strict=True)]
    labels.write_text(json.dumps(coco))
    about, cards = data_of(write_review(labels, tmp_path / "images", tmp_path / "page.html"))
    found = {item[0]: card["texts"] for item, card in zip(about["items"], cards, strict=True)}
    assert found == {
        "10": ["the red one", "left"],
        "11": [HOSTILE[0]],
        "12": ["x"],
        "13": [],
        "14": ["a", "b", "c", "… and 2 more"],
    }


def test_ids_that_a_script_cannot_count_are_text(tmp_path):
    labels = write_labels(tmp_path, id=lambda place: 2**60 + place)
    about, _ = data_of(write_review(labels, tmp_path / "images", tmp_path / "page.html"))
    assert {item[0] for item in about["items"]} == {str(2**60 + place) for place in range(6)}


@pytest.mark.parametrize("how", ["absent", "cut off", "another size", "no image"])
def test_an_image_that_cannot_be_read_leaves_its_cards_without_pictures(tmp_path, how):
    labels = write_labels(tmp_path)
    (path,) = (tmp_path / "images").glob("1 *")
    if how == "absent":
        path.unlink()
    elif how == "another size":
        Image.new("RGB", (81, 60)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:3000] if how == "cut off" else b"no image at all")
    _, cards = data_of(write_review(labels, tmp_path / "images", tmp_path / "page.html"))
    assert sum(card["crop"] == "" and "cannot be read" in card["unread"] for card in cards) == 3
    assert sum(card["crop"] != "" for card in cards) == 3
    assert all(card["path"] for card in cards)


def test_a_category_and_an_image_without_names_still_show(tmp_path):
    labels = write_labels(tmp_path)
    coco = json.loads(labels.read_text())
    del coco["categories"]
    labels.write_text(json.dumps(coco))
    about, _ = data_of(write_review(labels, tmp_path / "images", tmp_path / "page.html"))
    assert about["categories"] == {}


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_part_of_a_mask_is_the_mask_cut(data):
    """From run lengths, of COCO's three notations, without the image's pixels."""
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    mask = data.draw(st.one_of(st.just(np.ones((height, width), dtype=bool)), arrays(bool, (height, width))))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    part = Window(left, top, right, bottom, right - left, bottom - top)
    record = {"height": height, "width": width}
    edges = np.flatnonzero(np.diff(mask.T.ravel().astype(np.int8), prepend=0, append=0))
    counts = np.diff(edges, prepend=0, append=mask.size).tolist()
    for segmentation in (encode_mask(mask), {"size": [height, width], "counts": counts}):
        assert np.array_equal(mask_part(segmentation, record, part), mask[top:bottom, left:right])


def test_part_of_a_mask_in_a_huge_image_costs_by_its_window():
    """An image of 900 megapixels, whose pixels as bytes would fill a gigabyte."""
    record = {"height": 30_000, "width": 30_000}
    polygon = [[20_000, 25_000, 20_100, 25_000, 20_100, 25_080, 20_000, 25_080]]
    part = window([20_000, 25_000, 100, 80], 30_000, 30_000)
    found = mask_part(polygon, record, part)
    assert found.shape == (part.height, part.width)
    across, down = part.right - part.left, part.bottom - part.top
    assert found.mean() == pytest.approx(100 * 80 / (across * down), abs=0.02)


@settings(deadline=None, max_examples=100)
@given(st.tuples(*[st.floats(-20, 120)] * 2, *[st.floats(0, 300)] * 2))
def test_a_window_lies_in_its_image_and_is_small(bbox):
    part = window(list(bbox), 100, 70)
    assert 0 <= part.left < part.right <= 100
    assert 0 <= part.top < part.bottom <= 70
    assert 1 <= part.width <= 160
    assert 1 <= part.height <= 160


@pytest.mark.parametrize("shape", [(9, 7), (120, 90)])
def test_an_outline_runs_around_the_mask_and_its_holes(shape):
    mask = np.zeros(shape, dtype=bool)
    mask[2:-1, 1:-2] = True
    mask[4:6, 3] = False
    found = outline_path(mask)
    assert found.count("M") == found.count("Z") == 2
    drawn = np.zeros((shape[0] * 8, shape[1] * 8), dtype=np.uint8)
    loops = [
        [[float(v) for v in point.split(" ")] for point in loop.split("L")] for loop in re.findall("M(.*?)Z", found)
    ]
    cv2.fillPoly(drawn, [(np.array(loop) * 8).round().astype(int) for loop in loops], 1)
    assert np.abs(drawn.mean() - mask.mean()) < 0.1 * mask.mean()


def test_an_empty_mask_has_no_outline():
    assert outline_path(np.zeros((5, 5), dtype=bool)) == ""


def said(mask: np.ndarray, bbox: list[float], share: float = 0.0) -> list[str]:
    return reasons(mask, bbox, Window(0, 0, 40, 40, 40, 40), share)


def test_what_is_odd_about_a_mask_is_said():
    box, fine = [10, 10, 20, 20], np.zeros((40, 40), dtype=bool)
    fine[10:30, 10:20] = fine[10:20, 10:30] = True
    assert said(fine, box) == []
    short = fine.copy()
    short[:, 24:] = short[26:] = False
    assert said(short, box) == ["does not reach the right and lower sides of its box"]
    long = fine.copy()
    long[10:, 10:20] = True
    assert said(long, [10, 10, 20, 60]) == []  # the image ends before the box
    parts = fine.copy()
    parts[16:20, :] = False
    assert said(parts, box) == ["2 parts"]
    full = np.zeros((40, 40), dtype=bool)
    full[10:30, 10:30] = True
    assert said(full, box, 0.5) == ["fills its box", "a smaller box covers 50% of its box"]
    thin = np.eye(40, dtype=bool)
    assert said(thin, [0, 0, 40, 40]) == ["covers 2% of its box"]
    assert said(np.zeros((40, 40), dtype=bool), box) == ["nothing of it lies in its box"]


def test_a_smaller_box_in_front_is_seen_and_a_larger_one_behind_is_not():
    annotations = [annotation(1), annotation(2, bbox=[1, 1, 2, 2]), annotation(3, image_id=2)]
    assert covered(annotations) == {1: 0.25, 2: 0, 3: 0}


def pixel(image: Image.Image) -> tuple[int, ...]:
    part = Window(0, 0, image.width, image.height, 1, 1)
    return Image.open(io.BytesIO(base64.b64decode(crop_webp(image, part)))).convert("RGB").getpixel((0, 0))


def test_every_kind_of_image_becomes_a_crop():
    white = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert min(pixel(white)) > 250
    for mode in ("L", "1", "P", "CMYK", "F"):
        assert len(pixel(Image.new(mode, (4, 4)))) == 3


def test_twelve_bits_in_sixteen_are_not_black(tmp_path):
    deep = np.zeros((4, 6), dtype=np.uint16)
    deep[:, 3:] = 4095
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with opened({"file_name": "deep.png", "width": 6, "height": 4}, tmp_path) as image:
        assert [image.getpixel((x, 2)) for x in (0, 5)] == [0, 255]


def test_a_picture_that_is_stored_lying_down_is_shown_as_it_was_annotated(tmp_path):
    pixels = np.zeros((30, 50, 3), dtype=np.uint8)
    pixels[:, :25] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with opened({"file_name": "turned.png", "width": 30, "height": 50}, tmp_path) as image:
        assert image.size == (30, 50)
        assert image.getpixel((15, 5)) == (255, 255, 255)
        assert image.getpixel((15, 45)) == (0, 0, 0)
