"""Where the images that an annotation file names may be: exporters write addresses, paths of other machines, escaped
names and other forms of Unicode. The advice says what to write; nothing is resolved silently."""

import os
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from mal.data.image_names import is_address, last_part

_DEEP = 3  # folders below the image folder that are looked through
_MOST = 500_000  # files of them
_NAMED = 60  # characters of a name in a message


class _Advice(NamedTuple):
    kind: str
    text: str


def whereabouts(missing: Sequence[str], folder: Path) -> str:
    """Advice about image names without a file.

    Args:
        missing: at least one; paths relative to `folder`.
    """
    shelf = _Shelf(folder)
    found = [advice for advice in (shelf.advice(name) for name in missing) if advice]
    if not found:
        way_out = "give the folder that holds them, or remove them from the annotation file"
        if is_address(missing[0]):
            return f"file_name is an address: download the images, write their files' names, and {way_out}"
        return way_out
    alike = sum(advice.kind == found[0].kind for advice in found)
    if len(missing) == 1:
        return found[0].text
    return f"{found[0].text} ({f'so are all {alike}' if alike == len(missing) else f'{alike} of them are found so'})"


class _Shelf:
    """The files in and below an image folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_path: dict[str, str] = {}  # composed (NFC) path inside the folder → path as it is
        self.by_name: dict[str, str] = {}  # composed last part → path of the first such file, the highest one
        self.by_stem: dict[str, str] = {}  # last part without its ending and case → the same
        for path in _below(folder):
            whole, name = _composed(path), _composed(PurePosixPath(path).name)
            self.by_path.setdefault(whole, path)
            self.by_name.setdefault(name, path)
            self.by_stem.setdefault(PurePosixPath(name).stem.casefold(), path)
        self.subfolders = sorted({path.split("/")[0] for path in self.by_path.values() if "/" in path})

    def advice(self, name: str) -> _Advice | None:
        for subfolder in self.subfolders:
            if f"{subfolder}/{name}" in self.by_path:
                return _Advice("folder", f"{_cut(name)} is in {self.folder / subfolder}: give that folder")
        if _is_file(self.folder.parent / name):
            return _Advice("parent", f"{_cut(name)} is in {self.folder.parent}: give that folder")
        there = self.by_path.get(_composed(name))
        if there is not None:
            return self._other_form(name, there)
        for reason, candidate in _readings(name):
            there = self.by_path.get(_composed(candidate))
            if there is not None:
                return _Advice(reason, f"{reason} {_cut(there)}, which is in {self.folder}: write that into file_name")
        for candidate in dict.fromkeys((last_part(name), *(last_part(reading) for _, reading in _readings(name)))):
            there = self.by_name.get(_composed(candidate))
            if there is not None:
                where = (self.folder / there).parent
                first = "" if where == self.folder else "give that folder and "
                text = f"{_cut(last_part(there))} is in {where}: {first}remove the rest of the path from file_name"
                return _Advice("last part", text)
        there = self.by_stem.get(PurePosixPath(_composed(last_part(name))).stem.casefold())
        return None if there is None else _Advice("ending", f"{_cut(there)} is there: correct file_name")

    def _other_form(self, name: str, there: str) -> _Advice:
        form = "NFD" if there == unicodedata.normalize("NFD", there) else "NFC"
        how = "decomposed, as a Mac writes accents" if form == "NFD" else "composed, as Linux and Windows write accents"
        other = "nfc" if form == "NFD" else "nfd"
        return _Advice(
            "form",
            f"{_cut(name)} is in {self.folder} under another Unicode form of its name ({form}: {how}): rename "
            f"the files (convmv -f utf8 -t utf8 --{other} --notest -r {self.folder}), or write file_name in that form",
        )


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """What a name may stand for: why, and the path."""
    decoded = name
    for times in ("", " twice"):
        if unquote(decoded) != decoded:
            decoded = unquote(decoded)
            yield f"file_name is percent-encoded{times} and stands for", decoded
    if unquote_plus(name) != unquote(name):
        yield "file_name is encoded as in a web form and stands for", unquote_plus(name)
    try:
        address = urlsplit(name)
        values = [value for group in parse_qs(address.query).values() for value in group]
    except ValueError:
        address, values = urlsplit(""), []
    for value in values:  # /data/local-files/?d=photos/a.png
        yield "file_name is an address of", value.lstrip("/")
    if address.query or is_address(name):
        parts = unquote(address.path).strip("/").split("/")
        for start in range(len(parts)):
            yield "file_name is an address of", "/".join(parts[start:])
    if "\\" in name:
        yield "file_name is a Windows path and stands for", name.replace("\\", "/")
    parts = re.split(r"[\\/]", unquote(name))
    for start in range(1, len(parts) - 1):
        yield "file_name is a path of another folder and stands for", "/".join(parts[start:])


def _below(folder: Path) -> Iterator[str]:
    """Paths of the files in a folder and some levels below, the highest first; those that cannot be listed left out."""
    waiting = deque([("", 0)])
    count = 0
    while waiting:
        inside, depth = waiting.popleft()
        try:
            with os.scandir(folder / inside) as listing:
                entries = sorted((entry.name, entry.is_dir()) for entry in listing)
        except OSError:
            continue
        for name, is_folder in entries:
            path = f"{inside}/{name}" if inside else name
            if not is_folder:
                yield path
                count += 1
            elif depth < _DEEP:
                waiting.append((path, depth + 1))
        if count > _MOST:
            return


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _cut(name: str) -> str:
    return name if len(name) <= _NAMED else f"{name[: _NAMED - 20]} ... {name[-16:]}"
