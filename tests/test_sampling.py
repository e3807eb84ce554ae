"""Repeat-factor sampling: the paper's factors, drawn anew each epoch, the same order whenever it is asked for."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_segmenter import CPU, edited, make_dataset, tiny, training_set

from mal.engine.store import Store
from mal.errors import ConfigError
from mal.request import Graph
from mal.segmenters import loop
from mal.segmenters.config import ScheduleConfig
from mal.segmenters.config_checks import check
from mal.segmenters.data import FURTHER_COPY, order
from mal.segmenters.optimizer import run_length
from mal.segmenters.rcnn import mask_rcnn
from mal.segmenters.sampling import copies, repeat_factors


def test_factors_are_the_papers():
    # 1,000 images: category 1 on all, 2 on 10, 3 on one
    shown = [[1] for _ in range(989)] + [[1, 2] for _ in range(10)] + [[3, 1, 3]]
    factors = repeat_factors(shown, threshold=0.04)
    assert set(factors[:989]) == {1.0}
    assert factors[989:999] == pytest.approx(math.sqrt(0.04 / 0.01))
    assert factors[999] == pytest.approx(math.sqrt(0.04 / 0.001))  # the rarest decides; two objects are one image


@settings(deadline=None, max_examples=30)
@given(
    shown=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=20),
    threshold=st.floats(1e-4, 1.0),
)
def test_factors_follow_the_definition(shown, threshold):
    for here, factor in zip(shown, repeat_factors(shown, threshold=threshold), strict=True):
        shares = {c: sum(c in other for other in shown) / len(shown) for c in here}
        assert factor == pytest.approx(max(max(1, math.sqrt(threshold / share)) for share in shares.values()))


def test_fractions_are_rounded_at_random_and_right_on_average():
    factors = np.array([1.0, 1.25, 2.0, 3.9])
    drawn = np.stack([copies(factors, seed=0, epoch=epoch) for epoch in range(2000)])
    assert set(drawn[:, 0]) == {1}
    assert set(drawn[:, 1]) == {1, 2}
    assert set(drawn[:, 2]) == {2}
    assert drawn.mean(axis=0) == pytest.approx(factors, abs=0.04)
    np.testing.assert_array_equal(copies(factors, seed=0, epoch=7), drawn[7])
    assert (np.stack([copies(factors, seed=1, epoch=epoch) for epoch in range(50)]) != drawn[:50]).any()


@settings(deadline=None, max_examples=60)
@given(
    shown=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=40),
    threshold=st.floats(1e-4, 1.0),
)
def test_repeats_rounded_up_are_those_of_mmdetections_sampler(shown, threshold):
    """Its documented steps, one by one: f(c), r(c) = max(1, sqrt(t / f(c))), r(I) = max r(c), ceil(r(I)) copies."""
    share = {c: sum(c in other for other in shown) / len(shown) for here in shown for c in here}
    exact = [max(max(1.0, math.sqrt(threshold / share[c])) for c in here) for here in shown]
    factors = repeat_factors(shown, threshold=threshold, rounding="up")
    for factor, plain in zip(factors, exact, strict=True):
        assert factor == math.ceil(plain) or plain == pytest.approx(round(plain), rel=1e-12)
    for epoch in (0, 1, 9):
        np.testing.assert_array_equal(copies(factors, seed=epoch, epoch=epoch), factors)


def test_rounded_up_a_factor_above_one_is_two():
    shown = [[1] for _ in range(990)] + [[1, 2] for _ in range(10)]
    assert repeat_factors(shown, threshold=0.0101)[-1] == pytest.approx(1.005, abs=1e-3)
    assert set(repeat_factors(shown, threshold=0.0101, rounding="up")[-10:]) == {2.0}
    assert set(repeat_factors(shown, threshold=0.0101, rounding="up")[:-10]) == {1.0}


def test_a_run_whose_repeats_are_rounded_up_shows_whole_epochs_and_is_as_long(dataset, tmp_path):
    config = tiny("schedule.repeat_threshold=0.9", "schedule.repeat_rounding=up", "schedule.steps=null",
                  "schedule.epochs=3", "schedule.batch=2")  # fmt: skip
    shown: list[int] = []

    def losses(model, batch):
        shown.extend(sample.image_id for sample in batch)
        return {"loss": sum(p.sum() for p in model.parameters() if p.requires_grad) * 0}

    loop.train(
        annotations=with_a_rare_category(dataset), images=dataset / "images", config=config, seed=0, folder=tmp_path,
        device=CPU, build=lambda classes: mask_rcnn.build(config, classes=classes), losses=losses,
    )  # fmt: skip
    assert len(shown) in (14, 16)  # 3 epochs of 2 + 1 + 1 + 1 images in batches of 2
    for epoch in (0, 1):
        assert sorted(shown[5 * epoch : 5 * epoch + 5]) == [10, 10, 11, 12, 13]


def test_rounding_is_one_of_two_and_older_results_keep_their_keys(compose, tmp_path):
    with pytest.raises(ConfigError, match=r"repeat_rounding=down is unknown; choose one of random, up"):
        check(tiny("schedule.repeat_rounding=down"))

    def trained(*overrides: str) -> dict[str, object]:
        chosen = compose("profile=smoke", f"store={tmp_path}", "tracking=none", *overrides)
        return Graph(chosen, Store(tmp_path), CPU).segmenters.train(None).config["segmenter"]["schedule"]

    assert "repeat_rounding" not in trained()
    assert trained("segmenter.schedule.repeat_rounding=up")["repeat_rounding"] == "up"


def test_an_epoch_shows_every_image_as_often_as_drawn_in_a_new_order():
    factors = np.array([1.0, 2.5, 1.5, 4.0])
    sequence, start = list(order(4, seed=3, first=0, stop=60, factors=factors)), 0
    for epoch in range(4):
        often = copies(factors, seed=3, epoch=epoch)
        here = sequence[start : start + often.sum()]
        assert np.bincount([index for _, index in here], minlength=4).tolist() == often.tolist()
        assert {draw % FURTHER_COPY for draw, _ in here} == {epoch}
        start += often.sum()
    assert [index for _, index in sequence[:8]] != sorted(index for _, index in sequence[:8])


def test_no_two_positions_of_a_run_are_augmented_alike():
    sequence = list(order(3, seed=0, first=0, stop=500, factors=np.array([1.0, 3.7, 1.1])))
    assert len(set(sequence)) == 500
    first_copies = [draw for draw, _ in sequence if draw < FURTHER_COPY]
    assert len(first_copies) == pytest.approx(500 * 3 / 5.8, rel=0.05)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_order_resumes_anywhere(data):
    count = data.draw(st.integers(1, 6))
    factors = np.array(data.draw(st.lists(st.floats(1, 5), min_size=count, max_size=count)))
    stop = data.draw(st.integers(1, 60))
    first = data.draw(st.integers(0, stop))
    chosen = None if data.draw(st.booleans()) else factors
    whole = list(order(count, seed=1, first=0, stop=stop, factors=chosen))
    assert len(whole) == stop
    assert list(order(count, seed=1, first=first, stop=stop, factors=chosen)) == whole[first:]


def test_where_nothing_is_rare_the_order_is_the_one_without_repeats():
    plain = list(order(7, seed=3, first=0, stop=40))
    assert list(order(7, seed=3, first=0, stop=40, factors=np.ones(7))) == plain
    assert [draw for draw, _ in plain] == [position // 7 for position in range(40)]


def test_an_epoch_is_as_long_as_it_is_on_average():
    assert run_length(ScheduleConfig(batch=16, epochs=12), images=1250.5) == 938


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", images=4)


def with_a_rare_category(dataset: Path) -> Path:
    """Category 3 is on the first image alone, but for crowds, which are not trained on."""

    def drop(coco):
        coco["annotations"] = [
            a for a in coco["annotations"] if a["category_id"] == 8 or a["image_id"] == 10 or a["iscrowd"]
        ]

    return edited(dataset, drop)


def test_a_training_set_counts_images_by_what_is_trained_on(dataset):
    path = with_a_rare_category(dataset)
    made = training_set(dataset, path)
    assert made.repeat_factors(None) is None
    assert made.repeat_factors(0.5) == pytest.approx([math.sqrt(0.5 / 0.25), 1, 1, 1])
    agnostic = training_set(dataset, path, class_agnostic=True)
    assert agnostic.repeat_factors(0.5) == pytest.approx([1, 1, 1, 1])


def test_a_repeated_image_is_augmented_anew(dataset):
    made = training_set(dataset)
    shapes = {tuple(made[(3 + copy * FURTHER_COPY, 0)].boxes_xyxy.flatten().tolist()) for copy in range(8)}
    assert len(shapes) > 1


def test_thresholds_that_make_no_sense_are_refused():
    for value in (0, -0.1, 1.5):
        with pytest.raises(ConfigError, match=r"repeat_threshold=.* must be a share of the images"):
            check(tiny(f"schedule.repeat_threshold={value}"))


@pytest.mark.slow
def test_a_killed_run_with_repeats_ends_with_the_same_bits(dataset, tmp_path):
    """The steps shown are those of the order, and a run that stopped half way goes on with the next."""
    config = tiny("schedule.repeat_threshold=0.9", "running.checkpoint_steps=1")
    path, shown = with_a_rare_category(dataset), []

    def losses(model, batch, stop_at=None):
        shown.extend(sample.image_id for sample in batch)
        if stop_at is not None and len(shown) > stop_at:
            raise KeyboardInterrupt
        return mask_rcnn.losses(model, batch)

    def run(folder, losses):
        loop.train(
            annotations=path,
            images=dataset / "images",
            config=config,
            seed=0,
            folder=folder,
            device=CPU,
            build=lambda classes: mask_rcnn.build(config, classes=classes),
            losses=losses,
        )

    run(tmp_path / "whole", losses)
    factors = training_set(dataset, path).repeat_factors(0.9)
    assert factors == pytest.approx([math.sqrt(0.9 / 0.25), 1, 1, 1])
    expected = [10 + index for _, index in order(4, seed=0, first=0, stop=12, factors=factors)]
    assert shown == expected
    shown.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", lambda model, batch: losses(model, batch, stop_at=6))
    run(tmp_path / "killed", losses)
    whole, killed = (torch.load(tmp_path / name / "segmenter.pt") for name in ("whole", "killed"))
    assert all(torch.equal(whole["model"][name], killed["model"][name]) for name in whole["model"])
