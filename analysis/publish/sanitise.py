"""What of a result may be seen by everyone: records without paths and hosts, and a search for what slipped through."""

import getpass
import json
import re
import socket
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from analysis.records import Record

KEPT = (  # of a record; `places` and whatever a later version adds stay behind
    "stage", "key", "version", "status", "columns", "config", "inputs", "sources", "metrics", "provenance", "seconds",
    "memory", "started", "finished",
)  # fmt: skip
KEPT_PROVENANCE = ("commit", "diff", "python", "packages", "hardware")
KEPT_HARDWARE = ("cpu", "cores", "threads", "gpu", "gpus", "processes")
PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".pdf", ".svg"}
TEXTS = {".json", ".jsonl", ".csv"}
PATH = re.compile(r"(/|~|\.{1,2}/|[A-Za-z]:[\\/]|\\\\|[A-Za-z][\w+.-]*://).*", re.DOTALL)  # a whole string
FOLDERS = "home|root|Users|tmp|mnt|var|opt|work|data|scratch|srv|media|usr|etc|gpfs|lustre|nfs"
# in a text: a string that starts as a path, or a well-known folder or an address anywhere (an IP with its port only:
# packages have versions of four numbers)
SEEN = re.compile(
    rf'"(?:/|~/|\.\./|[A-Za-z]:\\)[^"]*"|(?<![\w.])/(?:{FOLDERS})/[^\s",]*|\b\w+://[^\s",]+|\b\d+(?:\.\d+){{3}}:\d+'
)
# a mask's compressed run lengths: of these characters, which may look like a drive's path, and never spell one
RUNS = re.compile(r'("counts": ?)"[0-o]*"')
COMMON_NAMES = {"root", "user", "ubuntu", "admin", "runner", "nobody", "localhost"}
PROCEDURAL = re.compile(
    r"(shapes_val/[^/]+/images|(semantic|segment)_val/[^/]+/maps)/\d+\.png"
)  # pictures that are nobody's


def clean(value: Any) -> Any:
    """A copy in which every string that is a path or an address is its last part alone."""
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, str) and PATH.fullmatch(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def clean_record(record: Record) -> Record:
    """A run.json for everyone: only the known parts, without paths; the machine is its processors."""
    kept = {name: clean(record[name]) for name in KEPT if name in record}
    provenance = {k: v for k, v in (kept.get("provenance") or {}).items() if k in KEPT_PROVENANCE}
    if "hardware" in provenance:
        provenance["hardware"] = {k: v for k, v in provenance["hardware"].items() if k in KEPT_HARDWARE}
    return {**kept, "provenance": provenance}


def leaks(folder: Path) -> list[str]:
    """Sentences about what should not be seen in a published folder: paths, hosts, user names, foreign pictures."""
    found = []
    for path in sorted(it for it in folder.rglob("*") if it.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in PICTURES:
            if not PROCEDURAL.fullmatch(name):
                found.append(f"{name} is a picture that is not a procedural image")
        elif path.suffix == ".npz":
            found += _array_leaks(path, name)
        elif path.suffix in TEXTS:
            found += _text_leaks(path.read_text(encoding="utf-8"), name)
        else:
            found.append(f"{name} is of a kind that is not published")
    return found


def _text_leaks(text: str, name: str) -> list[str]:
    text = RUNS.sub(r'\1""', text)
    found = [f"{name} holds a path or an address: {match[0][:80]}" for match in SEEN.finditer(text)]
    private = {getpass.getuser(), socket.gethostname()} - COMMON_NAMES
    found += [
        f"{name} holds the name of this machine or its user"
        for word in sorted(private)
        if len(word) > 2 and re.search(rf"\b{re.escape(word)}\b", text)
    ]
    if name.endswith("run.json") and "places" in json.loads(text):
        found.append(f"{name} says where images lay")
    return found


def _array_leaks(path: Path, name: str) -> list[str]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = []
            for key in arrays.files:
                kind = arrays[key].dtype.kind
                if kind == "U":
                    found += _text_leaks("\n".join(arrays[key].ravel().tolist()), f"{name} ({key})")
                elif kind not in "biuf":
                    found.append(f"{name} holds neither numbers nor text in {key}")
            pixels = "pixels" in arrays.files and not name.startswith("attention_val/")
    except (OSError, ValueError, BadZipFile) as error:
        return [f"{name} cannot be read ({error})"]
    return [*found, *([f"{name} holds pixels"] if pixels else [])]
