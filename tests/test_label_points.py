"""`python -m mal.label --points`: anyone's points in, masks out, by a labeler that learned from points."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.sheet import CELL, GAP
from mal.autolabel import main as autolabel
from mal.data.annotations import decode_mask, read, write
from mal.data.mask_windows import MaskWindow
from mal.data.point_findings import point_findings
from mal.data.views import VIEWS
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.label import main
from mal.methods.attentionshift import label
from mal.methods.attentionshift.checkpoint import load
from mal.methods.attentionshift.train import train
from mal.methods.mal.labeler_file import config_of
from mal.run import run
from tests.label_calls import PointsPlace, make_points_place

CPU = torch.device("cpu")
Change = Callable[[dict], object]


@pytest.fixture(scope="module")
def points(tmp_path_factory, compose) -> PointsPlace:
    config = compose("labeler=attentionshift", "profile=smoke", "data=parts", "train.workers=0", "label.shard_images=2")
    return make_points_place(tmp_path_factory.mktemp("points"), config)


@pytest.fixture
def coco(points: PointsPlace) -> dict:
    return json.loads(points.points.read_text())


def changed(coco: dict, path: Path, change: Change) -> Path:
    change(coco)
    path.write_text(json.dumps(coco))
    return path


def mask_of(coco: dict, annotation: dict) -> np.ndarray:
    image = next(i for i in coco["images"] if i["id"] == annotation["image_id"])
    return decode_mask(annotation["segmentation"], height=image["height"], width=image["width"])


def segmentations(coco: dict) -> list:
    return [a["segmentation"] for a in coco["annotations"]]


def test_every_object_comes_back_in_order_with_its_other_fields_a_mask_and_the_masks_box(points, coco, tmp_path):
    coco |= {"licenses": [{"id": 1, "name": "mine"}], "project": {"by": "me"}}
    coco["annotations"].reverse()
    for number, annotation in enumerate(coco["annotations"]):
        annotation |= {"attributes": {"occluded": True}, "number": number}
    coco["annotations"][0]["bbox"] = [3, 4, 50.5, 60]
    coco["annotations"][1]["bbox"] = None
    coco["annotations"][2]["segmentation"] = [[1, 1, 9, 1, 9, 9]]  # a mask without a box, which nothing reads
    write(tmp_path / "points.json", coco)
    labelled = points.label(tmp_path / "out.json", points=tmp_path / "points.json")
    assert {k: v for k, v in labelled.items() if k != "annotations"} == {
        k: v for k, v in coco.items() if k != "annotations"
    }
    assert len(labelled["annotations"]) == len(coco["annotations"])
    for place, (given, annotation) in enumerate(zip(coco["annotations"], labelled["annotations"], strict=True)):
        kept = {k: v for k, v in given.items() if k not in ("bbox", "segmentation")}
        assert {k: annotation[k] for k in kept} == kept
        mask = mask_of(coco, annotation)
        rows, columns = np.nonzero(mask)
        assert annotation["area"] == mask.sum() > 0
        tight = [columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()]
        assert annotation["bbox"] == ([3, 4, 50.5, 60] if place == 0 else tight)
    assert {p.name for p in tmp_path.iterdir()} == {"points.json", "out.json", ".written.out.json"}


def test_masks_are_those_that_the_network_makes_of_the_view(points, coco, tmp_path):
    state = load_checkpoint(points.checkpoint)
    config = config_of(state, source="labeler.pt")
    made = label.labeler(load(points.checkpoint, config, CPU), config, CPU)(VIEWS["points"](coco), points.images)
    labelled = points.label(tmp_path / "out.json")
    assert {a["id"]: a["segmentation"] for a in labelled["annotations"] if "flagged" not in a} == {
        key: each["segmentation"] for key, each in made.items() if each["area"] > 0
    }
    assert sum("flagged" not in a for a in labelled["annotations"]) > len(coco["annotations"]) / 2


def test_points_are_read_in_each_of_their_forms(points, coco, tmp_path, capsys):
    whole = segmentations(points.label(tmp_path / "whole.json"))

    def forms(coco: dict) -> None:
        for place, annotation in enumerate(coco["annotations"]):
            x, y = annotation.pop("point")
            annotation |= ({"points": [[x, y], [1, 1]]}, {"keypoints": [0, 0, 0, x, y, 2]}, {"point": [x, y]})[
                place % 3
            ]

    file = changed(coco, tmp_path / "forms.json", forms)
    assert segmentations(points.label(tmp_path / "forms_out.json", points=file)) == whole
    several = -(-len(whole) // 3)
    assert f"note: {file}: {several} objects have several points: a mask is made from the first" in (
        capsys.readouterr().err
    )


def test_an_object_without_a_point_gets_one_from_its_mask(points, coco, tmp_path, capsys):
    whole = points.label(tmp_path / "whole.json")
    human = read(points.folder / "annotations.json", masks=True)  # whose masks the points were drawn from
    drawn = {a["id"]: a for a in human["annotations"]}
    first = coco["annotations"][0]
    first |= {key: drawn[first["id"]][key] for key in ("bbox", "segmentation")}
    del first["point"]
    write(tmp_path / "points.json", coco)
    labelled = points.label(tmp_path / "out.json", "--preview", 2, points=tmp_path / "points.json")
    assert segmentations(labelled) == segmentations(whole)
    assert labelled["annotations"][0]["bbox"] == first["bbox"]
    assert "objects has no point of their own; theirs are drawn from the masks" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["polygon", "png", "yolo"])
def test_every_format_holds_every_object_and_images_without_one(points, coco, tmp_path, kind):
    empty = coco["images"][0]["id"]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != empty]
    write(tmp_path / "points.json", coco)
    out = tmp_path / "out"
    assert main(points.arguments(out, "--format", kind, points=tmp_path / "points.json")) == 0
    if kind == "polygon":
        found = read(out, masks=True)
        assert [a["id"] for a in found["annotations"]] == [a["id"] for a in coco["annotations"]]
        assert [i["id"] for i in found["images"]] == [i["id"] for i in coco["images"]]
    elif kind == "png":
        assert not np.asarray(Image.open(out / coco["images"][0]["file_name"])).any()
        index = json.loads((out / "instances.json").read_text())
        assert [a["point"] for a in index["annotations"]] == [a["point"] for a in coco["annotations"]]
    else:
        files = {path.stem: path.read_text().splitlines() for path in out.glob("*.txt") if path.name != "classes.txt"}
        assert len(files) == len(coco["images"])
        assert files[Path(coco["images"][0]["file_name"]).stem] == []
        assert sum(map(len, files.values())) == len(coco["annotations"])


def test_preview_and_review_show_the_points_and_the_masks(points, tmp_path, capsys):
    out = tmp_path / "labels.json"
    points.label(out, "--preview", 3, "--review")
    said = capsys.readouterr().out
    assert f"preview: {tmp_path / 'labels_preview.png'}" in said
    pixels = np.asarray(Image.open(tmp_path / "labels_preview.png").convert("RGB")).astype(int)
    assert pixels.shape[1] == GAP + 3 * (CELL + GAP)
    lime = (pixels == [0, 255, 0]).all(axis=2).nonzero()[1]
    assert len(lime) >= 3 * 20  # three dots
    assert lime.min() >= GAP + CELL
    assert lime.max() <= 2 * (GAP + CELL)
    assert f"masks to look at first: {tmp_path / 'labels_review.html'}" in said
    assert (tmp_path / "labels_review.html").stat().st_size > 10_000


def all_points(value: Callable[[dict], object]) -> Change:
    return lambda coco: [a.update(point=value(a)) for a in coco["annotations"]]


def crowded(coco: dict) -> None:
    first = coco["annotations"][0]
    more = [{**first, "id": 10_000 + n, "point": [n + 1, 5]} for n in range(10)]
    coco["annotations"] += more


# kind of bad input: (what is done to a good file, what the error says beside the file's name)
BAD: dict[str, tuple[Change, str]] = {
    "outside": (
        lambda coco: [a.update(point=[96, 3]) for a in coco["annotations"][:2]],
        "it must be [x, y] in pixels, inside its image of 96 × 96 (2 annotations have this fault: ",
    ),
    "nothing": (
        lambda coco: coco["annotations"][0].pop("point"),
        'it has neither a point nor a mask to draw one from; give it "point": [x, y] in pixels',
    ),
    "hidden": (
        lambda coco: [coco["annotations"][0].pop("point"), coco["annotations"][0].update(keypoints=[1, 2, 1])],
        "has neither a point, for none of its keypoints is visible, nor a mask to draw one from",
    ),
    "mask without box": (
        lambda coco: coco["annotations"][0].update(point=None, points=[], segmentation=[[1, 1, 9, 1, 9, 9]], bbox=None),
        'to draw one from; give it "point": [x, y] in pixels',
    ),
    "unknown class": (
        lambda coco: [c.update(name=f"new {c['name']}") for c in coco["categories"]],
        "that this labeler did not learn: new ",
    ),
    "crowded": (crowded, "1 image has more objects than this labeler has tokens, one for each of at most 10 ("),
    "shares": (
        all_points(lambda a: [a["point"][0] / 96, a["point"][1] / 96]),
        "of its objects lie within a pixel of the image's corner, as shares of the image (0 to 1) do; multiply x by",
    ),
    "no points": (lambda coco: coco["annotations"].clear(), "the list of annotations is empty"),
    "another image": (lambda coco: coco["annotations"][0].update(image_id=99), "none of the 5 images has that id"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_by_name_before_any_work(points, coco, tmp_path, capsys, kind):
    change, sentence = BAD[kind]
    file = changed(coco, tmp_path / "points.json", change)
    assert main(points.arguments(tmp_path / "out.json", points=file)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"error: {file}: " in said.err
    assert sentence in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["points.json"]


def test_all_that_the_labeler_cannot_label_is_said_at_once(points, coco, tmp_path, capsys):
    crowded(coco)
    used = coco["annotations"][0]["category_id"]
    next(c for c in coco["categories"] if c["id"] == used)["name"] = "whale"
    write(tmp_path / "points.json", coco)
    assert main(points.arguments(tmp_path / "out.json", points=tmp_path / "points.json")) == 1
    said = capsys.readouterr().err
    count = sum(a["category_id"] == used for a in coco["annotations"])
    assert f"{count} of its {len(coco['annotations'])} objects are of 1 category that this labeler did not" in said
    assert f"whale ({count}); it learned " in said
    here = sum(a["image_id"] == coco["annotations"][0]["image_id"] for a in coco["annotations"])
    name = next(i["file_name"] for i in coco["images"] if i["id"] == coco["annotations"][0]["image_id"])
    assert (
        f". Also 1 image has more objects than this labeler has tokens, one for each of at most 10 ({name} with "
        in said
    )
    assert f"train with attentionshift.tokens.count={here}" in said


def test_categories_are_known_by_name_and_may_be_others_where_nothing_uses_them(points, coco, tmp_path):
    whole = points.label(tmp_path / "whole.json")
    for entry in (*coco["categories"], *coco["annotations"]):
        key = "category_id" if "category_id" in entry else "id"
        entry[key] += 40
    coco["categories"].append({"id": 1, "name": "whale"})
    write(tmp_path / "points.json", coco)
    assert segmentations(points.label(tmp_path / "out.json", points=tmp_path / "points.json")) == segmentations(whole)


def test_a_labeler_of_no_class_takes_objects_of_any(points, coco, tmp_path, compose):
    """Trained with data.class_agnostic=true."""
    request = ("labeler=attentionshift", "profile=smoke", "data=parts", "train.workers=0", "data.class_agnostic=true")
    config = compose(*request, "attentionshift.learning.steps=1")
    train(VIEWS["points"](coco), points.images, config, folder=tmp_path, device=CPU)
    whole = points.label(tmp_path / "whole.json", checkpoint=tmp_path / "labeler.pt")
    for category in coco["categories"]:
        category["name"] = f"new {category['name']}"
    write(tmp_path / "points.json", coco)
    more = {"points": tmp_path / "points.json", "checkpoint": tmp_path / "labeler.pt"}
    assert segmentations(points.label(tmp_path / "out.json", **more)) == segmentations(whole)


def test_objects_at_one_point_are_said_and_labelled(points, coco, tmp_path, capsys):
    first = coco["annotations"][0]
    coco["annotations"].append({**first, "id": 999})
    write(tmp_path / "points.json", coco)
    labelled = points.label(tmp_path / "out.json", points=tmp_path / "points.json")
    assert labelled["annotations"][-1]["id"] == 999
    assert (
        f"has the point of another one on the same image (annotations {first['id']} and 999)" in capsys.readouterr().err
    )


def test_a_crowd_keeps_its_point_and_is_flagged(points, coco, tmp_path, capsys):
    crowd = coco["annotations"][0]
    crowd |= {"iscrowd": 1, "point": [20.5, 30.2]}
    write(tmp_path / "points.json", coco)
    found = points.label(tmp_path / "out.json", points=tmp_path / "points.json")["annotations"][0]
    assert found["flag_reason"] == "it is a crowd"
    assert found["bbox"] == [20, 30, 1, 1]
    assert found["area"] == 1
    said = capsys.readouterr()
    assert "note: " in said.err
    assert "1 crowd (iscrowd 1): a point does not tell what belongs to one" in said.err
    assert "objects got no mask of their own: they have the pixels of their points alone and are flagged (" in said.out


def test_a_skipped_image_s_objects_have_their_points_pixels_and_are_flagged(points, coco, tmp_path, capsys):
    folder = shutil.copytree(points.images, tmp_path / "images")
    bad = next(i for i in coco["images"] if i["id"] == coco["annotations"][0]["image_id"])
    (folder / bad["file_name"]).write_bytes(b"not an image")
    assert main(points.arguments(tmp_path / "out.json", images=folder)) == 1
    assert bad["file_name"] in capsys.readouterr().err
    labelled = points.label(tmp_path / "out.json", "--on-bad-image", "skip", images=folder)
    assert "unreadable_images" not in labelled
    for annotation in labelled["annotations"]:
        if annotation["image_id"] == bad["id"]:
            assert annotation["flag_reason"] == "its image cannot be read"
            assert np.argwhere(mask_of(coco, annotation)).tolist() == [[int(v) for v in annotation["point"][::-1]]]


def test_masks_that_are_all_empty_are_an_error_and_say_so(points, coco, tmp_path, capsys, monkeypatch):
    def nothing(*arguments: object) -> list[MaskWindow]:
        return [MaskWindow(np.zeros((0, 0), bool), 0, 0)] * len(arguments[1].sample.points.labels)

    monkeypatch.setattr(label, "masks_of", nothing)
    assert main(points.arguments(tmp_path / "out.json", "--preview", 2)) == 1
    count = len(coco["annotations"])
    said = capsys.readouterr().err
    assert f"none of the {count} objects got a mask: each has the pixels of its points alone and is flagged (" in said
    assert f"flagged ({count} because the mask is empty); check that the points are in pixels, [x, y]" in said
    assert all(a["flagged"] for a in read(tmp_path / "out.json", masks=True)["annotations"])


def test_an_interrupted_call_goes_on_where_it_was(points, tmp_path, monkeypatch):
    whole = points.label(tmp_path / "whole.json")
    original, seen = label.masks_of, []

    def interrupted(trained, known, *more):
        if len(seen) == 3:  # in the second of three shards
            raise KeyboardInterrupt
        seen.append(known.sample.image_id)
        return original(trained, known, *more)

    out = tmp_path / "out.json"
    with monkeypatch.context() as patch:
        patch.setattr(label, "masks_of", interrupted)
        assert main(points.arguments(out)) == 130
    assert not out.exists()
    (finished,) = tmp_path.glob(".out.json.*/shards/*.json")
    done, again = set(json.loads(finished.read_text())["labels"]), []

    def watched(trained, known, *more):
        again.append(known.sample.image_id)
        return original(trained, known, *more)

    monkeypatch.setattr(label, "masks_of", watched)
    assert points.label(out) == whole
    assert {a["image_id"] for a in whole["annotations"] if str(a["id"]) in done}.isdisjoint(again)
    assert again
    assert not list(tmp_path.glob(".out.json.*"))


def test_the_same_call_is_done_and_another_files_is_refused(points, coco, tmp_path, capsys):
    out = tmp_path / "out.json"
    points.label(out)
    points.label(out)
    assert "all of this was there already" in capsys.readouterr().out
    file = changed(coco, tmp_path / "points.json", all_points(lambda a: [5, a["id"] % 90]))
    assert main(points.arguments(out, points=file)) == 1
    assert "holds the result of a call with other points; name another place, or give --overwrite" in (
        capsys.readouterr().err
    )
    points.label(out, "--overwrite", points=file)
    assert main(points.arguments(file, "--overwrite", points=file)) == 1
    assert "is also --points, which would be overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [("--network", "teacher"), ("--flip",), ("--no-flip",), ("--threshold", "0.4"), ("--batch", "8")]
)
def test_what_this_labeler_does_not_read_is_refused(points, tmp_path, capsys, option):
    assert main(points.arguments(tmp_path / "out.json", *option)) == 1
    name = option[0].replace("--no-", "--")
    assert (
        f"{points.checkpoint} is attentionshift's, which does not read {name}; leave it out" in capsys.readouterr().err
    )


def test_the_option_that_does_not_go_with_a_labeler_is_refused_by_the_name_of_the_other(
    points, place, tmp_path, capsys
):
    out = tmp_path / "out.json"
    assert main(place.arguments(out, checkpoint=points.checkpoint)) == 1
    said = capsys.readouterr().err
    assert f"{points.checkpoint} is attentionshift's and makes masks from points, not from boxes;" in said
    assert "python -m mal.label --points FILE" in said
    for checkpoint in (place.checkpoint, "default"):
        assert main(points.arguments(out, checkpoint=checkpoint)) == 1
        said = capsys.readouterr().err
        assert "is mal's and makes masks from boxes, not from points;" in said
        assert "python -m mal.label --boxes FILE" in said
    command = ["--images", place.images, "--boxes", place.boxes, "--out", out, "--labeler", points.checkpoint]
    assert autolabel([str(part) for part in command]) == 1
    assert "python -m mal.label --points FILE" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_is_one_of_boxes_or_one_of_points(points, tmp_path, capsys):
    both = points.arguments(tmp_path / "out.json", boxes=points.points)
    neither = [part for part in both if part not in ("--boxes", "--points", str(points.points))]
    for options, sentence in (
        (both, "argument --boxes: not allowed with argument --points"),
        (neither, "one of the arguments --boxes --points --expressions is required"),
    ):
        with pytest.raises(SystemExit) as left:
            main(options)
        assert left.value.code == 2
        assert sentence in capsys.readouterr().err


def broken(points: PointsPlace, path: Path, name: str) -> Path:
    state = load_checkpoint(points.checkpoint)
    network = state["network"]
    first = next(key for key, value in network.items() if value.is_floating_point())
    changes = {
        "weights": {"network": {**network, first: torch.full_like(network[first], torch.nan)}},
        "another network": {"network": {key: network[key] for key in list(network)[1:]}},
        "an old config": {"config": "encoder: {gone: 1}"},
        "no categories": {"categories": {}},
    }
    save_checkpoint(path, state | changes[name])
    return path


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("weights", "are NaN or infinite; copy the labeler.pt again"),
        ("another network", "do not fit the network that it describes; copy the labeler.pt again"),
        ("an old config", "another version of this program: Key 'gone' not in 'EncoderConfig'"),
        ("no categories", "is not a labeler; give the labeler.pt of a train_attentionshift or train_bestie stage"),
    ],
)
def test_a_labeler_that_cannot_be_used_is_a_sentence(points, tmp_path, capsys, name, sentence):
    wrong = broken(points, tmp_path / "wrong.pt", name)
    assert main(points.arguments(tmp_path / "out.json", checkpoint=wrong)) == 1
    said = capsys.readouterr().err
    assert str(wrong) in said
    assert sentence in said
    assert not list(tmp_path.glob("*out.json*"))


@pytest.mark.parametrize(
    ("points", "size", "level"),
    [
        ([[0.5, 0.9], [1.0, 0.2]], (640, 480), "stops"),
        ([[0.5, 0.9], [1.0, 0.2]], (9, 9), None),
        ([[0.5, 0.9], [3.0, 0.2]], (100, 100), None),
        ([[50, 90], [99, 20], [3, 40]], (640, 480), "misleads"),  # by chance one time in 30,000
        ([[50, 90]], (640, 480), None),  # one time in 31
        ([[50, 90], [101, 20], [3, 40]], (640, 480), None),
    ],
)
def test_points_in_other_units_than_pixels_are_noticed(points, size, level):
    images = [{"id": 1, "width": size[0], "height": size[1]}]
    coco = {"images": images, "annotations": [{"image_id": 1, "points": [each]} for each in points]}
    assert [finding.level for finding in point_findings(coco)] == ([level] if level else [])


@pytest.mark.slow
def test_a_users_points_on_photographs_are_learned_from_and_labelled(coco_mini, compose, tmp_path, capsys):
    """Points drawn from COCO's masks and written as a user would, of nothing else; no validation images."""
    human = read(coco_mini / "annotations" / "instances_val2017_mini.json", masks=True)
    human["annotations"] = [a for a in human["annotations"] if not a.get("iscrowd")]
    view = VIEWS["points"](human, kind="uniform")
    counts = {i["id"]: sum(a["image_id"] == i["id"] for a in view["annotations"]) for i in view["images"]}
    images = [i for i in view["images"] if 1 <= counts[i["id"]] <= 10][:6]
    kept = {image["id"] for image in images}
    annotations = [
        {"id": a["id"], "image_id": a["image_id"], "category_id": a["category_id"], "keypoints": [*a["point"], 2]}
        for a in view["annotations"]
        if a["image_id"] in kept
    ]
    file, folder = tmp_path / "points.json", coco_mini / "val2017"
    write(file, {"images": images, "annotations": annotations, "categories": view["categories"]})
    request = ("labeler=attentionshift", "profile=smoke", "data=coco", "segmenter=none", "compare=[]", "tracking=none")
    files = (f"data.train.annotations={file}", f"data.train.images={folder}", f"store={tmp_path / 'runs'}")
    run(compose(*request, *files, "train.workers=0"))
    (labeler,) = (tmp_path / "runs").glob("train_attentionshift/*/labeler.pt")
    assert f"labeler:  {labeler}" in capsys.readouterr().out
    labelled = PointsPlace(tmp_path, folder, file, labeler).label(tmp_path / "out.json", "--preview", 4, "--review")
    (made,) = (tmp_path / "runs").glob("label_train/*/labels.json")
    assert segmentations(labelled) == segmentations(read(made, masks=True))
    assert [a["keypoints"] for a in labelled["annotations"]] == [a["keypoints"] for a in annotations]
    assert (tmp_path / "out_preview.png").stat().st_size > 20_000
