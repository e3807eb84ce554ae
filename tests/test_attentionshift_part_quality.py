"""Key-points against masks of objects and of their parts: by hand, by loops, and on drawn images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mal.data.annotations import only_images, read
from mal.data.mask_kinds import with_masks
from mal.engine.store import Store
from mal.errors import MalError
from mal.methods.attentionshift import part_quality as quality
from mal.methods.attentionshift.known import look_at, samples
from mal.methods.attentionshift.part_quality import Found, found, part_quality, summed
from mal.request import Graph
from mal.wholes import main
from tests.attentionshift_cases import SMOKE, draw, drawn_files, points_of, untrained
from tests.test_end_to_end import command

CPU = torch.device("cpu")


def test_a_key_point_counts_for_the_pixel_it_lies_in() -> None:
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[1:3, 1:5] = 1
    left, right, hidden = mask.copy(), mask.copy(), mask.copy()
    left[:, 3:], right[:, :3], hidden[:, :4] = 0, 0, 0
    hidden[:, 5:] = 0
    xy = np.array([[1.0, 1.0], [2.99, 2.99], [0.5, 0.5], [5.0, 1.5], [6.5, 1.5], [2.0, 4.5]])  # the last two: padding
    assert found(xy, mask, [left, right, hidden]) == Found(key_points=6, on_object=2, parts=3, covered=1)
    assert found(np.empty((0, 2)), mask, [left]) == Found(0, 0, 1, 0)


@given(
    arrays(np.uint8, (5, 7), elements=st.integers(0, 1)),
    st.lists(arrays(np.uint8, (5, 7), elements=st.integers(0, 1)), min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(-2, 9), st.floats(-2, 9)), max_size=6),
)
def test_counts_are_those_of_loops(mask: np.ndarray, parts: list[np.ndarray], xy: list[tuple[float, float]]) -> None:
    def on(pixels: np.ndarray, x: float, y: float) -> bool:
        return 0 <= x < 7 and 0 <= y < 5 and bool(pixels[int(y), int(x)])

    expected = Found(
        len(xy), sum(on(mask, *one) for one in xy), len(parts), sum(any(on(part, *one) for one in xy) for part in parts)
    )
    assert found(np.array(xy, dtype=np.float64).reshape(-1, 2), mask, parts) == expected


def test_shares_are_of_all_key_points_and_of_all_parts() -> None:
    objects = [Found(4, 3, 2, 2), Found(0, 0, 3, 0), Found(1, 0, 1, 0)]
    assert summed(objects) == {"key_point_precision": 3 / 5, "part_coverage": 2 / 6, "key_points": 5 / 3}
    assert summed([Found(0, 0, 3, 0)]) == {"part_coverage": 0, "key_points": 0}


def test_a_network_is_measured_in_its_own_boxes_and_in_human_ones(compose, tmp_path: Path, monkeypatch) -> None:
    config, folder = compose(*SMOKE), draw(tmp_path)
    points, human = points_of(folder), with_masks(read(folder / "annotations.json", masks=False))
    parts, trained = read(folder / "parts.json", masks=True), untrained(config, points)
    in_boxes: list[torch.Tensor] = []
    real = quality.key_points_of

    def watched(trained, known, config):
        made = real(trained, known, config)
        in_boxes.append(known.chosen.boxes)
        for xy, box in zip(made, known.chosen.boxes * known.across, strict=True):
            assert ((xy >= box[:2].numpy() - 1e-6) & (xy <= box[2:].numpy() + 1e-6)).all()
        return made

    monkeypatch.setattr(quality, "key_points_of", watched)
    figures, count = part_quality(trained, config, points, human, parts, folder / "images", CPU)
    assert count == len(human["annotations"])
    assert {"part_coverage", "key_points", "part_coverage_human_box", "key_points_human_box"} <= set(figures)
    boxes = {a["image_id"]: [] for a in human["annotations"]}
    for annotation in human["annotations"]:
        boxes[annotation["image_id"]].append(annotation["bbox"])
    shown = list(samples(trained, config, points, folder / "images", CPU))
    for (entry, _, sample), chosen, own in zip(shown, in_boxes[::2], in_boxes[1::2], strict=True):
        known = look_at(trained, sample, entry)
        assert torch.equal(known.chosen.boxes, chosen)
        for (x, y, w, h), box in zip(boxes[entry["id"]], (own * known.across).tolist(), strict=True):
            step = known.across[0].item()  # of a shown pixel, whose both ends are inside
            assert box == pytest.approx([x, y, x + w - step, y + h - step], abs=step)


def test_objects_without_parts_are_left_out_and_none_at_all_is_said(compose, tmp_path: Path) -> None:
    config, folder = compose(*SMOKE), draw(tmp_path)
    points, human = points_of(folder), with_masks(read(folder / "annotations.json", masks=False))
    parts, trained = read(folder / "parts.json", masks=True), untrained(config, points)
    one = human["annotations"][1]["id"]
    some = {**parts, "annotations": [a for a in parts["annotations"] if a["object_id"] == one]}
    assert part_quality(trained, config, points, human, some, folder / "images", CPU)[1] == 1
    with pytest.raises(MalError, match="none of the validation objects that are looked at has a part"):
        part_quality(trained, config, points, human, {**parts, "annotations": []}, folder / "images", CPU)


@pytest.mark.parametrize(
    ("setting", "measured"),
    [
        ("seed=0", True),
        ("attentionshift.steps.shift.method=kmeans", True),
        ("attentionshift.steps.mask_points.supervision=mask", True),
        ("attentionshift.steps.mask_points.source=attention", False),  # has no key-points
        ("data=shapes", False),  # have no parts
    ],
)
def test_key_points_are_measured_where_there_are_some_and_parts(
    compose, tmp_path: Path, setting: str, measured: bool
) -> None:
    graph = Graph(compose(*SMOKE, setting), Store(tmp_path), torch.device("cpu"))
    assert ("key_points_val" in {stage.name for stage in graph.targets()}) == measured


def test_parts_change_the_key_of_their_own_stage_alone(compose, tmp_path: Path) -> None:
    files, found = drawn_files(tmp_path), []
    for parts in ("null", "parts.json"):
        config = compose(*SMOKE, "data=coco", *files, f"data.val.parts={parts}")
        found.append({each.name: each.key for each in Graph(config, Store(tmp_path / "s"), CPU).targets()})
    assert set(found[1].items()) - set(found[0].items()) == {("key_points_val", found[1]["key_points_val"])}


@pytest.mark.slow
@pytest.mark.usefixtures("shared_data")
def test_whole_cars_of_photographs_with_their_parts(shared_data: Path, tmp_path: Path) -> None:
    split = []
    for name, folder in (("train", "train"), ("val", "test")):
        source, out = shared_data / "car_parts" / folder, tmp_path / name
        coco = json.loads((source / "annotations.json").read_text())
        few = only_images(coco, {image["id"] for image in coco["images"][:6]})
        (tmp_path / f"{name}.json").write_text(json.dumps(few))
        main(["--annotations", str(tmp_path / f"{name}.json"), "--category", "car", "--out", str(out)])
        split += [f"data.{name}.annotations={out / 'objects.json'}", f"data.{name}.images={source / 'JPEGImages'}"]
    parts = f"data.val.parts={tmp_path / 'val' / 'parts.json'}"
    said = command(*SMOKE, "data=coco", *split, parts, store=tmp_path / "runs").stdout
    assert "Key-points, of 6 objects whose parts are known" in said
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("key_points_val/*/run.json"))
    assert 0 <= record["metrics"]["part_coverage_human_box"]["value"] <= 1
