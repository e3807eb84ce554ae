"""What a run is made of: which splits there are, what a stage's key depends on, what is refused before work starts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mal.config import Config
from mal.data import shapes
from mal.data.sources import SUGGESTED_VAL
from mal.engine.graph import in_order
from mal.engine.store import Store
from mal.errors import AnnotationError, ConfigError, ImageError
from mal.methods.mal.network import build_network, load_networks
from mal.request import Graph
from mal.run import run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, images=4, size=96, seed=0, split="train")
    return folder


@pytest.fixture
def own(drawn: Path, tmp_path: Path) -> Path:
    """Files of one's own, for both splits."""
    for split in ("train", "val"):
        shutil.copytree(drawn / "images", tmp_path / split)
        shutil.copy(drawn / "annotations.json", tmp_path / f"{split}.json")
    return tmp_path


def config(compose: Any, own: Path, *overrides: str) -> Config:
    splits = [
        f"data.{s}.{k}={own / p}" for s in ("train", "val") for k, p in (("annotations", f"{s}.json"), ("images", s))
    ]
    return compose("profile=smoke", "data=coco", f"store={own / 'runs'}", "tracking=none", *splits, *overrides)


def keys(config: Config) -> dict[str, str]:
    """Stage name and labeler → key."""
    graph = Graph(config, Store(config.store), CPU)
    return {
        f"{s.name} {s.columns.get('labeler')} {s.columns.get('supervision')}": s.key for s in in_order(graph.targets())
    }


def edit(path: Path, change: Any) -> None:
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def test_boxes_with_empty_segmentations_are_labelled_to_the_end(compose, own: Path) -> None:
    for split in ("train", "val"):
        edit(own / f"{split}.json", lambda coco: [a.update(segmentation=[]) for a in coco["annotations"]])
    run(config(compose, own, "labeler=ellipse"))
    graph = Graph(config(compose, own, "labeler=ellipse"), Store(own / "runs"), CPU)
    assert [stage.name for stage in in_order(graph.targets())] == [
        "boxes_train",
        "boxes_val",
        "label_train",
        "label_val",
    ]


def test_a_mistyped_validation_file_is_an_error_and_the_menus_own_is_none(compose, own: Path) -> None:
    for name in ("coco", "lvis"):
        assert compose(f"data={name}").data.val.annotations in SUGGESTED_VAL
    with pytest.raises(ConfigError, match=r"data\.val\.annotations=.*vaal\.json does not exist"):
        keys(config(compose, own, f"data.val.annotations={own / 'vaal.json'}"))
    alone = [f"data.train.annotations={own / 'train.json'}", f"data.train.images={own / 'train'}"]
    graph = Graph(compose("profile=smoke", "data=coco", f"store={own / 'runs'}", *alone), Store(own / "runs"), CPU)
    assert graph.val is None


def test_a_file_that_the_annotations_do_not_name_changes_no_key(compose, own: Path) -> None:
    before = keys(config(compose, own))
    (own / "train" / "Thumbs.db").write_text("of another program")
    shutil.copy(own / "train" / "000001.png", own / "train" / "000001_copy.png")
    assert keys(config(compose, own)) == before
    shutil.copy(own / "train" / "000002.png", own / "train" / "000001.png")  # replaced in place
    assert keys(config(compose, own)) != before


def test_the_size_of_test_images_retrains_nothing(compose, own: Path) -> None:
    before, after = keys(config(compose, own)), keys(config(compose, own, "segmenter.scale.test_short_side=80"))
    changed = {name.split()[0] for name in before if before[name] != after[name]}
    assert changed == {"detect_val", "ap_val", "retention"}


def test_a_missing_validation_image_is_known_before_anything_is_trained(compose, own: Path) -> None:
    (own / "val" / "000002.png").unlink()
    with pytest.raises(ImageError, match=r"000002\.png"):
        run(config(compose, own))
    assert not list((own / "runs").glob("train_labeler/*"))


def test_a_bad_human_mask_is_known_before_anything_is_trained(compose, own: Path) -> None:
    edit(own / "val.json", lambda coco: coco["annotations"][0].update(segmentation=[[1, 2, 3]]))
    with pytest.raises(AnnotationError, match=r"val\.json"):
        run(config(compose, own))
    assert not list((own / "runs").glob("train_labeler/*"))


def test_categories_that_validation_lacks_are_known_before_anything_is_trained(compose, own: Path) -> None:
    def lose_one(coco: dict[str, Any]) -> None:
        gone = coco["categories"].pop()["id"]
        coco["annotations"] = [a for a in coco["annotations"] if a["category_id"] != gone]

    edit(own / "val.json", lose_one)
    with pytest.raises(AnnotationError, match=r"lacks categories of .*train\.json: \w+ \(id 3\)"):
        run(config(compose, own, "data.class_agnostic=false"))
    assert not list((own / "runs").glob("train_labeler/*"))


def test_segmenters_do_without_the_images_that_are_skipped(compose, own: Path) -> None:
    (own / "train" / "000001.png").write_bytes((own / "train" / "000001.png").read_bytes()[:500])
    (own / "val" / "000003.png").write_bytes((own / "val" / "000003.png").read_bytes()[:500])
    settings = config(compose, own, "data.on_bad_image=skip", "labeler=ellipse", "compare=[]")
    run(settings)
    store = Store(own / "runs")
    graph = Graph(settings, store, CPU)
    stages = {f"{s.name} {s.columns.get('supervision')}": s for s in in_order(graph.targets())}
    assert store.read("ap_val", stages["ap_val human"].key)["metrics"]["mask_ap"]["n"] == 3
    readable = json.loads(
        (store.folder("train_segmenter", stages["train_segmenter pseudo"].key) / "readable.json").read_text()
    )
    assert [image["id"] for image in readable["images"]] == [2, 3, 4]


def test_a_trained_labeler_needs_no_published_weights(compose) -> None:
    settings = compose("profile=smoke")
    network = build_network(settings)
    checkpoint = {"student": network.state_dict(), "teacher": network.state_dict()}
    far = replace(settings, encoder=replace(settings.encoder, checkpoint="nowhere.safetensors", pretrained=True))
    loaded = load_networks(checkpoint, far, CPU)[0].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())
