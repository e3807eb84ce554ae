"""Content-keyed results: a stage's folder is named by what defines its result, so the same request finds it again.

results/runs/<stage>/<key>/run.json      written last; a folder without it is half done and is resumed
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mal import claims
from mal.errors import ConfigError, MalError
from mal.files import digest, read_json, sha256, write_json

RECORD = "run.json"
QUEUED = "queued.json"  # beside it: the cluster job that will compute the stage
KEY_DIGITS = 16
SETTLED_NS = 2_000_000_000  # a file younger than this may change again without its times showing it


class Store:
    """The folders of results under one root; nothing is written before there is something to keep.

    Args:
        root: the store's folder, `results/runs` by default.
        heartbeat: seconds between an owner's signs of life.
        expiry: seconds without a sign of life after which an owner on another machine counts as dead. (One on this
            machine counts as dead as soon as its process is gone.)
        poll: seconds between two looks at a claim that others hold.
    """

    def __init__(self, root: str | Path, *, heartbeat: float = 5.0, expiry: float = 120.0, poll: float = 1.0) -> None:
        self.root = Path(root)
        self.heartbeat, self.expiry, self.poll = heartbeat, expiry, poll
        self._held: dict[Path, claims.Claim] = {}

    def folder(self, stage: str, key: str) -> Path:
        """Where a stage keeps its files; it need not exist."""
        return self.root / stage / key

    def is_done(self, stage: str, key: str) -> bool:
        """Whether the result is complete.

        Raises:
            MalError: there is a run.json that cannot be read.
        """
        try:
            return self._record(stage, key).get("status") == "done"
        except FileNotFoundError:
            return False

    def read(self, stage: str, key: str) -> dict[str, Any]:
        """The run.json of a stage.

        Raises:
            MalError: there is none, or it cannot be read.
        """
        try:
            return self._record(stage, key)
        except FileNotFoundError:
            path = self.folder(stage, key) / RECORD
            raise MalError(f"there is no {path}: this stage has not been computed; run its command first") from None

    def finish(self, stage: str, key: str, record: dict[str, Any]) -> None:
        """Write run.json, whole or not at all; the caller has written every other file by now.

        Raises:
            MalError: the record holds NaN or something else JSON has no word for; the folder was taken over by
                another process meanwhile; the disk is full or the folder cannot be written.
        """
        folder = self.folder(stage, key)
        if (record.get("stage"), record.get("key")) != (stage, key):
            raise ValueError(f"the record of {record.get('stage')}/{record.get('key')} is not that of {stage}/{key}")
        _check_json(record, f"the record of {stage}/{key}")
        claim = self._held.get(folder)
        if claim is not None and not claim.is_ours():
            raise MalError(
                f"{folder} was taken over by {claims.holder(folder) or 'a process that finished it'} while this one "
                "gave no sign of life; its result stands, so run the same command again to use it"
            )
        write_json(folder / RECORD, record, indent=1)

    @contextmanager
    def claim(self, stage: str, key: str) -> Iterator[bool]:
        """Own a stage for the length of a `with` block.

        Yields True where it is ours to compute (what a dead owner left in the folder is still there, to resume from);
        False where it is done, be it after a wait for the owner who computed it. Leaving the block without
        `finish`, by an error or a signal, passes the stage on at once.

        Raises:
            MalError: the disk is full or the folder cannot be written.
        """
        folder = self.folder(stage, key)
        claim = self._wait_or_take(stage, key)
        if claim is None:
            yield False
            return
        self._held[folder] = claim
        try:
            yield True
        finally:
            del self._held[folder]
            claim.release(done=self.is_done(stage, key))

    def is_claimed(self, stage: str, key: str) -> bool:
        """Whether somebody is computing the stage now."""
        holder = claims.holder(self.folder(stage, key))
        return holder is not None and not holder.is_dead() and holder.age <= self.expiry

    def folders(self) -> list[tuple[str, str]]:
        """(stage, key) of every folder there is, done or not, in order."""
        return sorted((path.parent.name, path.name) for path in self.root.glob("*/*/") if path.is_dir())

    def _wait_or_take(self, stage: str, key: str) -> claims.Claim | None:
        """The claim on a stage that is not done; None once it is done."""
        folder = self.folder(stage, key)
        told, silent = None, None
        while not self.is_done(stage, key):
            holder = claims.holder(folder)
            generation = 1 if holder is None else holder.generation + 1
            silence = holder and holder.age > self.expiry and (holder.generation, holder.beat)
            # Heartbeats of a machine that slept look old right after it woke: silence counts when seen twice.
            if holder is None or holder.is_dead() or (silence and silence == silent):
                claim = claims.take(folder, generation=generation, heartbeat=self.heartbeat)
                if claim is None:
                    continue
                if not self.is_done(stage, key):  # its owner may have finished just before we took it
                    return claim
                claim.release(done=True)
            else:
                if holder.owner and told != holder.owner:
                    told = holder.owner
                    print(f"{stage}/{key} is being computed by {holder}; waiting for it", file=sys.stderr, flush=True)
                time.sleep(max(self.poll, self.heartbeat) if silence else self.poll)
                silent = silence
        return None

    def _record(self, stage: str, key: str) -> dict[str, Any]:
        path = self.folder(stage, key) / RECORD
        try:
            record = read_json(path)
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:
            raise MalError(f"cannot read {path}: part of the path is a file; name another place") from error
        except OSError as error:
            raise MalError(f"cannot read {path}: {error.strerror}; name another place or change its rights") from error
        except ValueError as error:
            raise MalError(f"{path} is not readable JSON; delete it to have the stage computed again") from error
        if not isinstance(record, dict):
            raise MalError(f"{path} does not hold a record; delete it to have the stage computed again")
        return record


def stage_key(
    *, stage: str, version: int, config: dict[str, Any], inputs: dict[str, str], sources: dict[str, str]
) -> str:
    """Names a result by all that defines it, in 16 hex digits.

    Args:
        stage: its name.
        version: of the stage's code, raised with every change of behaviour.
        config: the resolved settings that the stage reads, and no others.
        inputs: name → "stage/key" of the results it starts from.
        sources: name → sha256 of the files it reads from outside the store.

    Raises:
        ConfigError: a value that JSON has no word for, such as NaN; it is named.
    """
    parts = {"stage": stage, "version": version, "config": config, "inputs": inputs, "sources": sources}
    _check_json(parts, f"what defines stage {stage}")
    return digest(parts)[:KEY_DIGITS]


class Fingerprints:
    """sha256 of source files, remembered in `root`/fingerprints.json by path, size and times."""

    def __init__(self, root: str | Path) -> None:
        self.cache = Path(root) / "fingerprints.json"

    def file(self, path: str | Path) -> str:
        """Hex digest of a file; an unchanged file is read only the first time.

        Raises:
            MalError: there is no such file, or it cannot be read.
        """
        place = str(Path(path).resolve())
        try:
            before = _state(place)
            known = self._load()
            if (entry := known.get(place)) and entry["state"] == before:
                return entry["sha256"]
            value = sha256(place)
            after = _state(place)
        except FileNotFoundError:
            raise MalError(f"there is no file {path}; check the path in the config") from None
        except OSError as error:
            raise MalError(f"cannot read {path}: {error.strerror}; give a file that can be read") from error
        if before != after:
            raise MalError(f"{path} changed while it was read; run the command again once it is complete")
        if time.time_ns() - max(after[1:]) > SETTLED_NS:
            with suppress(MalError):  # where it cannot be remembered it is right all the same, only slower
                write_json(self.cache, {**self._load(), place: {"state": after, "sha256": value}}, indent=1)
        return value

    def _load(self) -> dict[str, Any]:
        try:
            known = read_json(self.cache)
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _state(path: str) -> list[int]:
    """Size, and times of modification and of status change (ns): copying a file's times cannot fake the latter."""
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _check_json(value: Any, place: str) -> None:
    """Refuse what `json` would refuse or change: NaN, infinities, keys that are no strings, objects.

    Raises:
        ConfigError: names the place in the nested value.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{place}: the key {key!r} is no string; write it as {str(key)!r}")
            _check_json(item, f"{place}: {key}" if ":" not in place else f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place} is {value}, which JSON cannot hold; give a finite number or null")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise ConfigError(f"{place} is of type {type(value).__name__}, which JSON cannot hold; use plain values")
