"""The page: it holds everything itself, says what it leaves out, and its numbers are those of the records."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.figures import Drawn
from analysis.records import by_address, finished
from analysis.report import page
from analysis.report.__main__ import main
from analysis.report.headline import headlines
from tests.report_store import drawn_store, write_record


@pytest.fixture
def two_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One figure that is drawn and one that is not, in place of all of them."""

    def draw_all(store: Path, out: Path, redistributable: bool = False) -> list[Drawn]:
        path = out / "figures" / "one.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), "red").save(path)
        why = f"drawn from {len(list(store.iterdir()))} stages" * (not redistributable)
        return [
            Drawn("one", "A figure", "What <it> shows", path, why),
            Drawn("two", "Another", "", None, "no data yet"),
        ]

    monkeypatch.setattr(page, "draw_all", draw_all)


def written(store: Path, out: Path, *options: str) -> str:
    assert main(["--store", str(store), "--out", str(out), *options]) == 0
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("two_figures")
def test_nothing_is_loaded_from_elsewhere_and_links_are_relative_and_lead_to_files(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs")
    text = written(tmp_path / "runs", tmp_path / "out")
    assert not re.findall(r"""(?:src|action|data|poster|srcset)=["'](?!data:)""", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text
    links = [link for link in re.findall(r'href="([^"#][^"]*)"', text) if not link.startswith("data:")]
    assert links
    for link in links:
        assert not link.startswith(("/", "http"))
        assert (tmp_path / "out" / link).is_file()
    assert str(tmp_path) not in text  # no path of this machine


@pytest.mark.usefixtures("two_figures")
def test_each_of_the_papers_tables_has_one_heading(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs")
    headings = re.findall(r"<h3>[^<]*\(Table (\d) of the paper\)</h3>", written(tmp_path / "runs", tmp_path / "out"))
    assert headings == list("1234567")


@pytest.mark.usefixtures("two_figures")
def test_the_same_store_gives_the_same_page(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs")
    assert written(tmp_path / "runs", tmp_path / "a") == written(tmp_path / "runs", tmp_path / "b")


@pytest.mark.usefixtures("two_figures")
def test_a_page_to_be_given_away_links_only_to_a_store_that_goes_with_it(tmp_path: Path) -> None:
    drawn_store(tmp_path / "out" / "published")
    assert "quality_val/mal/run.json" in written(tmp_path / "out" / "published", tmp_path / "out", "--redistributable")
    drawn_store(tmp_path / "runs")
    assert "quality_val/mal/run.json" not in written(tmp_path / "runs", tmp_path / "out", "--redistributable")


@pytest.mark.usefixtures("two_figures")
def test_names_from_a_file_cannot_end_the_script_or_become_markup(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs")  # a category is called dog & <b>bone</b></script>
    write_record(tmp_path / "runs", "label_val", "x", columns={"data": "<i>odd"})
    text = written(tmp_path / "runs", tmp_path / "out")
    assert "<b>bone" not in text
    assert "<i>odd" not in text
    assert "What &lt;it&gt; shows" in text
    found = re.search(r'id="gallery-data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    (part,) = json.loads(found[1])
    assert part["categories"]["7"] == "dog & <b>bone</b></script>"


@pytest.mark.usefixtures("two_figures")
def test_figures_stand_in_the_page_and_absent_ones_are_listed(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs")
    text = written(tmp_path / "runs", tmp_path / "out")
    assert '<figure id="figure-one">' in text
    assert "<li>Another: no data yet</li>" in text


@pytest.mark.usefixtures("two_figures")
def test_provenance_names_every_stage_with_its_commit_seconds_and_packages(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs")
    text = written(tmp_path / "runs", tmp_path / "out")
    part = text[text.index('id="provenance"') :]
    for record in finished(tmp_path / "runs"):
        assert f"<code>{record['key']}</code>" in part
    assert "0123456789" in part
    assert "torch 2.11.0" in part
    assert "<td>1.5</td>" in part


@pytest.mark.usefixtures("two_figures")
def test_a_store_without_images_gives_a_page_without_a_gallery(tmp_path: Path) -> None:
    drawn_store(tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "shapes_val")
    text = written(tmp_path / "runs", tmp_path / "out")
    assert "There is nothing to show." in text
    assert "3 labelled sets of 20 instances are not in the gallery" in text


def test_an_empty_store_and_a_broken_file_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: the store {tmp_path / 'none'} does not exist; ")
    drawn_store(tmp_path / "runs")
    broken = tmp_path / "runs" / "label_val" / "mal" / "labels.json"
    broken.write_text(broken.read_text()[:-9])
    assert main(["--store", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 1
    assert "label_val/mal/labels.json cannot be read" in capsys.readouterr().err


def test_a_gain_is_paired_by_instance_and_its_interval_says_whether_it_is_real(tmp_path: Path) -> None:
    drawn_store(tmp_path, images=12)
    (headline,) = headlines(by_address(finished(tmp_path)), tmp_path)
    assert not headline.comparable
    scores = {name: pd.read_csv(tmp_path / "quality_val" / name / "instances.csv") for name in ("mal", "ellipse")}
    gain = (scores["mal"]["iou"] - scores["ellipse"]["iou"]).mean()
    rows = {row[0]: row for row in headline.tables[0].rows}
    assert rows["MAL"][1].startswith(f"{scores['mal']['iou'].mean():.3f} [")
    assert rows["MAL"][3].startswith(f"{gain:+.3f} [")
    low, high = (float(v) for v in re.findall(r"[+-]\d\.\d+", rows["MAL"][3])[1:])
    # the plain standard error of a mean over images, for which the bootstrap's is an estimate
    by_image = (scores["mal"]["iou"] - scores["ellipse"]["iou"]).groupby(scores["mal"]["image_id"]).mean()
    reach = 1.96 * by_image.std() / np.sqrt(len(by_image))
    assert (high - low) / 2 == pytest.approx(reach, rel=0.3, abs=0.002)
    (finding,) = headline.findings
    assert ("more than the inscribed ellipse" in finding) == (low > 0)


@pytest.mark.parametrize(
    ("shift", "words"),
    [(0.05, "That is more than"), (-0.05, "the labeler has learned nothing"), (0.0, "it is not shown that")],
)
def test_the_verdict_follows_the_interval(tmp_path: Path, shift: float, words: str) -> None:
    drawn_store(tmp_path, images=10, labelers=("mal", "ellipse"))
    frame = pd.read_csv(tmp_path / "quality_val" / "ellipse" / "instances.csv")
    frame["iou"] += shift + 0.01 * np.where(frame["image_id"] % 2, 1, -1)
    frame.to_csv(tmp_path / "quality_val" / "mal" / "instances.csv", index=False)
    (headline,) = headlines(by_address(finished(tmp_path)), tmp_path)
    assert words in headline.findings[0]


def test_without_the_ellipse_nothing_is_claimed(tmp_path: Path) -> None:
    drawn_store(tmp_path, labelers=("mal",))
    (headline,) = headlines(by_address(finished(tmp_path)), tmp_path)
    assert "was not measured: run experiment=baselines" in headline.findings[0]


def test_retention_is_that_of_the_record_or_says_why_there_is_none(tmp_path: Path) -> None:
    def score(key: str, value: float, **columns: Any) -> None:
        metrics = {name: {"value": value, "n": 17} for name in ("mask_ap", "box_ap")}
        shared = {"segmenter": "tiny", "seed": 0, **columns}
        write_record(
            tmp_path, "ap_val", key, metrics=metrics, columns=shared, inputs={"predictions": f"detect_val/{key}"}
        )

    score("h", 0.5, supervision="human")
    score("m", 0.4, supervision="pseudo", labeler="mal")
    metrics = {f"retention{part}": {"value": v, "n": 17} for part, v in (("", 0.8), ("_low", 0.7), ("_high", 0.95))}
    inputs = {"pseudo": "ap_val/m", "human": "ap_val/h"}
    write_record(tmp_path, "retention", "r", metrics=metrics, inputs=inputs, columns={"seed": 0, "segmenter": "tiny"})
    (headline,) = headlines(by_address(finished(tmp_path)), tmp_path)
    assert headline.findings == ["Retention of tiny trained on MAL masks: 80.0 % [70.0 %, 95.0 %]."]
    score("h", 0.1, supervision="human")
    (headline,) = headlines(by_address(finished(tmp_path)), tmp_path)
    assert headline.findings == ["Retention of tiny trained on MAL masks: too weak to divide by (human < 0.2)."]
