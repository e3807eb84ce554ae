"""Points of objects: drawn by the papers' protocols, or a user's own, one to many each; and discs around them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mal.check import look
from mal.config import Config
from mal.data.annotations import decode_mask, encode_mask, read
from mal.data.census import words
from mal.data.config import POINT_KINDS
from mal.data.drawn_points import PROTOCOLS, drawn_point
from mal.data.points import points_only
from mal.engine.graph import Stage, in_order
from mal.engine.store import Store
from mal.errors import AnnotationError
from mal.methods.baselines.disc import disc
from mal.request import Graph
from mal.run import run
from tests.small_files import HEIGHT, WIDTH, coco_file, each, edit

CPU = torch.device("cpu")


def annotation(mask: np.ndarray, identity: int = 1, **more: object) -> dict:
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
    return {"id": identity, "image_id": 3, "category_id": 1, "bbox": box, "segmentation": encode_mask(mask), **more}


def draw(mask: np.ndarray, kind: str, identity: int = 1) -> tuple[float, float] | None:
    return drawn_point(annotation(mask, identity), kind, height=mask.shape[0], width=mask.shape[1])


BAR = np.zeros((30, 40), dtype=bool)  # an L: its box is x 4…24, y 2…22, its centre not covered
BAR[2:22, 4:9] = True
BAR[17:22, 4:24] = True


def test_the_settings_name_the_protocols_there_are() -> None:
    assert set(POINT_KINDS) == {*PROTOCOLS, "box_centre"}


def test_protocols_without_chance() -> None:
    assert draw(BAR, "box_centre") == (14, 12)
    # 20 × 5 pixels of centre (6.5, 12) and 5 × 15 of centre (16.5, 19.5)
    assert draw(BAR, "centroid") == pytest.approx(((100 * 6.5 + 75 * 16.5) / 175, (100 * 12 + 75 * 19.5) / 175))
    assert draw(BAR, "inside") == (8.5, 11.5)  # (8, 11) and (8, 12) are as near, and the first is taken


def test_a_box_centre_needs_no_mask_and_stays_in_the_image() -> None:
    boxed = {"id": 1, "image_id": 1, "bbox": [-1, 3, 1, 4]}
    assert drawn_point(boxed, "box_centre", height=9, width=9) == (0, 5)


def test_uniform_points_are_anywhere_in_the_mask_as_often() -> None:
    points = np.array([draw(BAR, "uniform", identity) for identity in range(4000)])
    assert BAR[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    share = (points[:, 0] >= 9).mean()  # the foot right of the bar: 75 of 175 pixels
    assert abs(share - 75 / 175) < 4 * np.sqrt(0.43 * 0.57 / 4000)
    fraction = points % 1
    assert np.abs(fraction.mean(axis=0) - 0.5).max() < 4 * np.sqrt(1 / 12 / 4000)


def test_a_drawn_point_follows_from_the_ids_of_image_and_annotation() -> None:
    assert draw(BAR, "uniform", 5) == draw(BAR, "uniform", 5)
    assert draw(BAR, "uniform", 5) != draw(BAR, "uniform", 6)
    other = {**annotation(BAR, 5), "image_id": 4}
    assert drawn_point(other, "uniform", height=30, width=40) != draw(BAR, "uniform", 5)


def test_quasi_centre_points_follow_a_gauss_in_the_central_ellipse_on_the_mask() -> None:
    mask = np.zeros((70, 90), dtype=bool)
    mask[3:67, 5:85] = True  # 80 × 64 around (45, 35): semi-axes 10 and 8, deviations 20 and 16
    mask[35:, 45:] = False  # a quarter is missing; the box stays
    mask[66, 84] = True
    weight: dict[tuple[int, int], float] = {}
    for row, column in np.argwhere(mask):
        across, down = column + 0.5 - 45, row + 0.5 - 35
        if (across / 10) ** 2 + (down / 8) ** 2 <= 1:
            weight[column, row] = np.exp(-((across / 20) ** 2 + (down / 16) ** 2) / 2)
    total, count = sum(weight.values()), 3000
    found = [draw(mask, "quasi_centre", identity) for identity in range(count)]
    pixels = [(int(x), int(y)) for x, y in found if (x, y) is not None]
    assert set(pixels) <= weight.keys()
    for near in (lambda x, y: x < 45 and y < 35, lambda x, y: (x - 44.5) ** 2 + (y - 34.5) ** 2 < 16):
        expected = sum(value for pixel, value in weight.items() if near(*pixel)) / total
        share = np.mean([near(*pixel) for pixel in pixels])
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_an_object_without_mask_near_its_centre_has_no_quasi_centre_point(capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(BAR, "quasi_centre") is None
    whole = np.zeros_like(BAR)
    whole[5:25, 5:35] = True
    coco = {"images": [{"id": 3, "height": 30, "width": 40}], "annotations": [annotation(BAR, 8), annotation(whole, 9)]}
    seen = points_only(coco, kind="quasi_centre", source="a.json")
    assert [a["id"] for a in seen["annotations"]] == [9]
    assert seen["without_point"] == [8]
    assert "a.json: 1 of 2 objects has no mask so near" in capsys.readouterr().err
    coco["annotations"].pop()
    with pytest.raises(AnnotationError, match=r"by data\.points\.kind=quasi_centre no object has a point"):
        points_only(coco, kind="quasi_centre")


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"points": [[7, 9.5], [3, 2]], "point": [1, 1]}, [[7, 9.5], [3, 2]]),
        ({"points": [], "point": [1, 1]}, [[1, 1]]),
        ({"keypoints": [0, 0, 0, 8, 9, 2, 4, 5, 1, 6, 7, 2]}, [[8, 9], [6, 7]]),
        ({"keypoints": [0, 0, 0] * 17}, [[8.5, 11.5]]),  # nobody has marked any: drawn from the mask
        ({"points": None}, [[8.5, 11.5]]),
    ],
)
def test_a_users_own_points_are_kept_in_their_order(own: dict, expected: list) -> None:
    coco = {"images": [{"id": 3, "height": 30, "width": 40}], "annotations": [annotation(BAR, **own)]}
    (seen,) = points_only(coco)["annotations"]
    assert seen["points"] == expected
    assert seen["point"] == expected[0]
    assert seen.keys() == {"id", "image_id", "category_id", "point", "points"}


# Files


def only_points(coco: dict) -> None:
    for number, one in enumerate(coco["annotations"]):
        for key in ("bbox", "segmentation", "area"):
            one.pop(key)
        one["point"] = [20 + number, 30]


def test_a_file_of_points_alone_is_read_where_points_are_learned_from(tmp_path: Path) -> None:
    file = edit(coco_file(tmp_path), only_points)
    with pytest.raises(AnnotationError, match="bbox is None"):
        read(file, masks=False)
    coco = read(file, masks=False, boxes=False)
    assert len(points_only(coco)["annotations"]) == 8
    census, findings = look(file, tmp_path / "images")
    assert census is not None
    assert words(census) == "8 objects of points alone on 4 images, no human masks"
    assert [finding for finding in findings if finding.level == "stops"] == []


def with_(**values: object):
    def change(coco: dict) -> None:
        only_points(coco)
        coco["annotations"][2].update(values)

    return change


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"point": [WIDTH, 3]}, rf"annotation 102 has point=\[160, 3\]; it must be \[x, y\] in pixels, inside its "
                                rf"image of {WIDTH} × {HEIGHT}"),
        ({"points": [[1, 2], [3, -0.5]]}, r"annotation 102 has points=\[\[1, 2\], \[3, -0.5\]\]; it must be a list of"),
        ({"points": 7}, "annotation 102 has points=7; it must be a list of"),
        ({"point": [1, 2, 0]}, r"annotation 102 has point=\[1, 2, 0\]"),
        ({"point": None, "keypoints": [1, 2, 2, 3]}, "annotation 102 has keypoints=.*must be .x, y, v, x, y, v"),
        ({"point": None, "keypoints": [1, 2, 1, 0, 0, 0]},
         "annotation 102 has neither a point, for none of its keypoints is visible, nor a mask to draw one from; give"),
        ({"point": None, "points": []}, "annotation 102 has neither a point nor a mask to draw one from; give it"),
        ({"category_id": None}, r"image 2 \(boxes_1\.png\): category_id is None; it must be a whole number"),
        ({"category_id": 9}, r"image 2 \(boxes_1\.png\): category_id is 9, and none of the 2 categories has that id"),
        ({"point": [float("nan"), 3]}, "NaN"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_point_is_said(tmp_path: Path, values: dict, message: str) -> None:
    file = edit(coco_file(tmp_path), with_(**values))
    with pytest.raises(AnnotationError, match=message) as error:
        points_only(read(file, masks=False, boxes=False), source=str(file))
    assert str(file) in str(error.value)


def test_faults_that_many_objects_share_are_counted(tmp_path: Path) -> None:
    file = edit(coco_file(tmp_path), each(point=lambda a: [-1, 0] if a["id"] % 2 else [1, 1]))
    with pytest.raises(AnnotationError, match=r"annotation 101 has point=.*\(4 annotations have this fault: 101, 103,"):
        points_only(read(file, masks=False), source=str(file))


def test_objects_at_one_point_and_images_without_any_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(coco: dict) -> None:
        only_points(coco)
        coco["annotations"][1]["point"] = coco["annotations"][0]["point"]
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != 3]

    seen = points_only(read(edit(coco_file(tmp_path), change), masks=False, boxes=False), source="a.json")
    assert [image["id"] for image in seen["images"]] == [1, 2, 3, 4]
    assert [a["id"] for a in seen["annotations"]] == [100, 101, 102, 103, 106, 107]
    assert "note: a.json: 1 of 6 objects has the point of another one on the same image (annotations 100 and 101)" in (
        capsys.readouterr().err
    )


# Stages


def stages_of(config: Config) -> dict[str, Stage]:
    return {stage.name: stage for stage in in_order(Graph(config, Store(config.store), CPU).targets())}


def test_the_kind_is_part_of_a_views_key_where_it_is_not_the_former_one(compose, tmp_path: Path) -> None:
    request = ("segmenter=none", "compare=[]", f"store={tmp_path}")
    kinds = [f"data.points.kind={kind}" for kind in POINT_KINDS]
    views = [stages_of(compose("labeler=disc", *request, kind))["points_val"] for kind in kinds]
    assert len({view.key for view in views}) == len(POINT_KINDS)
    assert views[POINT_KINDS.index("inside")].config == {"skip_unreadable": False}
    assert len({stages_of(compose("labeler=box", *request, kind))["label_val"].key for kind in kinds}) == 1


def test_discs_are_made_and_measured_whatever_the_points(compose, tmp_path: Path) -> None:
    for kind in ("inside", "quasi_centre"):
        store = tmp_path / kind
        run(compose("profile=smoke", "data=parts", "labeler=disc", "segmenter=none", "compare=[]", "tracking=none",
                    f"store={store}", f"data.points.kind={kind}"))  # fmt: skip
        (view,), (labels,) = store.glob("points_train/*/points.json"), store.glob("label_train/*/labels.json")
        seen, made = json.loads(view.read_text()), json.loads(labels.read_text())
        assert [a["points"] for a in made["annotations"]] == [a["points"] for a in seen["annotations"]]
        rows = next(store.glob("quality_train/*/instances.csv")).read_text().splitlines()
        assert len(rows) - 1 == len(seen["annotations"])
        assert ("without_point" in seen) == (kind == "quasi_centre")


def test_a_labeler_of_boxes_refuses_a_file_of_points_before_it_starts(compose, tmp_path: Path) -> None:
    file = edit(coco_file(tmp_path), only_points)
    files = ("profile=smoke", "data=coco", f"data.train.annotations={file}", f"data.train.images={tmp_path / 'images'}")
    request = (*files, "segmenter=none", "tracking=none", f"store={tmp_path / 'runs'}")
    sentence = "8 of 8 annotations have a point and no box, and labeler ellipse needs boxes"
    with pytest.raises(AnnotationError, match=sentence):
        run(compose(*request, "labeler=ellipse"))
    run(compose(*request, "labeler=disc"))
    (labels,) = (tmp_path / "runs").glob("label_train/*/labels.json")
    made = json.loads(labels.read_text())["annotations"]
    assert len(made) == 8
    for one in made:
        x, y, w, h = one["bbox"]
        assert (x, y, x + w, y + h) == (one["point"][0] - 12, 18, one["point"][0] + 12, 42)  # a tenth of 120 pixels
    assert not re.search("flagged", labels.read_text())


# Discs


@given(st.lists(st.tuples(st.floats(0, 16.99), st.floats(0, 11.99)), min_size=1, max_size=3), st.floats(0, 0.6))
def test_a_disc_holds_the_pixels_near_any_of_its_points(points: list[tuple[float, float]], radius: float) -> None:
    mask = disc({"points": [list(point) for point in points]}, (12, 17), radius=radius).pasted(12, 17)
    for row in range(12):
        for column in range(17):
            distances = [np.hypot(column + 0.5 - x, row + 0.5 - y) for x, y in points]
            own = any((int(x), int(y)) == (column, row) for x, y in points)
            if abs(min(distances) - radius * 12) > 1e-9:
                assert mask[row, column] == (own or min(distances) < radius * 12)


def test_two_points_of_an_object_make_one_mask() -> None:
    window = disc({"points": [[3, 3], [30, 20]]}, (40, 40), radius=0.05)
    assert window.pasted(40, 40).sum() == 2 * disc({"points": [[3, 3]]}, (40, 40), radius=0.05).mask.sum()
    assert (
        decode_mask(encode_mask(window.pasted(40, 40)), height=40, width=40).sum() == 24
    )  # 12 centres within 2 pixels
