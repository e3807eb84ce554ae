"""Batches of wide images or of tall ones: every image as often as before, the same order wherever a run resumes."""

from collections import Counter
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mal.engine.store import Store
from mal.request import Graph
from mal.segmenters import loop, training
from mal.segmenters.data import FURTHER_COPY, order
from mal.segmenters.sampling import by_aspect, copies
from tests.small_segmenters import small
from tests.test_segmenter import CPU, edited, make_dataset, same, training_set


@settings(deadline=None, max_examples=200)
@given(
    tall=st.lists(st.booleans(), min_size=1, max_size=60),
    first=st.integers(0, 40),
    batch=st.integers(1, 9),
    seed=st.integers(0, 5),
    mostly_tall=st.booleans(),
)
def test_an_epoch_keeps_its_images_and_mixes_one_batch_at_most(
    tall: list[bool], first: int, batch: int, seed: int, mostly_tall: bool
) -> None:
    kinds = np.array(tall)
    arguments: dict[str, Any] = {"first": first, "batch": batch, "mostly_tall": mostly_tall}
    found = by_aspect(kinds, **arguments, generator=np.random.default_rng(seed))
    assert sorted(found.tolist()) == list(range(len(tall)))
    assert np.array_equal(found, by_aspect(kinds, **arguments, generator=np.random.default_rng(seed)))
    batches: dict[int, list[int]] = {}
    for position, index in enumerate(found.tolist()):
        batches.setdefault((first + position) // batch, []).append(index)
    mixed = [group for group in batches.values() if len({tall[index] for index in group}) == 2]
    shared = [group for group in (min(batches), max(batches)) if len(batches[group]) < batch]
    common = sum(kind == mostly_tall for kind in tall)
    if common >= sum(len(batches[number]) for number in shared):
        assert all(tall[index] == mostly_tall for number in shared for index in batches[number])
        assert len(mixed) <= 1
    for group in mixed:  # kinds do not alternate
        assert sum(tall[a] != tall[b] for a, b in pairwise(group)) == 1


def sequence(tall: NDArray[np.bool_], *, first: int = 0, stop: int, **more: Any) -> list[tuple[int, int]]:
    return list(order(len(tall), seed=3, first=first, stop=stop, tall=tall, **more))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_order_resumes_at_any_step_with_and_without_repeats(data: st.DataObject) -> None:
    tall = np.array(data.draw(st.lists(st.booleans(), min_size=1, max_size=9)))
    factors = np.array(data.draw(st.lists(st.floats(1, 4), min_size=len(tall), max_size=len(tall))))
    batch, steps = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    more = {"batch": batch, "factors": None if data.draw(st.booleans()) else factors}
    whole = sequence(tall, stop=batch * steps, **more)
    first = data.draw(st.integers(0, steps))
    assert sequence(tall, first=first * batch, stop=batch * steps, **more) == whole[first * batch :]
    shown, start = Counter[tuple[int, int]](), 0
    for epoch in range(20):
        often = np.ones(len(tall), int) if more["factors"] is None else copies(factors, seed=3, epoch=epoch)
        if start + often.sum() > len(whole):
            break
        here = whole[start : start + often.sum()]
        assert np.bincount([index for _, index in here], minlength=len(tall)).tolist() == often.tolist()
        assert {draw % FURTHER_COPY for draw, _ in here} == {epoch}
        shown.update(here)
        start += int(often.sum())
    assert max(shown.values(), default=1) == 1


def test_every_batch_of_a_run_has_one_kind_but_one_an_epoch_and_they_come_mixed_up() -> None:
    tall = np.random.default_rng(0).random(1000) < 0.3
    epochs, batch = 8, 16
    whole = sequence(tall, stop=epochs * 1000, batch=batch)
    kinds = np.array([tall[index] for _, index in whole]).reshape(-1, batch)
    mixed = kinds.any(axis=1) & ~kinds.all(axis=1)
    assert mixed.sum() <= epochs
    pure = kinds[~mixed, 0]
    assert pure.mean() == pytest.approx(tall.mean(), abs=0.02)
    changes = (pure[1:] != pure[:-1]).mean()
    assert changes == pytest.approx(2 * tall.mean() * (1 - tall.mean()), abs=0.08)  # as in a random sequence
    for parts in (2, 4, 8):  # of a batch that processes share
        assert (kinds[~mixed].reshape(-1, parts, batch // parts).std(axis=2) == 0).all()
    together = [{index for _, index in whole[start : start + batch]} for start in range(0, len(whole), batch)]
    assert not any(one == other for n, one in enumerate(together) for other in together[:n])  # images change company


def test_images_know_their_kind(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", images=3)

    def resized(coco: dict[str, Any]) -> None:
        for image, (width, height) in zip(coco["images"], [(64, 63), (63, 64), (64, 64)], strict=True):
            image["width"], image["height"] = width, height
        coco["annotations"] = [dict(a, segmentation=[[0, 0, 9, 0, 9, 9]]) for a in coco["annotations"]]

    assert training_set(data, edited(data, resized)).tall().tolist() == [False, True, True]


def test_a_grouped_run_sees_its_groups_and_resumes_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(tmp_path / "data", images=6)
    tall = np.array([True, False, False, True, False, False])
    monkeypatch.setattr("mal.segmenters.data.TrainingSet.tall", lambda _: tall)
    config = small("mask_rcnn_tiny", "schedule.aspect_groups=true", "schedule.steps=9", "running.checkpoint_steps=4")
    where = {"annotations": data / "annotations.json", "images": data / "images"}
    seen: list[list[int]] = []
    real = loop._step

    def noted(*arguments: Any, **named: Any) -> None:
        seen.append([sample.image_id - 10 for sample in arguments[3]])
        if len(seen) == 16:  # in the second run
            raise KeyboardInterrupt
        real(*arguments, **named)

    monkeypatch.setattr(loop, "_step", noted)
    training.train(**where, config=config, seed=0, folder=tmp_path / "whole", device=CPU)
    assert all(tall[first] == tall[second] for first, second in seen)
    assert [sorted(chain(*seen[start : start + 3])) for start in (0, 3, 6)] == [list(range(6))] * 3
    with pytest.raises(KeyboardInterrupt):
        training.train(**where, config=config, seed=0, folder=tmp_path / "cut", device=CPU)
    training.train(**where, config=config, seed=0, folder=tmp_path / "cut", device=CPU)
    assert seen[16:] == seen[4:9]
    first, second = (torch.load(tmp_path / name / "segmenter.pt", weights_only=True) for name in ("whole", "cut"))
    assert same(first, second)


def test_results_from_before_there_were_groups_keep_their_keys(compose: Any, tmp_path: Path) -> None:
    def trained(*overrides: str) -> dict[str, Any]:
        graph = Graph(compose("profile=smoke", f"store={tmp_path}", "tracking=none", *overrides), Store(tmp_path), CPU)
        return graph.segmenters.train(None).config["segmenter"]["schedule"]

    assert "aspect_groups" not in trained()
    assert trained("segmenter.schedule.aspect_groups=true")["aspect_groups"] is True
