"""SimFormer learns in every precision, whatever interrupts it, and its embeddings learn alone at first."""

from pathlib import Path

import pytest
import torch

from mal.data.semantic import read_semantic
from mal.engine.runtime import load_checkpoint, seed_everything
from mal.engine.trainer import loss_scaler, update
from mal.errors import ConfigError, Stopped, WeightsError
from mal.methods.simformer import data
from mal.methods.simformer import train as training
from mal.methods.simformer.checkpoint import FILE, load
from mal.methods.simformer.data import TrainingImages, base_classes, collate
from mal.methods.simformer.learner import Learner
from mal.methods.simformer.points import draw_points
from mal.methods.simformer.train import build_optimizer, rate_factor, train
from tests.simformer_cases import NOVEL, changed, draw, steps, weak

CPU = torch.device("cpu")
ALONE = ("network.backbone.", "network.pixel_decoder.", "head.")  # what learns in the warm start


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    weak(draw(folder), folder / "weak")
    return folder


def batches(drawn: Path, config):
    own = config.simformer
    view = read_semantic(drawn / "weak" / "weak.json")
    images = TrainingImages(view, drawn / "images", pairs=own.pairs, augment=own.augment, seed=0)
    return view, [collate([images[(step, step)]], own.pairs.kind, own.augment) for step in range(3)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_three_steps_in_every_precision(compose, drawn: Path, precision: str) -> None:
    config = changed(compose)
    view, steps_of = batches(drawn, config)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    first = []
    for kind in {torch.float32, dtype}:
        seed_everything(0, "test")
        learner = Learner(config, classes=len(view.classes), novel=view.novel, dtype=kind).train()
        optimizer, scaler = build_optimizer(learner, config.simformer.learning), loss_scaler(CPU, kind)
        for step, batch in enumerate(steps_of):
            seed_everything(0, step)
            points = draw_points(batch, config.simformer.pairs, config.simformer.distillation, torch.default_generator)
            losses = learner(batch, points, warm=step == 1)
            assert set(losses) == {"cls", "mask", "complement", "similarity", "distillation", "embeddings"}
            assert all(bool(value.isfinite()) for value in losses.values()), losses
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(torch.stack(list(losses.values())).sum()).backward()
            with_gradient = {name for name, it in learner.named_parameters() if it.grad is not None}
            every = {name for name, it in learner.named_parameters() if it.requires_grad}
            if step == 1:
                assert with_gradient
                assert all(name.startswith(ALONE) for name in with_gradient)
            else:
                assert every - with_gradient == {"head.weight", "head.bias"}
            update(learner, optimizer, scaler, clip=config.simformer.learning.clip)
            if step == 0:
                first.append(losses)
    for name in ("cls", "similarity"):
        assert first[-1][name].item() == pytest.approx(first[0][name].item(), rel=0.05, abs=0.02)


def test_a_killed_training_ends_in_the_same_bits(compose, drawn: Path, tmp_path: Path) -> None:
    """The window of the balance, the warm start's head and the optimizer's state included."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    view, images = drawn / "weak" / "weak.json", drawn / "images"
    train(view, images, steps(changed(compose), 4), folder=whole, device=CPU)
    halted = steps(changed(compose), 4)
    halted.train.stop_after = 1
    for _ in range(2):
        with pytest.raises(Stopped):
            train(view, images, halted, folder=parted, device=CPU)
    balance = load_checkpoint(parted / "checkpoint.pt")["learner"]["pairs.balance.counts"]
    assert int(balance[-1].sum()) > 2  # a step with pairs was before the kill
    train(view, images, steps(changed(compose), 4), folder=parted, device=CPU)
    one, other = (load_checkpoint(folder / FILE) for folder in (whole, parted))
    for part in ("network", "similarity"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    assert (whole / "curves.jsonl").read_text() == (parted / "curves.jsonl").read_text()


def test_the_rate_stays_in_the_warm_start_and_falls_to_nothing_behind_it(compose) -> None:
    learning = steps(changed(compose), 14, warm=4).simformer.learning
    assert [rate_factor(step, learning) for step in range(5)] == [1] * 5
    assert rate_factor(9, learning) == pytest.approx(0.5**0.9)
    assert rate_factor(14, learning) == 0


def test_norms_and_embeddings_do_not_decay_and_the_backbone_learns_slower(compose) -> None:
    config = changed(compose, "learning.backbone=0.1", "learning.weight_decay=0.5")
    learner = Learner(config, classes=13, novel=NOVEL, dtype=torch.float32)
    groups = build_optimizer(learner, config.simformer.learning).param_groups
    found = {id(p): (g["factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    named = dict(learner.named_parameters())
    assert len(found) == len(named)
    for name, expected in {
        "network.backbone.backbone.stages.0.blocks.0.mlp.fc1.weight": (0.1, 0.5),
        "network.backbone.backbone.stages.0.blocks.0.norm.weight": (0.1, 0.0),
        "network.transformer.queries_embedder.weight": (1, 0.0),
        "network.transformer.decoder.layernorm.weight": (1, 0.0),
        "network.class_predictor.weight": (1, 0.5),
        "network.class_predictor.bias": (1, 0.5),
        "pairs.simnet.rest.0.path.1.weight": (1, 0.0),
    }.items():
        assert found[id(named[name])] == expected, name


def test_weights_of_other_settings_are_refused(compose, drawn: Path, tmp_path: Path) -> None:
    train(drawn / "weak" / "weak.json", drawn / "images", steps(changed(compose), 2), folder=tmp_path, device=CPU)
    with pytest.raises(WeightsError, match="trained with other settings"):
        load(tmp_path / FILE, changed(compose, "network.queries=7"), CPU)


def test_an_odd_batch_has_no_pairs(compose) -> None:
    with pytest.raises(ConfigError, match=r"simformer\.learning\.batch=3 must be even for pairs"):
        changed(compose, "learning.batch=3")


def test_base_classes_are_found_by_one_process_once(compose, drawn: Path, tmp_path: Path, monkeypatch) -> None:
    """Each map is decoded for them: thousands at each start of each process, and none after the end."""
    view, asked = drawn / "weak" / "weak.json", []
    monkeypatch.setattr(data, "base_classes", lambda _: pytest.fail("each process would do it"))
    monkeypatch.setattr(training, "base_classes", lambda seen: (asked.append(1), base_classes(seen))[1])
    for _ in range(2):
        train(view, drawn / "images", steps(changed(compose), 2), folder=tmp_path, device=CPU)
    assert len(asked) == 1
