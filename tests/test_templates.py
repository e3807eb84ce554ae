"""Expressions made from boxes: each is true of one object of its image, and none reads a mask."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mal.data.annotations import read
from mal.data.expressions import expressions_only
from mal.data.templates import templated

WIDTH, HEIGHT = 100, 60
NAMES = {1: "dog", 2: "Hot-Dog!", 3: "dog", 4: "???"}


def coco(*objects: tuple) -> dict:
    """A file of one image from (category, box) or (category, box, iscrowd)."""
    return {
        "images": [{"id": 5, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": key, "name": name} for key, name in NAMES.items()],
        "annotations": [
            {"id": place, "image_id": 5, "category_id": one[0], "bbox": list(one[1]), "iscrowd": int(len(one) > 2)}
            for place, one in enumerate(objects)
        ],
    }


def true_of(text: str, annotations: list[dict]) -> list[int]:
    """The ids of the objects that an expression is true of, by the rules as one would say them."""
    _, *qualifier, name = text.replace("hot dog", "hotdog").split()
    named = {1: "dog", 2: "hotdog", 3: "dog"}
    group = [a for a in annotations if named.get(a["category_id"]) == name]
    if not qualifier:
        return [a["id"] for a in group]
    return [a["id"] for a in group if len(group) > 1 and all(beats(qualifier[0], a, b) for b in group if b is not a)]


def beats(qualifier: str, mine: dict, other: dict) -> bool:
    (x, y, w, h), (a, b, c, d) = mine["bbox"], other["bbox"]
    if qualifier in ("largest", "smallest"):
        larger, smaller = (w * h, c * d) if qualifier == "largest" else (c * d, w * h)
        return larger >= 1.5 * smaller
    right, down = (x + w / 2 - a - c / 2) / WIDTH, (y + h / 2 - b - d / 2) / HEIGHT
    apart = {"leftmost": -right, "rightmost": right, "topmost": -down, "bottommost": down}[qualifier]
    return apart >= 0.05


QUALIFIERS = ("", "leftmost ", "rightmost ", "topmost ", "bottommost ", "largest ", "smallest ")
BOXES = st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(0, 40), st.integers(0, 30))


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), BOXES), min_size=1, max_size=6))
def test_all_that_is_true_of_one_object_alone_is_said_of_it(objects: list) -> None:
    file = coco(*objects)
    found = templated(file)
    spoken = {a["id"] for a in file["annotations"] if a["bbox"][2] * a["bbox"][3] >= 0.005 * WIDTH * HEIGHT}
    expected: dict[int, set[str]] = {}
    for name in ("dog", "hot dog"):
        for qualifier in QUALIFIERS:
            meant = true_of(f"the {qualifier}{name}", file["annotations"])
            if len(meant) == 1 and meant[0] in spoken:
                expected.setdefault(meant[0], set()).add(f"the {qualifier}{name}")
    assert {key: set(texts) for key, texts in found.items()} == expected


def test_a_crowd_silences_its_category_alone() -> None:
    found = templated(coco((1, (0, 0, 9, 9)), (2, (0, 0, 9, 9)), (1, (50, 0, 9, 9), "crowd"), (4, (0, 0, 9, 9))))
    assert found == {1: ["the hot dog"]}


def test_templates_replace_what_a_file_says() -> None:
    file = coco((1, (0, 0, 9, 9)), (2, (0, 0, 2, 2)))
    file["annotations"][0]["expression"] = "mine"
    assert [a["expressions"] for a in expressions_only(file, kind="templates")["annotations"]] == [["the dog"], []]


def test_no_template_reads_a_mask(coco_mini: Path) -> None:
    for split, expected in (("train", (1774, 1228)), ("val", (1041, 745))):
        file = coco_mini / "annotations" / f"instances_{split}2017_mini.json"
        whole = read(file, masks=True)
        found = templated(whole)
        assert (sum(map(len, found.values())), len(found)) == expected
        blind = [{k: v for k, v in a.items() if k not in ("segmentation", "area")} for a in whole["annotations"]]
        assert templated({**whole, "annotations": blind}) == found


def test_on_photographs_each_is_true_of_one_object(coco_mini: Path) -> None:
    whole = read(coco_mini / "annotations" / "instances_val2017_mini.json", masks=False)
    names = {c["id"]: c["name"] for c in whole["categories"]}
    places = {a["id"]: a for a in whole["annotations"]}
    for key, texts in templated(whole).items():
        own = places[key]
        group = [a for a in whole["annotations"]
                 if a["image_id"] == own["image_id"] and a["category_id"] == own["category_id"]]  # fmt: skip
        x, y, w, h = own["bbox"]
        for text in texts:
            qualifier = text.removeprefix("the").removesuffix(names[own["category_id"]]).strip()
            if not qualifier:
                assert len(group) == 1
                continue
            for a, b, c, d in (other["bbox"] for other in group if other is not own):
                assert {
                    "leftmost": x + w / 2 < a + c / 2,
                    "rightmost": x + w / 2 > a + c / 2,
                    "topmost": y + h / 2 < b + d / 2,
                    "bottommost": y + h / 2 > b + d / 2,
                    "largest": w * h > c * d,
                    "smallest": w * h < c * d,
                }[qualifier]


def test_a_tie_is_no_side() -> None:
    assert templated(coco((1, (10, 10, 20, 20)), (1, (10, 10, 20, 20)))) == {}
