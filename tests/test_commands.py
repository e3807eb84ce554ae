"""How a command ends: by its code, with a sentence, or without a word where nobody reads what it prints any more."""

import os
import subprocess
import sys

import pytest

from mal.engine.commands import READER_GONE, command
from mal.errors import ConfigError
from tests.conftest import CONF

ROOT = CONF.parents[1]
PUBLISHED = ("--store", str(ROOT / "results" / "published"))


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "mal.store", *PUBLISHED, "list"),
        ("-m", "analysis.summary", *PUBLISHED),
        ("-m", "analysis.collect", *PUBLISHED, "--csv", "-"),
        ("experiments/run.py", "--help"),
        ("experiments/run.py", "dry_run=true", "store=/nonexistent", "hydra.run.dir=."),
    ],
    ids=lambda it: " ".join(it).replace(f"{ROOT}/", ""),
)
def test_a_command_whose_reader_has_gone_ends_without_a_word(arguments, buffered):
    reader, writer = os.pipe()
    os.close(reader)
    flags = [] if buffered else ["-u"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *flags, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        text=True,
    )
    os.close(writer)
    assert done.returncode == READER_GONE
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


def test_an_error_of_ours_is_a_sentence_and_any_other_a_bug(capsys):
    def ends(with_what):
        @command
        def main(_):
            if isinstance(with_what, Exception):
                raise with_what
            return with_what

        return main()

    assert ends(None) == 0
    assert ends(3) == 3
    assert ends(ConfigError("it is so; do that")) == 1
    assert capsys.readouterr().err == "error: it is so; do that\n"
    with pytest.raises(ValueError, match="a bug"):
        ends(ValueError("a bug"))
    reader, writer = os.pipe()  # standard output has a reader, so that another pipe broke
    with open(writer, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(BrokenPipeError):
            ends(BrokenPipeError())
    os.close(reader)
