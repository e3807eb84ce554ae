"""Partial-RES learns in every precision, whatever interrupts it; its average, its rate and its start are as stated."""

import json
from pathlib import Path

import pytest
import torch

from mal.data.annotations import CocoDict, read
from mal.data.mask_kinds import with_masks
from mal.data.views import VIEWS
from mal.engine.files import write_json
from mal.engine.runtime import load_checkpoint, seed_everything
from mal.engine.trainer import update
from mal.errors import ConfigError, Stopped, WeightsError
from mal.methods.partialres import lessons
from mal.methods.partialres.checkpoint import FILE, load
from mal.methods.partialres.config.learning import TrainingConfig
from mal.methods.partialres.data import TrainingObjects, collate
from mal.methods.partialres.few import draw as drawn
from mal.methods.partialres.few import human_masks, masked
from mal.methods.partialres.known_masks import FEW, read_known
from mal.methods.partialres.learner import Learner
from mal.methods.partialres.objects import referred
from mal.methods.partialres.schedule import (
    Average,
    build_optimizer,
    freeze_backbone,
    kept_share,
    rate_factor,
    total_steps,
)
from mal.methods.partialres.starting import starting_network
from mal.methods.partialres.train import learned_from, train
from tests.partialres_cases import changed, draw, some_masks

CPU = torch.device("cpu")
IDS = (1, 2, 4, 5, 7)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
VARIANTS = {  # → task, settings
    "boxes": ("box", ()),
    "masks with both parts": ("mask", ()),
    "masks, transposed": ("mask", ("parts.cctf=transposed", "parts.pmca=false")),
    "taskwise": ("taskwise", ("sequence.task=taskwise", "res.start=none")),
    "query, boxes": ("box", ("network.model=query", "network.query.queries=3")),
    "query, masks": ("mask", ("network.model=query",)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "view.json").write_text(json.dumps(draw(folder)))
    return folder


@pytest.fixture(scope="module")
def view(place: Path) -> CocoDict:
    return json.loads((place / "view.json").read_text())


@pytest.mark.parametrize("precision", [*DTYPES])
@pytest.mark.parametrize("variant", [*VARIANTS])
def test_two_steps_of_every_variant_in_every_precision(compose, place, view, variant: str, precision: str) -> None:
    task, settings = VARIANTS[variant]
    config = (lessons.for_boxes if task == "box" else lessons.for_masks)(changed(compose, *settings))
    own, dtype = config.partialres, DTYPES[precision]
    seed_everything(0, "test")
    network, lexicon = starting_network(config, referred(view), rec=task == "box", start=None)
    known = some_masks(place, *IDS)
    objects = learned_from(referred(view), known, task)
    data = TrainingObjects(objects, place / "images", own, lexicon, task=task, masks=known, seed=0)
    learner = Learner(network, smoothing=0.1, dtype=dtype).train()
    optimizer = build_optimizer(network, own.res)
    # torch's first scale, 2¹⁶, overflows, and steps are skipped until it has halved often enough
    scaler = torch.amp.GradScaler("cpu", init_scale=64, enabled=dtype == torch.float16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(2):
        losses = learner(collate([data[(step, index)] for index in range(3)]))
        assert all(value.dtype == torch.float32 and bool(value.isfinite()) for value in losses.values()), losses
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        update(learner, optimizer, scaler, clip=1.0)
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())
    after = network.state_dict()
    moved = {name for name, _ in network.named_parameters() if not torch.equal(before[name], after[name])}
    still = {name for name, it in network.named_parameters() if it.grad is None}
    assert not still  # the backbone has no stage behind the maps that are read
    assert {"encoders.text.embedding.weight", "encoders.text.gru.weight_ih_l0"} <= moved


def run(compose, place, view, folder: Path, task: str, *settings: str, stop: int | None = None, **more) -> Path:
    config = changed(compose, *settings)
    config = (lessons.for_boxes if task == "box" else lessons.for_masks)(config)
    config.train.stop_after = stop
    train(view, place / "images", config, task=task, folder=folder, device=CPU, **more)
    return folder / FILE


def states_of(path: Path) -> dict:
    state = load_checkpoint(path)
    return {f"{part}.{name}": value for part in ("partialres", "ema") for name, value in state[part].items()}


def assert_same(one: Path, other: Path) -> None:
    first, second = states_of(one), states_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("variant", ["boxes", "masks with both parts", "taskwise", "query, masks"])
def test_a_killed_training_ends_in_the_same_bits(compose, place, view, tmp_path: Path, variant: str) -> None:
    """The average and the optimizer's state included; with dropout, which follows (seed, step)."""
    task, settings = VARIANTS[variant]
    masks = None if task == "box" else some_masks(place, *IDS)
    every = (*settings, "network.dropout=0.1", "rec.steps=4", "res.steps=4")
    whole = run(compose, place, view, tmp_path / "whole", task, *every, masks=masks)
    for _ in range(2):
        with pytest.raises(Stopped):
            run(compose, place, view, tmp_path / "parted", task, *every, masks=masks, stop=1)
    parted = run(compose, place, view, tmp_path / "parted", task, *every, masks=masks)
    assert_same(whole, parted)
    assert (tmp_path / "whole" / "curves.jsonl").read_text() == (tmp_path / "parted" / "curves.jsonl").read_text()


def test_masks_outside_the_few_change_no_bit(compose, place, view, tmp_path: Path) -> None:
    """All that training reads is made again of a file without them: the view, the few masks, the weights."""
    everything = with_masks(read(place / "annotations.json", masks=False))
    asked = masked(everything, [each.id for each in referred(view)])
    few = human_masks(everything, drawn(asked, 50, seed=0))
    assert 0 < len(few) < len(asked)
    stripped = json.loads((place / "annotations.json").read_text())
    for annotation in stripped["annotations"]:
        if annotation["id"] not in {row["id"] for row in few}:
            del annotation["segmentation"]
    (tmp_path / "annotations.json").write_text(json.dumps(stripped))
    read_again = read(tmp_path / "annotations.json", masks=False)
    seen = VIEWS["expressions"](read_again)
    assert seen == view
    left = with_masks(read_again)
    again = human_masks(left, drawn(masked(left, [each.id for each in referred(seen)]), 100, seed=0))
    assert again == few
    files = {}
    for name, rows, its_view in (("whole", few, view), ("less", again, seen)):
        write_json(tmp_path / name / FEW, rows)
        files[name] = run(compose, place, its_view, tmp_path / name, "mask", masks=read_known(tmp_path / name))
    assert_same(files["whole"], files["less"])


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_masks_start_from_boxes_with_all_that_fits(compose, place, view, tmp_path: Path, weights: str) -> None:
    rec = run(compose, place, view, tmp_path / "rec", "box")
    held = load_checkpoint(rec)["ema" if weights == "ema" else "partialres"]
    config = lessons.for_masks(changed(compose, f"res.start_from={weights}"))
    network, _ = starting_network(config, referred(view), rec=False, start=tmp_path / "rec")
    own = network.state_dict()
    fresh = {name for name in own if name not in held or not torch.equal(own[name], held[name])}
    assert fresh
    assert all(name.startswith(("decoder.places", "decoder.task")) or "modulation" in name for name in fresh), fresh


def test_a_start_with_other_words_is_refused(compose, place, view, tmp_path: Path) -> None:
    run(compose, place, view, tmp_path / "rec", "box")
    other = {**view, "annotations": [{**a, "expressions": ["a thing"]} for a in view["annotations"]]}
    with pytest.raises(WeightsError, match=r"does not know all words of the training file \(a, thing\)"):
        starting_network(lessons.for_masks(changed(compose)), referred(other), rec=False, start=tmp_path / "rec")


def test_a_start_that_knows_more_words_keeps_them(compose, place, view, tmp_path: Path) -> None:
    """As one of older code does, which knew words behind the last one that is read, too."""
    run(compose, place, view, tmp_path / "rec", "box")
    whole = load_checkpoint(tmp_path / "rec" / FILE)["words"]
    fewer = {**view, "annotations": [{**a, "expressions": ["the red star"]} for a in view["annotations"]]}
    config = lessons.for_masks(changed(compose))
    network, lexicon = starting_network(config, referred(fewer), rec=False, start=tmp_path / "rec")
    assert [*lexicon.words] == whole
    assert network.encoders.text.embedding.weight.shape[0] == len(lexicon)


def test_a_file_of_other_settings_is_refused(compose, place, view, tmp_path: Path) -> None:
    path = run(compose, place, view, tmp_path, "mask", masks=some_masks(place, *IDS))
    load(path, changed(compose), CPU)
    with pytest.raises(WeightsError, match="trained with other settings"):
        load(path, changed(compose, "sequence.points=4"), CPU)


def test_without_any_mask_there_is_nothing_to_learn(compose, place, view, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no object with an expression has a mask to learn from; raise partialres\.few"
    ):
        run(compose, place, view, tmp_path, "mask", masks={})


def test_the_rate_rises_on_five_stairs_and_falls_to_a_tenth() -> None:
    """(e + 1)/6 in the first five epochs; a tenth from epoch 75 of 90, or 50 of 60."""
    for epochs, drop, learning in (
        (90, 75, TrainingConfig(epochs=90, batch=128)),
        (60, 50, TrainingConfig(epochs=60, batch=128, warmup=0.083333333)),
    ):
        for objects in (5, 422, 42_226):
            per_epoch = -(-objects // 128)
            steps = total_steps(learning, objects)
            assert steps == epochs * per_epoch
            for epoch in (0, 1, 3, 4, 5, 6, drop - 1, drop, epochs - 1):
                expected = min(1, (epoch + 1) / 6) * (0.1 if epoch >= drop else 1)
                for step in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
                    assert rate_factor(step, steps, learning) == pytest.approx(expected), (epoch, step)
    assert rate_factor(0, 1, TrainingConfig(steps=1, warmup=0)) == 1
    assert [rate_factor(step, 8, TrainingConfig(warmup=0.4)) for step in range(4)] == pytest.approx(
        [1 / 6, 1 / 3, 2 / 3, 1]
    )


def test_an_epoch_ends_in_a_batch_that_is_not_full() -> None:
    """One per cent of RefCOCOg umd's 42,226 objects is four steps an epoch."""
    assert total_steps(TrainingConfig(epochs=1, batch=128), round(42_226 / 100)) == 4
    assert total_steps(TrainingConfig(epochs=3, batch=4), 10) == 9
    assert total_steps(TrainingConfig(epochs=1, batch=128), 5) == 1
    assert total_steps(TrainingConfig(steps=7), 5) == 7


def test_the_average_is_the_stated_one_with_buffers_and_copies_whole_numbers() -> None:
    torch.manual_seed(0)
    network = torch.nn.BatchNorm1d(3)
    average = Average(network)
    expected = {name: value.double().clone() for name, value in network.state_dict().items()}
    for step in range(20):
        with torch.no_grad():
            network.weight.add_(torch.randn(3))
        network(torch.randn(4, 3))
        kept = kept_share(step, 0.5)
        assert kept == min(0.5, (step + 1) / (step + 10))
        average.update(network, kept=kept)
        for name, value in network.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * value.double()
    found = average.module.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert found[name].double().numpy() == pytest.approx(expected[name].numpy(), abs=1e-6)
    assert int(found["num_batches_tracked"]) == 20


def test_a_word_that_only_a_mirrored_image_has_is_known(compose, view) -> None:
    texts = {"expressions": ["the left star", "the star on top"]}
    objects = referred({**view, "annotations": [{**a, **texts} for a in view["annotations"]]})
    for flip, words in (
        ("true", {"the", "left", "right", "star", "on", "top"}),
        ("false", {"the", "left", "star", "on", "top"}),
    ):
        config = lessons.for_boxes(changed(compose, f"image.flip={flip}"))
        assert {*starting_network(config, objects, rec=True, start=None)[1].words} == words


def test_a_frozen_backbone_keeps_its_weights_and_moves_its_statistics(compose, view) -> None:
    config = lessons.for_boxes(changed(compose, "rec.backbone=0"))
    network, _ = starting_network(config, referred(view), rec=True, start=None)
    freeze_backbone(network)
    (group,) = build_optimizer(network, config.partialres.rec).param_groups
    inside = {id(it) for it in network.encoders.backbone.parameters()}
    assert not inside & {id(it) for it in group["params"]}
    slower = build_optimizer(
        starting_network(config, referred(view), rec=True, start=None)[0],
        TrainingConfig(backbone=0.1),
    ).param_groups
    assert [group["factor"] for group in slower] == [1.0, 0.1]
    assert all(group["amsgrad"] and group["betas"] == (0.9, 0.98) and group["eps"] == 1e-9 for group in slower)
