"""What counts as a human mask: one answer, counted once, whatever a tool writes where it has none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_files import HEIGHT, WIDTH, coco_file, diamond, each, edit, rectangle, run_lengths_of

from mal.data import remembered
from mal.data.annotations import encode_mask, read
from mal.data.census import Census, take, words
from mal.data.mask_kinds import ABSENT, BLANK, BOX, BROKEN, MASK, verdicts, with_masks
from mal.engine.store import Fingerprints
from mal.errors import AnnotationError

SIZE = [HEIGHT, WIDTH]
BBOX = [20, 30, 60, 40]
X, Y, W, H = BBOX

KINDS: list[tuple[Any, str]] = [
    (None, ABSENT),
    ("", ABSENT),
    ([], ABSENT),
    ([[]], ABSENT),
    ([[], []], ABSENT),
    ({}, ABSENT),
    ({"size": SIZE, "counts": ""}, ABSENT),
    ({"size": SIZE, "counts": []}, ABSENT),
    ({"size": SIZE, "counts": [0]}, ABSENT),
    ({"size": SIZE, "counts": None}, ABSENT),
    ({"size": SIZE, "counts": [HEIGHT * WIDTH]}, BLANK),
    ({"size": SIZE, "counts": [HEIGHT * WIDTH, 0]}, BLANK),
    (encode_mask(np.zeros(SIZE, dtype=bool)), BLANK),
    ([[0, 0, 0, 0, 0, 0]], BLANK),
    ([[9, 9, 30, 9, 50, 9]], BLANK),
    (rectangle(BBOX), BOX),
    ([[X, Y, X, Y + H, X + W, Y + H, X + W, Y, X, Y]], BOX),  # closed, the other way round
    ([[X - 0.8, Y, X + W, Y + 0.5, X + W + 0.7, Y + H, X, Y + H - 0.9]], BOX),
    ([[X, Y, X + W / 2, Y, X + W, Y, X + W, Y + H, X, Y + H]], BOX),
    (run_lengths_of(BBOX, text=True, filled=True), BOX),
    (run_lengths_of(BBOX, text=False, filled=True), BOX),
    (diamond(BBOX), MASK),
    (rectangle([X + 4, Y, W - 4, H]), MASK),
    ([[X, Y, X + W, Y, X + W, Y + H]], MASK),
    ([rectangle([X, Y, W / 2 - 2, H])[0], rectangle([X + W / 2 + 2, Y, W / 2 - 2, H])[0]], MASK),
    (run_lengths_of(BBOX, text=True), MASK),
    (run_lengths_of(BBOX, text=False), MASK),
    ([X, Y, X + W, Y, X + W, Y + H], BROKEN),
    ([[X, Y, X + W, Y + H]], BROKEN),
    ("mask.png", BROKEN),
    ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, BROKEN),
    ({"size": SIZE, "counts": [5, 9]}, BROKEN),
    ({"size": SIZE, "counts": run_lengths_of(BBOX, text=True)["counts"][:-3] + "0"}, BROKEN),
]


def one(segmentation: Any, **values: Any) -> dict[str, Any]:
    annotation = {"id": 7, "image_id": 3, "category_id": 1, "bbox": BBOX, "segmentation": segmentation, **values}
    return {
        "images": [{"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "plum"}],
    }


@pytest.mark.parametrize(("segmentation", "kind"), KINDS, ids=[f"{n} {kind}" for n, (_, kind) in enumerate(KINDS)])
def test_every_way_to_write_a_mask_has_one_kind(segmentation: Any, kind: str) -> None:
    (verdict,) = verdicts(one(segmentation))
    assert verdict.kind == kind
    assert bool(verdict.reason) == (kind == BROKEN)
    census = take(one(segmentation))
    painted = isinstance(segmentation, dict) and kind == BOX  # no tool writes a drawn rectangle as run lengths
    assert census.has_masks == (kind == MASK or painted)
    assert (census.usable, census.repeats, census.broken) == (census.has_masks, kind == BOX, kind == BROKEN)
    assert census.unmasked == (kind in (ABSENT, BLANK))
    assert len(with_masks(one(segmentation))["annotations"]) == (kind not in (ABSENT, BROKEN))


def test_an_annotation_without_the_key_has_no_mask() -> None:
    coco = one(None)
    del coco["annotations"][0]["segmentation"]
    assert verdicts(coco)[0].kind == ABSENT


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_run_lengths_that_are_a_rectangle_are_told_from_all_others(data: Any) -> None:
    height, width = data.draw(st.sampled_from([2, 3, 9, 700])), data.draw(st.integers(2, 40))
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    spoilt = data.draw(st.booleans()) and mask.sum() > 3
    if spoilt:
        mask[data.draw(st.integers(y0, y1 - 1)), data.draw(st.integers(x0, x1 - 1))] = False
    flat = mask.T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    listed = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    for counts in (encode_mask(mask)["counts"], [0, *listed] if flat[0] else listed):
        coco = one({"size": [height, width], "counts": counts}, bbox=[x0, y0, x1 - x0, y1 - y0])
        coco["images"][0].update(width=width, height=height)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        whole = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert verdicts(coco)[0].kind == (BOX if whole else MASK)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), count=st.integers(1, 9))
def test_the_lengths_of_many_compressed_masks_are_those_of_each(seed: int, count: int) -> None:
    """All masks fill their image, so none is broken; one with a run too many is, and no other."""
    rng = np.random.default_rng(seed)
    coco = one(None)
    coco["annotations"] = [
        {**coco["annotations"][0], "id": n, "segmentation": encode_mask(rng.random(SIZE) < rng.random())}
        for n in range(count)
    ]
    assert {verdict.kind for verdict in verdicts(coco)} <= {MASK, BLANK, BOX}
    victim = int(rng.integers(count))
    coco["annotations"][victim]["segmentation"]["counts"] += "3"
    assert [n for n, verdict in enumerate(verdicts(coco)) if verdict.kind == BROKEN] == [victim]


def test_crowds_and_what_tools_leave_behind_are_counted_apart(tmp_path: Path) -> None:
    def change(coco: dict[str, Any]) -> None:
        a = coco["annotations"]
        a[0]["segmentation"] = []
        a[1] |= {"segmentation": run_lengths_of(a[1]["bbox"], text=False), "iscrowd": 1}
        a[2] |= {"bbox": [0, 0, 0, 0], "segmentation": [], "iscrowd": False}
        a[3]["segmentation"] = rectangle(a[3]["bbox"])
        a[4] |= {"segmentation": [], "iscrowd": 1}
        a[5]["segmentation"] = [[1, 2]]

    census = take(read(edit(coco_file(tmp_path), change), masks=False))
    assert (census.annotations, census.masks, census.usable, census.repeats) == (8, 4, 2, 1)
    assert (census.crowds, census.crowd_masks, census.brush_masks, census.crowds_unmasked) == (2, 1, 1, 1)
    assert (census.unmasked, census.left_over, census.broken) == (1, 1, 1)
    assert census.first_unmasked == ["annotation 100 (image boxes_0.png)"]
    assert census.first_broken[0].startswith("annotation 105 (image boxes_2.png): polygon [1, 2] has 2 numbers")
    assert words(census) == (
        "8 boxes on 4 images, 3 with a human mask, 1 of which only repeat their box, 1 without one, 1 with a "
        "segmentation that is no mask, 1 left over, without a mask and with a box of no area, 2 crowds (iscrowd 1)"
    )
    assert Census.restore(json.loads(json.dumps(census.plain()))) == census


def test_what_can_be_scored_is_counted_by_even_and_odd_images(tmp_path: Path) -> None:
    def change(coco: dict[str, Any]) -> None:
        for annotation in coco["annotations"]:
            if annotation["image_id"] % 2 == 0:
                annotation["segmentation"] = []
        coco["annotations"][0]["bbox"][2] = 2

    census = take(read(edit(coco_file(tmp_path, images=5), change), masks=False))  # ids 1 … 5: 2 and 4 are odd-placed
    assert census.selected == {
        "all": {"images": 5, "objects": 10, "scored": 5},
        "even": {"images": 3, "objects": 6, "scored": 5},
        "odd": {"images": 2, "objects": 4, "scored": 0},
    }


def test_a_file_is_parsed_once_for_its_census(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fingerprints = coco_file(tmp_path), Fingerprints(tmp_path / "runs")
    first = remembered.census(path, fingerprints)
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "read", None)
        assert remembered.census(path, fingerprints) == first
        path.rename(tmp_path / "moved.json")
        assert remembered.census(tmp_path / "moved.json", fingerprints) == first
    edit(tmp_path / "moved.json", each(segmentation=[]))
    assert not remembered.census(tmp_path / "moved.json", fingerprints).has_masks


def test_a_file_that_cannot_be_trusted_has_no_census(tmp_path: Path) -> None:
    path = edit(coco_file(tmp_path), lambda coco: coco["annotations"][0].update(image_id=99))
    with pytest.raises(AnnotationError, match="image_id is 99"):
        remembered.census(path, Fingerprints(tmp_path / "runs"))
