"""Paths on the command line mean themselves, and what Hydra refuses ends in one sentence with a way out."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from mal.config import Config
from mal.engine.tracking_address import hide_password
from mal.overrides import PATHS, quote, quoted, settings, unread
from tests.conftest import CONF

ROOT = CONF.parents[1]
NAMES = [
    "boxes (1).json", "run=3.json", "50%.json", "a@b.json", "a#b.json", "a,b.json", "it's.json", 'the "best".json',
    "a[1].json", "[a", "a{1}.json", "a}.json", "my boxes.json", "Müller.json", "图像.json", "a+b&c!d.json", "2024.json",
    "2024", "true", "a$b.json", "a:b.json", " lead.json", "trail ", "~old.json", "a~", "#1", "back\\slash", "end\\",
    "-m.json", "=", "a;b|c<d>.json", "tab\there",
]  # fmt: skip


def parsed(*arguments: str) -> list[str]:
    """The values that Hydra reads."""
    return [str(it.value()) for it in OverridesParser.create().parse_overrides(quoted(arguments))]


def command(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """experiments/run.py, with an environment that says nothing of MLflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    return subprocess.run(
        [sys.executable, str(ROOT / "experiments/run.py"), *map(str, arguments)],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("exists", [False, True])
def test_a_path_needs_no_quotes_but_the_shells(tmp_path, monkeypatch, name, exists):
    monkeypatch.chdir(tmp_path)
    if exists:
        Path(name).touch()
    assert parsed(f"data.train.annotations={name}") == [name]
    assert parsed(f"+data.root={tmp_path}/{name}") == [f"{tmp_path}/{name}"]


@example("\\\n")  # a backslash before the last newline
@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab\\\"'=,[]{}()#$~ :%!&@\n"))
def test_hydra_reads_back_any_text_that_was_quoted(text):
    (override,) = OverridesParser.create().parse_overrides([f"key={quote(text)}"])
    assert override.value() == text


def test_what_hydra_understood_already_means_the_same():
    kept = [
        "data.root=null",
        "data.root=../a-b/c_1.d",
        "data.root=",
        "store='a b'",
        'store="a b"',
        "compare=[box,ellipse]",
        "seed=1",
        "-m",
        "~row",
    ]
    assert quoted(kept) == kept
    assert parsed("hydra.sweep.dir=out/${now:%H-%M}") == ["out/${now:%H-%M}"]


def test_a_file_whose_name_has_the_form_of_a_reference_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a${seed}.json").touch()
    assert quoted(["data.train.annotations=a${seed}.json"]) == [r'data.train.annotations="a\${seed}.json"']
    Path("'b'").touch()
    assert parsed("data.root='b'") == ["'b'"]


def test_the_home_folder_is_found_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of (mine)")
    assert parsed("data.root=~/coco") == ["/home/of (mine)/coco"]


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_over_paths_is_one_unless_a_file_has_that_name(tmp_path, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    assert quoted([flag, "data.root=a,b"]) == [flag, "data.root=a,b"]
    assert quoted([flag, "data.root=choice(a,b)"]) == [flag, "data.root=choice(a,b)"]
    for name in ("a (1)", "b=2"):
        Path(name).mkdir()
    (override,) = OverridesParser.create().parse_overrides(quoted([flag, "data.root=a (1),b=2"])[1:])
    assert list(override.sweep_string_iterator()) == ['"a (1)"', '"b=2"']
    Path("a (1),b=2").mkdir()
    (override,) = OverridesParser.create().parse_overrides(quoted([flag, "data.root=a (1),b=2"])[1:])
    assert (override.is_sweep_override(), override.value()) == (False, "a (1),b=2")


def test_every_path_is_a_setting_that_takes_text():
    ours = {name for name in PATHS if not name.startswith("hydra.")}
    assert ours <= settings().keys()
    assert {name for name in ours if settings()[name] not in (str, str | None)} == set()
    likely = {"annotations", "images", "parts", "root", "store", "start", "cluster", "uri"}
    likely |= {"checkpoint", "file", "val_file", "vectors"}
    # whose initial weights heads, or a network, have
    initial = {"segmenter.heads.start", "attentionshift.detector.mask.start", "partialres.res.start"}
    assert {name for name in settings() if name.rpartition(".")[2] in likely} - initial <= ours
    assert {name for name in settings() if name.startswith("roots.")} <= ours


REFUSED = [
    ("nokey=1", "there is no setting nokey;"),
    ("train.lr=3", "there is no setting train.lr (did you mean"),
    ("train.step=3", "did you mean train.steps"),
    ("data=cocos", "data=cocos is not on the menu (did you mean coco"),
    ("encoder=foo", "choose one of convnext_b, "),
    ("encoder=3", "encoder=3: a menu"),
    ("=3", "=3: a menu"),
    ("novalue", "write KEY=VALUE"),
    ("train.steps=abc", "train.steps is a whole number or null; give train.steps=VALUE"),
    ("label.flip=perhaps", "label.flip is true or false"),
    ("seed=null", "seed is a whole number;"),
    ("train.betas=[a,b]", "train.betas is a list of numbers"),
    ("train=3", "train is a group of settings"),
    ("seed=1,2", "add -m to sweep over its values"),
    ("roi.size=[1", "close its brackets"),
    ("encoder.timm=a b=c", "'encoder.timm=\"a b=c\"'"),
]


@pytest.mark.slow
@pytest.mark.parametrize("override", [it for it, _ in REFUSED])
def test_what_hydra_refuses_ends_in_one_sentence(override):
    result = command(override, "tracking=none", "dry_run=true")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert dict(REFUSED)[override] in result.stderr
    assert "HYDRA_FULL_ERROR" not in result.stderr


@pytest.mark.slow
def test_the_quoting_that_an_error_names_works():
    refused = command("encoder=timm", "encoder.name=it's (1)", "encoder.timm=a=b, c", "dry_run=true")
    (pasted,) = shlex.split(refused.stderr.partition("quoted twice, ")[2])
    (override,) = OverridesParser.create().parse_overrides([pasted])
    assert override.value() == "it's (1)"


@pytest.mark.slow
def test_hydras_own_text_and_a_traceback_are_there_for_who_asks(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert "Traceback" in command("nokey=1").stderr


@pytest.mark.slow
def test_odd_names_reach_the_run(tmp_path, coco_mini):
    folder = tmp_path / "it's (1), a=b [new] #2 $x"
    folder.mkdir()
    (folder / "images").symlink_to(coco_mini / "val2017")
    annotations = folder / " boxes~ (1).json"
    annotations.symlink_to(coco_mini / "annotations/instances_val2017_mini.json")
    result = command("profile=smoke", "tracking=none", "segmenter=none", "data=coco", "dry_run=true",
                     f"data.train.annotations={annotations}", f"data.train.images={folder / 'images'}",
                     "data.val.annotations=null", f"store={folder / 'runs'}")  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "train_labeler" in result.stdout


@pytest.mark.parametrize(
    "argument", ["http://me:s3cret@host:5000/x", "--uri=https://me:s3cret@host", "tracking.uri='http://me:s3@cret@h'"]
)
def test_a_password_leaves_the_arguments_for_the_environment(argument):
    (kept,), variables = hide_password([argument])
    assert "cret" not in kept
    assert "me" not in kept.replace("me:", "")
    assert variables["MLFLOW_TRACKING_USERNAME"] == "me"
    assert variables["MLFLOW_TRACKING_PASSWORD"] in ("s3cret", "s3@cret")


def test_escapes_in_a_password_are_undone_and_other_addresses_stay():
    assert hide_password(["http://a%40b:p%2Fw@host"])[1]["MLFLOW_TRACKING_PASSWORD"] == "p/w"
    for address in ("sqlite:////a@b/c:d@e.db", "http://host/a:b@c", "http://host:5000", "seed=1", "", "=", "a='"):
        assert hide_password([address]) == ([address], {})


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["labeler=mal", "partialres.few.percent=20"], "labeler=mal reads no setting of partialres"),
        (["labeler=box", "+simformer.learning.steps=2"], "labeler=box reads no setting of simformer"),
        (["labeler=partialres", "attentionshift.learning.steps=2"], "labeler=partialres reads no setting of attention"),
        (["labeler=attentionshift", "data.expressions.kind=file"], "labeler=attentionshift reads no expressions"),
        (["labeler=partialres", "partialres.few.percent=20", "data.expressions.kind=templates"], None),
        (["experiment=partialres/parts", "row=naive", "labeler=mal", "seed=1"], None),  # what an experiment sets
        (["labeler=mal", "train.steps=5", "-m", "--multirun"], None),
    ],
)
def test_settings_that_the_runs_labeler_does_not_read_are_named(arguments: list[str], found: str | None) -> None:
    config = Config()
    config.labeler.name = next(it for it in arguments if it.startswith("labeler=")).partition("=")[2]
    notes = unread(arguments, config)
    assert len(notes) == (found is not None)
    if found is not None:
        assert notes[0].startswith(f"{arguments[1]} is not read: {found}")
