"""Pseudo masks: who is asked, what is kept, and whether the kept ones are better."""

from dataclasses import replace

import numpy as np
import pytest

from mal.data.annotations import decode_mask
from mal.data.mask_formats import encode_mask
from mal.errors import ConfigError
from mal.methods.partialres.config.learning import PseudoConfig
from mal.methods.partialres.objects import Referred
from mal.methods.partialres.projection import distance
from mal.methods.partialres.pseudo import judged, others, pseudo_quality, questions

IMAGE = {"id": 7, "file_name": "a.png", "width": 20, "height": 10}
MODEL = PseudoConfig(kind="model", threshold=0.1)


def an_object(identity: int, box: tuple[float, float, float, float] = (4, 2, 10, 6)) -> Referred:
    return Referred(IMAGE, identity, box, (("the", "red", "star"), ("the", "star"), ("it",)))


def answer(identity: int, points: list[list[float]]) -> dict:
    return {"id": identity, "image_id": 7, "expression": "x", "points": points, "box": None}


WHOLE = [[4.0, 2.0], [4.0, 7.5], [13.5, 7.5], [13.5, 2.0]]  # the box, filled
HALF = [[4.0, 2.0], [4.0, 7.5], [8.5, 7.5], [8.5, 2.0]]  # half of its width


def test_each_other_object_is_asked_once_by_its_first_or_a_drawn_expression() -> None:
    objects = [an_object(i) for i in range(1, 40)]
    rest = others(objects, {1, 2})
    assert [each.id for each in rest] == list(range(3, 40))
    assert {each.words for each in questions(rest, expression="first", seed=0)} == {("the", "red", "star")}
    drawn = questions(rest, expression="random", seed=0)
    assert [each.id for each in drawn] == [each.id for each in rest]
    assert len({each.words for each in drawn}) == 3
    assert drawn == questions(rest, expression="random", seed=0)
    # what an object is asked by does not depend on who else is there
    assert questions(rest[5:], expression="random", seed=0) == drawn[5:]


def test_objects_are_asked_about_image_by_image() -> None:
    """So that each image is read once."""
    entries = [{**IMAGE, "id": 9 - i % 3} for i in range(12)]
    objects = [Referred(entry, i, (4, 2, 10, 6), (("it",),)) for i, entry in enumerate(entries, 1)]
    asked = questions(objects, expression="first", seed=0)
    assert [(each.entry["id"], each.id) for each in asked] == sorted((each.entry["id"], each.id) for each in objects)


def test_all_masks_known_leaves_none_to_predict() -> None:
    with pytest.raises(ConfigError, match=r"none is left for pseudo masks; lower partialres\.few\.percent"):
        others([an_object(1)], {1})


def test_a_prediction_is_kept_where_its_extent_is_the_boxes() -> None:
    objects = [an_object(1), an_object(2), an_object(3)]
    rows = judged(objects, [answer(1, WHOLE), answer(2, HALF), answer(3, [])], MODEL, fill="contour")
    assert [row["kept"] for row in rows] == [True, False, False]
    # fraction f = .5 of the width: 1 − 2f / (1 + f) = 1/3; of the height all
    assert [row["d"] for row in rows] == pytest.approx([0, 1 / 3, 2], abs=1e-5)
    mask = decode_mask(rows[0]["segmentation"], height=10, width=20).astype(bool)
    expected = np.zeros((10, 20), dtype=bool)
    expected[2:8, 4:14] = True
    assert np.array_equal(mask, expected)
    assert rows[0]["points"] == WHOLE


def test_the_largest_threshold_keeps_all_but_empty_masks() -> None:
    objects = [an_object(1), an_object(2), an_object(3)]
    answers = [answer(1, WHOLE), answer(2, [[0, 0], [2, 0], [2, 1]]), answer(3, [])]
    rows = judged(objects, answers, replace(MODEL, threshold=2), fill="contour")
    assert rows[1]["d"] == pytest.approx(2)
    assert [row["kept"] for row in rows] == [True, True, False]


def test_where_nothing_agrees_a_sentence_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"the least d is 0\.33\); raise partialres\.pseudo\.threshold, train longer"):
        judged([an_object(1)], [answer(1, HALF)], MODEL, fill="contour")


def test_the_rivals_pixels_are_judged_alike() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:8, 4:14] = True
    made = {"id": 1, "image_id": 7, "expression": "x", "segmentation": encode_mask(mask), "box": None}
    (row,) = judged([an_object(1)], [made], MODEL, fill="contour")
    assert row["kept"]
    assert "points" not in row


@pytest.mark.parametrize(("kind", "most"), [("box", 0.0), ("ellipse", 0.35)])
def test_boxes_and_ellipses_are_all_kept(kind: str, most: float) -> None:
    (row,) = judged([an_object(1)], None, PseudoConfig(kind=kind), fill="contour")
    assert row["kept"]
    mask = decode_mask(row["segmentation"], height=10, width=20).astype(bool)
    assert row["d"] == pytest.approx(distance(mask, an_object(1).box))
    assert row["d"] <= most + 1e-5
    assert not mask[:, :4].any()
    assert not mask[:, 14:].any()


def test_quality_tells_kept_from_rejected_ones() -> None:
    objects = [an_object(i) for i in (1, 2, 3, 4)]
    answers = [answer(1, WHOLE), answer(2, HALF), answer(3, WHOLE), answer(4, HALF)]
    rows = judged(objects, answers, MODEL, fill="contour")
    true = np.zeros((10, 20), dtype=bool)
    true[2:8, 4:14] = True
    human = {
        "images": [IMAGE],
        "annotations": [{"id": i, "image_id": 7, "segmentation": encode_mask(true)} for i in (1, 2, 3)],
    }  # of the fourth no mask is known
    figures, number = pseudo_quality(rows, human)
    assert number == 3
    assert figures["share_kept"] == 0.5
    assert (figures["kept_iou"], figures["rejected_iou"]) == (1.0, 0.5)
    assert figures["correlation"] == pytest.approx(-1)


def test_quality_without_a_known_mask_says_how_many_are_kept_alone() -> None:
    rows = judged([an_object(1)], [answer(1, WHOLE)], MODEL, fill="contour")
    assert pseudo_quality(rows, {"images": [IMAGE], "annotations": []}) == ({"share_kept": 1.0}, 0)
