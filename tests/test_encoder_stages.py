"""Clustering and attention stages: what their results depend on, and that they need no training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_configs import changed

from mal.config import Config
from mal.context import Context
from mal.data.shapes import generate
from mal.engine.graph import Stage, in_order
from mal.engine.store import Store
from mal.errors import ConfigError, MalError
from mal.methods.mal import looks
from mal.methods.mal.stages import train
from mal.request import Graph
from mal.run import run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def smoke(compose) -> Config:
    overrides = ["profile=smoke", "labeler=none", "segmenter=none", "tracking=none", "compare=[]"]
    return compose(*overrides, "clustering.enabled=true", "attention.enabled=true", "attention.layers=[1,3]")


def stage(config: Config, tmp_path: Path, kind: str = "clustering", **settings: object) -> Stage:
    return getattr(looks, kind)(Context(changed(config, **settings), Store(tmp_path), CPU))


def test_a_run_without_labeler_scores_and_looks_and_trains_nothing(smoke, tmp_path, capsys):
    config = changed(smoke, **{"store": str(tmp_path), "clustering.encoder": "pretrained",
                               "attention.encoder": "pretrained"})  # fmt: skip
    run(config)
    done = {path.parent.parent.name: path for path in tmp_path.glob("*/*/run.json")}
    assert set(done) == {"shapes_val", "boxes_val", "clustering_val", "attention_val"}
    record = json.loads(done["clustering_val"].read_text())
    instances = pd.read_csv(done["clustering_val"].parent / "instances.csv")
    assert record["metrics"]["clustering"]["n"] == len(instances)
    assert record["metrics"]["clustering"]["value"] == pytest.approx(instances["score"].mean())
    for size, group in instances.groupby("size"):
        assert record["metrics"][f"clustering_{size}"]["n"] == len(group)
    with np.load(done["attention_val"].parent / "attention.npz") as arrays:
        assert arrays["maps"].shape == (len(arrays["ids"]), 2, 4, 4)
        assert arrays["pixels"].shape[1:] == (32, 32, 3)
    assert (done["attention_val"].parent / "attention.png").stat().st_size > 5_000
    said = capsys.readouterr().out
    assert "Clustering score (Eq. 6" in said
    assert "vit_nano, with random weights, crops" in said
    assert "its features are random ones" in said


def test_a_run_about_validation_images_alone_needs_no_training_images(compose, tmp_path):
    generate(tmp_path / "val2017", images=3, size=64, seed=0, split="val")
    annotations = tmp_path / "val2017" / "annotations.json"
    base = ["profile=smoke", "data=coco", f"data.root={tmp_path}", f"store={tmp_path / 'store'}", "tracking=none",
            f"data.val.annotations={annotations}", "data.val.images=val2017/images", "segmenter=none",
            "compare=[]"]  # fmt: skip
    run(compose(*base, "labeler=none", "clustering.enabled=true", "clustering.encoder=pretrained"))
    run(compose(*base, "labeler=file", f"labeler.val_file={annotations}"))
    done = {path.parent.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("store/*/*/run.json")}
    assert set(done) == {"boxes_val", "clustering_val", "label_val", "quality_val"}
    assert done["quality_val"]["metrics"]["iou"]["value"] == 1
    with pytest.raises(ConfigError, match="train2017"):
        run(compose(*base, "labeler=box"))
    trained = compose(*base, "labeler=none", "clustering.enabled=true", "clustering.encoder=trained")
    with pytest.raises(ConfigError, match="train2017"):
        run(trained)
    nothing = ["data.val.annotations=null", "data.train.annotations=null"]
    with pytest.raises(MalError, match=r"nothing to score on; set data\.val\.annotations"):
        run(compose(*base, *nothing, "labeler=none", "clustering.enabled=true", "clustering.encoder=pretrained"))


def test_attention_is_looked_at_anew_where_other_boxes_are_shown(smoke, tmp_path):
    """The examples are among the boxes that training would use."""
    given = changed(smoke, **{"attention.encoder": "pretrained"})
    key = stage(given, tmp_path, "attention").key
    for settings in ({"roi.min_area": 2000}, {"roi.max_area": 9000}, {"attention.examples": 2}):
        assert stage(given, tmp_path, "attention", **settings).key != key, settings


def test_weights_that_are_given_serve_every_seed_recipe_and_decoder(smoke, tmp_path):
    weights = tmp_path / "w.pth"
    torch.save({}, weights)
    given = changed(smoke, **{"encoder.checkpoint": str(weights)})
    key = stage(given, tmp_path).key
    for settings in ({"seed": 1}, {"recipe": "paper"}, {"decoder.name": "fcn"}, {"encoder.fuse": True}):
        assert stage(given, tmp_path, **settings).key == key, settings
    others = ({"clustering.source": "images"}, {"roi.size": 64}, {"data.val_images": "odd"}, {"data.shapes.seed": 5})
    for settings in (*others, {"clustering.encoder": "trained"}):
        assert stage(given, tmp_path, **settings).key != key, settings
    torch.save({"other": torch.zeros(1)}, weights)
    assert stage(given, tmp_path).key != key


def test_drawn_weights_depend_on_the_seed(smoke, tmp_path):
    assert stage(smoke, tmp_path, seed=1).key != stage(smoke, tmp_path).key


def test_a_trained_encoder_is_that_of_the_runs_labeler(smoke, tmp_path):
    found = stage(smoke, tmp_path, "attention")
    graph = Graph(smoke, Store(tmp_path), CPU)
    assert found.inputs["labeler"] == train(graph.context)
    assert "train_labeler" in [s.name for s in in_order(graph.targets())]
    assert stage(smoke, tmp_path, **{"clustering.encoder": "trained"}).columns["recipe"] == "best"


def test_boxes_without_masks_are_looked_at_but_not_scored(smoke, tmp_path):
    graph = Graph(smoke, Store(tmp_path), CPU)
    graph.val = replace(graph.val, has_masks=False)
    assert {s.name for s in graph.targets()} == {"boxes_train", "boxes_val", "attention_val"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clustering.enabled": False, "attention.enabled": False}, "labeler=none leaves nothing to do"),
        ({"attention.layers": []}, r"attention.layers=\[\]"),
        ({"attention.layers": [4], "attention.encoder": "pretrained"}, "layers 1 to 3"),
        ({"clustering.source": "photos"}, "clustering.source=photos"),
        (
            {
                "attention.query": "class",
                "encoder.name": "vit_base_patch16_siglip_gap_224",
                "encoder.timm": "vit_base_patch16_siglip_gap_224",
                "encoder.options": {},
            },
            "no class token",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_any_work(smoke, tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        run(changed(smoke, store=str(tmp_path), **settings))
    assert not list(tmp_path.glob("*/*/run.json"))
