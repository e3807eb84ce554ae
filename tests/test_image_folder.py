"""Names of images as exporters write them, folders as they are: all is found, or the advice says what to write."""

import contextlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from test_bad_input import refused_by

from mal.data.annotations import check_images, file_name
from mal.data.images import load_for
from mal.errors import AnnotationError, ImageError, MalError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Hörnchen_née.png") for form in ("NFC", "NFD"))


def listing(*names: str) -> dict[str, Any]:
    return {"images": [{"id": n, "file_name": name, "width": 8, "height": 6} for n, name in enumerate(names)]}


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name, format="png")


SIGNED = "https://bucket.s3.example.com/site-3/pump%20(4).png?X-Signature=" + "5e" * 150 + "&X-Expires=60"

# kind: (file there is, file_name, what the error says)
NAMES: dict[str, tuple[str, str, list[str]]] = {
    "signed address": ("pump (4).png", SIGNED, ["address of pump (4).png", "write that"]),
    "signed address below": ("cams/pump (4).png", SIGNED, ["pump (4).png is in", "cams: give that folder"]),
    "address with its folder": ("site-3/pump (4).png", SIGNED, ["address of site-3/pump (4).png", "write that"]),
    "cloud storage": ("b.png", "s3://bucket/x/b.png", ["file_name is an address of b.png", "write that"]),
    "address of nothing here": ("other.png", SIGNED, ["file_name is an address", "download"]),
    "malformed address": ("a.png", "http://[::1/a.png", ["a.png is in", "remove the rest of the path"]),
    "escaped": ("my photo (1).png", "my%20photo%20%281%29.png", ["percent-encoded", "my photo (1).png", "write that"]),
    "escaped twice": ("my photo (1).png", "my%2520photo%2520%25281%2529.png", ["percent-encoded twice", "write that"]),
    "web form": ("my photo (1).png", "my+photo+%281%29.png", ["web form", "my photo (1).png", "write that"]),
    "escaped letters": (COMPOSED, "H%C3%B6rnchen_n%C3%A9e.png", ["percent-encoded", COMPOSED]),
    "escaped letters, decomposed": (DECOMPOSED, "H%C3%B6rnchen_n%C3%A9e.png", ["percent-encoded", DECOMPOSED]),
    "local files": ("photos/a.png", "/data/local-files/?d=photos/a.png", ["address of photos/a.png", "write that"]),
    "local files, escaped": ("p q/a.png", "/data/local-files/?d=p%20q%2Fa.png", ["address of p q/a.png"]),
    "Windows path": ("images/1/a.png", "images\\1\\a.png", ["Windows path", "images/1/a.png", "write that"]),
    "Windows path, last part": ("a.png", "images\\1/a.png", ["a.png is in", "remove the rest of the path"]),
    "Windows drive": ("a.png", "D:\\set\\a.png", ["a.png is in", "remove the rest of the path"]),
    "another machine": ("set/a.png", "/nowhere/data/set/a.png", ["stands for set/a.png", "write that"]),
    "decomposed on the disk": (DECOMPOSED, COMPOSED, ["another Unicode form", "NFD", "Mac", "convmv", "--nfc"]),
    "composed on the disk": (COMPOSED, DECOMPOSED, ["another Unicode form", "NFC", "convmv", "--nfd"]),
    "decomposed below": ("e\u0301/a.png", "\u00e9/a.png", ["another Unicode form"]),
    "a long name": ("a.png", "n" * 300 + ".png", ["1 of 1 images", "give the folder that holds them"]),
    "a long path": ("a.png", "d/" * 4000 + "a.png", ["1 of 1 images", "a.png is in", "remove the rest"]),
    "two levels below": ("x/y/a.png", "a.png", ["a.png is in", "x/y: give that folder"]),
    "another ending": ("a.JPEG", "a.png", ["a.JPEG is there: correct file_name"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_that_is_no_file_is_understood(tmp_path: Path, kind: str) -> None:
    there, name, says = NAMES[kind]
    put(tmp_path / "images", there)
    refused_by(check_images, listing(name), tmp_path / "images", kind=ImageError, says=["1 of 1", *says])
    with pytest.raises(ImageError) as error:
        check_images(listing(name), tmp_path / "images")
    assert len(str(error.value)) < 800


@pytest.mark.parametrize(
    "name", ["my%20photo.png", "a?b=c.png", "x\\y.png", "50%.png", COMPOSED, DECOMPOSED, "n" * 250]
)
def test_a_file_of_exactly_that_name_is_taken(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    check_images(listing(name), tmp_path)
    assert load_for(listing(name)["images"][0], tmp_path).shape == (3, 6, 8)


def test_how_many_are_found_in_the_same_way_is_said(tmp_path: Path) -> None:
    put(tmp_path / "images", "a b.png", "c d.png")
    names = ("a%20b.png", "c%20d.png", "gone.png")
    refused_by(
        check_images, listing(*names), tmp_path / "images", kind=ImageError, says=["3 of 3", "2 of them are found"]
    )
    refused_by(check_images, listing(*names[:2]), tmp_path / "images", kind=ImageError, says=["2 of 2", "so are all 2"])


@given(st.text(st.characters(exclude_categories=[]), min_size=1, max_size=40))
def test_no_name_whatever_ends_in_a_traceback_or_outside_the_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    assume(not Path(name).exists())  # absolute names are taken, and the constants of the code are drawn, too
    folder = tmp_path_factory.getbasetemp() / "empty"
    folder.mkdir(exist_ok=True)
    coco = listing(name)
    coco["images"].append({"id": 5, "coco_url": "http://" + name, "width": 8, "height": 6})
    for image in coco["images"]:
        with contextlib.suppress(AnnotationError):
            assert ".." not in Path(file_name(image)).parts
        for look in (
            lambda image=image: check_images({"images": [image]}, folder),
            lambda image=image: load_for(image, folder),
        ):
            with pytest.raises(MalError, match=r"(?s)(image|file_name).*[;:] "):
                look()


@pytest.mark.parametrize("name", ["../a.png", "x/../a.png", "..\\a.png", "x\\..\\..\\a.png", ".."])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "images").mkdir()
    image = listing(name)["images"][0]
    says = ["leads out of the image folder", "remove the '..'"]
    refused_by(file_name, image, kind=AnnotationError, says=says)
    refused_by(load_for, image, tmp_path / "images", kind=AnnotationError, says=says)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "photos.zip").touch()
    for folder, says in (
        (tmp_path / "a.txt", ["is a file", "give the folder that holds the images"]),
        (tmp_path / "photos.zip", ["is a file", "unpack it"]),
        (Path("https://host.example/photos"), ["is an address", "download the images"]),
        (tmp_path / ("n" * 300), ["give the folder", "n" * 300]),
        (tmp_path / "no", ["there is no image folder", "give the folder"]),
    ):
        with pytest.raises(ImageError) as error:
            check_images(listing("a.png"), folder)
        assert all(part in str(error.value) or "cannot be listed" in str(error.value) for part in says), error.value


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nobody may look into; also not who may everything."""
    put(tmp_path, "a.png", "sealed/b.png")
    scandir, stat = os.scandir, os.stat

    def refuse(path: Any) -> None:
        if "sealed" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "scandir", lambda path=".": (refuse(path), scandir(path))[1])
    monkeypatch.setattr(os, "stat", lambda path, **rest: (refuse(path), stat(path, **rest))[1])
    return tmp_path


def test_a_folder_that_cannot_be_listed_is_named(locked: Path) -> None:
    refused_by(check_images, listing("b.png"), locked / "sealed", kind=ImageError, says=["cannot be listed", "rights"])
    says = ["sealed cannot be looked into (Permission denied)", "change its rights"]
    refused_by(check_images, listing("a.png", "sealed/b.png"), locked, kind=ImageError, says=says)


def test_a_locked_folder_beside_the_images_is_nobodys_concern(locked: Path) -> None:
    check_images(listing("a.png"), locked)
    refused_by(check_images, listing("c.png"), locked, kind=ImageError, says=["1 of 1", "give the folder that holds"])


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{folder}/{n}.png" for folder in "ab" for n in range(20)]
    put(tmp_path, *names)
    listed, looked_at = [], []
    scandir, is_file = os.scandir, Path.is_file
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), scandir(path))[1])
    monkeypatch.setattr(Path, "is_file", lambda path: (looked_at.append(path), is_file(path))[1])
    check_images(listing(*names), tmp_path)
    assert len(listed) == 3
    assert looked_at == []
