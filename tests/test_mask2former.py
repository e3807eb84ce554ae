"""Mask2Former: the library's losses on our targets, our reading of its queries, the seam of every segmenter."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import Mask2FormerImageProcessor, SwinForImageClassification

from mal import segmenters
from mal.data.annotations import decode_mask, read
from mal.data.shapes import generate
from mal.engine.precision import network_dtype
from mal.errors import ConfigError, WeightsError
from mal.metrics.ap import average_precision
from mal.segmenters import inference, loop, mask2former, training
from mal.segmenters.config import SegmenterConfig
from mal.segmenters.config_checks import check
from mal.segmenters.data import Sample, TrainingSet
from mal.segmenters.mask2former import model as architectures
from mal.segmenters.mask2former.model import SWINS
from mal.segmenters.mask2former.results import detections
from mal.segmenters.optimizer import build_optimizer, run_length
from mal.segmenters.precision import lower_precision
from tests.test_segmenter import composed, make_dataset, same

CPU = torch.device("cpu")
SMALL_SWIN = {"embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}


def tiny(*overrides: str) -> SegmenterConfig:
    """mask2former_tiny on images of 64 pixels, as small as it gets."""
    return composed(
        "mask2former_tiny",
        "pyramid.stem=[8]",
        "pyramid.widths=[8,8,16,16]",
        "queries.count=6",
        "queries.width=32",
        "queries.layers=2",
        "queries.pixel_layers=1",
        "queries.feed_forward=32",
        "queries.pixel_feed_forward=32",
        "queries.points=64",
        "scale.short_sides=[48,64]",
        "scale.test_short_side=64",
        "schedule.batch=2",
        "schedule.epochs=null",
        "schedule.steps=4",
        *overrides,
    )


@pytest.fixture
def small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    """swin_small with a hundredth of its weights."""
    monkeypatch.setitem(SWINS, "swin_small", ("no/such-model", SMALL_SWIN))


def on_swin(*overrides: str) -> SegmenterConfig:
    return tiny("pyramid.kind=swin", "pyramid.name=swin_small", "queries.drop_path=0", *overrides)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with two flat ellipses each: annotations.json and images/."""
    return make_dataset(tmp_path_factory.mktemp("mask2former") / "data", images=4)


def train(dataset: Path, folder: Path, config: SegmenterConfig, *, seed: int = 0) -> None:
    where = {"annotations": dataset / "annotations.json", "images": dataset / "images"}
    training.train(**where, config=config, seed=seed, folder=folder, device=CPU)


def predict(dataset: Path, folder: Path, config: SegmenterConfig) -> list[dict[str, Any]]:
    where = {"annotations": dataset / "annotations.json", "images": dataset / "images"}
    return inference.predict(checkpoint=folder / "segmenter.pt", **where, config=config, device=CPU)


def random_sample(count: int, *, height: int = 64, width: int = 64, classes: int = 2, seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    return Sample(
        image=torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8),
        boxes_xyxy=torch.zeros(count, 4),
        labels=torch.randint(1, classes + 1, (count,), generator=generator),
        masks=torch.randint(0, 2, (count, height, width), generator=generator, dtype=torch.uint8),
        image_id=1,
    )


# --- the menu --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mask2former_tiny", "mask2former_swin_s"])
def test_it_is_on_the_menu_and_says_what_it_cannot_do(name: str) -> None:
    check(composed(name))
    assert segmenters.find(composed(name)) is mask2former.NETWORK
    with pytest.raises(ConfigError, match="its boxes are the extents of its masks"):
        segmenters.check_built(composed(name, "mask_head=false"))
    for wrong, complaint in (
        ("queries.width=48", "must be a multiple of 32"),
        ("queries.heads=5", "and of segmenter.queries.heads=5"),
        ("queries.count=0", "segmenter.queries.count=0 is out of range"),
        ("optimizer.backbone=2", "segmenter.optimizer.backbone=2.0 is out of range"),
    ):
        with pytest.raises(ConfigError, match=re.escape(complaint)):
            check(composed(name, wrong))
    with pytest.raises(ConfigError, match="mask_rcnn_r50 trains its backbone at the same rate"):
        check(composed("mask_rcnn_r50", "optimizer.backbone=0.1"))


def test_table_1s_recipe_is_the_authors() -> None:
    config = composed("mask2former_swin_s")
    network = architectures.architecture(config, classes=80)
    assert (network.num_queries, network.decoder_layers, network.encoder_layers) == (100, 10, 6)
    assert (network.class_weight, network.mask_weight, network.dice_weight, network.no_object_weight) == (2, 5, 5, 0.1)
    assert (network.train_num_points, network.hidden_dim, network.backbone_config.drop_path_rate) == (12544, 256, 0.3)
    assert (config.scale.jitter, config.scale.long_side, config.scale.short_sides) == ([0.1, 2.0], 1024, [1024])
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.lr, optimizer.backbone, optimizer.weight_decay, optimizer.clip) == (1e-4, 0.1, 0.05, 0.01)
    assert (schedule.batch, schedule.epochs, schedule.milestones) == (16, 50, [0.889, 0.963])
    assert run_length(schedule, images=117_266) == 366_456
    assert (config.scale.test_short_side, config.scale.test_long_side) == (800, 1333)


@pytest.mark.parametrize(("name", "width"), [("swin_tiny", 96), ("swin_base", 128), ("swin_large", 192)])
def test_any_size_of_swin_is_one_override(name: str, width: int) -> None:
    network = architectures.architecture(composed("mask2former_swin_s", f"pyramid.name={name}"), classes=80)
    assert network.backbone_config.embed_dim == width
    with pytest.raises(ConfigError, match="swin_huge is unknown; choose one of swin_tiny, swin_small"):
        architectures.architecture(composed("mask2former_swin_s", "pyramid.name=swin_huge"), classes=80)
    with pytest.raises(ConfigError, match=r"segmenter\.pyramid\.kind=timm: Mask2Former runs on swin"):
        architectures.architecture(composed("mask2former_swin_s", "pyramid.kind=timm"), classes=80)


# --- images and targets ----------------------------------------------------------------------------------------------


def test_images_are_normalised_and_padded_with_zeros() -> None:
    model = mask2former.build(tiny(), classes=2)
    images = [random_sample(0, height=40, width=50).image, random_sample(0, height=64, width=20).image]
    pixels = model.batch(images)
    assert pixels.shape == (2, 3, 64, 64)
    for row, image in zip(pixels, images, strict=True):
        height, width = image.shape[1:]
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        expected = (image.double() / 255 - mean.double()[:, None, None]) / std.double()[:, None, None]
        torch.testing.assert_close(row[:, :height, :width].double(), expected, rtol=1e-5, atol=1e-6)
        assert row[:, height:].count_nonzero() == 0
        assert row[:, :, width:].count_nonzero() == 0


def test_targets_are_the_samples_masks_and_labels_from_zero() -> None:
    first, second = random_sample(3, height=40, width=50), random_sample(2, height=64, width=20, seed=1)
    first.masks[1] = 0
    masks, labels = mask2former.targets([first, second], height=64, width=64)
    assert [tuple(mask.shape) for mask in masks] == [(2, 64, 64), (2, 64, 64)]  # the empty mask is no target
    assert torch.equal(masks[0][:, :40, :50], first.masks[[0, 2]])
    assert torch.equal(labels[0], first.labels[[0, 2]] - 1)
    assert torch.equal(labels[1], second.labels - 1)
    assert masks[0][:, 40:].sum() == masks[0][:, :, 50:].sum() == 0
    assert torch.equal(masks[1][:, :, :20], second.masks)


def test_targets_of_the_training_set_are_its_masks_resized(dataset: Path) -> None:
    config = tiny("scale.short_sides=[64]", "scale.flip=0")
    coco = read(dataset / "annotations.json", masks=True)
    samples = TrainingSet(coco, images=dataset / "images", scale=config.scale, seed=0, masks=True, class_agnostic=False)
    [masks], [labels] = mask2former.targets([samples[0, 1]], height=64, width=64)
    human = [a for a in coco["annotations"] if a["image_id"] == 11 and not a["iscrowd"] and a["area"] > 1]
    for mask, label, annotation in zip(masks, labels, human, strict=True):
        assert torch.equal(mask.bool(), torch.from_numpy(decode_mask(annotation["segmentation"], height=64, width=64)))
        assert label == {3: 0, 8: 1}[annotation["category_id"]]


# --- losses ----------------------------------------------------------------------------------------------------------


def test_the_losses_are_the_librarys_own() -> None:
    model = mask2former.build(tiny(), classes=2).train()
    batch = [random_sample(3), random_sample(1, seed=1)]
    torch.manual_seed(0)
    parts = mask2former.losses(model, batch)
    assert set(parts) == {"loss_class", "loss_mask", "loss_dice"}
    masks, labels = mask2former.targets(batch, height=64, width=64)
    torch.manual_seed(0)
    whole = model.network(
        pixel_values=model.batch([sample.image for sample in batch]),
        mask_labels=[mask.float() for mask in masks],
        class_labels=labels,
    )
    torch.testing.assert_close(sum(parts.values()), whole.loss)


def test_a_perfect_prediction_costs_next_to_nothing_and_a_wrong_one_does() -> None:
    model = mask2former.build(tiny(), classes=2)
    sample = random_sample(2)
    sample.masks = F.interpolate(sample.masks[None, :, :4, :4].float(), (64, 64))[0].to(torch.uint8)  # coarse blocks
    sample.labels = torch.tensor([1, 2])
    masks, labels = mask2former.targets([sample], height=64, width=64)
    class_logits = torch.full((1, 6, 3), -20.0)
    for query, one in enumerate([2, 0, 2, 1, 2, 2]):  # queries 1 and 3 hold the objects
        class_logits[0, query, one] = 20
    mask_logits = torch.full((1, 6, 64, 64), -20.0)
    mask_logits[0, 1], mask_logits[0, 3] = masks[0].float() * 40 - 20
    targets = [masks[0].float()], labels
    right = model.losses([(class_logits, mask_logits)], *targets)
    assert right["loss_class"] < 1e-6
    assert right["loss_dice"] < 0.5  # points drawn beside a block's border are interpolated
    inverted = model.losses([(class_logits, -mask_logits)], *targets)
    assert inverted["loss_mask"] > 10 * right["loss_mask"]
    assert inverted["loss_dice"] > 1
    elsewhere = model.losses([(class_logits, mask_logits.flip(1))], *targets)  # in queries that say "nothing"
    assert elsewhere["loss_class"] > 1


def test_images_without_objects_teach_that_nothing_is_there() -> None:
    model = mask2former.build(tiny(), classes=2).train()
    for batch in ([random_sample(0)], [random_sample(0), random_sample(2, seed=1)]):
        parts = mask2former.losses(model, batch)
        assert all(torch.isfinite(part) for part in parts.values())
        if not len(batch[-1].labels):
            assert parts["loss_mask"] == parts["loss_dice"] == 0
        sum(parts.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_more_objects_than_queries_are_matched_as_far_as_they_go() -> None:
    model = mask2former.build(tiny("queries.count=2"), classes=2).train()
    assert all(torch.isfinite(part) for part in mask2former.losses(model, [random_sample(5)]).values())


def test_bf16_keeps_the_pixel_decoder_and_the_losses_in_full_precision() -> None:
    torch.manual_seed(0)
    model = mask2former.build(tiny("precision=bf16"), classes=2).train()
    batch, seen = [random_sample(2)], []
    decoder = model.network.model.pixel_level_module.decoder
    decoder.mask_projection.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    expected = model(model.batch([batch[0].image]))
    parts = mask2former.lowered_parts(tiny())
    auto = lower_precision(model, parts, dtype=network_dtype("auto", CPU), device=CPU)
    assert auto(model.batch([batch[0].image]))[0][1].equal(expected[0][1])  # a CPU keeps float32
    lower = lower_precision(model, parts, dtype=torch.bfloat16, device=CPU)
    found = lower(model.batch([batch[0].image]))
    assert set(seen) == {torch.float32}
    assert all(value.dtype == torch.float32 for layer in found for value in layer)
    difference = (found[-1][1] - expected[-1][1]).abs().max()
    assert 0 < difference < expected[-1][1].abs().max()  # rounding may move the border that attention looks behind
    assert all(part.dtype == torch.float32 for part in mask2former.losses(model, batch).values())


# --- optimiser -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_swin")
def test_the_backbone_learns_more_slowly_and_embeddings_do_not_decay() -> None:
    config = on_swin("pretrained=false", "optimizer.backbone=0.1", "optimizer.weight_decay=0.05")
    model = mask2former.build(config, classes=2)
    factors = mask2former.factors(config.optimizer)
    rule = {n: factors(n, p) for n, p in model.named_parameters()}
    inside = {name for name in rule if name.startswith("network.model.pixel_level_module.encoder.")}
    assert {rule[name][0] for name in inside} == {0.1}
    assert {rule[name][0] for name in rule.keys() - inside} == {1.0}
    spared = {name for name, (_, decay) in rule.items() if decay == 0}
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    wide = {re.sub(r"\.\d+", "", name).removeprefix("network.") for name in spared if shapes[name] > 1}
    assert {name.rpartition("module.")[2] for name in wide} == {
        "queries_embedder.weight",
        "queries_features.weight",
        "level_embed.weight",
        "decoder.level_embed",
        "encoder.swin.encoder.layers.blocks.attention.relative_position_bias.relative_position_bias_table",
    }
    optimizer = build_optimizer(model, config.optimizer, factors=factors)
    assert sorted((g["factor"], g["weight_decay"]) for g in optimizer.param_groups) == [
        (0.1, 0.0), (0.1, 0.05), (1.0, 0.0), (1.0, 0.05)
    ]  # fmt: skip
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rule)


def test_a_step_trains_each_group_at_its_own_rate(dataset: Path, tmp_path: Path) -> None:
    seen: list[list[float]] = []
    config = tiny("optimizer.backbone=0.25", "schedule.steps=1", "schedule.warmup=0", "schedule.shape=multistep")
    real = loop.build_optimizer

    def watched(*arguments: Any, **named: Any) -> torch.optim.Optimizer:
        optimizer = real(*arguments, **named)
        optimizer.register_step_pre_hook(lambda o, *_: seen.append(sorted({g["lr"] for g in o.param_groups})))
        return optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "build_optimizer", watched)
        train(dataset, tmp_path / "run", config)
    peak = config.optimizer.lr * 2 / config.optimizer.base_batch
    assert seen == [pytest.approx([peak / 4, peak])]


# --- the seam --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a few steps: bad predictions, but predictions."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(dataset, folder, tiny())
    return folder


def test_an_interrupted_run_ends_in_the_same_bits(
    dataset: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop._step, []

    def dies_at_the_fourth(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(*arguments, **named)

    monkeypatch.setattr(loop, "_step", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path, tiny("running.checkpoint_steps=2"))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    monkeypatch.undo()
    train(dataset, tmp_path, tiny("running.checkpoint_steps=2"))
    first, second = (torch.load(path / "segmenter.pt", weights_only=True) for path in (trained, tmp_path))
    assert same(first, second)


def test_predictions_are_coco_results_in_the_pixels_of_the_original(dataset: Path, trained: Path) -> None:
    results = json.loads(json.dumps(predict(dataset, trained, tiny("test.max_detections=5", "test.batch=3"))))
    for image in (10, 11, 12, 13):
        mine = [result for result in results if result["image_id"] == image]
        assert 0 < len(mine) <= 5
        assert [r["score"] for r in mine] == sorted((r["score"] for r in mine), reverse=True)
    for result in results:
        assert result["category_id"] in (3, 8)
        rows, columns = decode_mask(result["segmentation"], height=64, width=64).nonzero()
        x, y, w, h = result["bbox"]
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + w, y + h)
    strict = predict(dataset, trained, tiny(f"test.score={results[2]['score']}"))
    assert all(result["score"] > results[2]["score"] for result in strict)


def test_the_same_checkpoint_predicts_the_same_whatever_the_batch(dataset: Path, trained: Path) -> None:
    first, again = (predict(dataset, trained, tiny("test.batch=2")) for _ in range(2))
    assert first == again
    alone = predict(dataset, trained, tiny("test.batch=1"))
    np.testing.assert_allclose([r["score"] for r in alone], [r["score"] for r in first], rtol=1e-4)


def test_one_class_for_all_predicts_category_one(dataset: Path, tmp_path: Path) -> None:
    config = tiny("class_agnostic=true", "schedule.steps=1")
    train(dataset, tmp_path, config)
    assert {result["category_id"] for result in predict(dataset, tmp_path, config)} == {1}


def test_a_checkpoint_of_other_settings_is_refused(dataset: Path, trained: Path) -> None:
    with pytest.raises(WeightsError, match="trained with other settings"):
        predict(dataset, trained, tiny("queries.count=7"))


@pytest.mark.slow
def test_it_learns_four_images_by_heart(tmp_path: Path) -> None:
    generate(tmp_path / "data", images=4, size=128, seed=0, split="train")
    config = composed("mask2former_tiny", *BY_HEART)
    train(tmp_path / "data", tmp_path / "run", config)
    human = read(tmp_path / "data" / "annotations.json", masks=True)
    metrics, _ = average_precision(human, predict(tmp_path / "data", tmp_path / "run", config), class_agnostic=True)
    assert metrics["ap"] > 0.8


BY_HEART = (
    "class_agnostic=true",
    "scale.short_sides=[128]",
    "scale.test_short_side=128",
    "scale.flip=0",
    "optimizer.lr=0.0006",
    "optimizer.base_batch=4",
    "schedule.batch=4",
    "schedule.epochs=null",
    "schedule.steps=160",
)


# --- from queries to detections --------------------------------------------------------------------------------------


def random_logits(
    queries: int, classes: int, height: int, width: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(queries, 4, 5, generator=generator) * 4
    masks = F.interpolate(coarse[None], (height, width), mode="bicubic")[0]
    return torch.randn(queries, classes + 1, generator=generator) * 2, masks


def test_detections_are_the_librarys_where_it_does_the_same() -> None:
    """On an input and an image of 384 × 384 the library's two resizings are ours."""
    class_logits, mask_logits = random_logits(7, 3, 96, 96)
    mask_logits[2] = -5  # an empty mask
    [theirs] = Mask2FormerImageProcessor().post_process_instance_segmentation(
        SimpleNamespace(class_queries_logits=class_logits[None], masks_queries_logits=mask_logits[None]),
        threshold=0,
        return_binary_maps=True,
    )
    ours = detections(class_logits, mask_logits, padded=(384, 384), size=(384, 384), original=(384, 384), limit=7)
    order = np.argsort([-info["score"] for info in theirs["segments_info"]], kind="stable")
    assert len(ours) == len(order)
    for mine, index in zip(ours, order, strict=True):
        info = theirs["segments_info"][index]
        assert mine["label"] == info["label_id"]
        assert mine["score"] == pytest.approx(info["score"], abs=1e-6)
        mask = decode_mask(mine["segmentation"], height=384, width=384)
        assert np.array_equal(mask, theirs["segmentation"][index].bool().numpy())


def test_detections_follow_the_authors_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a float64 loop over every pair of query and class, with padding and another size."""
    class_logits, mask_logits = random_logits(5, 4, 16, 24)
    monkeypatch.setattr("mal.segmenters.mask2former.results.CHUNK", 100 * 150 * 2)  # two masks at a time
    sizes = {"padded": (64, 96), "size": (50, 75), "original": (100, 150)}
    ours = detections(class_logits, mask_logits, **sizes, limit=6)
    expected = []
    for query in range(5):
        large = F.interpolate(mask_logits[query][None, None].double(), (64, 96), mode="bilinear")[..., :50, :75]
        large = F.interpolate(large, (100, 150), mode="bilinear")[0, 0]
        mask = (large > 0).numpy()
        quality = large.sigmoid()[large > 0].mean().item()
        for label, chance in enumerate(class_logits[query].double().softmax(0)[:-1].tolist()):
            expected.append((chance, quality, label, mask))
    best = sorted(expected, key=lambda item: -item[0])[:6]
    best.sort(key=lambda item: -item[0] * item[1])
    for mine, (chance, quality, label, mask) in zip(ours, best, strict=True):
        assert mine["label"] == label
        assert mine["score"] == pytest.approx(chance * quality, rel=1e-4)
        found = decode_mask(mine["segmentation"], height=100, width=150)
        assert (found != mask).mean() < 1e-3


def test_padding_is_cut_off_before_a_mask_is_measured() -> None:
    mask_logits = torch.full((1, 16, 16), -9.0)
    mask_logits[:, :8, 8:] = 9  # the right half of the network's input, which the image does not reach
    arguments = {"padded": (64, 64), "original": (64, 32), "limit": 1}
    class_logits = torch.tensor([[5.0, 0.0]])
    assert detections(class_logits, mask_logits, size=(64, 28), **arguments) == []
    [found] = detections(class_logits, mask_logits, size=(64, 64), **arguments)
    assert found["bbox"] == [16, 0, 16, 32]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_the_threshold_is_a_probability(threshold: float) -> None:
    mask_logits = torch.tensor([[[-1.0, 0.0, 1.0, 2.0]]]).expand(1, 4, 4)
    sizes = {"padded": (4, 4), "size": (4, 4), "original": (4, 4)}
    found = detections(torch.tensor([[9.0, 0.0]]), mask_logits, **sizes, limit=1, threshold=threshold)
    wide = int((mask_logits[0, 0].sigmoid() > threshold).sum())
    assert [item["bbox"][2] for item in found] == ([wide] if wide else [])


# --- weights of the backbone -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_swin")
def test_a_swin_that_the_library_saved_is_loaded_whole_or_refused(tmp_path: Path) -> None:
    config = on_swin("pretrained=false")
    swin = SwinForImageClassification(architectures.architecture(config, classes=2).backbone_config)
    for parameter in swin.parameters():
        torch.nn.init.normal_(parameter)
    swin.save_pretrained(tmp_path)
    config.checkpoint = str(tmp_path / "model.safetensors")
    loaded = mask2former.build(config, classes=2).backbone.state_dict()
    own = {key: value for key, value in loaded.items() if not key.startswith("hidden_states_norms.")}
    assert own.keys() <= swin.state_dict().keys()
    assert all(torch.equal(value, swin.state_dict()[key]) for key, value in own.items())

    state = load_file(tmp_path / "model.safetensors")
    missing = next(key for key in state if "layers.1" in key and key.endswith("query.weight"))
    wrong = state | {"swin.embeddings.norm.weight": torch.zeros(5), "swin.extra": torch.zeros(1)}
    del wrong[missing]
    save_file(wrong, tmp_path / "wrong.safetensors")
    config.checkpoint = str(tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError) as error:
        mask2former.build(config, classes=2)
    sentence = str(error.value)
    assert re.search(r"missing: swin\.encoder\.layers\.1\.blocks\.0\.attention\.q_proj\.weight", sentence)
    assert "unexpected: swin.extra" in sentence
    assert "swin.embeddings.norm.weight (5,) instead of (12,)" in sentence
    assert "segmenter.checkpoint=FILE" in sentence


@pytest.mark.usefixtures("small_swin")
def test_unreachable_weights_name_the_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(architectures.SwinBackbone, "from_pretrained", unreachable)
    with pytest.raises(WeightsError) as error:
        mask2former.build(on_swin("pretrained=true"), classes=2)
    assert "no/such-model cannot be reached (no route to host)" in str(error.value)
    assert "segmenter.checkpoint=FILE" in str(error.value)
    assert "segmenter.pretrained=false" in str(error.value)
