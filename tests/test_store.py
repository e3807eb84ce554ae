"""The store: keys that follow content, results whole or absent, and one owner at a time."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal.engine import claims
from mal.engine.files import sha256
from mal.engine.store import Fingerprints, Store, stage_key
from mal.errors import ConfigError, MalError

# One participant of a race: waits for the starting gun, then claims and, if it is its turn, leaves its mark.
PARTICIPANT = """
import sys, time
from pathlib import Path
from mal.engine.store import Store
root, work, mode = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
store = Store(root / "runs", heartbeat=0.1, expiry=float(sys.argv[4]), poll=0.02)
print("ready", flush=True)
sys.stdin.readline()
with store.claim("train", "k") as ours:
    if ours:
        with open(root / "computed", "a") as file:
            file.write("x")
        print("computing", flush=True)
        time.sleep(work)
        if mode == "finish":
            store.finish("train", "k", {"stage": "train", "key": "k", "status": "done"})
print("ours" if ours else "reused", flush=True)
"""


class Participant:
    def __init__(self, root: Path, *, work: float, mode: str = "finish", expiry: float = 60.0) -> None:
        command = [sys.executable, "-c", PARTICIPANT, str(root), str(work), mode, str(expiry)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def start(self) -> None:
        assert self.line() == "ready"
        self.go()

    def end(self) -> tuple[str, str]:
        """(last line printed, standard error); the process has left without an error."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return out.split()[-1], err


@contextmanager
def participants(count: int, root: Path, **options: Any) -> Iterator[list[Participant]]:
    started = [Participant(root, **options) for _ in range(count)]
    try:
        yield started
    finally:
        for one in started:
            one.process.kill()
            one.process.communicate()


def _record(stage: str = "train", key: str = "k", **more: Any) -> dict[str, Any]:
    return {"stage": stage, "key": key, "status": "done", **more}


def _store(root: Path, **options: float) -> Store:
    return Store(root, **{"heartbeat": 0.1, "expiry": 60.0, "poll": 0.02, **options})


def _foreign_claim(store: Store, *, generation: int = 1, seconds_ago: float = 0.0) -> Path:
    """The claim of a live owner on another machine, whose last heartbeat was some time ago."""
    folder = store.folder("train", "k")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"claim-{generation}.json"
    owner = {"pid": os.getpid(), "started": "1", "host": "elsewhere", "machine": "elsewhere/b/c", "since": "noon"}
    path.write_text(json.dumps(owner))
    beat = time.time() - seconds_ago
    os.utime(path, (beat, beat))
    return path


# Results


def test_nothing_is_written_before_the_first_result(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    assert not store.is_done("train", "k")
    assert store.folder("train", "k") == tmp_path / "runs" / "train" / "k"
    assert store.folders() == []
    assert not store.is_claimed("train", "k")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_stage_is_done_reads_back_and_is_not_ours_again(tmp_path: Path) -> None:
    store = _store(tmp_path)
    record = _record(metrics={"iou": {"value": 0.7, "n": 3}})
    with store.claim("train", "k") as ours:
        assert ours
        assert store.is_claimed("train", "k")
        store.finish("train", "k", record)
    assert store.is_done("train", "k")
    assert store.read("train", "k") == record
    assert store.folders() == [("train", "k")]
    assert [path.name for path in store.folder("train", "k").iterdir()] == ["run.json"]  # no claim is left behind
    with store.claim("train", "k") as ours:
        assert not ours


def test_a_record_that_does_not_say_done_is_not_a_result(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.finish("train", "k", _record(status="failed"))
    assert not store.is_done("train", "k")
    with store.claim("train", "k") as ours:
        assert ours


def test_reading_what_was_never_computed_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(MalError, match=r"train/k/run\.json.*has not been computed"):
        Store(tmp_path).read("train", "k")


@pytest.mark.parametrize("text", ['{"status": "do', "[]", ""])
def test_a_broken_record_is_an_error_that_names_it_not_a_reason_to_compute_again(tmp_path: Path, text: str) -> None:
    store = _store(tmp_path)
    store.folder("train", "k").mkdir(parents=True)
    (store.folder("train", "k") / "run.json").write_text(text)
    for attempt in (lambda: store.is_done("train", "k"), lambda: store.read("train", "k")):
        with pytest.raises(MalError, match=r"train/k/run\.json.*delete it"):
            attempt()


def test_a_record_with_nan_is_refused_by_name_and_leaves_the_stage_undone(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with pytest.raises(MalError, match=r"metrics\.ap\.value is nan"):
        store.finish("train", "k", _record(metrics={"ap": {"value": float("nan"), "n": 0}}))
    assert not store.is_done("train", "k")


def test_a_record_cannot_land_in_the_folder_of_another_stage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not that of train/k"):
        _store(tmp_path).finish("train", "k", _record(key="other"))
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(MalError, match=r"runs.*name another place"), _store(tmp_path / "runs").claim("train", "k"):
        pass


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    store = _store(tmp_path)
    monkeypatch.setattr(claims.os, "open", full)
    with pytest.raises(MalError, match="the disk is full; free some space"), store.claim("train", "k"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_disk_that_fills_up_while_claiming_leaves_no_claim_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = os.open

    def create_and_fill_up(path: Path, flags: int, mode: int) -> int:
        os.close(create(path, flags, mode))
        return create("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(claims.os, "open", create_and_fill_up)
    store = _store(tmp_path)
    with pytest.raises(MalError, match="the disk is full"), store.claim("train", "k"):
        pass
    assert list(store.folder("train", "k").iterdir()) == []


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="needs a folder that refuses files even to root")
def test_a_folder_that_cannot_be_written_is_an_error_that_names_it() -> None:
    with pytest.raises(MalError, match=r"cannot write /proc/"), _store(Path("/proc/runs")).claim("train", "k"):
        pass


# Claims


def test_of_ten_processes_one_computes_and_all_others_wait_for_its_result(tmp_path: Path) -> None:
    with participants(10, tmp_path, work=0.5) as racing:
        for one in racing:
            assert one.line() == "ready"
        for one in racing:
            one.go()
        ends = [one.end() for one in racing]
    assert (tmp_path / "computed").read_text() == "x"
    assert sorted(word for word, _ in ends) == ["ours"] + ["reused"] * 9
    waited = [err for word, err in ends if word == "reused" and err]
    assert waited, "nobody had to wait: the race did not happen"
    assert all(err.count("waiting for it") == 1 and "train/k is being computed by process" in err for err in waited)


def test_a_killed_owner_has_exactly_one_heir_who_finds_its_files(tmp_path: Path) -> None:
    with participants(1, tmp_path, work=600) as (owner,), participants(8, tmp_path, work=0.5) as heirs:
        owner.start()
        assert owner.line() == "computing"
        (tmp_path / "runs/train/k/features.npz").write_bytes(b"half done")
        for heir in heirs:
            heir.start()
        time.sleep(0.3)
        assert (tmp_path / "computed").read_text() == "x"  # all wait while it lives
        owner.process.send_signal(signal.SIGKILL)  # and stays a zombie: nobody has asked for its exit status
        words = sorted(heir.end()[0] for heir in heirs)
    assert words == ["ours"] + ["reused"] * 7
    assert (tmp_path / "computed").read_text() == "xx"
    assert (tmp_path / "runs/train/k/features.npz").read_bytes() == b"half done"


@pytest.mark.slow
def test_sixteen_race_while_three_owners_are_killed_and_one_result_stands(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "train" / "k"
    with participants(16, tmp_path, work=3.0) as racing:
        for one in racing:
            one.start()
        killed: list[int] = []
        while len(killed) < 3:
            holder = claims.holder(folder)
            owner = holder.owner.get("pid") if holder is not None else None
            if owner is None or owner in killed:
                time.sleep(0.02)
                continue
            os.kill(owner, signal.SIGKILL)
            killed.append(owner)
        survivors = [one for one in racing if one.process.pid not in killed]
        ends = [one.end()[0] for one in survivors]
    assert sorted(ends) == ["ours"] + ["reused"] * 12
    assert (tmp_path / "computed").read_text().count("x") <= 4, "one turn each for the killed, and the winner's"
    assert Store(tmp_path / "runs").is_done("train", "k")


def test_heartbeats_keep_the_claim_of_an_owner_much_slower_than_the_expiry(tmp_path: Path) -> None:
    with participants(3, tmp_path, work=2.5, expiry=0.8) as racing:
        for one in racing:
            one.start()
        words = sorted(one.end()[0] for one in racing)
    assert words == ["ours", "reused", "reused"]
    assert (tmp_path / "computed").read_text() == "x"


def test_an_owner_suspended_beyond_the_expiry_loses_its_claim_and_cannot_finish(tmp_path: Path) -> None:
    with participants(1, tmp_path, work=0.5) as (owner,):
        owner.start()
        assert owner.line() == "computing"
        owner.process.send_signal(signal.SIGSTOP)
        store = _store(tmp_path / "runs", expiry=0.5)
        with store.claim("train", "k") as ours:
            assert ours
            owner.process.send_signal(signal.SIGCONT)
            _, err = owner.process.communicate(timeout=60)
            assert owner.process.returncode == 1
            assert "was taken over by process" in err
            assert not store.is_done("train", "k")
            store.finish("train", "k", _record(by="heir"))
    assert store.read("train", "k")["by"] == "heir"


def test_an_owner_that_fails_passes_the_stage_on_at_once(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with pytest.raises(RuntimeError, match="out of memory"), store.claim("train", "k"):
        raise RuntimeError("out of memory")
    assert not store.is_claimed("train", "k")
    with store.claim("train", "k") as ours:
        assert ours


def test_a_silent_owner_elsewhere_is_left_alone_until_its_claim_expires(tmp_path: Path) -> None:
    store = _store(tmp_path, expiry=1.5)
    _foreign_claim(store)
    assert store.is_claimed("train", "k")
    started = time.monotonic()
    with store.claim("train", "k") as ours:
        assert ours
        assert time.monotonic() - started > 1.3


def test_an_old_heartbeat_that_moves_on_the_second_look_keeps_the_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop woke up: all heartbeats look old until their threads have run again."""
    store = _store(tmp_path, heartbeat=0.1)
    path = _foreign_claim(store, seconds_ago=3600)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            os.utime(path)
        else:
            (store.folder("train", "k") / "run.json").write_text(json.dumps(_record(by="elsewhere")))

    monkeypatch.setattr("mal.engine.store.time.sleep", sleep)
    with store.claim("train", "k") as ours:
        assert not ours
    assert len(slept) == 2
    assert store.read("train", "k")["by"] == "elsewhere"


def test_a_claim_without_a_name_is_respected_until_it_expires(tmp_path: Path) -> None:
    """Its owner was killed between creating the file and writing to it."""
    store = _store(tmp_path, expiry=0.5)
    path = _foreign_claim(store)
    path.write_text("")
    assert store.is_claimed("train", "k")
    with store.claim("train", "k") as ours:
        assert ours


def test_a_taker_too_slow_to_know_that_others_took_over_does_not_win(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _foreign_claim(store, seconds_ago=3600)
    first = claims.take(store.folder("train", "k"), generation=2, heartbeat=0.1)
    assert first is not None
    assert claims.take(store.folder("train", "k"), generation=2, heartbeat=0.1) is None
    assert first.is_ours()
    first.release(done=False)


def test_a_claim_won_just_after_the_result_came_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, take = _store(tmp_path), claims.take

    def late(folder: Path, **options: Any) -> claims.Claim | None:
        store.finish("train", "k", _record())
        return take(folder, **options)

    monkeypatch.setattr(claims, "take", late)
    with store.claim("train", "k") as ours:
        assert not ours
    assert [path.name for path in store.folder("train", "k").iterdir()] == ["run.json"]


def test_a_process_is_told_from_a_later_one_with_its_id() -> None:
    started = claims.start_time(os.getpid())
    assert claims.is_alive(os.getpid(), started=started)
    assert claims.is_alive(os.getpid(), started=None)
    if started is not None:
        assert not claims.is_alive(os.getpid(), started=str(int(started) - 1))


# Keys

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def _reversed(value: Any) -> Any:
    """The same value with the keys of every dict in the opposite order."""
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


def _key(**changes: Any) -> str:
    parts: dict[str, Any] = {
        "stage": "train",
        "version": 1,
        "config": {"lr": 1e-4, "crop": {"size": 64}},
        "inputs": {"boxes": "strip/0123"},
        "sources": {"weights": "ab12"},
    }
    return stage_key(**{**parts, **changes})


@settings(max_examples=30, deadline=None)
@given(config=st.dictionaries(st.text(), JSON, max_size=4))
def test_a_key_does_not_depend_on_the_order_of_settings(config: dict[str, Any]) -> None:
    assert _key(config=config) == _key(config=_reversed(config))


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "label"},
        {"version": 2},
        {"config": {"lr": 1e-4, "crop": {"size": 65}}},
        {"config": {"lr": 1e-4, "crop": {"size": 64}, "flip": None}},
        {"inputs": {"boxes": "strip/0124"}},
        {"sources": {"weights": "ab13"}},
    ],
)
def test_a_key_depends_on_everything_that_defines_the_result(change: dict[str, Any]) -> None:
    assert _key(**change) != _key()


def test_a_key_is_the_start_of_the_sha256_of_its_parts_in_canonical_json() -> None:
    """A key of today must be found again by the program of next year."""
    text = (
        '{"config":{"crop":{"size":64},"lr":0.0001},"inputs":{"boxes":"strip/0123"},'
        '"sources":{"weights":"ab12"},"stage":"train","version":1}'
    )
    assert _key() == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lr": float("nan")}, r"stage train: config\.lr is nan"),
        ({"crop": {"size": [1.0, float("inf")]}}, r"config\.crop\.size\[1\] is inf"),
        ({"root": Path("data")}, r"config\.root is of type \w*Path"),
        ({"sizes": {1: 2}}, r"config\.sizes: the key 1 is no string"),
    ],
)
def test_settings_that_json_cannot_tell_apart_or_hold_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _key(config=config)


# Fingerprints


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the times of files written this moment."""
    monkeypatch.setattr("mal.engine.store.fingerprints.SETTLED_NS", -1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read through."""
    seen: list[str] = []

    def counted(path: str) -> str:
        seen.append(Path(path).name)
        return sha256(path)

    monkeypatch.setattr("mal.engine.store.fingerprints.sha256", counted)
    return seen


@pytest.mark.usefixtures("trusted")
def test_a_file_is_read_once_even_by_a_later_command(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "boxes.json").write_text("{}")
    expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert Fingerprints(tmp_path / "runs").file(tmp_path / "boxes.json") == expected
    assert Fingerprints(tmp_path / "runs").file(str(tmp_path / "boxes.json")) == expected
    assert reads == ["boxes.json"]


@pytest.mark.usefixtures("trusted")
def test_a_file_changed_behind_its_times_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    path, prints = tmp_path / "boxes.json", Fingerprints(tmp_path / "runs")
    path.write_text("aaaa")
    before, times = prints.file(path), path.stat()
    time.sleep(0.02)
    path.write_text("bbbb")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert prints.file(path) != before
    assert len(reads) == 2


def test_a_file_still_warm_from_writing_is_not_remembered(tmp_path: Path, reads: list[str]) -> None:
    """Within one tick of the clock a second change would not show in its times."""
    path, prints = tmp_path / "boxes.json", Fingerprints(tmp_path / "runs")
    path.write_text("{}")
    assert prints.file(path) == prints.file(path)
    assert len(reads) == 2


@pytest.mark.usefixtures("trusted")
def test_two_files_and_a_broken_cache_do_not_confuse_it(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "runs")
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    first = [prints.file(tmp_path / name) for name in "abab"]
    assert first == [sha256(tmp_path / name) for name in "abab"]
    prints.cache.write_text("{half")
    assert [prints.file(tmp_path / name) for name in "abab"] == first


def test_a_missing_source_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalError, match=r"there is no file .*absent\.json"):
        Fingerprints(tmp_path).file(tmp_path / "absent.json")


def test_a_folder_given_as_a_source_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalError, match=r"cannot read .*: Is a directory"):
        Fingerprints(tmp_path).file(tmp_path)


@pytest.mark.usefixtures("trusted")
def test_a_store_that_cannot_be_written_still_tells_a_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the store should be")
    (tmp_path / "boxes.json").write_text("{}")
    assert Fingerprints(tmp_path / "runs").file(tmp_path / "boxes.json") == sha256(tmp_path / "boxes.json")


def test_a_folder_is_passed_on_also_where_its_record_cannot_be_read_at_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(MalError, match="not readable JSON"), store.claim("train", "k"):
        (store.folder("train", "k") / "run.json").write_text("{")
    assert not store.is_claimed("train", "k")
    (store.folder("train", "k") / "run.json").unlink()
    with store.claim("train", "k") as ours:
        assert ours
