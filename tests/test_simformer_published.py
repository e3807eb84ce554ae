"""Published MaskFormers in SimFormer: the same logits as transformers' own model gives, and what is refused."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import MaskFormerForInstanceSegmentation, ResNetConfig

from mal.encoders.config import EncoderConfig
from mal.encoders.normalise import normalise
from mal.errors import ConfigError, WeightsError
from mal.methods.simformer import published
from mal.methods.simformer.config.network import NetworkConfig
from mal.methods.simformer.network import SimFormer, architecture
from mal.methods.simformer.published import check_classes, locate, published_state

SPLITS = Path(__file__).resolve().parents[2] / "shared" / "methods" / "simformer_splits.yaml"
NAMES = ["wall", "floor-wood", "road, route", "sky-other", "door"]
THEIRS = ["Wall", "floor wood", "road", "sky", "door "]
LAYERS = [1, 1, 2, 1]
ENCODER = EncoderConfig(name="small", timm="resnet26", freeze_norm=True, options={"layers": LAYERS})
SETTINGS = NetworkConfig(width=32, queries=6, layers=2, heads=4, feed_forward=40)


def model() -> MaskFormerForInstanceSegmentation:
    torch.manual_seed(0)
    config = architecture(SETTINGS, classes=len(THEIRS))
    stages = [f"stage{number}" for number in (1, 2, 3, 4)]
    config.backbone_config = ResNetConfig(depths=LAYERS, out_features=stages)
    config.id2label = dict(enumerate(THEIRS))
    network = MaskFormerForInstanceSegmentation(config).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def state(folder: Path, settings: NetworkConfig = SETTINGS, names: list[str] = NAMES) -> dict[str, torch.Tensor]:
    found = locate(replace(settings, checkpoint=str(folder)), ENCODER, data="any", classes=names)
    return published_state(found, ENCODER, settings, classes=names)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[MaskFormerForInstanceSegmentation, Path]:
    network, folder = model(), tmp_path_factory.mktemp("published")
    network.save_pretrained(folder)
    return network, folder


def test_it_gives_the_logits_of_the_librarys_own_model(saved):
    network, folder = deepcopy(saved[0]).double(), saved[1]
    ours = SimFormer(ENCODER, SETTINGS, classes=len(NAMES), load=False).eval()
    ours.load_state_dict(state(folder))
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        found, theirs = ours.double()(images), network(normalise(images))
    assert theirs.masks_queries_logits.std() > 0.01
    torch.testing.assert_close(found.classes[-1], theirs.class_queries_logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.masks[-1], theirs.masks_queries_logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.pixels, theirs.pixel_decoder_last_hidden_state, rtol=1e-5, atol=1e-6)


def test_names_of_weights_from_before_the_decoder_was_rewritten_are_known(saved, tmp_path):
    """As the hub's files have them: out_proj, and the feed-forward layers without `mlp`."""
    _, folder = saved
    weights = load_file(folder / "model.safetensors")
    old = {key.replace("o_proj", "out_proj").replace(".mlp.fc", ".fc"): value for key, value in weights.items()}
    assert sum("out_proj" in key for key in old) == 2 * 2 * SETTINGS.layers
    torch.save(old, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    expected, found = state(folder), state(tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_key_too_few_and_one_too_many_are_named(saved, tmp_path):
    _, folder = saved
    weights = load_file(folder / "model.safetensors")
    weights["class_predictor.scale"] = weights.pop("class_predictor.bias")
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsError, match=r"missing: class_predictor\.bias; unexpected: class_predictor\.scale"):
        state(tmp_path)


def test_another_network_is_refused(saved, tmp_path):
    _, folder = saved
    shallow = replace(ENCODER, options={"layers": [1, 1, 1, 1]})
    found = locate(replace(SETTINGS, checkpoint=str(folder)), ENCODER, data="any", classes=NAMES)
    with pytest.raises(WeightsError, match=r"unexpected: backbone\.backbone\.layer3\.1"):
        published_state(found, shallow, SETTINGS, classes=NAMES)
    config = json.loads((folder / "config.json").read_text())
    config["backbone_config"]["downsample_in_bottleneck"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(load_file(folder / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="downsample_in_bottleneck=True, but this network has False"):
        state(tmp_path)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"queries": 7}, r"simformer\.network\.queries=6,"),
        ({"heads": 8}, r"simformer\.network\.heads=4,"),
        ({"memory": "stride8", "width": 64}, r"simformer\.network\.width=32 simformer\.network\.memory=stride32,"),
        ({"layers": 3, "feed_forward": 8}, r"simformer\.network\.layers=2 simformer\.network\.feed_forward=40,"),
        ({}, "encoder=resnet50,"),
    ],
)
def test_weights_that_would_not_fit_are_not_downloaded(saved, monkeypatch, setting, said):
    """As with the default profile: config.json alone tells, and what to choose is said."""
    _, folder = saved
    asked = []
    monkeypatch.setattr(published, "cached_file", lambda _, file: (asked.append(file), str(folder / file))[1])
    encoder = ENCODER if setting else replace(ENCODER, timm="convnext_tiny")
    with pytest.raises(WeightsError, match=rf"a network with {said} .* profile=paper encoder=resnet50"):
        locate(replace(SETTINGS, **setting), encoder, data="coco_stuff_10k", classes=NAMES)
    with pytest.raises(WeightsError, match="has 5 classes, and the data 4"):
        locate(SETTINGS, ENCODER, data="coco_stuff_10k", classes=NAMES[:4])
    assert {*asked} == {"config.json"}
    assert locate(SETTINGS, ENCODER, data="coco_stuff_10k", classes=NAMES) == folder / "model.safetensors"


def test_classes_in_another_order_are_refused(saved):
    _, folder = saved
    swapped = [NAMES[0], NAMES[2], NAMES[1], *NAMES[3:]]
    with pytest.raises(WeightsError, match=r"has floor wood as class 1, which is class 2 of the data"):
        state(folder, names=swapped)
    with pytest.raises(WeightsError, match="has 5 classes, and the data 4"):
        state(folder, names=NAMES[:4])
    with pytest.raises(WeightsError, match="the names of only 0 of the data's 5 classes"):
        state(folder, names=["a", "b", "c", "d", "e"])


@pytest.mark.parametrize("data", ["coco_stuff_10k", "ade20k_150"])
def test_swapping_any_two_neighbours_of_the_published_lists_is_noticed(data):
    names = yaml.safe_load(SPLITS.read_text())[data]["classes"]
    check_classes([name.split(",")[0] for name in names], names, source=Path("config.json"))
    for place in range(len(names) - 1):
        swapped = [*names[:place], names[place + 1], names[place], *names[place + 2 :]]
        with pytest.raises(WeightsError, match="the orders differ"):
            check_classes(swapped, names, source=Path("config.json"))


def test_what_cannot_be_had_is_said_with_a_way_out(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors or pytorch_model\.bin with a config\.json"):
        locate(replace(SETTINGS, checkpoint=str(tmp_path)), ENCODER, data="coco_stuff_10k", classes=NAMES)
    with pytest.raises(ConfigError, match=r"none are published for data=car_parts, only for coco_stuff_10k"):
        locate(SETTINGS, ENCODER, data="car_parts", classes=NAMES)
