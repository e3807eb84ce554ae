"""Which objects have an expression, and of which of them training sees the mask."""

from itertools import pairwise

import numpy as np
import pytest

from mal.data.annotations import encode_mask
from mal.errors import AnnotationError, ConfigError
from mal.methods.partialres.few import draw, human_masks, look, masked
from mal.methods.partialres.objects import referred


def ids(count: int) -> list[int]:
    return [7 * i + 2 for i in range(count)]


def test_a_larger_share_contains_a_smaller_one():
    drawn = {percent: set(draw(ids(1000), percent, seed=3)) for percent in (0.1, 1, 5, 10, 50, 100)}
    sizes = [len(some) for some in drawn.values()]
    assert sizes == [1, 10, 50, 100, 500, 1000]
    assert all(small < large for small, large in pairwise(drawn.values()))
    assert drawn[100] == set(ids(1000))


def test_a_draw_follows_from_ids_share_and_seed_alone():
    first = draw(ids(200), 10, seed=0)
    assert first == sorted(first) == draw(ids(200)[::-1], 10, seed=0)
    others = [draw(ids(200), 10, seed=seed) for seed in range(1, 4)]
    assert all(other != first for other in others)


def test_none_drawn_is_a_sentence_whose_advice_helps():
    with pytest.raises(ConfigError, match=r"partialres\.few\.percent=1 of 40 masks is none.*set it to 1\.26"):
        draw(ids(40), 1, seed=0)
    for count in (1, 3, 40, 77, 1000):
        with pytest.raises(ConfigError) as raised:
            draw(ids(count), 0, seed=0)
        advised = float(str(raised.value).partition("set it to ")[2].split()[0])
        assert len(draw(ids(count), advised, seed=0)) == 1


def view(**more: object) -> dict:
    annotations = [
        {"id": 9, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4.5], "expressions": ["The red-ish star.", "it"]},
        {"id": 4, "image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5], "expressions": ["left one"]},
        {"id": 5, "image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5], "expressions": []},
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": [], **more}


def test_objects_with_an_expression_sorted_by_id():
    found = referred(view())
    assert [each.id for each in found] == [4, 9]
    assert found[1].expressions == (("the", "red", "ish", "star"), ("it",))
    assert found[1].box == (1.0, 2.0, 3.0, 4.5)
    assert found[1].entry["file_name"] == "1.png"
    assert [each.id for each in referred(view(unreadable_images=[2]))] == [9]


def test_no_expression_at_all_is_a_sentence():
    nothing = view()
    for annotation in nothing["annotations"]:
        annotation["expressions"] = []
    with pytest.raises(ConfigError, match=r"none of 3 objects has a referring expression.*kind=templates"):
        referred(nothing)


def with_masks() -> tuple[dict, np.ndarray]:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 3:9] = True
    human = view()
    human["annotations"][0]["segmentation"] = [[3, 2, 9, 2, 9, 5, 3, 5]]
    human["annotations"][1]["segmentation"] = encode_mask(np.zeros((10, 20), dtype=bool))
    return human, mask


def test_masks_are_those_that_were_drawn_and_nothing_but_their_run_lengths():
    human, mask = with_masks()
    assert human_masks(human, [5, 9]) == [{"id": 9, "segmentation": encode_mask(mask)}]


def test_the_share_is_of_objects_that_have_a_mask_with_a_pixel():
    """Of 200 objects, 20 of them with masks, 10 % are two masks."""
    runs = [{"size": [10, 20], "counts": [0, 1, 199]}, encode_mask(np.zeros((10, 20), dtype=bool)), None]
    segmentations = [[[3, 2, 9, 2, 9, 5, 3, 5]], *runs, []]
    annotations = [
        {"id": i, "image_id": 1, "segmentation": segmentations[i % 5 if i <= 50 else 2 + i % 3]} for i in range(1, 201)
    ]
    human = {"images": [{"id": 1, "width": 20, "height": 10}], "annotations": annotations}
    found = masked(human, range(1, 201))
    assert found == [i for i in range(1, 51) if i % 5 < 2]
    assert len(human_masks(human, draw(found, 10, seed=0))) == 2
    assert masked(human, [1, 2, 200]) == [1]


def test_masks_of_objects_without_an_expression_are_not_looked_at():
    human, _ = with_masks()
    human["annotations"][2]["segmentation"] = "nonsense"
    assert masked(human, [4, 9]) == [9]


def test_no_mask_at_all_and_a_broken_mask_are_sentences():
    human, _ = with_masks()
    with pytest.raises(AnnotationError, match=r"none of the 2 objects.*has a mask to learn from"):
        masked(human, [4, 5])
    human["annotations"][2]["segmentation"] = [[1, 2, 3]]
    with pytest.raises(AnnotationError, match=r"annotation 5: .*3 numbers"):
        masked(human, [5, 9])


def test_polygons_that_only_repeat_their_box_are_no_shapes_to_learn(capsys):
    square = {"image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 8], "segmentation": [[2, 3, 12, 3, 12, 11, 2, 11]]}
    triangle = {**square, "segmentation": [[2, 3, 12, 3, 7, 11]]}
    painted = {**square, "segmentation": encode_mask(np.pad(np.ones((8, 10), dtype=bool), ((3, 9), (2, 8))))}
    rows = [{**one, "id": i} for i, one in enumerate((square, square, triangle, painted), start=1)]
    human = {"images": [{"id": 1, "height": 20, "width": 20}], "annotations": rows}
    look(human, [3, 4])
    assert capsys.readouterr().err == ""
    look(human, [1, 2, 3])
    assert "2 of the 3 masks that are learned from are polygons that only repeat their box" in capsys.readouterr().err
    with pytest.raises(AnnotationError, match=r"2 of the 2 masks .* only repeat their box; draw the shapes of some"):
        look(human, [1, 2])
