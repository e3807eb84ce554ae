"""Nobody writes into a folder that is not theirs: stopped owners, their heirs, and what killed processes leave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mal.engine import claims
from mal.engine.files import check_fence, fenced, write_json
from mal.engine.graph import Result, Stage, execute
from mal.engine.leftovers import abandoned, prefix_and_suffix
from mal.engine.store import Store
from mal.errors import MalError, TakenOverError

CPU = torch.device("cpu")

# An owner that works without end: writes, computes, or waits in the system, as its mode says.
OWNER = """
import sys, time
from pathlib import Path
from mal.engine.files import write_json
from mal.engine.store import Store
store = Store(sys.argv[1], heartbeat=0.1, expiry=0.6, poll=0.02)
folder = store.folder("train", "k")
if sys.argv[2] == "trains":
    from mal.engine.runtime import StopSignals, save_checkpoint
with store.claim("train", "k"):
    print("computing", flush=True)
    if sys.argv[2] == "waits":
        time.sleep(600)
    if sys.argv[2] == "computes":
        while True:
            pass
    if sys.argv[2] == "trains":
        with StopSignals() as signals:
            while True:
                time.sleep(0.01)
                if signals.raised:
                    save_checkpoint(folder / "checkpoint.pt", {"step": 1})
                    sys.exit("a checkpoint was written into the heir's folder")
    while True:
        write_json(folder / "owner.json", "x" * 100_000)
"""


def impatient(root: Path) -> Store:
    return Store(root, heartbeat=0.1, expiry=0.6, poll=0.02)


def lose(store: Store, stage: str = "train", key: str = "k") -> claims.Claim:
    """Take a folder over from whoever has it, as an heir does."""
    folder = store.folder(stage, key)
    before = claims.holder(folder)
    taken = claims.take(folder, generation=1 if before is None else before.generation + 1, heartbeat=60.0)
    assert taken is not None
    return taken


@pytest.mark.parametrize("ignores", [False, True])  # SIGINT, as `nohup … &` in a script makes its process
@pytest.mark.parametrize("mode", ["waits", "computes", "trains", "writes"])
def test_an_owner_stopped_and_taken_over_leaves_when_it_is_woken(tmp_path: Path, mode: str, ignores: bool) -> None:
    handler = "SIG_IGN" if ignores else "default_int_handler"
    start = f"import signal; signal.signal(signal.SIGINT, signal.{handler})\n"
    command = [sys.executable, "-c", start + OWNER, str(tmp_path), mode]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "computing\n"
        time.sleep(0.2)
        owner.send_signal(signal.SIGSTOP)
        store = impatient(tmp_path)
        with store.claim("train", "k") as ours:
            assert ours
            folder = store.folder("train", "k")
            (folder / "checkpoint.pt").write_bytes(b"the heir's")
            assert not list(folder.glob(".*.part")), "what its predecessor was writing is gone"
            (folder / "owner.json").unlink(missing_ok=True)
            owner.send_signal(signal.SIGCONT)
            _, err = owner.communicate(timeout=60)
            assert owner.returncode == 1
            assert "TakenOverError" in err.splitlines()[-1]
            assert f"was taken over by process {os.getpid()}" in err.splitlines()[-1]
            assert not (folder / "owner.json").exists()
            assert (folder / "checkpoint.pt").read_bytes() == b"the heir's"
            store.finish("train", "k", {"stage": "train", "key": "k", "status": "done"})
    finally:
        owner.kill()
        owner.communicate()


def test_a_file_does_not_take_its_name_in_a_folder_that_was_lost(tmp_path: Path) -> None:
    store = Store(tmp_path, heartbeat=60.0)
    folder = store.folder("train", "k")
    with store.claim("train", "k"):
        write_json(folder / "before.json", 1)
        heir = lose(store)
        for attempt in (
            lambda: write_json(folder / "shards" / "deep.json", 1),
            lambda: check_fence(folder / "curves.jsonl"),
            lambda: store.finish("train", "k", {"stage": "train", "key": "k", "status": "done"}),
        ):
            with pytest.raises(TakenOverError, match="its result stands"):
                attempt()
        write_json(tmp_path / "elsewhere.json", 1)
        files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert files == ["before.json", "claim-1.json", "claim-2.json"]
    assert heir.is_ours()
    heir.release(done=False)


def test_a_temporary_file_that_the_heir_removed_is_no_error_of_the_disk(tmp_path: Path) -> None:
    """The owner was stopped between its check and the renaming."""
    checks: list[int] = []

    def check() -> None:
        checks.append(1)
        if len(checks) == 1:
            for path in tmp_path.glob(".*.part"):
                path.unlink()
        else:
            raise TakenOverError("lost")

    with pytest.raises(TakenOverError, match="lost"), fenced(tmp_path, check):
        write_json(tmp_path / "a.json", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_stage_is_not_finished_and_its_heirs_files_stay(tmp_path: Path) -> None:
    store = Store(tmp_path, heartbeat=60.0)
    heirs: list[claims.Claim] = []

    def work(place) -> Result:
        heirs.append(lose(store, "label", stage.key))
        (place.folder / "shards").mkdir()
        (place.folder / "shards/1.json").write_text("the heir's")
        return Result()

    stage = Stage("label", 1, {}, work)
    with pytest.raises(TakenOverError):
        execute(stage, store, device=CPU)
    folder = store.folder("label", stage.key)
    assert (folder / "shards/1.json").is_file()
    assert not (folder / "run.json").exists()
    assert heirs[0].is_ours()
    heirs[0].release(done=False)


class OfALibrary(BaseException):
    """What an interrupt, or a file that the heir removed, has become on its way through a library."""


@pytest.mark.parametrize("heir_ends", [False, True])
@pytest.mark.parametrize("error", [OfALibrary("gone"), FileNotFoundError("gone"), KeyboardInterrupt()])
def test_whatever_ends_a_lost_owners_work_says_that_it_was_lost(
    tmp_path: Path, error: BaseException, heir_ends: bool
) -> None:
    store = Store(tmp_path, heartbeat=60.0)

    def end() -> None:
        heir = lose(store)
        heir.release(done=heir_ends)
        raise error

    with pytest.raises(TakenOverError, match="was taken over by") as said, store.claim("train", "k"):
        end()
    assert said.value.__context__ is error


def test_an_owners_own_errors_stay_what_they_are_though_another_goes_on_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path, heartbeat=60.0)
    with pytest.raises(OfALibrary, match="a bug"), store.claim("train", "k"):
        raise OfALibrary("a bug")
    with store.claim("train", "k") as ours:
        assert ours


def test_ctrl_c_stays_ctrl_c_for_an_owner(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.claim("train", "k"):
        raise KeyboardInterrupt


def test_other_processes_of_a_stage_are_fenced_by_the_firsts_claim(tmp_path: Path) -> None:
    store, other = Store(tmp_path, heartbeat=60.0), Store(tmp_path)
    shard = store.folder("train", "k") / "shard.json"
    with store.claim("train", "k"):
        generation = store.generation("train", "k")
    with other.fence("train", "k", generation):
        write_json(shard, 1)
        heir = lose(store)
        with pytest.raises(TakenOverError):
            write_json(shard, 2)
    heir.release(done=False)
    assert shard.read_text() == "1"


def test_what_comes_before_the_record_goes_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill or a full disk at any moment leaves something to go on from."""

    def work(place) -> Result:
        (place.folder / "checkpoint.pt").write_bytes(b"1")
        (place.folder / "shards").mkdir(exist_ok=True)
        write_json(place.folder / "labels.json", {})
        return Result()

    def full(*_, **__):
        raise MalError("the disk is full")

    store, stage = Store(tmp_path), Stage("label", 1, {}, work)
    folder = store.folder("label", stage.key)
    with monkeypatch.context() as patch:
        patch.setattr("mal.engine.store.write_json", full)
        with pytest.raises(MalError, match="the disk is full"):
            execute(stage, store, device=CPU)
    assert {path.name for path in folder.iterdir()} >= {"checkpoint.pt", "shards", "labels.json"}
    execute(stage, store, device=CPU)
    assert sorted(path.name for path in folder.iterdir()) == ["labels.json", "run.json", "stage.json"]


def test_every_file_is_on_disk_before_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(f"{tmp_path}/"))
        fsync(descriptor)

    def named(source: str, target: Path) -> None:
        synced.append(f"as {Path(target).name}")
        replace(source, target)

    def work(place) -> Result:
        (place.folder / "images").mkdir()
        (place.folder / "images" / "1.png").write_bytes(b"1")  # by a library that syncs nothing
        (place.folder / "instances.csv").write_text("iou")
        return Result()

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", named)
    stage = Stage("quality", 1, {}, work)
    execute(stage, Store(tmp_path), device=CPU)
    before = synced[: synced.index("as run.json")]
    here = f"quality/{stage.key}"
    assert {here, f"{here}/images", f"{here}/images/1.png", f"{here}/instances.csv"} <= set(before)


# Heartbeats and leftovers


@pytest.mark.parametrize("hours", [1, 24 * 365])
def test_a_heartbeat_from_the_future_expires_too(tmp_path: Path, hours: int) -> None:
    """The clock of the file server was wrong, and was mended after the owner elsewhere had died."""
    store, folder = impatient(tmp_path), tmp_path / "train/k"
    write_json(folder / "claim-1.json", {"pid": 1, "started": "1", "host": "h", "machine": "elsewhere", "since": "s"})
    later = time.time() + 3600 * hours
    os.utime(folder / "claim-1.json", (later, later))
    assert not store.is_claimed("train", "k")
    with store.claim("train", "k") as ours:
        assert ours


def test_a_live_owner_whose_clock_was_mended_keeps_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, folder = impatient(tmp_path), tmp_path / "train/k"
    write_json(folder / "claim-1.json", {"pid": 1, "started": "1", "host": "h", "machine": "elsewhere", "since": "s"})
    later = time.time() + 3600
    os.utime(folder / "claim-1.json", (later, later))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        os.utime(folder / "claim-1.json")  # it beats, by the mended clock
        if len(looks) == 3:
            write_json(folder / "run.json", {"stage": "train", "key": "k", "status": "done"})

    monkeypatch.setattr("mal.engine.store.time.sleep", sleep)
    with store.claim("train", "k") as ours:
        assert not ours


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 200_000, '{"machine": 1}', '{"pid": "7"}', '{"pid": 99999999999999}', "\udcff", "null"]
)
def test_a_damaged_claim_is_respected_until_it_expires(tmp_path: Path, text: str) -> None:
    store, folder = impatient(tmp_path), tmp_path / "train/k"
    folder.mkdir(parents=True)
    (folder / "claim-1.json").write_bytes(text.encode(errors="surrogateescape"))
    assert store.is_claimed("train", "k")
    with store.claim("train", "k") as ours:
        assert ours


def test_an_heir_removes_what_dead_and_former_owners_were_writing(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    asleep = subprocess.Popen(["sleep", "600"])
    try:
        prefix, suffix = prefix_and_suffix("labeler.pt")
        of = lambda pid: tmp_path / f"{prefix}x{suffix}".replace(f"-{os.getpid()}-", f"-{pid}-")  # noqa: E731
        for pid in (dead.pid, asleep.pid, os.getpid()):
            of(pid).write_bytes(b"half")
        (tmp_path / ".hidden").write_text("not ours")
        assert set(abandoned(tmp_path)) == {of(dead.pid)}
        assert set(abandoned(tmp_path, former=frozenset({asleep.pid}))) == {of(dead.pid), of(asleep.pid)}
        os.utime(of(asleep.pid), (1, 1))
        assert set(abandoned(tmp_path, quiet=60.0)) == {of(dead.pid), of(asleep.pid)}
    finally:
        asleep.kill()
        asleep.wait()


def test_a_killed_owners_temporary_files_are_gone_when_its_heir_begins(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path), "writes"]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE)
    folder = tmp_path / "train/k"
    while not list(folder.glob(".owner.json.*.part")) or owner.poll() is not None:
        time.sleep(0.001)
    for _ in range(200):  # until the kill hits in the middle of a file
        owner.send_signal(signal.SIGSTOP)
        if list(folder.glob(".owner.json.*.part")):
            break
        owner.send_signal(signal.SIGCONT)
        time.sleep(0.003)
    owner.kill()
    owner.communicate()
    assert list(folder.glob(".owner.json.*.part"))
    with impatient(tmp_path).claim("train", "k") as ours:
        assert ours
        assert not list(folder.glob(".*"))


def test_a_long_name_still_has_a_temporary_one(tmp_path: Path) -> None:
    for name in ("a" * 255, "ü" * 127):
        write_json(tmp_path / name, 1)
    assert len(list(tmp_path.iterdir())) == 2
