"""A labeler in one file: what survives in the small form, what is refused, and training that goes on from one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mal.config import Config
from mal.config_checks import check
from mal.context import Context
from mal.data import shapes
from mal.data.annotations import read, strip
from mal.engine.runtime import save_checkpoint
from mal.engine.store import Store
from mal.errors import ConfigError, MalError
from mal.methods.mal.labeler_file import config_of, read_labeler, write_small
from mal.methods.mal.network import build_network, load_networks, predict, starting_network
from mal.methods.mal.shipped import labeler_path
from mal.methods.mal.stages import train
from mal.methods.mal.train import train_labeler
from mal.own.forecast import labelling_seconds, random_batch, reading_seconds, training_seconds

CPU = torch.device("cpu")
Compose = Callable[..., Config]


@pytest.fixture(scope="module")
def config(compose: Compose) -> Config:
    return compose("profile=smoke", "tracking=none", "segmenter=none")


@pytest.fixture(scope="module")
def checkpoint(config: Config) -> dict[str, object]:
    torch.manual_seed(0)
    networks = {name: build_network(config).state_dict() for name in ("student", "teacher")}
    return {**networks, "config": OmegaConf.to_yaml(OmegaConf.structured(config))}


def test_settings_written_when_a_row_was_a_mapping_are_read(config):
    saved = OmegaConf.structured(config)
    saved.row = {"data": "lvis", "segmenter": "mask_rcnn_r50"}
    found = config_of({"config": OmegaConf.to_yaml(saved)}, source="labeler.pt")
    assert replace(found, row=None) == config
    check(found)


def test_a_small_file_holds_the_network_in_half_precision(checkpoint, tmp_path):
    path = tmp_path / "small.safetensors"
    write_small(path, checkpoint, networks=("teacher",), made={"licence": "none"})
    found = read_labeler(path)
    assert found.keys() == {"config", "teacher"}
    assert found["config"] == checkpoint["config"]
    whole, small = checkpoint["teacher"], found["teacher"]
    assert whole.keys() == small.keys()
    for name, value in whole.items():
        assert small[name].dtype == value.dtype
        exact = value.half().float() if value.ndim > 1 and value.is_floating_point() else value
        assert torch.equal(small[name], exact), name
    save_checkpoint(tmp_path / "whole.pt", checkpoint)
    assert path.stat().st_size < 0.3 * (tmp_path / "whole.pt").stat().st_size


def test_masks_of_the_small_file_are_those_of_the_whole(config, checkpoint, tmp_path):
    write_small(tmp_path / "small.safetensors", checkpoint, networks=("teacher",), made={})
    config = replace(config, label=replace(config.label, network="teacher"))
    crops = random_batch(config)
    whole, small = (
        predict(load_networks(file, config, CPU), crops, flip=True)
        for file in (checkpoint, read_labeler(tmp_path / "small.safetensors"))
    )
    assert (whole - small).abs().max() < 0.02
    assert not torch.equal(whole, torch.full_like(whole, 0.5))


def test_other_files_are_refused_in_a_sentence(checkpoint, tmp_path):
    with pytest.raises(MalError, match="there is no labeler at"):
        read_labeler(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("not a tensor in sight")
    with pytest.raises(MalError, match="not a readable labeler"):
        read_labeler(tmp_path / "text.safetensors")
    save_checkpoint(tmp_path / "weights.pt", {"state_dict": checkpoint["teacher"]})
    with pytest.raises(ConfigError, match="is not a labeler"):
        read_labeler(tmp_path / "weights.pt")
    from safetensors.torch import save_file

    with pytest.raises(ConfigError, match="another version of this program: while parsing"):
        config_of({"config": "a: [1"}, source="labeler.pt")
    save_file(
        {"config": torch.zeros(3), "head.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors", {"config": ""}
    )
    with pytest.raises(ConfigError, match="is not a labeler"):
        read_labeler(tmp_path / "foreign.safetensors")


def test_training_starts_from_the_teacher_of_another(config, checkpoint, tmp_path):
    save_checkpoint(tmp_path / "labeler.pt", checkpoint)
    start = replace(config, train=replace(config.train, start=str(tmp_path / "labeler.pt")))
    for name, value in starting_network(start).state_dict().items():
        assert torch.equal(value, checkpoint["teacher"][name]), name
    shapes.generate(tmp_path / "shapes", images=4, size=128, seed=0, split="train")
    coco = strip(read(tmp_path / "shapes" / "annotations.json", masks=False))
    still = replace(start, train=replace(start.train, steps=1, epochs=None, lr_per_image=0.0, weight_decay=0.0))
    (tmp_path / "run").mkdir()
    train_labeler(coco, tmp_path / "shapes" / "images", still, folder=tmp_path / "run", device=CPU)
    moved = read_labeler(tmp_path / "run" / "labeler.pt")["student"]
    parameters = dict(starting_network(start).named_parameters())
    assert all(torch.equal(moved[name], value) for name, value in parameters.items())


def test_a_labeler_of_another_network_is_no_start(compose, checkpoint, tmp_path):
    save_checkpoint(tmp_path / "labeler.pt", checkpoint)
    other = compose("profile=smoke", "decoder=fcn", f"train.start={tmp_path / 'labeler.pt'}")
    with pytest.raises(ConfigError, match=r"train\.start=.* is a labeler of another network.*decoder=fcn"):
        starting_network(other)


def test_the_start_is_part_of_the_key_by_its_content(config, checkpoint, tmp_path):
    store = Store(tmp_path / "store")
    keys = []
    for name in (None, "a.pt", "b.pt"):
        if name is not None:
            save_checkpoint(tmp_path / name, checkpoint)
        start = None if name is None else str(tmp_path / name)
        changed = replace(config, train=replace(config.train, start=start))
        keys.append(train(Context(changed, store, CPU)).key)
    assert keys[0] != keys[1] == keys[2]


def test_default_is_the_shipped_file():
    assert labeler_path("default").name == "default.safetensors"
    assert labeler_path("folder/default") == Path("folder/default")


def test_forecasts_are_proportional_to_the_work(config, checkpoint, tmp_path):
    some, more = (training_seconds(config, steps, CPU) for steps in (10, 1000))
    assert 0 < some < more
    networks = load_networks(checkpoint, config, CPU)
    assert 0 < labelling_seconds(networks, config, 10, CPU) < labelling_seconds(networks, config, 10_000, CPU)
    shapes.generate(tmp_path, images=2, size=64, seed=0, split="train")
    records = read(tmp_path / "annotations.json", masks=False)["images"]
    assert reading_seconds(records, tmp_path / "images") > 0
    assert reading_seconds([], tmp_path) == 0
