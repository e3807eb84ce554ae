"""Two files are joined by what their entries are, not by their numbers alone."""

import copy
from pathlib import Path
from typing import Any

import pytest
from small_files import coco_file, diamond, run_lengths_of

from mal.data.annotations import read
from mal.data.census import Category
from mal.data.joins import compare_categories, join_labels
from mal.errors import AnnotationError


def categories(*entries: tuple[int, str, int]) -> list[Category]:
    return [Category(*entry) for entry in entries]


TRAIN = categories((1, "apple", 6), (2, "brick", 6), (3, "cone", 6))


def test_equal_lists_do_not_differ_and_spelling_does_not_matter() -> None:
    for other in (TRAIN, categories((1, " Apple", 1), (2, "BRICK", 1), (3, "cone", 0))):
        found = compare_categories(TRAIN, other)
        assert [found.renumbered, found.lacking, found.unlearned] == [[], [], []]
    composed, decomposed = categories((1, "B\u00e4ume", 2)), categories((1, "Ba\u0308ume", 2))
    assert not compare_categories(composed, decomposed).renumbered


def test_swapped_and_shifted_ids_are_named() -> None:
    found = compare_categories(TRAIN, categories((1, "apple", 6), (3, "brick", 6), (2, "cone", 6)))
    assert found.renumbered == [
        "'brick' has id 2 in the first and 3 in the second",
        "'cone' has id 3 in the first and 2 in the second",
    ]
    shifted = compare_categories(TRAIN, categories((0, "apple", 6), (1, "brick", 6), (2, "cone", 6)))
    assert len(shifted.renumbered) == 3


def test_an_id_with_another_name_is_another_category() -> None:
    found = compare_categories(TRAIN, categories((1, "apple", 6), (2, "stone", 6), (3, "cone", 6)))
    assert found.renumbered == ["id 2 is 'brick' in the first and 'stone' in the second"]


def test_a_category_that_is_absent_is_lacking_if_it_was_learned() -> None:
    found = compare_categories([*TRAIN, Category(4, "door", 1), Category(5, "unused", 0)], TRAIN)
    assert [str(category) for category in found.lacking] == ["door (id 4)"]
    assert not found.renumbered
    back = compare_categories(TRAIN, [*TRAIN, Category(4, "door", 1), Category(5, "unused", 0)])
    assert [str(category) for category in back.unlearned] == ["door (id 4)"]


def test_an_unused_root_category_does_not_matter() -> None:
    rooted = [Category(0, "things", 0), *TRAIN]
    for pair in ((rooted, TRAIN), (TRAIN, rooted), (rooted, rooted)):
        found = compare_categories(*pair)
        assert [found.renumbered, found.lacking, found.unlearned] == [[], [], []]
    moved = compare_categories(rooted, categories((0, "apple", 6), (1, "brick", 6), (2, "cone", 6)))
    assert len(moved.renumbered) == 3


@pytest.fixture
def boxes(tmp_path: Path) -> dict[str, Any]:
    return read(coco_file(tmp_path), masks=False)


@pytest.fixture
def labels(boxes: dict[str, Any]) -> dict[str, Any]:
    """The same file with half of its masks as run lengths."""
    coco = copy.deepcopy(boxes)
    for n, annotation in enumerate(coco["annotations"]):
        if n % 2:
            annotation["segmentation"] = run_lengths_of(annotation["bbox"], text=n % 4 == 1)
    return coco


def renumbered(labels: dict[str, Any]) -> dict[str, Any]:
    """Annotation ids in another order."""
    numbers = [annotation["id"] for annotation in labels["annotations"]]
    for annotation, number in zip(labels["annotations"], numbers[3:] + numbers[:3], strict=True):
        annotation["id"] = number
    return labels


def masks(joined: Any) -> dict[int, Any]:
    return {key: label["segmentation"] for key, label in joined.labels.items()}


def test_the_same_numbering_is_joined_by_id(boxes: dict[str, Any], labels: dict[str, Any]) -> None:
    joined = join_labels(labels, boxes, source="labels.json")
    assert (joined.by_id, joined.remark) == (True, None)
    assert masks(joined) == {a["id"]: a["segmentation"] for a in labels["annotations"]}
    assert list(joined.labels) == [a["id"] for a in boxes["annotations"]]


def test_a_mask_that_spills_over_its_box_or_is_small_is_still_its_own(boxes: Any, labels: Any) -> None:
    x, y, w, h = boxes["annotations"][0]["bbox"]
    labels["annotations"][0] |= {"segmentation": diamond([x - 5, y - 9, w + 20, h + 18]), "bbox": [x - 5, y, w + 20, h]}
    labels["annotations"][1] |= {"segmentation": diamond([90, 40, 6, 6]), "bbox": [90, 40, 6, 6]}
    assert join_labels(labels, boxes, source="labels.json").remark is None


@pytest.mark.parametrize("how", ["rotated", "from zero", "beyond"])
def test_other_annotation_ids_are_joined_by_box_and_it_is_said(how: str, boxes: Any, labels: Any) -> None:
    expected = {a["id"]: a["segmentation"] for a in labels["annotations"]}
    renumbered(labels)
    if how != "rotated":
        for n, annotation in enumerate(labels["annotations"]):
            annotation["id"] = n if how == "from zero" else n + 5000
    joined = join_labels(labels, boxes, source="labels.json")
    assert masks(joined) == expected
    assert not joined.by_id
    assert joined.remark == (
        "labels.json: its annotations are numbered otherwise; all 8 labels are joined by image name and box"
    )


def test_two_objects_of_one_image_exchanged_are_put_back(boxes: Any, labels: Any) -> None:
    expected = {a["id"]: a["segmentation"] for a in labels["annotations"]}
    first, second = labels["annotations"][:2]
    first["id"], second["id"] = second["id"], first["id"]
    assert masks(join_labels(labels, boxes, source="labels.json")) == expected


def test_other_image_ids_are_joined_by_file_name(boxes: Any, labels: Any) -> None:
    expected = {a["id"]: a["segmentation"] for a in labels["annotations"]}
    new = dict(zip((1, 2, 3, 4), (3, 4, 1, 2), strict=True))
    for image in labels["images"]:
        image |= {"id": new[image["id"]], "file_name": f"of/another/folder/{image['file_name']}"}
    for annotation in labels["annotations"]:
        annotation["image_id"] = new[annotation["image_id"]]
    joined = join_labels(labels, boxes, source="labels.json")
    assert masks(joined) == expected
    assert joined.remark == "labels.json: its images are numbered otherwise; they are joined by file name"
    renumbered(labels)
    assert masks(join_labels(labels, boxes, source="labels.json")) == expected


def test_the_category_decides_between_equal_boxes(boxes: Any, labels: Any) -> None:
    for coco in (boxes, labels):
        coco["annotations"][1]["bbox"] = coco["annotations"][0]["bbox"]
    labels["annotations"][1]["segmentation"] = diamond([v + 2 for v in labels["annotations"][0]["bbox"]])
    names = {"plum": 8, "pear": 9}
    for category in labels["categories"]:
        category["id"] = names[category["name"]]
    for n, annotation in enumerate(labels["annotations"]):
        annotation |= {"id": n, "category_id": annotation["category_id"] + 7}
    joined = join_labels(labels, boxes, source="labels.json")
    assert joined.labels[101]["id"] == 1


def unlike(coco: dict[str, Any], by: float) -> None:
    for n, annotation in enumerate(coco["annotations"]):
        x, y, w, h = annotation["bbox"]
        annotation |= {"id": 5000 + n, "bbox": [x + by, y, w - by, h]}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: unlike(c, 3), ["lacks 8 of the 8 annotations", "ids 100, 101", "8 would have no label"]),
        (lambda c: c["annotations"].pop(0), ["lacks 1 of the 8 annotations", "ids 100", "keep their ids"]),
        (
            lambda c: [i.update(file_name=f"else_{i['id']}.png") for i in c["images"]],
            ["4 of the 4 images", "image 1 is 'boxes_0.png' here and 'else_1.png' there", "keep their names"],
        ),
        (lambda c: c["images"][1].update(width=80), ["image 2 is 80 x 120 pixels there and 160 x 120 here"]),
        (
            lambda c: [a.update(segmentation=diamond([2, 2, 9, 9])) for a in c["annotations"] if a["id"] % 2],
            ["4 of 8 labels", "do box and mask belong to the same object?"],
        ),
    ],
    ids=["other boxes", "one absent", "other images", "another size", "other masks"],
)
def test_what_is_not_certain_is_refused_with_counts(spoil: Any, words: list[str], boxes: Any, labels: Any) -> None:
    spoil(labels)
    with pytest.raises(AnnotationError) as raised:
        join_labels(labels, boxes, source="labels.json")
    assert [word for word in ["labels.json", *words] if word not in str(raised.value)] == []


def test_a_bad_mask_is_no_sign_of_another_numbering(boxes: Any, labels: Any) -> None:
    labels["annotations"][3]["segmentation"] = diamond([2, 2, 9, 9])
    joined = join_labels(labels, boxes, source="labels.json")
    assert joined.by_id
    assert joined.labels[103]["segmentation"] == diamond([2, 2, 9, 9])
    assert "1 of 8 labels do not lie in the boxes whose ids they bear: ids 103" in (joined.remark or "")
