"""Validation expressions of which a network knows no word are told, and refused where there are no others."""

import json
from pathlib import Path

import pytest
import torch
from language_models import write

from mal.engine import notes
from mal.engine.graph import Workdir, in_order
from mal.engine.store import Store
from mal.errors import ConfigError
from mal.methods.partialres import lessons
from mal.methods.partialres.checkpoint import FILE, build, save
from mal.methods.partialres.text.unknown import check_known, say_unread
from mal.methods.partialres.text.vocabulary import Vocabulary
from mal.request import Graph
from tests.partialres_cases import changed, draw

CPU = torch.device("cpu")
KNOWN = Vocabulary(("left", "red", "star"))


def asked(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have said."""
    monkeypatch.setattr(notes, "_known", bytearray(len(notes._known)))


def test_expressions_without_a_known_word_are_counted_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    check_known(asked("the red star", "a b", "c", "d", "a b", "e", "left"), KNOWN, 15)
    said = capsys.readouterr().err
    assert "note: 5 expressions have no word that the training expressions have, of 7: 'a b', 'c', 'd', …" in said
    assert said.count("\n") == 1


def test_nothing_is_said_where_each_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    check_known(asked("the red star", "my left"), KNOWN, 15)
    assert capsys.readouterr().err == ""


def test_words_that_are_not_read_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    check_known(asked("red", "the one that is left"), KNOWN, 4)
    assert "1 expression has no word" in capsys.readouterr().err


def test_expressions_that_are_not_read_to_their_end_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    say_unread([["the", "red", "star"], ["the", "star"]], 2, whose="training")
    assert "1 of 2 training expressions has more than 2 words, of which no more are read" in capsys.readouterr().err
    say_unread([["the", "red", "star"]], 3, whose="training")
    assert capsys.readouterr().err == ""


def test_no_expression_with_a_known_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no validation expression \('a b', 'c'\) has a word .*data\.val"):
        check_known(asked("a b", "c"), KNOWN, 15)


@pytest.mark.parametrize("name", ["refer_val", "locate_val"])
def test_a_run_says_so_before_it_predicts(compose, tmp_path: Path, name: str) -> None:
    config = changed(compose)
    learned = (lessons.for_boxes if name == "locate_val" else lessons.for_masks)(config)
    state = build(learned, lexicon=KNOWN, rec=name == "locate_val", load=False).state_dict()
    save(tmp_path / FILE, config=learned, raw=state, ema=state, lexicon=KNOWN, task="mask")
    view = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "expressions": ["A blue sphere"], "bbox": [0, 0, 4, 4]}],
    }
    (tmp_path / "expressions.json").write_text(json.dumps(view))
    found = in_order(Graph(config, Store(tmp_path / "store"), CPU).targets())
    (stage,) = [stage for stage in found if stage.name == name]
    workdir = Workdir(tmp_path / "out", {"expressions": tmp_path, "network": tmp_path}, CPU)
    with pytest.raises(ConfigError, match="no validation expression \\('a blue sphere'\\)"):
        stage.work(workdir)


def of_files(compose, folder: Path, train: str | None, val: str | None, *settings: str) -> Graph:
    """A run on files whose objects all have one expression, or none."""
    draw(folder)
    coco = json.loads((folder / "annotations.json").read_text())
    config = changed(compose, *settings)
    config.data.format, config.data.name, config.data.root = "coco", "own", None
    for name, text in (("train", train), ("val", val)):
        texts = [] if text is None else [text]
        content = {**coco, "annotations": [{**each, "expressions": texts} for each in coco["annotations"]]}
        (folder / f"{name}.json").write_text(json.dumps(content))
        split = getattr(config.data, name)
        split.annotations, split.images = str(folder / f"{name}.json"), str(folder / "images")
    return Graph(config, Store(folder / "store"), CPU)


@pytest.mark.parametrize(
    ("train", "val", "settings", "message"),
    [
        (
            "the red star",
            "a mauve sphere",
            (),
            r"no validation expression \('a mauve sphere'\) has a word that",
        ),
        ("the red star", "a mauve star", (), None),
        ("the red star", "a mauve star", ("network.text.words=2",), "has a word among the first 2 that the training"),
        ("a long way to the star", "star", ("network.text.words=5",), "has a word that the training expressions have"),
        ("left", "right", ("image.flip=false",), "has a word that the training expressions have"),
        ("left", "right", ("image.flip=true",), None),  # a mirrored image has it
        (None, "star", (), None),  # the view's stage says what is missing
        ("star", None, (), None),
        (
            "the star",
            "左边的",
            ("language model",),
            r"no validation expression \('左边的'\) has a word that the language",
        ),
        (
            "左边的",
            "the star",
            ("language model",),
            r"no training expression \('左边的'\) has a word that the l",
        ),
        ("the star", "red", ("language model",), None),
    ],
)
def test_expressions_of_which_no_word_will_be_known_are_refused_before_anything_is_trained(
    compose, tmp_path: Path, train: str | None, val: str | None, settings: tuple[str, ...], message: str | None
) -> None:
    if settings == ("language model",):
        write(tmp_path / "bert")
        settings = ("network.text.encoder=transformer", f"network.text.checkpoint={tmp_path / 'bert'}")
    graph = of_files(compose, tmp_path, train, val, *settings)
    for _ in range(2):  # the second time by what is remembered
        if message is None:
            graph.check()
        else:
            with pytest.raises(ConfigError, match=message):
                graph.check()
