"""The MLflow mirror: everything arrives once, and nothing that happens to it touches the command."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mal.engine import payload
from mal.engine.mirror import Mirror, shown, start_mirror, sync_command, ui_command
from tests.mirrored_store import (
    NO_SERVER,
    curve,
    environment,
    points,
    rows,
    run_json,
    sent,
    statuses,
    sync,
    write_stage,
)

# What is sent


def test_a_config_becomes_flat_params_cut_at_the_limit_of_mlflow() -> None:
    params = payload.params(run_json("k"))
    assert params["recipe.crf.zeta"] == "0.5"
    assert params["sizes"] == "[64, 96]"
    assert params["weights"] == "null"
    assert len(params["recipe.note"]) == 6000
    assert params["recipe.note"].endswith("x…")


def test_tags_say_stage_key_commit_and_the_columns_that_have_a_value() -> None:
    assert payload.tags("quality", "k", run_json("k")) == {
        "stage": "quality",
        "key": "k",
        "version": "3",
        "commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee",
        "profile": "demo",
        "encoder": "deit_s",
        "seed": "0",
        "input.labels": "label_val/0123",
    }


def test_final_metrics_leave_out_what_has_no_value_and_carry_their_counts() -> None:
    points = payload.final_metrics(run_json("k"), milliseconds=7)
    assert {point.name: point.value for point in points} == {
        "iou": 0.7,
        "iou.n": 1816,
        "ap_small.n": 0,
        "seconds": 12.5,
        "memory.peak_memory_gib": 1.25,
    }
    assert {(point.step, point.milliseconds) for point in points} == {(0, 7)}


def test_a_line_of_a_curve_keeps_its_step_and_its_time() -> None:
    line = '{"step": 20, "time": 12.5, "loss": 0.25, "mil": 1, "note": "warm", "frozen": true}'
    points = payload.curve_points(line, milliseconds=0)
    assert points == [payload.Point("curve/loss", 0.25, 20, 12500), payload.Point("curve/mil", 1.0, 20, 12500)]


def test_a_line_without_a_time_gets_the_one_given_so_that_sending_it_twice_is_the_same() -> None:
    assert payload.curve_points('{"step": 1, "loss": 2}', milliseconds=77) == [payload.Point("curve/loss", 2.0, 1, 77)]


@pytest.mark.parametrize(
    "line", ['{"step": 10, "lo{"step": 11, "loss": 1}', "", "[1]", '{"loss": 1}', '{"step": null}']
)
def test_a_line_that_a_kill_cut_short_is_passed_over(line: str) -> None:
    assert payload.curve_points(line, milliseconds=0) is None


def test_a_line_still_being_written_waits(tmp_path: Path) -> None:
    (tmp_path / "curves.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert payload.complete_lines(tmp_path / "curves.jsonl") == ['{"step": 1}', '{"step": 2}']
    assert payload.complete_lines(tmp_path / "absent.jsonl") == []


def test_names_that_mlflow_refuses_are_rewritten() -> None:
    assert payload.name("AP@[.5:.95] θ=1.2") == "AP__.5:.95_ θ_1.2"
    assert len(payload.name("a" * 300)) == 250


# Where it is sent


def test_a_password_in_the_address_is_never_shown() -> None:
    uri = "https://me:secret@mlflow.example:5000/path"
    assert shown(uri) == "https://…@mlflow.example:5000/path"
    assert shown("sqlite:////data/a@b/mlflow.db") == "sqlite:////data/a@b/mlflow.db"
    assert "secret" not in sync_command("results/runs", uri=uri, experiment="mal") + ui_command(uri)
    assert "secret" not in shown(f"404 Client Error for url: {uri}/api")
    assert "/cret" not in shown("http://me:se/cret@host")  # which is no address, and all the more is not printed


def test_the_command_that_sends_the_rest_names_only_what_is_not_the_default() -> None:
    default = "sqlite:///results/mlflow.db"
    assert sync_command("results/runs", uri=default, experiment="mal") == "python -m mal.tracking sync"
    assert (
        sync_command("elsewhere", uri=NO_SERVER, experiment="mine")
        == f"python -m mal.tracking sync --store elsewhere --uri {NO_SERVER} --experiment mine"
    )


def test_the_command_line_says_how_to_look_at_the_results() -> None:
    command = [sys.executable, "-m", "mal.tracking", "ui"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    assert printed.strip().endswith("mlflow ui --backend-store-uri sqlite:///results/mlflow.db")


def test_a_store_with_nothing_in_it_needs_no_server_and_no_mlflow(
    tmp_path: Path, without_mlflow: dict[str, str]
) -> None:
    assert "sent 0 of 0 stages" in sent(tmp_path / "runs", NO_SERVER, **without_mlflow)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("uri", ["results/mlruns", "file:///tmp/mlruns", "sqlite://", "http://[half"])
def test_an_address_that_mlflow_3_cannot_use_is_refused_with_one_that_it_can(tmp_path: Path, uri: str) -> None:
    result = sync(tmp_path, uri)
    assert result.returncode == 1
    assert f"{uri} is no tracking address" in result.stderr
    assert "sqlite:///FILE" in result.stderr


# Sending


def test_everything_arrives_once(tmp_path: Path, without_mlflow: dict[str, str]) -> None:
    database, folder = tmp_path / "mlflow.db", write_stage(tmp_path / "runs", steps=1200)
    uri = f"sqlite:///{database}"
    assert "sent 1 of 1 stages" in sent(tmp_path / "runs", uri)

    params = dict(rows(database, "SELECT key, value FROM params"))
    assert params == payload.params(run_json("k"))
    tags = dict(rows(database, "SELECT key, value FROM tags"))
    assert payload.tags("quality", "k", run_json("k")).items() <= tags.items()
    assert points(database, "iou") == [(0, 0.7)]
    assert points(database, "curve/loss") == [(step, 1 / (step + 1)) for step in range(1200)]
    assert rows(database, "SELECT timestamp FROM metrics WHERE key = 'curve/loss' AND step = 7") == [(1_007_500,)]
    assert statuses(database) == ["FINISHED"]
    artifacts = sorted(path for path in (tmp_path / "mlflow-artifacts").rglob("*") if path.is_file())
    assert [path.name for path in artifacts] == ["curves.jsonl", "instances.csv", "run.json", "sheet.png"]
    assert all(path.read_bytes() == (folder / path.name).read_bytes() for path in artifacts)

    # A second sync has nothing to do; it does not even import mlflow.
    assert "sent 0 of 1 stages" in sent(tmp_path / "runs", uri, **without_mlflow)


@pytest.mark.slow
def test_with_the_server_away_sync_fails_in_a_sentence_and_a_later_one_sends_all(
    tmp_path: Path, database: Path
) -> None:
    write_stage(tmp_path / "runs")
    started = time.monotonic()
    result = sync(tmp_path / "runs", NO_SERVER)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: cannot use the tracking server {NO_SERVER}: it does not answer (Connection refused); nothing is "
        "lost: the same command sends the rest once that is mended\n"
    )
    assert time.monotonic() - started < 60
    assert "sent 1 of 1 stages" in sent(tmp_path / "runs", f"sqlite:///{database}")
    assert points(database, "iou") == [(0, 0.7)]


@pytest.mark.slow
def test_a_stage_is_followed_through_kill_and_resume_to_its_end(tmp_path: Path, database: Path) -> None:
    folder = write_stage(tmp_path / "runs", done=False, steps=3)
    uri = f"sqlite:///{database}"
    with (folder / "curves.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    sent(tmp_path / "runs", uri)
    assert [step for step, _ in points(database, "curve/loss")] == [0, 1, 2]
    assert statuses(database) == ["KILLED"]  # nobody holds a claim on it

    # The resumed stage starts again from step 2, and is behind where it had been: nothing to send yet.
    (folder / "curves.jsonl").write_text(curve(range(2)))
    sent(tmp_path / "runs", uri)
    assert [step for step, _ in points(database, "curve/loss")] == [0, 1, 2]

    write_stage(tmp_path / "runs", steps=5)
    sent(tmp_path / "runs", uri)
    assert [step for step, _ in points(database, "curve/loss")] == [0, 1, 2, 3, 4]
    assert statuses(database) == ["FINISHED"]


@pytest.mark.slow
def test_what_was_sent_but_not_noted_before_a_kill_is_not_sent_twice(tmp_path: Path, database: Path) -> None:
    folder = write_stage(tmp_path / "runs")
    sent(tmp_path / "runs", f"sqlite:///{database}")
    before = sorted(rows(database, "SELECT key, value, step, timestamp FROM metrics"))
    (target, state), *_ = json.loads((folder / "mlflow.json").read_text()).items()
    kept = {name: state[name] for name in ("experiment", "mirror", "born")}  # as written just before the run existed
    (folder / "mlflow.json").write_text(json.dumps({target: {**kept, "lines": 0}}))
    assert "sent 1 of 1 stages" in sent(tmp_path / "runs", f"sqlite:///{database}")
    assert len(statuses(database)) == 1
    assert sorted(rows(database, "SELECT key, value, step, timestamp FROM metrics")) == before


@pytest.mark.slow
def test_a_database_that_was_deleted_gets_everything_again(tmp_path: Path, database: Path) -> None:
    write_stage(tmp_path / "runs")
    sent(tmp_path / "runs", f"sqlite:///{database}")
    database.unlink()
    assert "sent 1 of 1 stages" in sent(tmp_path / "runs", f"sqlite:///{database}")
    assert points(database, "iou") == [(0, 0.7)]


@pytest.mark.slow
def test_a_kill_while_the_database_is_made_leaves_none_and_the_next_sync_makes_it(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    write_stage(tmp_path / "runs")
    database.touch()  # an empty file is as good as none
    command = [sys.executable, "-m", "mal.tracking", "sync", "--store", str(tmp_path / "runs")]
    process = subprocess.Popen([*command, "--uri", f"sqlite:///{database}"], env=environment())
    unfinished = tmp_path / "mlflow.db.new"
    while not (unfinished.exists() and unfinished.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert database.stat().st_size == 0
    assert "sent 1 of 1 stages" in sent(tmp_path / "runs", f"sqlite:///{database}")
    assert points(database, "iou") == [(0, 0.7)]
    assert not unfinished.exists()


@pytest.mark.slow
def test_one_broken_record_is_named_and_does_not_keep_the_others_from_arriving(tmp_path: Path, database: Path) -> None:
    for key in ("a", "b", "c"):
        write_stage(tmp_path / "runs", key)
    (tmp_path / "runs/quality/b/run.json").write_text('{"stage": ')
    result = sync(tmp_path / "runs", f"sqlite:///{database}")
    assert result.returncode == 1
    assert "quality/b/run.json is not readable JSON" in result.stderr
    assert len(points(database, "iou")) == 2


def test_a_sweep_has_a_run_and_its_stages_are_its_children(tmp_path: Path, database: Path) -> None:
    store, uri = tmp_path / "runs", f"sqlite:///{database}"
    folder = write_stage(store)
    script = (
        "from mal.engine.store import Store; from mal.engine.tracking import Sender; "
        f"print(Sender(Store({str(store)!r}), uri={uri!r}, experiment='mal').open_sweep('s1', {{'commit': 'c0ffee'}}))"
    )
    opened = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=300, check=True
    )
    parent = opened.stdout.strip()
    (folder / "queued.json").write_text(json.dumps({"job": "12", "sweep": "s1", "parent": parent}))
    sent(store, uri)
    ((child, value),) = rows(database, "SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'")
    assert (value, child != parent) == (parent, True)
    assert rows(database, f"SELECT value FROM tags WHERE run_uuid = '{parent}' AND key = 'commit'") == [("c0ffee",)]


@pytest.mark.slow
def test_a_run_id_in_the_environment_is_of_no_account(tmp_path: Path, database: Path) -> None:
    for key in ("a", "b"):
        write_stage(tmp_path / "runs", key)
    sent(tmp_path / "runs", f"sqlite:///{database}", MLFLOW_RUN_ID="0123456789abcdef0123456789abcdef")
    assert statuses(database) == ["FINISHED"] * 2


@pytest.mark.slow
def test_twelve_processes_starting_at_once_on_an_empty_database_all_succeed_and_send_nothing_twice(
    tmp_path: Path,
) -> None:
    for key in "abcdefghijkl":
        write_stage(tmp_path / "runs", key)
    command = [sys.executable, "-m", "mal.tracking", "sync", "--store", str(tmp_path / "runs")]
    command += ["--uri", f"sqlite:///{tmp_path}/mlflow.db"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        for _ in range(12)
    ]
    outputs = [process.communicate(timeout=500) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, outputs, strict=True)] == [(0, "")] * 12
    assert statuses(tmp_path / "mlflow.db") == ["FINISHED"] * 12
    counts = Counter(key for (key,) in rows(tmp_path / "mlflow.db", "SELECT key FROM metrics"))
    assert counts["iou"] == 12
    assert counts["curve/loss"] == 36


@pytest.mark.slow
def test_a_real_server_gets_the_same_as_a_database(tmp_path: Path, server: str) -> None:
    write_stage(tmp_path / "runs")
    assert "sent 1 of 1 stages" in sent(tmp_path / "runs", server)
    database = tmp_path / "server" / "mlflow.db"
    assert points(database, "iou") == [(0, 0.7)]
    assert [step for step, _ in points(database, "curve/loss")] == [0, 1, 2]
    kept = sorted(path.name for path in (tmp_path / "kept").rglob("*.*"))
    assert kept == ["curves.jsonl", "instances.csv", "run.json", "sheet.png"]


# Beside a command


def _finish(mirror: Mirror, capfd: pytest.CaptureFixture[str], **options: float) -> tuple[bool, str, float]:
    """(all was sent, what was printed, seconds it took)."""
    started = time.monotonic()
    complete = mirror.stop(**options)
    return complete, capfd.readouterr().err, time.monotonic() - started


def test_a_mirror_that_is_switched_off_starts_nothing(tmp_path: Path) -> None:
    mirror = start_mirror(tmp_path, enabled=False)
    assert mirror.process is None
    assert mirror.stop()


@pytest.mark.slow
def test_stopping_the_mirror_sends_what_the_command_wrote_last(
    tmp_path: Path, database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "runs"
    write_stage(store, "first", done=False)
    mirror = start_mirror(store, uri=f"sqlite:///{database}")
    write_stage(store, "first")
    complete, printed, _ = _finish(mirror, capfd, wait_s=120)
    assert (complete, printed) == (True, "")
    assert statuses(database) == ["FINISHED"]
    assert points(database, "iou") == [(0, 0.7)]
    assert mirror.stop()  # a second time is no error


def test_a_server_that_is_away_costs_one_line_that_says_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_stage(tmp_path / "runs")
    complete, printed, _ = _finish(start_mirror(tmp_path / "runs", uri=NO_SERVER), capfd, wait_s=120)
    assert not complete
    assert printed.count("\n") == 1
    assert "it does not answer (Connection refused)" in printed
    assert f"Nothing is lost; send it with: python -m mal.tracking sync --store {tmp_path}/runs --uri" in printed


def test_a_server_that_hangs_is_waited_for_no_longer_than_promised(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], silent_server: str
) -> None:
    write_stage(tmp_path / "runs")
    mirror = start_mirror(tmp_path / "runs", uri=silent_server)
    assert mirror.process is not None
    process = mirror.process
    complete, printed, seconds = _finish(mirror, capfd, wait_s=1.0)
    assert not complete
    assert seconds < 5
    assert "it took longer than 1 s" in printed
    assert "python -m mal.tracking sync" in printed
    assert process.returncode == -signal.SIGKILL  # nothing is left running


@pytest.mark.parametrize("long_ago", [False, True])
def test_a_mirror_that_died_is_told_apart_from_one_that_sent_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], long_ago: bool
) -> None:
    mirror = start_mirror(tmp_path / "runs", uri=NO_SERVER)
    assert mirror.process is not None
    mirror.process.kill()
    if long_ago:
        mirror.process.wait()
    complete, printed, _ = _finish(mirror, capfd)
    assert not complete
    assert "the mirror ended with code -9" in printed


@pytest.mark.slow
def test_a_killed_command_is_mirrored_to_its_end_all_the_same(tmp_path: Path, database: Path) -> None:
    store = tmp_path / "runs"
    script = (
        "import sys, time; from mal.engine.tracking import start_mirror\n"
        "mirror = start_mirror(sys.argv[1], uri=sys.argv[2]); print('started', flush=True); time.sleep(600)"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", script, str(store), f"sqlite:///{database}"], stdout=subprocess.PIPE, env=environment()
    )
    assert command.stdout is not None
    with command.stdout:
        assert command.stdout.readline() == b"started\n"
        write_stage(store, done=False)
        command.kill()
        command.wait()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        state = store / "quality/k/mlflow.json"
        if state.exists() and "KILLED" in state.read_text():
            break
        time.sleep(0.5)
    assert [step for step, _ in points(database, "curve/loss")] == [0, 1, 2]
    assert statuses(database) == ["KILLED"]


def test_no_command_needs_mlflow_to_start_its_mirror() -> None:
    script = "import sys; import mal.engine.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=environment()).returncode == 0
