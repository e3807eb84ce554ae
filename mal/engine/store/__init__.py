"""Content-keyed results: a stage's folder is named by what defines its result, so the same request finds it again.

results/runs/<stage>/<key>/run.json      written last; a folder without it is half done and is resumed
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mal.engine import claims
from mal.engine.files import check_fence, explain, fenced, read_json, sync_folder, write_json
from mal.engine.leftovers import remove_abandoned
from mal.engine.store.fingerprints import Fingerprints
from mal.engine.store.keys import check_json, stage_key
from mal.engine.store.records import DAMAGED, check_record, faults, inventory
from mal.errors import DamagedFileError, MalError, TakenOverError

__all__ = ["BEGUN", "QUEUED", "RECORD", "SCRATCH", "Fingerprints", "Store", "stage_key"]

RECORD = "run.json"
BEGUN = "stage.json"  # what a stage says of itself when it begins; it stays beside the record
QUEUED = "queued.json"  # beside it: the cluster job that will compute the stage
SCRATCH = ("checkpoint.pt", "shards")  # what work goes on from; it goes once the record is there, and not before
REMOVED = ".removed-"  # what the names of folders begin with that are being removed


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
        """Whether the result is complete: it has a record, and every file that the record names, at its size.

        Raises:
            MalError: there is a run.json that cannot be read.
        """
        return self.is_recorded(stage, key) and not self.faults(stage, key)

    def is_recorded(self, stage: str, key: str) -> bool:
        """Whether the result was complete once, as its record says.

        Raises:
            MalError: there is a run.json that cannot be read.
        """
        try:
            return self._record(stage, key).get("status") == "done"
        except FileNotFoundError:
            return False

    def faults(self, stage: str, key: str) -> dict[str, str]:
        """The files of a recorded result that are gone or of another size than its record says: name → words."""
        return faults(self.folder(stage, key), self._record(stage, key))

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

        They are on disk before it is; only then goes what work would have gone on from (SCRATCH).

        Raises:
            MalError: the record holds NaN or something else JSON has no word for; the folder was taken over by
                another process meanwhile; the disk is full or the folder cannot be written.
        """
        folder = self.folder(stage, key)
        if (record.get("stage"), record.get("key")) != (stage, key):
            raise ValueError(f"the record of {record.get('stage')}/{record.get('key')} is not that of {stage}/{key}")
        check_json(record, f"the record of {stage}/{key}")
        if folder.is_dir():
            sync_folder(folder)
            if files := inventory(folder, without=SCRATCH):
                record = {**record, "files": files}
        if folder in self._held:
            self._held[folder].check()
        write_json(folder / RECORD, record, indent=1)
        with suppress(OSError, TakenOverError):  # the result stands; what cannot be removed is for gc
            for name in SCRATCH:
                check_fence(folder / RECORD)
                shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)

    @contextmanager
    def claim(self, stage: str, key: str) -> Iterator[bool]:
        """Own a stage for the length of a `with` block.

        Yields True where it is ours to compute (what a dead owner left in the folder is still there, to resume from);
        False where it is done, be it after a wait for the owner who computed it. Leaving the block without
        `finish`, by an error or a signal, passes the stage on at once.

        Raises:
            TakenOverError: another process took over meanwhile, and what ended the block is a consequence of it.
            MalError: the disk is full or the folder cannot be written.
        """
        folder = self.folder(stage, key)
        claim = self._wait_or_take(stage, key)
        if claim is None:
            yield False
            return
        self._held[folder] = claim
        try:
            try:
                with claim.losing(claim.check), fenced(folder, claim.check):
                    self._clean(stage, key, claim)
                    yield True
            finally:
                del self._held[folder]
                done = False
                try:
                    done = self.is_recorded(stage, key)
                finally:  # or the heartbeat of a process that lives on would keep all others, itself included, waiting
                    claim.release(done=done)
        except KeyboardInterrupt:  # while it was given up
            if claim.lost:
                claim.check()
            raise

    def generation(self, stage: str, key: str) -> int:
        """The generation of the claim that this process holds, for `fence` in the processes that work with it."""
        return self._held[self.folder(stage, key)].generation

    @contextmanager
    def fence(self, stage: str, key: str, generation: int) -> Iterator[None]:
        """Write into a stage's folder only while a claim of this generation, another process's, is the latest."""
        folder = self.folder(stage, key)
        with fenced(folder, lambda: claims.check_current(folder, generation)):
            yield

    def remove(self, stage: str, key: str, *, results: bool = True) -> bool:
        """Remove a folder; False where somebody is computing it.

        Args:
            results: whether it may be a finished result; else False for one, too.

        Raises:
            MalError: it cannot be removed.
        """
        folder = self.folder(stage, key)
        before = claims.holder(folder)
        if self.is_claimed(stage, key):
            return False
        claim = claims.take(folder, generation=1 if before is None else before.generation + 1, heartbeat=3600.0)
        if claim is None:
            return False
        if not results and self.is_recorded(stage, key):
            claim.release(done=True)
            return False
        away = folder.with_name(f"{REMOVED}{key}-{os.getpid()}")
        try:
            folder.rename(away)  # at once: whoever comes next finds nothing, and not half of it
            shutil.rmtree(away)
        except OSError as error:
            raise MalError(
                f"cannot remove {folder}: {error.strerror}; change its rights, or remove it by hand"
            ) from error
        finally:
            claim.release(done=False)
        return True

    def is_claimed(self, stage: str, key: str) -> bool:
        """Whether somebody is computing the stage now."""
        holder = claims.holder(self.folder(stage, key))
        return holder is not None and not holder.is_dead() and holder.age <= self.expiry

    def folders(self) -> list[tuple[str, str]]:
        """(stage, key) of every folder there is, done or not, in order."""
        found = (path for path in self.root.glob("*/*/") if path.is_dir() and not path.name.startswith("."))
        return sorted((path.parent.name, path.name) for path in found)

    def _clean(self, stage: str, key: str, claim: claims.Claim) -> None:
        """Remove what earlier owners were writing, and put aside what is damaged; the folder is ours."""
        folder = self.folder(stage, key)
        if claim.generation > 1:
            remove_abandoned(folder, former=claims.owners(folder), quiet=self.expiry)
        if not self.is_recorded(stage, key):
            return
        found = self.faults(stage, key)
        kept = [name for name in (*found, RECORD) if (folder / name).is_file()]
        print(
            f"{stage}/{key} is computed again: {'; '.join(found.values())}. What was there is kept as *{DAMAGED}",
            file=sys.stderr,
            flush=True,
        )
        try:
            for name in kept:
                os.replace(folder / name, folder / f"{name}{DAMAGED}")
        except OSError as error:
            raise explain(error, folder) from error

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
        except DamagedFileError as error:
            raise MalError(f"{path} is not readable JSON; delete it to have the stage computed again") from error
        if (fault := check_record(record)) is not None:
            raise MalError(f"{path} does not hold a record ({fault}); delete it to have the stage computed again")
        return record
