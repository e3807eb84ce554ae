"""Answers of SLURM's commands; a stand-in for them lies on the PATH, no cluster is needed."""

from pathlib import Path

import pytest

from mal.errors import MalError
from slurm import queue


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A squeue whose lines the test writes."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(queue, "PAUSES", (0, 0))
    path = tmp_path / "squeue"
    path.touch()
    path.chmod(0o755)
    return path


def test_jobs_of_an_array_are_told_apart(command: Path) -> None:
    command.write_text("#!/bin/sh\necho '12_3|RUNNING|node7|1:02'; echo ' 13|PENDING|(Dependency)|0:00'\n")
    assert queue.queue() == {
        "12_3": queue.Queued("RUNNING", "node7", "1:02"),
        "13": queue.Queued("PENDING", "Dependency", "0:00"),
    }


def test_a_controller_that_is_away_for_a_while_is_asked_again(
    command: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"; echo x >> asked\n'
        '[ "$(wc -l < asked)" -gt 2 ] && exit 0\n'
        'echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1\n'
    )
    assert queue.queue() == {}
    assert capsys.readouterr().err.count("asking again") == 2


def test_one_that_stays_away_ends_in_a_sentence(command: Path) -> None:
    command.write_text("#!/bin/sh\necho 'error: Socket timed out on send/recv operation' >&2; exit 1\n")
    with pytest.raises(MalError, match="squeue failed: error: Socket timed out"):
        queue.queue()


def test_a_question_that_is_wrong_is_not_asked_again(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.write_text("#!/bin/sh\necho 'squeue: error: Invalid user: nobody-here' >&2; exit 1\n")
    with pytest.raises(MalError, match="Invalid user"):
        queue.queue()
    assert "asking again" not in capsys.readouterr().err
