"""What a command writes for its user: nothing of theirs is replaced unless they say so.

Beside an output lies a note, `.written.NAME`: the call that wrote it and the digest of each of its files. So a command
knows its own result again, and whether somebody has changed it since.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal.engine.files import explain, read_json, sha256, write_json
from mal.engine.findings import number
from mal.errors import ConfigError

NAMED = 3  # files that a message names


@dataclass
class Output:
    """The files that a call writes.

    Attributes:
        option: what the user wrote after --out.
        place: the file or folder that it is.
        files: all that will be written, in `place` or beside it.
        call: what defines their content, by name.
        suffix: in a folder, that of files which would be mixed up with ours.
    """

    option: Path
    place: Path
    files: list[Path]
    call: dict[str, Any]
    suffix: str | None

    @property
    def note(self) -> Path:
        """Where it is written down what was written."""
        return self.place.with_name(f".written.{self.place.name}")

    def finished(self) -> list[str] | None:
        """What the same call said at its end, if all that it wrote is still there and as it was; else None."""
        note = self._read()
        if note["call"] != self.call or not note["done"]:
            return None
        whole = all(self._is_ours(path, note) for path in self.files)
        return [str(line) for line in note["said"]] if whole else None

    def check(self, *, resumed: bool) -> None:
        """Look for what must not be replaced.

        Args:
            resumed: this call was begun before, so that it may replace another call's unchanged result.

        Raises:
            ConfigError: something is there, by another hand or another call; the message names it and --overwrite.
        """
        note = self._read()
        existing = [path for path in self.files if os.path.lexists(path)]
        foreign = [path for path in (*existing, *self._others()) if not self._is_ours(path, note)]
        way_out = "name another place, or give --overwrite to replace what has the same name"
        if foreign == [self.place]:
            raise ConfigError(
                f"--out {self.option} exists, and this command did not write it or it was changed since; {way_out}"
            )
        if foreign:
            raise ConfigError(
                f"--out {self.option}: {number(len(foreign), 'file is', 'files are')} there that this command did not "
                f"write or that were changed since ({self._first(foreign)}); {way_out}"
            )
        if existing and note["call"] != self.call and not resumed:
            names = [name for name, value in self.call.items() if note["call"].get(name) != value]
            raise ConfigError(
                f"--out {self.option} holds the result of a call with other {' and '.join(names)}; {way_out}"
            )

    def publish(self, staged: Path, said: list[str]) -> list[str]:
        """Move finished files to their places.

        Args:
            staged: folder that holds them as the parent of `place` is going to.
            said: what to say of them now, and when the same call is made again.

        Returns:
            What to say besides, of files that stay.

        Raises:
            MalError: a place cannot be written.
        """
        old, others = self._read()["files"], self._others()
        named = {path.relative_to(self.place.parent).as_posix(): path for path in self.files}
        new = {name: [sha256(staged / name)] for name in named}
        # killed between here and the end, the next call must know the old files and the new ones as ours
        both = {name: [*new[name], *old.get(name, ())] for name in new}
        note = {"call": self.call, "done": False, "said": said, "files": both}
        write_json(self.note, note)
        for name, path in named.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged / name, path)
            except OSError as error:
                raise explain(error, path) from error
        write_json(self.note, note | {"done": True, "files": new})
        if not others:
            return []
        return [f"{len(others)} other {self.suffix} files in {self.option} stay as they are: {self._first(others)}"]

    def _others(self) -> list[Path]:
        """Files in the folder that would be taken for ours."""
        if self.suffix is None:
            return []
        mine = set(self.files)
        found = (Path(folder) / name for folder, _, names in os.walk(self.place) for name in names)
        return sorted(path for path in found if path.suffix == self.suffix and path not in mine)

    def _is_ours(self, path: Path, note: dict[str, Any]) -> bool:
        """Whether a file is as a call of this command left it."""
        digests = note["files"].get(path.relative_to(self.place.parent).as_posix())
        try:
            return bool(digests) and sha256(path) in digests
        except OSError:  # absent, a folder, or not to be read
            return False

    def _read(self) -> dict[str, Any]:
        """The note; an empty one where there is none that can be read."""
        empty = {"call": {}, "done": False, "said": [], "files": {}}
        try:
            note = read_json(self.note)
        except (OSError, ValueError):
            return empty
        whole = isinstance(note, dict) and all(isinstance(note.get(name), type(value)) for name, value in empty.items())
        return note if whole else empty

    def _first(self, paths: list[Path]) -> str:
        names = [path.relative_to(self.place.parent).as_posix() for path in sorted(paths)[:NAMED]]
        return ", ".join(names) + (", …" if len(paths) > NAMED else "")
