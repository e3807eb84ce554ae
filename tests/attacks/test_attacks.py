"""The attacks, as small as they still mean something; each script says how to run it at length by hand."""

import itertools
from pathlib import Path

import damage
import full_disk
import harness
import kills
import pytest
import races
import stopped

pytestmark = pytest.mark.slow
SHORT = ("segmenter=none",)


def test_killed_runs_end_in_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    assert kills.attack(tmp_path, kills=3, seed=0, overrides=SHORT) == []


def test_of_processes_that_race_one_computes_each_stage(tmp_path: Path) -> None:
    assert races.attack(tmp_path, processes=4, overrides=SHORT) == []


def test_an_owner_that_was_stopped_leaves_its_heirs_work_alone(tmp_path: Path) -> None:
    problems, lost = stopped.attack(tmp_path, rounds=2, seed=0, overrides=SHORT)
    assert problems == []
    assert lost > 0, "nobody was taken over: the attack did not happen"


def test_where_no_file_may_grow_the_run_ends_in_a_sentence_and_goes_on_later(tmp_path: Path) -> None:
    assert full_disk.attack_files(tmp_path, limits=(6_000, 2_000_000), overrides=SHORT) == []


def test_a_full_disk_ends_the_run_in_a_sentence_and_it_goes_on_later(tmp_path: Path) -> None:
    try:
        assert full_disk.attack_disk(tmp_path, sizes=(64, 6144), overrides=SHORT) == []
    except PermissionError as error:
        pytest.skip(f"{error}: a tiny file system is needed for this test")


def test_damaged_results_are_computed_again_or_named_with_a_way_out_that_works(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    harness.finish(harness.config(reference, *damage.SHORT), tmp_path / "log")
    names = [name for name in damage.targets(reference) if name.startswith(("train_labeler", "label_val"))]
    # one of each kind of damage; all of them on all files by hand
    for count, (name, way) in enumerate(zip(names, itertools.cycle(damage.DAMAGES), strict=False)):
        (tmp_path / str(count)).mkdir()
        assert damage.attack(tmp_path / str(count), reference, name, way) == []
