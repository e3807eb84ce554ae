"""What a run understands of its files, says before it starts, and refuses before anything is trained."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_files import HEIGHT, WIDTH, coco_file, diamond, each, edit, rectangle, run_lengths_of

from mal.config import Config
from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.errors import AnnotationError, ConfigError, MalError
from mal.request import Graph
from mal.run import run
from mal.run_notes import notes_of

CPU = torch.device("cpu")
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A training and a validation file of one's own."""
    coco_file(tmp_path, "train")
    coco_file(tmp_path, "val", first=11)
    return tmp_path


def config(compose: Any, own: Path, *overrides: str, val: bool = True) -> Config:
    splits = [
        override
        for split in ("train", "val")[: 1 + val]
        for override in (f"data.{split}.annotations={own / split}.json", f"data.{split}.images={own / 'images'}")
    ]
    chosen = ["profile=smoke", "data=coco", f"store={own / 'runs'}", "tracking=none", *splits, *overrides]
    return compose(*chosen)


def graph(compose: Any, own: Path, *overrides: str, val: bool = True) -> Graph:
    return Graph(config(compose, own, *overrides, val=val), Store(own / "runs"), CPU)


def names(graph: Graph) -> list[str]:
    return [stage.name for stage in in_order(graph.targets())]


def refused(compose: Any, own: Path, *overrides: str) -> str:
    """The sentence of a run that is refused, with nothing computed."""
    with pytest.raises(MalError) as raised:
        run(config(compose, own, *overrides))
    assert not list((own / "runs").glob("*/*/run.json"))
    return str(raised.value)


EMPTY = [[], [[]], {}, None, "", {"size": [HEIGHT, WIDTH], "counts": ""}, {"size": [HEIGHT, WIDTH], "counts": [19200]}]


@pytest.mark.parametrize("empty", EMPTY, ids=map(str, EMPTY))
def test_no_way_to_say_no_mask_needs_masks_or_makes_any(empty: Any, compose, own: Path) -> None:
    for split in ("train", "val"):
        edit(own / f"{split}.json", each(segmentation=empty))
    found = graph(compose, own)
    found.check()
    assert names(found) == ["boxes_train", "boxes_val", "train_labeler", "label_train", "label_val"]
    assert found.censuses() == [f"{split}: 8 boxes on 4 images, no human masks" for split in ("train", "val")]
    assert any("train.json has boxes only: no masks to compare with, so no segmenter" in n for n in notes_of(found))


def test_masks_that_repeat_their_boxes_count_as_boxes(compose, own: Path) -> None:
    for split in ("train", "val"):
        edit(own / f"{split}.json", each(segmentation=lambda a: rectangle(a["bbox"]) if a["id"] % 2 else []))
    found = graph(compose, own)
    found.check()
    assert "quality_train" not in names(found)
    assert found.censuses()[0] == "train: 8 boxes on 4 images, no human masks: 4 only repeat their box"
    assert any("each of its 4 masks just repeats its box" in note for note in notes_of(found))


def test_a_file_in_another_encoding_has_the_same_masks(compose, own: Path) -> None:
    """Whatever the reader takes: the bytes are not looked at."""
    path = own / "train.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()), indent=1).replace('"segmentation":', '"segmentation"  :  \n')
    )
    assert graph(compose, own).context.train.has_masks


def test_a_run_from_boxes_minds_no_mask_however_bad(compose, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quality is measured where there is a good mask, and the rest is counted."""

    def spoil(coco: dict[str, Any]) -> None:
        coco["annotations"][0]["segmentation"] = []
        coco["annotations"][1]["segmentation"] = [[1, 2]]
        coco["annotations"][2]["segmentation"] = {"size": [1, 1], "counts": [1]}

    for split in ("train", "val"):
        edit(own / f"{split}.json", spoil)
    settings = config(compose, own, "segmenter=none", "labeler=ellipse", "compare=[]")
    run(settings)
    said = capsys.readouterr().out
    assert (
        "train: 8 boxes on 4 images, 5 with a human mask, 1 without one, 2 with a segmentation that is no mask" in said
    )
    assert (
        "masks are compared with the 5 human ones there are; 3 boxes without one are labelled and not compared" in said
    )
    store = Store(own / "runs")
    (record,) = [store.read("quality_val", p.parent.name) for p in store.root.glob("quality_val/*/run.json")]
    assert record["metrics"]["iou"]["n"] == 5
    assert record["metrics"]["iou"]["value"] > 0.5


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_segmenter_wants_every_mask_and_says_so_before_anything_is_trained(split: str, compose, own: Path) -> None:
    edit(own / f"{split}.json", lambda coco: [a.update(segmentation=[]) for a in coco["annotations"][2:4]])
    said = refused(compose, own)
    first = {"train": 102, "val": 1102}[split]
    assert f"{split}.json: 2 of 8 annotations have no mask: annotation {first} (image {split}_1.png)" in said
    assert "segmenter=none" in said
    edit(own / f"{split}.json", lambda coco: [a.update(segmentation=[[1, 2]]) for a in coco["annotations"][2:4]])
    said = refused(compose, own)
    assert f"{split}.json: annotation {first} (image {split}_1.png): polygon [1, 2] has 2 numbers" in said
    assert "(2 annotations have such a segmentation)" in said


def test_a_detector_learns_from_boxes_alone(compose, own: Path) -> None:
    for split in ("train", "val"):
        edit(own / f"{split}.json", each(segmentation=[]))
    found = graph(compose, own, "segmenter.mask_head=false", "labeler=box")
    found.check()
    assert names(found)[-3:] == ["train_segmenter", "detect_val", "ap_val"]


def test_validation_without_masks_is_said_to_end_the_run_at_masks(compose, own: Path) -> None:
    edit(own / "val.json", each(segmentation=[]))
    found = graph(compose, own)
    found.check()
    assert "quality_train" in names(found)
    assert not {"quality_val", "train_segmenter"} & set(names(found))
    (note,) = [note for note in notes_of(found) if "val.json" in note]
    assert note.endswith("no masks to compare with, nor to measure mask AP on, so no segmenter is trained")


def brush(coco: dict[str, Any]) -> None:
    each(segmentation=lambda a: run_lengths_of(a["bbox"], text=False), iscrowd=1)(coco)


def test_brush_masks_that_are_all_crowds_are_refused_with_the_way_out(compose, own: Path) -> None:
    for split in ("train", "val"):
        edit(own / f"{split}.json", brush)
    said = refused(compose, own)
    assert "train.json: 8 of its 8 masks are crowds (iscrowd 1)" in said
    assert "8 of them brush masks (RLE)" in said
    assert "set its iscrowd to 0" in said
    boxes_alone = graph(compose, own, "segmenter=none")
    boxes_alone.check()
    assert "quality_train" not in names(boxes_alone)
    assert sum("8 of its 8 masks are crowds" in note for note in notes_of(boxes_alone)) == 2


def test_some_brush_masks_are_said_to_count_nowhere(compose, own: Path) -> None:
    edit(own / "train.json", lambda coco: brush({"annotations": coco["annotations"][::2]}))
    found = graph(compose, own)
    found.check()
    assert any("4 of its 8 masks are crowds" in note for note in notes_of(found))


def swap(coco: dict[str, Any]) -> None:
    first, second = coco["categories"]
    first["id"], second["id"] = second["id"], first["id"]
    for annotation in coco["annotations"]:
        annotation["category_id"] = 3 - annotation["category_id"]


def test_categories_of_the_same_name_and_another_id_are_refused(compose, own: Path) -> None:
    edit(own / "val.json", swap)
    said = refused(compose, own, "data.class_agnostic=false")
    assert "'plum' has id 1 in the first and 2 in the second" in said
    assert "give both files the same ids, or set data.class_agnostic=true or segmenter=none" in said
    graph(compose, own, "data.class_agnostic=true").check()
    graph(compose, own, "segmenter=none").check()


def test_an_unused_root_category_is_no_difference(compose, own: Path) -> None:
    edit(own / "train.json", lambda coco: coco["categories"].insert(0, {"id": 0, "name": "fruit"}))
    graph(compose, own, "data.class_agnostic=false").check()


def test_lvis_without_its_lists_is_refused_before_anything_is_trained(compose, own: Path) -> None:
    said = refused(compose, own, "data.format=lvis", "data.class_agnostic=false")
    assert "4 of 4 images have no list neg_category_ids" in said
    assert "2 of 2 categories have no frequency of r, c, f ('plum': None, 'pear': None)" in said
    assert "choose data.format=coco" in said
    graph(compose, own, "data.format=lvis", "data.class_agnostic=false", "segmenter=none").check()


@pytest.mark.parametrize(
    ("change", "overrides", "words"),
    [
        (lambda c: c["annotations"][0].update(area="many"), [], "area is 'many'"),
        (lambda c: c["annotations"][0].update(area=-4), [], "area is -4"),
        (
            lambda c: [a.update(iscrowd=int(a["image_id"] in (12, 14))) for a in c["annotations"]],
            ["data.val_images=odd"],
            "its odd-placed images (data.val_images=odd) hold no object that is not a crowd",
        ),
    ],
    ids=["area text", "area negative", "only crowds chosen"],
)
def test_what_ap_cannot_take_is_refused_before_anything_is_trained(
    change, overrides, words, compose, own: Path
) -> None:
    edit(own / "val.json", change)
    assert words in refused(compose, own, *overrides)


def test_a_choice_that_leaves_no_image_is_refused(compose, tmp_path: Path) -> None:
    coco_file(tmp_path, "train")
    coco_file(tmp_path, "val", images=1)
    for overrides in ([], ["segmenter=none"]):
        with pytest.raises(ConfigError, match=r"data\.val_images=odd leaves none of the 1 validation image"):
            run(config(compose, tmp_path, "data.val_images=odd", *overrides))
    drawn = compose(
        "profile=smoke", f"store={tmp_path}", "tracking=none", "data.val_images=odd", "data.shapes.val_images=1"
    )
    with pytest.raises(ConfigError, match="leaves none"):
        run(drawn)


def test_chosen_images_without_masks_are_labelled_and_not_compared(compose, own: Path) -> None:
    edit(own / "val.json", lambda c: [a.update(segmentation=[]) for a in c["annotations"] if a["image_id"] in (12, 14)])
    found = graph(compose, own, "data.val_images=odd", "segmenter=none")
    found.check()
    assert "label_val" in names(found)
    assert "quality_val" not in names(found)
    assert any("its odd-placed images (data.val_images=odd) have no human mask" in note for note in notes_of(found))


def test_boxes_in_shares_of_the_image_are_refused(compose, own: Path) -> None:
    shares = each(segmentation=[], bbox=lambda a: [v / s for v, s in zip(a["bbox"], (WIDTH, HEIGHT) * 2, strict=True)])
    edit(own / "train.json", shares)
    assert "they seem to be shares of the image (0 to 1)" in refused(compose, own, "segmenter=none")


def test_turned_boxes_are_said_before_a_run(compose, own: Path) -> None:
    edit(own / "train.json", each(segmentation=[], attributes={"rotation": 30}))
    notes = notes_of(graph(compose, own, "segmenter=none"))
    assert any("train.json: 8 of 8 boxes are turned" in note for note in notes)


@pytest.mark.parametrize("labeler", ["labeler=gt", "compare=[gt]"])
def test_human_masks_cannot_be_copied_where_there_are_none(labeler: str, compose, own: Path) -> None:
    edit(own / "val.json", lambda coco: coco["annotations"][0].update(segmentation=[]))
    assert "1 of 8 annotations have no mask" in refused(compose, own, labeler, "segmenter=none")
    edit(own / "val.json", each(segmentation=[]))
    found = refused(compose, own, labeler, "segmenter=none")
    assert re.search("8 of 8 annotations have no mask|holds boxes only", found)


@pytest.mark.slow
def test_what_tools_leave_behind_counts_nowhere(compose, own: Path) -> None:
    def leave(coco: dict[str, Any]) -> None:
        empty = {"id": 7, "image_id": coco["images"][0]["id"], "category_id": 1, "bbox": [0, 0, 0, 0], "area": 0}
        coco["annotations"].append({**empty, "segmentation": [], "iscrowd": False})

    scores = []
    for change in (dict, leave):
        for split in ("train", "val"):
            edit(own / f"{split}.json", change)
        settings = config(compose, own, "labeler=ellipse", "compare=[]")
        run(settings)
        found = Graph(settings, Store(own / "runs"), CPU)
        (human,) = [
            s for s in in_order(found.targets()) if (s.name, s.columns.get("supervision")) == ("ap_val", "human")
        ]
        scores.append(found.context.store.read(human.name, human.key)["metrics"])
    assert scores[0] == scores[1]


def test_a_run_without_a_single_mask_of_its_own_ends_in_an_error(compose, own: Path, capsys) -> None:
    """Every label of another program is empty."""
    (own / "labels.json").write_text((own / "train.json").read_text())
    blank = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    edit(own / "labels.json", each(segmentation=blank))
    chosen = ["labeler=file", f"labeler.file={own / 'labels.json'}", "segmenter=none", "compare=[]"]
    with pytest.raises(
        AnnotationError, match=r"none of the 8 boxes got a mask: all are filled and flagged \(8 because the"
    ):
        run(config(compose, own, *chosen))
    edit(own / "labels.json", lambda coco: coco["annotations"][0].update(segmentation=diamond([6, 14, 65, 70])))
    capsys.readouterr()
    run(config(compose, own, *chosen))
    assert "train: 7 of 8 boxes got no mask of their own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "noted"),
    [
        (("segmenter=none",), None),  # masks of the images whose boxes were learned are what labels are
        ((), "segmenter=mask_rcnn_tiny"),
        (("labeler=partialres", "segmenter=none"), "labeler=partialres"),
        (("labeler=bestie", "segmenter=none"), "labeler=bestie"),
    ],
)
def test_one_file_for_training_and_validation_is_noted_where_its_answers_are_learned(
    compose, own: Path, settings: tuple[str, ...], noted: str | None
) -> None:
    edit(own / "train.json", each(expressions=["the plum"]))
    two = notes_of(graph(compose, own, *settings))
    same = [f"data.val.{name}={getattr(config(compose, own).data.train, name)}" for name in ("annotations", "images")]
    one = notes_of(graph(compose, own, *settings, *same))
    sentence = f"data.train and data.val are the same files, so {noted} is scored on what it learned from"
    assert (sentence in one) == (noted is not None)
    assert not any("the same files" in note for note in (two if noted else [*one, *two]))


def test_labels_numbered_otherwise_get_their_own_boxes_and_a_key_of_their_own(compose, own: Path) -> None:
    (own / "labels.json").write_text((own / "val.json").read_text())
    chosen = ["labeler=file", f"labeler.val_file={own / 'labels.json'}", "segmenter=none", "compare=[]"]
    same = graph(compose, own, *chosen)
    assert "joined" not in same.labels(same.val).config
    edit(own / "labels.json", lambda c: [a.update(id=n) for n, a in enumerate(c["annotations"][::-1])])
    other = graph(compose, own, *chosen)
    assert other.labels(other.val).config["joined"] == "by box"
    assert any("all 8 labels are joined by image name and box" in note for note in notes_of(other))
    run(config(compose, own, *chosen))
    (record,) = [
        other.context.store.read("quality_val", p.parent.name) for p in (own / "runs").glob("quality_val/*/run.json")
    ]
    assert record["metrics"]["iou"]["value"] == 1.0


def number_from_the_first_image(coco: dict[str, Any]) -> None:
    for number, annotation in enumerate(coco["annotations"]):
        annotation["id"] = coco["images"][0]["id"] + number


@pytest.mark.slow
@pytest.mark.parametrize("ids", [(2**62, 1), (-500, 1), (2**53 + 1, 2)])
def test_ids_of_any_size_give_the_same_results(ids: tuple[int, int], compose, tmp_path: Path) -> None:
    """Also those that pass through doubles elsewhere, and collide there."""
    scores = []
    for number, (first, step) in enumerate([(1, 1), ids]):
        folder = tmp_path / str(number)
        folder.mkdir()
        coco_file(folder, "train", first=first, step=step)
        coco_file(folder, "val", first=first, step=step)
        for split in ("train", "val"):
            edit(folder / f"{split}.json", number_from_the_first_image)
        settings = config(compose, folder, "labeler=ellipse", "compare=[]", "data.class_agnostic=false")
        run(settings)
        store = Store(folder / "runs")
        records = [store.read(p.parent.parent.name, p.parent.name) for p in store.root.glob("*/*/run.json")]
        scores.append(
            sorted((r["stage"], str(r["metrics"])) for r in records if r["stage"] in ("ap_val", "quality_val"))
        )
    assert scores[0] == scores[1]
