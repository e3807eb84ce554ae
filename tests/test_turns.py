"""One process at a time: others wait, go on after a death, or are refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mal.engine import turns
from mal.errors import MalError

TAKE_TURNS = """
import sys, time
from pathlib import Path
from mal.engine import turns
turns.POLL, folder = 0.001, Path(sys.argv[1])
for _ in range(15):
    with turns.turn(folder / "lock", call="same", out=folder):
        before = int((folder / "count").read_text())
        time.sleep(0.001)
        (folder / "count").write_text(str(before + 1))
"""


def test_a_call_goes_on_once_the_one_it_waits_for_is_killed(tmp_path, capsys, holding, monkeypatch):
    monkeypatch.setattr(turns, "POLL", 0.05)
    process = holding(tmp_path / "lock", "call")
    real = time.sleep

    def kill(seconds: float) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        real(seconds)

    monkeypatch.setattr(turns.time, "sleep", kill)
    with turns.turn(tmp_path / "lock", call="call", out=tmp_path / "out") as ours:
        assert ours.waited
        ours.check()
    assert f"{tmp_path / 'out'} is being written by process {process.pid}" in capsys.readouterr().err
    assert not (tmp_path / "lock").exists()


def test_turns_do_not_overlap(tmp_path):
    (tmp_path / "count").write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", TAKE_TURNS, tmp_path], stderr=subprocess.PIPE) for _ in range(4)]
    assert ["Traceback" in worker.communicate()[1].decode() for worker in workers] == [False] * 4
    assert [worker.returncode for worker in workers] == [0] * 4
    assert (tmp_path / "count").read_text() == "60"
    assert not (tmp_path / "lock").exists()


def test_who_has_not_said_what_it_writes_is_waited_for(tmp_path, holding, monkeypatch):
    process = holding(tmp_path / "lock", "another")
    (tmp_path / "lock" / "call-1.json").unlink()
    slept = []

    def end(seconds: float) -> None:
        slept.append(seconds)
        process.kill()
        process.wait()

    monkeypatch.setattr(turns.time, "sleep", end)
    with turns.turn(tmp_path / "lock", call="call", out=tmp_path / "out") as ours:
        assert ours.waited
    assert slept == [turns.POLL]


def test_an_error_inside_gives_the_turn_to_the_next(tmp_path):
    for _ in range(2):
        try:
            with turns.turn(tmp_path / "lock", call="call", out=tmp_path / "out") as ours:
                assert not ours.waited
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("error", [AttributeError("of a library"), FileNotFoundError("shards"), KeyboardInterrupt()])
def test_whatever_ends_a_lost_turn_says_that_it_was_lost(tmp_path, error):
    def end() -> None:
        (tmp_path / "lock" / "claim-2.json").write_text("{}")
        raise error

    with (
        pytest.raises(MalError, match="another process took over"),
        turns.turn(tmp_path / "lock", call="call", out=tmp_path / "out"),
    ):
        end()


def test_a_folder_that_cannot_be_made_is_an_error_and_no_endless_wait() -> None:
    with (
        pytest.raises(MalError, match="/proc/out"),
        turns.turn(Path("/proc/out.lock"), call="c", out=Path("/proc/out")),
    ):
        pass
