"""AttentionShift learns from points alone: in every precision, whatever interrupts it, from whatever points."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mal.data.annotations import read
from mal.data.parts import CATEGORIES, generate
from mal.data.views import VIEWS
from mal.engine.runtime import load_checkpoint, seed_everything
from mal.engine.trainer import loss_scaler
from mal.errors import AnnotationError, Stopped
from mal.methods.attentionshift import label
from mal.methods.attentionshift.checkpoint import FILE, load
from mal.methods.attentionshift.data import TrainingImages, batched, flipped, mask_to_image, shown
from mal.methods.attentionshift.map_quality import _auc_and_peak, map_quality
from mal.methods.attentionshift.network import LOSSES, AttentionShift
from mal.methods.attentionshift.querying import Points
from mal.methods.attentionshift.train import build_optimizer, rate_factor, train, training_step
from mal.segmenters.data import order

CPU = torch.device("cpu")
CLASSES = len(CATEGORIES)
SMOKE = ("labeler=attentionshift", "profile=smoke", "data=parts", "train.workers=0")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    generate(folder, images=6, size=96, seed=3, split="train")
    return folder


@pytest.fixture(scope="module")
def points(drawn: Path) -> dict:
    return VIEWS["points"](read(drawn / "annotations.json", masks=False))


def config_of(compose, *more: str):
    return compose(*SMOKE, *more)


def test_points_follow_their_image_through_resizing_flipping_and_padding(tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[20:24, 60:64] = 255  # the point lies at its middle
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    entry = {"id": 1, "file_name": "a.png", "height": 40, "width": 80}
    annotations = [{"id": 1, "category_id": 5, "points": [[62.0, 22.0], [10.0, 30.0]]}]
    sample = shown(entry, annotations, tmp_path, {5: 0}, short=80, long=1000)
    assert sample.points.size == (80, 160)
    for each, column in ((sample, 124.0), (flipped(sample), 36.0)):
        x, y = each.points.xy[0].tolist()
        assert (x, y) == (column, 44.0)
        assert each.image[0, int(y) - 2 : int(y) + 2, int(x) - 2 : int(x) + 2].min() > 200
    assert sample.further[0].tolist() == [[20.0, 60.0]]
    assert flipped(sample).further[0].tolist() == [[140.0, 60.0]]
    whole = batched([sample.image, sample.image[:, :30, :40]], multiple=32, fill=(0.1, 0.2, 0.3))
    assert whole.shape == (2, 3, 96, 160)
    assert whole[0, :, 95, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert whole[1, :, 29, 40].tolist() == pytest.approx([0.1, 0.2, 0.3])
    back = mask_to_image(torch.ones(1, 96, 160), sample.points.size, entry)
    assert back.shape == (1, 40, 80)


def test_it_never_sees_a_box_or_a_mask(points: dict, drawn: Path, compose) -> None:
    assert all(set(a) == {"id", "image_id", "category_id", "iscrowd", "point", "points"} for a in points["annotations"])
    config = config_of(compose)
    found = TrainingImages(points, drawn / "images", scale=config.attentionshift.scale, seed=0, most=10)
    sample = found[(0, 0)]
    assert set(vars(sample)) == {"image", "points", "further", "image_id"}


@pytest.fixture(scope="module")
def first_losses(points: dict, drawn: Path, compose) -> Any:
    """(settings, type of numbers) → the losses of the first of three steps, all of which are finite."""

    @cache
    def trained(more: tuple[str, ...], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        config = config_of(compose, *more)
        learning = config.attentionshift.learning
        images = TrainingImages(points, drawn / "images", scale=config.attentionshift.scale, seed=0, most=10)
        seed_everything(0, "test")
        network = AttentionShift(config, classes=CLASSES).lowered(dtype, CPU).train()
        optimizer, scaler = build_optimizer(network, learning), loss_scaler(CPU, dtype)
        steps = []
        for step in range(3):
            seed_everything(0, step)
            batch = [images[(step, 2 * step)], images[(step, 2 * step + 1)]]
            losses = training_step(network, batch, optimizer, scaler, learning)
            assert set(losses) == set(LOSSES)
            assert all(bool(value.isfinite()) for value in losses.values()), losses
            if step == 0 and dtype == torch.float32:
                assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
            steps.append(losses)
        return steps[0]

    return trained


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), id="best"),
        pytest.param(("recipe=released",), id="released"),
        pytest.param(("attentionshift.steps.shift.method=kmeans",), id="kmeans", marks=pytest.mark.slow),
        pytest.param(("attentionshift.steps.mask_points.supervision=mask",), id="masks", marks=pytest.mark.slow),
        pytest.param(("attentionshift.steps.mask_points.source=attention",), id="attention", marks=pytest.mark.slow),
        pytest.param(
            ("attentionshift.tokens.patch_mixing=true", "attentionshift.tokens.stem.timm=null"),
            id="pixels",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_three_steps_in_every_precision(first_losses: Any, dtype: torch.dtype, more: tuple[str, ...]) -> None:
    full, half = first_losses(more, torch.float32), first_losses(more, dtype)
    for name in ("tokens", "places", "rpn_objectness"):  # what no draw and no threshold comes before
        assert float(half[name]) == pytest.approx(float(full[name]), rel=0.05, abs=0.02)


def test_in_a_warm_start_tokens_learn_alone(points: dict, drawn: Path, compose) -> None:
    config = config_of(compose)
    learning = config.attentionshift.learning
    images = TrainingImages(points, drawn / "images", scale=config.attentionshift.scale, seed=0, most=10)
    network = AttentionShift(config, classes=CLASSES).train()
    optimizer, scaler = build_optimizer(network, learning), loss_scaler(CPU, torch.float32)
    losses = training_step(network, [images[(0, 0)], images[(0, 1)]], optimizer, scaler, learning, warm=True)
    assert set(losses) == set(LOSSES)
    assert {name for name, value in losses.items() if value > 0} == {"tokens", "places"}
    learnt = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert learnt == {"vit", "token_heads"}


def test_tokens_that_begin_as_places_are_matched_by_them(compose) -> None:
    network = AttentionShift(config_of(compose, "attentionshift.tokens.count=9"), classes=CLASSES)
    known = Points(torch.tensor([[80.0, 16.0], [16.0, 80.0]]), torch.tensor([0, 0]), (96, 96))
    elsewhere = 1 - network.vit.places  # what they predict is the place across the image
    (found,) = network.match(torch.zeros(1, 9, CLASSES), elsewhere[None], [known])
    assert found.tolist() == [2, 6]  # of three rows of three
    free = AttentionShift(config_of(compose, "attentionshift.tokens.begin=random"), classes=CLASSES)
    (found,) = free.match(torch.zeros(1, 9, CLASSES), elsewhere[None], [known])
    assert found.tolist() == [6, 2]


def test_a_killed_training_ends_in_the_same_bits(points: dict, drawn: Path, compose, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    steps = ("attentionshift.learning.warm_start=1", "attentionshift.learning.steps=2")
    config = config_of(compose, *steps)
    train(points, drawn / "images", config, folder=whole, device=CPU)
    halted = config_of(compose, *steps, "train.stop_after=1")
    with pytest.raises(Stopped):
        train(points, drawn / "images", halted, folder=parted, device=CPU)
    train(points, drawn / "images", config, folder=parted, device=CPU)
    one, other = (load_checkpoint(folder / FILE)["network"] for folder in (whole, parted))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert (whole / "curves.jsonl").read_text() == (parted / "curves.jsonl").read_text()


def test_labels_keep_the_order_of_the_file_whatever_the_order_of_the_tokens(
    points: dict, drawn: Path, compose, tmp_path: Path
) -> None:
    """The same objects in another order get the same masks, each under its own id."""
    config = config_of(compose, "attentionshift.labelling.source=map")
    train(points, drawn / "images", config, folder=tmp_path, device=CPU)
    trained = load(tmp_path / FILE, config, CPU)
    entry = points["images"][0]
    mine = [a for a in points["annotations"] if a["image_id"] == entry["id"]]
    seen = trained.network.eval().see(
        [
            shown(
                entry, mine, drawn / "images", trained.categories.labels_of(points, source="points"), short=64, long=96
            ).image
        ]
    )
    for annotations in (mine, mine[::-1]):
        sample = shown(
            entry,
            annotations,
            drawn / "images",
            trained.categories.labels_of(points, source="points"),
            short=64,
            long=96,
        )
        (tokens,) = trained.network.match(*trained.network.token_heads(seen.tokens), [sample.points])
        if annotations is mine:
            first = tokens
    assert tokens.flip(0).tolist() == first.tolist()
    found = label.labeler(trained, config, CPU)({**points, "images": [entry], "annotations": mine}, drawn / "images")
    assert list(found) == [a["id"] for a in mine]
    for a in mine:
        assert found[a["id"]]["segmentation"]["size"] == [entry["height"], entry["width"]]


def test_bad_points_are_sentences(points: dict, drawn: Path, compose, tmp_path: Path) -> None:
    config = config_of(compose)
    scale = config.attentionshift.scale
    crowded = {**points, "annotations": [{**points["annotations"][0], "id": n} for n in range(12)]}
    with pytest.raises(AnnotationError, match=r"has 12 points, and the network 10 tokens .*tokens\.count=12"):
        TrainingImages(crowded, drawn / "images", scale=scale, seed=0, most=10)
    with pytest.raises(AnnotationError, match="nothing to train on"):
        TrainingImages({**points, "annotations": []}, drawn / "images", scale=scale, seed=0, most=10)
    train(points, drawn / "images", config, folder=tmp_path, device=CPU)
    trained = load(tmp_path / FILE, config, CPU)
    foreign = {**points, "categories": [{"id": c["id"], "name": f"x{c['id']}"} for c in points["categories"]]}
    with pytest.raises(AnnotationError, match="was not trained on"):
        label.labeler(trained, config, CPU)(foreign, drawn / "images")


def test_two_objects_at_one_point_and_further_points_of_an_object_are_learned_from(
    points: dict, drawn: Path, compose
) -> None:
    config = config_of(compose)
    entry = points["images"][0]
    (one, *_) = [a for a in points["annotations"] if a["image_id"] == entry["id"]]
    twice = [{**one, "id": 1}, {**one, "id": 2, "points": [*one["points"], [5.0, 5.0], [6.0, 6.0]]}]
    coco = {**points, "images": [entry], "annotations": twice}
    images = TrainingImages(coco, drawn / "images", scale=config.attentionshift.scale, seed=0, most=10)
    seed_everything(0, "test")
    network = AttentionShift(config, classes=CLASSES).train()
    assert [len(each) for each in images[(0, 0)].further] == [0, 2]
    assert all(bool(value.isfinite()) for value in network([images[(0, 0)]]).values())


def test_recipes_keep_the_released_defects_or_repair_them(compose) -> None:
    for recipe, fallback, grid, ignored in (("paper", "instance", 14, "skip"), ("released", "image", 7, "positive")):
        own = compose("labeler=attentionshift", "profile=paper", "data=shapes", f"recipe={recipe}").attentionshift
        assert own.steps.mask_points.fallback == fallback
        assert (own.detector.mask.grid_train, own.detector.mask.grid_test) == (grid, 14)
        assert own.detector.mask.ignored == ignored


def test_an_image_is_taught_the_same_beside_a_larger_one(points: dict, drawn: Path, compose) -> None:
    """What pads a batch is no part of an image: its maps, boxes and targets end where they do alone."""
    config = config_of(compose)
    images = TrainingImages(points, drawn / "images", scale=config.attentionshift.scale, seed=0, most=10)
    sample, tall = images[(0, 0)], images[(0, 1)]
    tall = replace(tall, image=torch.cat([tall.image, tall.image], dim=1))
    seed_everything(0, "test")
    network = AttentionShift(config, classes=CLASSES).eval()
    shapes = []
    for batch in ([sample], [sample, tall]):
        seen = network.see([each.image for each in batch])
        chosen = network.choose(seen, 0, torch.arange(len(sample.points.labels)), sample.points)
        taught = network.teach(seen, 0, chosen, sample.points, torch.Generator().manual_seed(0))
        shapes.append((chosen.attention.shape, taught.maps.foreground.shape))
        assert (chosen.candidates[..., 2:] <= 64).all()
    assert shapes[0] == shapes[1] == ((len(sample.points.labels), 64, 64),) * 2


def test_a_network_of_no_numbers_gives_losses_that_say_so(points: dict, drawn: Path, compose) -> None:
    config = config_of(compose)
    images = TrainingImages(points, drawn / "images", scale=config.attentionshift.scale, seed=0, most=10)
    network = AttentionShift(config, classes=CLASSES).train()
    with torch.no_grad():
        network.token_heads.places[0].weight.fill_(float("nan"))
    losses = network([images[(0, 0)]])
    assert not losses["places"].isfinite()


def test_the_learning_rate_warms_up_and_falls_twice_and_blocks_near_the_image_learn_slower(compose) -> None:
    learning = compose("labeler=attentionshift", "profile=paper", "data=shapes").attentionshift.learning
    factors = [rate_factor(step, 12_000, learning) for step in (0, 250, 500, 7_999, 8_000, 11_000)]
    assert factors == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.01])
    later = [rate_factor(step, 12_600, replace(learning, warm_start=600)) for step in (250, 8_599, 8_600, 11_600)]
    assert later == pytest.approx([0.5005, 1, 0.1, 0.01])
    config = config_of(compose, "attentionshift.learning.layer_decay=0.75", "attentionshift.learning.weight_decay=0.05")
    network = AttentionShift(config, classes=CLASSES)
    groups = build_optimizer(network, config.attentionshift.learning).param_groups
    found = {id(p): (g["factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    named = dict(network.named_parameters())
    assert found[id(named["vit.vit.blocks.3.attn.qkv.weight"])] == pytest.approx((0.75, 0.05))  # the last of four
    assert found[id(named["vit.vit.blocks.0.attn.qkv.bias"])] == pytest.approx((0.75**4, 0))
    assert found[id(named["vit.vit.pos_embed"])] == pytest.approx((0.75**5, 0))
    assert found[id(named["vit.tokens"])] == (1, 0)
    assert found[id(named["vit.token_positions"])] == (1, 0)
    assert found[id(named["token_heads.classes.0.weight"])] == (1, 0.05)


def test_epochs_show_every_image_once(points: dict, drawn: Path, compose) -> None:
    images = TrainingImages(points, drawn / "images", scale=config_of(compose).attentionshift.scale, seed=0, most=10)
    places = list(order(len(images), seed=0, first=0, stop=2 * len(images)))
    assert sorted(index for _, index in places[: len(images)]) == list(range(len(images)))


def test_the_quality_of_maps_is_measured_against_human_masks(
    points: dict, drawn: Path, compose, tmp_path: Path
) -> None:
    """Maps that are the objects themselves are perfect, maps of noise are chance, a map beside its object is wrong."""
    human = read(drawn / "annotations.json", masks=True)
    config = config_of(compose)
    train(points, drawn / "images", config, folder=tmp_path, device=CPU)
    found = map_quality(load(tmp_path / FILE, config, CPU), config, points, human, drawn / "images", CPU)
    depths = range(1, 1 + config.attentionshift.steps.rollout.depth)
    names = {f"{name}_{k}" for name in ("auc", "peak", "box_iou_expand", "box_iou_min_max") for k in depths}
    assert set(found) == names | {"peak_chance", "box_iou_chosen", "box_iou_constant"}
    assert all(0 <= value <= 1 for value in found.values())
    share = np.mean([a["area"] for a in human["annotations"]]) / 96**2
    assert found["peak_chance"] == pytest.approx(share, rel=0.05)
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:10, 8:20] = True
    noise = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    assert _auc_and_peak(mask.astype(np.float32) + noise, mask) == (1.0, 1.0)
    assert _auc_and_peak(noise - 2 * mask, mask) == (0.0, 0.0)
    assert _auc_and_peak(np.zeros_like(noise), mask)[0] == 0.5
    by_hand = np.mean([[a > b for b in noise[~mask]] for a in noise[mask]])
    assert _auc_and_peak(noise, mask)[0] == pytest.approx(by_hand)
