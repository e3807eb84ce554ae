"""Comparisons on stores whose truth is known: what is paired, what is refused, what is said."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.columns import BELONGS
from analysis.compare.__main__ import Question, main, report
from analysis.compare.changes import by_changes
from analysis.compare.contenders import compared, contenders
from analysis.compare.correlate import clustering_scores, correlation_lines
from analysis.compare.resampled import ComparisonError, mask_ap, mask_iou
from analysis.lineage import differing, settings_of
from analysis.paper_numbers import load
from analysis.records import by_address, finished
from analysis.stats import holm
from mal.errors import MalError

IMAGES, EACH = 30, 4


class Laboratory:
    """A store that is filled with made-up results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.add("shapes_val", "v", config={"images": IMAGES, "seed": 0}, columns={})

    def add(
        self,
        stage: str,
        key: str,
        *,
        config: Mapping[str, Any],
        columns: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Path:
        folder = self.root / stage / key
        folder.mkdir(parents=True)
        record = {
            "stage": stage, "key": key, "version": 1, "status": "done", "config": config, "inputs": inputs or {},
            "sources": {}, "provenance": {"commit": "c0ffee00"},
            "columns": {"profile": "demo", "data": "shapes", **columns},
            "metrics": {name: {"value": value, "n": IMAGES} for name, value in (metrics or {}).items()},
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(record))
        return folder

    def labeler(self, encoder: str, seed: int, **changes: Any) -> dict[str, Any]:
        """A trained labeler; returns its columns."""
        steps, decoder = changes.get("steps", 800), changes.get("decoder", "attention")
        columns = {"labeler": "mal", "recipe": "best", "encoder": encoder, "decoder": decoder, "theta": 1.2}
        config = {"seed": seed, "encoder": {"name": encoder, "timm": f"{encoder}_16"}, "train": {"steps": steps}}
        key = f"{encoder}{seed}{steps}{decoder}"
        if not (self.root / "train_labeler" / key).exists():
            self.add("train_labeler", key, config=config, columns={**columns, "seed": seed})
        return {**columns, "seed": seed, "key": key}

    def quality(self, encoder: str, seed: int, iou: np.ndarray, **changes: Any) -> None:
        """Mask quality of a labeler; iou (IMAGES × EACH,)."""
        columns = self.labeler(encoder, seed, **changes)
        key = columns.pop("key")
        inputs = {"labeler": f"train_labeler/{key}", "data": "shapes_val/v"}
        folder = self.add(
            "quality_val", key, config={"images": "all"}, columns=columns, inputs=inputs, metrics={"iou": iou.mean()}
        )
        ids = np.arange(len(iou))
        frame = pd.DataFrame({"annotation_id": ids, "image_id": ids // EACH, "iou": iou})
        frame.to_csv(folder / "instances.csv", index=False)

    def score(self, name: str, good: int, columns: Mapping[str, Any], supervision: str) -> str:
        """An AP of good / 10: at that many of ten thresholds each image's only detection is right."""
        state = np.zeros((4, 10, IMAGES), dtype=np.int8)
        state[:, :good] = 1
        one, images = np.zeros(IMAGES, dtype=np.int64), np.arange(IMAGES)
        told = {**columns, "segmenter": "tiny", "supervision": supervision}
        folder = self.add("ap_val", name, config={"images": "all"}, columns=told, metrics={"mask_ap": good / 10})
        np.savez_compressed(
            folder / "matches_segm.npz", image_ids=images, category_ids=np.array([1]),
            thresholds=np.linspace(0.5, 0.95, 10), det_image=images, det_category=one, det_score=one + 0.9,
            det_state=state, gt_image=images, gt_category=one, gt_counted=np.ones((4, IMAGES), dtype=bool),
        )  # fmt: skip
        return f"ap_val/{name}"


@pytest.fixture
def lab(tmp_path: Path) -> Laboratory:
    return Laboratory(tmp_path / "runs")


def hardness(seed: int = 0) -> np.ndarray:
    """IoU of instances that share their image's hardness."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.uniform(0.4, 0.8, IMAGES), EACH) + rng.normal(0, 0.02, IMAGES * EACH)


def iou_comparison(lab: Laboratory, baseline: str) -> dict[str, Any]:
    records = finished(lab.root)
    runs = contenders([r for r in records if r["stage"] == "quality_val"], by_address(records), by="encoder")
    found = compared(mask_iou(runs, lab.root, resamples=400, seed=0), baseline=baseline)
    return {"all": found, **{row.name: row for row in found.rows}}


def test_a_paired_difference_is_far_surer_than_either_number(lab: Laboratory) -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, (2, IMAGES * EACH))
    lab.quality("a", 0, hardness())
    lab.quality("b", 0, hardness() + 0.05 + noise[0])
    lab.quality("c", 0, hardness() + noise[1] - noise[1].mean())
    found = iou_comparison(lab, "a")
    row = found["b"]
    assert row.difference.value == pytest.approx(0.05 + noise[0].mean())
    assert 0.045 < row.difference.low < row.difference.value < row.difference.high < 0.055
    assert row.value.high - row.value.low > 10 * (row.difference.high - row.difference.low)
    assert row.p == pytest.approx(1 / 10_001)
    assert found["c"].p == 1
    assert [row.adjusted, found["c"].adjusted] == pytest.approx(holm([row.p, found["c"].p]))
    assert math.isnan(found["a"].p)


def test_a_difference_is_taken_over_the_seeds_that_both_have(lab: Laboratory) -> None:
    for seed, shift in ((0, 0.0), (1, 0.02), (2, -0.3)):
        lab.quality("a", seed, hardness() + shift)
    for seed, shift in ((0, 0.05), (1, 0.03)):
        lab.quality("b", seed, hardness() + shift)
    found = iou_comparison(lab, "a")
    assert found["b"].by_seed == pytest.approx({0: 0.05, 1: 0.01})
    assert found["b"].difference.value == pytest.approx(0.03)
    # two values .04 apart: Student's t with one degree of freedom is 12.706, of a standard error of .02
    assert found["b"].over_seeds.high == pytest.approx(0.03 + 12.706 * 0.02, abs=1e-4)
    assert found["all"].seeds == [0, 1]
    assert found["all"].stability.first == [0.0, 1.0]


def test_seeds_that_are_nowhere_the_same_are_an_error(lab: Laboratory) -> None:
    lab.quality("a", 0, hardness())
    lab.quality("b", 1, hardness())
    with pytest.raises(ComparisonError, match=r"b and the baseline a have no seed in common \(1 and 0\)"):
        iou_comparison(lab, "a")


def test_unlike_schedules_are_named_with_the_flag_that_chooses(lab: Laboratory) -> None:
    lab.quality("a", 0, hardness())
    lab.quality("b", 0, hardness(), steps=400)
    with pytest.raises(
        ComparisonError, match=r"train_labeler\.train\.steps \(400, 800\); choose, .* --where train_lab"
    ):
        report(lab.root, Question("encoder"))
    lab.quality("b", 1, hardness())
    lab.quality("a", 1, hardness() + 0.1)
    text = report(lab.root, Question("encoder", where=["train_labeler.train.steps=800"], resamples=50))
    assert "| a       |  0, 1 |" in text
    assert "| b       |     1 |" in text


def test_a_setting_may_differ_along_when_asked_but_never_within_one_contender(lab: Laboratory) -> None:
    lab.quality("a", 0, hardness())
    lab.quality("b", 0, hardness(), steps=400)
    along = ["train_labeler.train.steps"]
    assert "| b " in report(lab.root, Question("encoder", along=along, resamples=50))
    lab.quality("b", 1, hardness())
    with pytest.raises(
        ComparisonError, match=r"of encoder b differ in more than the seed: train_labeler\.train\.steps"
    ):
        report(lab.root, Question("encoder", along=along, resamples=50))


def test_an_unlike_column_is_chosen_by_its_own_flag(lab: Laboratory) -> None:
    lab.quality("a", 0, hardness())
    lab.quality("b", 0, hardness(), decoder="fcn")
    with pytest.raises(ComparisonError, match=r"decoder \(attention, fcn\).*choose, for instance with --decoder atten"):
        report(lab.root, Question("encoder"))
    with pytest.raises(ComparisonError, match=r"not two values of encoder to compare \(found: a\)"):
        report(lab.root, Question("encoder", wanted={"decoder": ["attention"]}))


def test_what_an_encoder_brings_along_may_differ_but_not_the_recipes_part_of_it() -> None:
    a = {"train_labeler.encoder.timm": "x", "train_labeler.sources.encoder": "1", "clustering_val.encoder.timm": "x"}
    b = {"train_labeler.encoder.timm": "y", "train_labeler.sources.encoder": "2", "clustering_val.encoder.timm": "y"}
    assert differing([a, b], by="encoder") == {}
    assert differing([a, b], by="theta").keys() == a.keys()
    fused = [{"train_labeler.encoder.fuse": "True"}, {"train_labeler.encoder.fuse": "False"}]
    assert list(differing(fused, by="encoder")) == ["train_labeler.encoder.fuse"]
    assert differing(fused, by="recipe") == {}


def test_settings_of_all_that_a_result_comes_from_count_but_the_seed(lab: Laboratory) -> None:
    lab.quality("a", 3, hardness())
    known = by_address(finished(lab.root))
    found = settings_of(known["quality_val/a3800attention"], known)
    assert found["train_labeler.train.steps"] == "800"
    assert found["shapes_val.seed"] == "0"  # the data's
    assert "train_labeler.seed" not in found
    without = {name: record for name, record in known.items() if name.startswith("quality_val")}
    assert settings_of(known["quality_val/a3800attention"], without)["train_labeler.key"] == (
        "train_labeler/a3800attention"
    )


def test_a_labeler_without_randomness_is_compared_with_every_seed(lab: Laboratory) -> None:
    for seed, shift in ((0, 0.2), (1, 0.1)):
        lab.quality("a", seed, hardness() + shift)
    columns = {"labeler": "box"}
    folder = lab.add("quality_val", "box", config={"images": "all"}, columns=columns, inputs={"data": "shapes_val/v"},
                     metrics={"iou": 0.5})  # fmt: skip
    ids = np.arange(IMAGES * EACH)
    frame = pd.DataFrame({"annotation_id": ids, "image_id": ids // EACH, "iou": hardness()})
    frame.to_csv(folder / "instances.csv", index=False)
    text = report(lab.root, Question("labeler", resamples=50))
    assert "| minus box |" in text
    assert "0: +0.200, 1: +0.100" in text
    assert re.search(r"\| box +\| +any \|", text)


def test_other_instances_are_an_error(lab: Laboratory) -> None:
    lab.quality("a", 0, hardness())
    lab.quality("b", 0, hardness()[:-1])
    with pytest.raises(
        ComparisonError, match=r"quality_val/b0800attention does .*; choose .* --where quality_val\.images="
    ):
        iou_comparison(lab, "a")


def test_an_unknown_baseline_is_told_what_there_is(lab: Laboratory) -> None:
    lab.quality("a", 0, hardness())
    lab.quality("b", 0, hardness())
    with pytest.raises(ComparisonError, match="there is no result of z; the baseline can be a, b"):
        iou_comparison(lab, "z")


def test_retentions_are_ratios_to_the_same_human_masks(lab: Laboratory) -> None:
    human = lab.score("h", 8, {"seed": 0}, "human")
    runs = {}
    for encoder, good in (("a", 4), ("b", 6)):
        columns = lab.labeler(encoder, 0)
        columns.pop("key")
        pseudo = lab.score(encoder, good, columns, "pseudo")
        told = {**columns, "segmenter": "tiny", "supervision": "pseudo"}
        metrics = {"retention": good / 8, "retention_low": 0.1, "retention_high": 0.9}
        inputs = {"pseudo": pseudo, "human": human}
        lab.add("retention", encoder, config={"seed": 0}, columns=told, inputs=inputs, metrics=metrics)
    known = by_address(finished(lab.root))
    runs = {name: {0: known[f"ap_val/{name}"]} for name in "ab"}
    humans = {f"ap_val/{name}": known[human] for name in "ab"}
    ap, kept = mask_ap(runs, {"human masks": humans}, lab.root, resamples=20, seed=0)
    assert [ap[name][0].value for name in "ab"] == pytest.approx([0.4, 0.6])
    assert [kept["human masks"][name][0].value for name in "ab"] == pytest.approx([0.5, 0.75])
    text = report(lab.root, Question("encoder", resamples=99))
    assert "## Retention of tiny, per cent" in text
    assert "+25.0 |   [+25.0, +25.0] | 0.020 |" in text  # 2 / 100: the fewest that 99 resamples can say


def test_retentions_over_different_denominators_are_compared_apart(lab: Laboratory) -> None:
    """`b` was divided by human masks and then by a published file: the later one once stood beside a's human one."""
    lab.score("h", 8, {"seed": 0}, "human")
    lab.score("f", 10, {"seed": 0, "published_file": "F.pth"}, "published")
    for encoder, good, below in (("a", 4, ("h",)), ("b", 6, ("h", "f")), ("c", 5, ("f",))):
        columns = lab.labeler(encoder, 0)
        columns.pop("key")
        lab.score(encoder, good, columns, "pseudo")
        for name in below:
            metrics = {"retention": 0.5, "retention_low": 0.1, "retention_high": 0.9}
            inputs = {"pseudo": f"ap_val/{encoder}", "human": f"ap_val/{name}"}
            told = {**columns, "segmenter": "tiny", "supervision": "pseudo"}
            lab.add("retention", f"{encoder}{name}", config={"seed": 0}, columns=told, inputs=inputs, metrics=metrics)
    text = report(lab.root, Question("encoder", resamples=99))
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    rows = {
        title: re.findall(r"^\| (\w) +\| +0 \| +([\d.]+) \[", part, re.MULTILINE)
        for title, part in sections.items()
        if title.startswith("Retention")
    }
    assert rows == {
        "Retention of tiny, divided by the AP with human masks, per cent": [("a", "50.0"), ("b", "75.0")],
        "Retention of tiny, divided by the AP of F.pth, per cent": [("b", "60.0"), ("c", "50.0")],
    }
    chosen = report(lab.root, Question("encoder", "a", resamples=99))
    assert "Not compared, divided by the AP of F.pth: there is no retention of the baseline a." in chosen


def test_match_arrays_cut_off_are_named(lab: Laboratory) -> None:
    for encoder in "ab":
        lab.score(encoder, 5, {k: v for k, v in lab.labeler(encoder, 0).items() if k != "key"}, "pseudo")
    path = lab.root / "ap_val/b/matches_segm.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MalError, match=r"ap_val/b/matches_segm\.npz holds no match arrays"):
        report(lab.root, Question("encoder", resamples=50))


def clustering(lab: Laboratory, scores: Mapping[str, float]) -> None:
    for encoder, value in scores.items():
        lab.add(
            "clustering_val",
            encoder,
            config={"source": "crops", "roi": {"size": 64}, "encoder": {"timm": encoder, "pretrained": True}},
            columns={"encoder": encoder},
            metrics={"clustering": value},
        )


def test_the_clustering_score_is_set_against_the_iou_of_the_same_encoders(lab: Laboratory) -> None:
    for place, encoder in enumerate("abcd"):
        lab.quality(encoder, 0, hardness() + 0.01 * place)
    clustering(lab, {"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.2, "e": 0.9})
    text = report(lab.root, Question("encoder", resamples=50))
    assert "clustering score (encoders as given, crops at 64²) and mask IoU (a, b, c, d)" in text
    assert "| 4        |        -1.00 |" in text
    assert "The paper's own numbers" in text


def test_clustering_scores_of_other_crops_are_another_list(lab: Laboratory) -> None:
    clustering(lab, {"a": 0.5, "b": 0.4})
    config = {"source": "images", "roi": {"size": 64}, "encoder": {"timm": "a", "pretrained": True}}
    lab.add("clustering_val", "i", config=config, columns={"encoder": "a"}, metrics={"clustering": 0.7})
    records = finished(lab.root)
    points = [scores.points for scores in clustering_scores(records, by_address(records))]
    assert sorted(points, key=len) == [{"a": 0.7}, {"a": 0.5, "b": 0.4}]


def test_random_weights_are_called_random_and_stand_apart(lab: Laboratory) -> None:
    clustering(lab, {"a": 0.5})
    config = {"source": "crops", "roi": {"size": 64}, "encoder": {"timm": "a", "pretrained": False}}
    lab.add("clustering_val", "r", config=config, columns={"encoder": "a"}, metrics={"clustering": 0.7})
    records = finished(lab.root)
    found = {scores.title: scores.points for scores in clustering_scores(records, by_address(records))}
    assert found == {
        "encoders as given, crops at 64²": {"a": 0.5},
        "encoders with random weights, crops at 64²": {"a": 0.7},
    }


def test_what_only_labelers_have_does_not_hide_the_scores_of_their_encoders(lab: Laboratory) -> None:
    for place, encoder in enumerate("abcd"):
        lab.quality(encoder, 0, hardness() + 0.01 * place, decoder="attention")
    clustering(lab, {"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.2})
    question = Question("encoder", None, {"decoder": ["attention"], "encoder": ["a", "b", "c"]}, resamples=50)
    assert "and mask IoU (a, b, c)" in report(lab.root, question)


def test_two_points_have_no_correlation_and_the_text_says_why() -> None:
    text = correlation_lines({"a": 1, "b": 2}, {"a": 2, "b": 1, "c": 0}, names=("x", "y"))
    assert text == "x and y: 2 encoders have both (a, b); it takes at least 3."
    assert "equal in one" in correlation_lines({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 0}, names=("x", "y"))


def test_the_papers_correlation_is_of_its_printed_numbers_by_hand() -> None:
    tables = load()
    score = {row.id: float(row.printed["score"].value) for row in tables["tab6_clustering"].rows}  # type: ignore[union-attr]
    kept = {row.id: float(row.printed["retention_val"].value) for row in tables["tab4_encoder"].rows}  # type: ignore[union-attr]
    one, other = (
        np.array(
            [np.mean([1 + sum(b < a for b in it.values()), sum(b <= a for b in it.values())]) for a in it.values()]
        )
        for it in (score, {name: kept[name] for name in score})
    )
    rho = np.corrcoef(one, other)[0, 1]
    assert rho < -0.9
    assert f" {rho:+.2f} |" in correlation_lines(score, kept, names=("x", "y"))


def test_the_command_prints_what_it_writes(lab: Laboratory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.quality("a", 0, hardness())
    lab.quality("b", 0, hardness() + 0.1)
    arguments = ["--by", "encoder", "--store", str(lab.root), "--out", str(tmp_path / "out"), "--resamples", "50"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert (tmp_path / "out/tables/compare_encoder.md").read_text() == first
    assert main([*arguments, "--baseline", "b"]) == 0
    assert "minus b" in capsys.readouterr().out


def test_too_few_changes_lead_to_an_experiment(lab: Laboratory, capsys: pytest.CaptureFixture[str]) -> None:
    lab.quality("a", 0, hardness())
    assert main(["--by", "changes", "--store", str(lab.root), "--segmenter", "none"]) == 1
    assert "python experiments/run.py -m experiment=sensitivity" in capsys.readouterr().err


def test_a_network_whose_training_kept_more_snapshots_is_compared_once() -> None:
    """The same bits under two keys are no two results of one seed."""

    def training(key: str, snapshots: int, start: str) -> dict:
        columns = {"seed": 0, "labeler": "partialres", "start": start}
        config = {"seed": 0, "partialres": {"res": {"snapshots": snapshots, "start": start}}}
        return {"stage": "train_res", "key": key, "config": config, "inputs": {}, "columns": columns}

    records = [training("a", 0, "rec"), training("b", 8, "rec"), training("c", 8, "none")]
    found = by_changes(records, by_address(records))
    assert sorted(record["key"] for runs in found.values() for record in runs.values()) == ["b", "c"]


def test_an_empty_store_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--by", "encoder", "--store", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "holds no finished run" in capsys.readouterr().err


def test_numbers_are_ordered_by_size() -> None:
    records = [
        {"stage": "quality_val", "key": f"{theta}", "config": {}, "inputs": {}, "columns": {"theta": theta, "seed": 0}}
        for theta in (1.6, 0.8, 1.0)
    ]
    assert list(contenders(records, {}, by="theta")) == ["0.8", "1", "1.6"]
    labels = {"encoder", "decoder", "theta", "recipe", "labeler", "segmenter", "key_points", "taught_by"}
    partialres = {"model", "text", "percent", "start", "cctf", "pmca", "task", "threshold", "contour_points", "steps"}
    assert set(BELONGS) == labels | {"pairs", "points"} | partialres
