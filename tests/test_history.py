"""How long is ahead: from earlier runs of the same kind, and nothing made up where there are none."""

from pathlib import Path
from typing import Any

import pytest

from mal.engine import history
from mal.engine.files import write_json
from mal.engine.graph import Result, Stage
from mal.engine.history import History, in_words, outlook
from mal.engine.store import Store


def stage(name: str = "train_labeler", *, seed: int = 0, steps: int | None = None, **columns: Any) -> Stage:
    config = {"seed": seed} | ({} if steps is None else {"train": {"steps": steps}})
    return Stage(name, 1, config, lambda _: Result(), columns={"data": "shapes", "seed": seed, **columns})


def ran(root: Path, what: Stage, seconds: float, *, processes: int = 1, gpu: str | None = None) -> None:
    record = {"stage": what.name, "key": what.key, "status": "done", "seconds": seconds, "processes": processes,
              "columns": what.columns, "config": what.config, "provenance": {"hardware": {"gpu": gpu}}}  # fmt: skip
    write_json(root / what.name / what.key / "run.json", record)


def test_alike_are_runs_of_the_same_kind_on_as_many_processes_and_devices(tmp_path: Path) -> None:
    for seed, seconds in enumerate((10.0, 30.0, 14.0)):
        ran(tmp_path, stage(seed=seed), seconds)
    ran(tmp_path, stage(seed=3), 999.0, processes=2)
    ran(tmp_path, stage(seed=4), 888.0, gpu="one")
    ran(tmp_path, stage(seed=5, encoder="another"), 777.0)
    past = History(tmp_path)
    assert past.seconds(stage(seed=9), processes=1, gpu=False) == (14.0, 3)
    assert past.seconds(stage(seed=9), processes=2, gpu=False) == (999.0, 1)
    assert past.seconds(stage(seed=9), processes=1, gpu=True) == (888.0, 1)
    assert past.seconds(stage(seed=9, encoder="third"), processes=1, gpu=False) is None


def test_a_damaged_record_of_another_run_tells_nothing_and_stops_nothing(tmp_path: Path) -> None:
    ran(tmp_path, stage(), 10.0)
    for key, text in {"cut": '{"sta', "list": "[]"}.items():
        (tmp_path / "train_labeler" / key).mkdir()
        (tmp_path / "train_labeler" / key / "run.json").write_text(text)
    assert History(tmp_path).seconds(stage(seed=9), processes=1, gpu=False) == (10.0, 1)


def test_a_segmenter_takes_as_long_whoever_made_its_masks(tmp_path: Path) -> None:
    ran(tmp_path, stage("train_segmenter", segmenter="small", labeler="mal", encoder="vit"), 40.0)
    past = History(tmp_path)
    human, other = (stage("train_segmenter", seed=1, segmenter=name) for name in ("small", "large"))
    assert past.seconds(human, processes=1, gpu=False) == (40.0, 1)
    assert past.seconds(other, processes=1, gpu=False) is None


def test_a_longer_training_takes_longer(tmp_path: Path) -> None:
    ran(tmp_path, stage(steps=100), 50.0)
    assert History(tmp_path).seconds(stage(steps=800), processes=1, gpu=False) == (400.0, 1)


def test_a_labeler_of_larger_crops_or_another_recipe_says_nothing(tmp_path: Path) -> None:
    def of(size: int, recipe: str) -> Stage:
        config = {"roi": {"size": size}, "crf": {"kernel": 3}}
        return Stage("train_labeler", 1, config, lambda _: Result(), columns={"data": "shapes", "recipe": recipe})

    ran(tmp_path, of(64, "best"), 40.0)
    past = History(tmp_path)
    assert past.seconds(of(64, "best"), processes=1, gpu=False) == (40.0, 1)
    assert past.seconds(of(96, "best"), processes=1, gpu=False) is None
    assert past.seconds(of(64, "paper"), processes=1, gpu=False) is None


def test_the_outlook_counts_a_shared_stage_once_and_names_what_it_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PUBLISHED", tmp_path / "published")
    here, known = Store(tmp_path / "runs"), [stage(seed=seed) for seed in (0, 1, 2)]
    assert outlook([*known, *known], here) == "3 stages, 0 of them done; how long the rest takes, no earlier run tells"
    ran(here.root, known[0], 300.0)
    assert outlook([*known, *known], here) == "3 stages, 1 of them done; the rest takes about 10 min by earlier runs"
    other = stage("train_segmenter", segmenter="new")
    assert outlook([*known, other], here).endswith("earlier runs, without 1 stage of kinds never run before")
    ran(tmp_path / "published", stage("train_segmenter", seed=7, segmenter="new"), 60.0)
    assert outlook([*known, other], here).endswith("about 11 min by earlier runs, some of them on another machine")
    assert outlook(known[:1], here) == "1 stages, 1 of them done"


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (90, "2 min"), (12000, "3 h 20 min")])
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
