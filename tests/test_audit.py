"""The audit: rounding is an interval, the paper's slips are found, and nothing else is called one."""

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.audit import AGREES, CANNOT, ROUNDING, Interval, claims, main, retentions, verdict
from analysis.paper.table import Printed
from analysis.paper_numbers import PAPER, PaperNumbersError, load
from analysis.zoo import comparisons
from analysis.zoo import report as zoo_report

TABLES = load()


def test_three_printed_retentions_cannot_follow_from_their_rows():
    found = {
        finding.place: (finding.printed, finding.computed)
        for finding in retentions(TABLES)
        if finding.verdict == CANNOT
    }
    assert found == {
        "Table 1, BBTP, ResNet-101, Mask R-CNN, Ret. test-dev": ("59.1", "54.381"),  # 21.1 / 38.8
        "Table 1, BoxLevelSet, ResNet-101-DCN, SOLOv2, Ret. test-dev": ("83.5", "84.689"),  # 35.4 / 41.8
        "Table 2, Mask Auto-Labeler, ViT-MAE-Base, ResNeXt-101-32x4d-FPN, Mask R-CNN, COCO, Ret. val": (
            "91.8",
            "91.373",  # 23.3 / 25.5; at most 23.35 / 25.45 = 91.749, which prints as 91.7
        ),
    }


def test_every_printed_retention_is_audited():
    printed = sum(row.printed.get(name) is not None for table in TABLES.values() for row in table.rows
                  for name in ("retention_val", "retention_test"))  # fmt: skip
    assert len(list(retentions(TABLES))) == printed == 44


def of(words: str) -> list[str]:
    return [finding.verdict for finding in claims(TABLES) if words in finding.place]


@pytest.mark.parametrize(
    ("words", "verdicts"),
    [
        ("43.3% mAP on COCO test-dev", [CANNOT]),  # val and test-dev are swapped in the text
        ("44.1% mAP on COCO val", [CANNOT]),
        ("1.6% on val2017", [AGREES]),
        ("1.3% on test-dev", [ROUNDING]),  # 39.1 − 37.9 = 1.2, but 39.149 − 37.851 = 1.298
        ("93% ~ 98%), of all labelers", [CANNOT]),  # 91.8
        ("93% ~ 98%), of the labelers trained on LVIS", [ROUNDING]),  # 92.9
        ("every ViT's score is then the smaller one", [CANNOT]),  # Swin-B .425 < DeiT-S .431
        ("rank the encoders as Table 4's", [CANNOT]),
        ("detection performance also benefits", [CANNOT]),  # AP50 and AP_L fall
        ("around 0.35% mAP drop", [AGREES]),
        ("around 1% improvement", [AGREES, AGREES]),
        ("up to 94.5%", [AGREES]),
        ("up to 97.4%", [AGREES]),
    ],
)
def test_claims_are_judged(words, verdicts):
    assert of(words) == verdicts


decimals = st.integers(101, 999).map(lambda tenths: f"{tenths / 10:.1f}")


@given(decimals, decimals, st.randoms(use_true_random=False))
def test_a_ratio_of_numbers_that_round_to_the_printed_ones_is_never_called_impossible(above, below, rng: random.Random):
    """Brute force: true values within the rounding of what is printed, their ratio printed to one decimal."""
    true = [Fraction(text) + Fraction(rng.randint(-499, 499), 10_000) for text in (above, below)]
    ratio = Printed(f"{float(100 * true[0] / true[1]):.1f}")
    assert verdict(ratio, Interval.of(Printed(above)).over(Interval.of(Printed(below)))) != CANNOT


@given(decimals, decimals)
def test_a_ratio_outside_all_roundings_is_impossible(above, below):
    """The four corners are the extremes of a quotient of positive numbers."""
    slack = Fraction(1, 20)
    corners = [100 * (Fraction(above) + a) / (Fraction(below) + b) for a in (-slack, slack) for b in (-slack, slack)]
    computed = Interval.of(Printed(above)).over(Interval.of(Printed(below)))
    assert (computed.low, computed.high) == (min(corners), max(corners))
    for wrong in (max(corners) + Fraction(11, 100), min(corners) - Fraction(11, 100)):
        assert verdict(Printed(f"{float(wrong):.1f}"), computed) == CANNOT


@pytest.mark.parametrize(
    ("printed", "found"), [("1.5", AGREES), ("1.4", ROUNDING), ("1.6", ROUNDING), ("1.3", CANNOT), ("1.7", CANNOT)]
)
def test_a_verdict_separates_rounding_from_contradiction(printed, found):
    assert verdict(Printed(printed), Interval(Fraction("1.5"), Fraction("1.37"), Fraction("1.63"))) == found


def test_the_command_prints_all_and_ends_well(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "3 of 44 printed retentions." in printed
    assert "Ablation study of box expansion" in printed
    assert "Tab. 6" in printed
    assert "8 of 8 are equal, 4 of them under a name that says -DCN." in printed


def test_the_papers_supervised_lvis_numbers_are_those_of_the_zoos_plain_models():
    found = comparisons(TABLES)
    assert [one.zoo for one in found] == ["21.7", "23.6", "25.5", "25.8", "22.5", "24.6", "26.7", "27.2"]
    assert all(one.equal and not one.deformable for one in found)
    misnamed = [(one.backbone, one.verdict) for one in found if one.verdict != "equal"]
    assert misnamed == [(name, "equal, but it is a plain model's") for name in ("ResNet-50-DCN", "ResNet-101-DCN")] * 2


def test_the_zoos_numbers_are_compared_and_not_asserted(tmp_path):
    (tmp_path / "zoo.yaml").write_text((PAPER / "zoo.yaml").read_text().replace('box_ap: "24.6"', 'box_ap: "26.6"'))
    (other,) = [one for one in comparisons(TABLES, tmp_path) if one.verdict == "another number"]
    assert (other.place, other.printed, other.zoo) == ("Table 7, human masks, AP", "24.6", "26.6")
    assert "7 of 8 are equal, 3 of them under a name that says -DCN." in zoo_report(TABLES, tmp_path).notes
    (tmp_path / "zoo.yaml").write_text("models: []")
    with pytest.raises(PaperNumbersError, match=r"zoo\.yaml lacks source, about, models or gains"):
        comparisons(TABLES, tmp_path)
    with pytest.raises(PaperNumbersError, match=r"nowhere/zoo\.yaml: .*from a checkout of the repository"):
        comparisons(TABLES, tmp_path / "nowhere")
