"""`python -m mal.segment`: anyone's images in, class maps out, by a trained SimFormer."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mal.data.images import load
from mal.data.orientations import ORIENTATION, as_stored
from mal.data.semantic import read_map
from mal.engine.runtime import load_checkpoint, save_checkpoint
from mal.methods.simformer.checkpoint import FILE
from mal.methods.simformer.checkpoint import load as load_network
from mal.methods.simformer.train import train
from mal.segment import main
from tests.simformer_cases import NOVEL, changed, draw, steps, weak

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three steps, and the images that it saw: `simformer.pt` beside `images`."""
    folder = tmp_path_factory.mktemp("trained")
    view = weak(draw(folder, images=3), folder / "weak")
    config = steps(changed(compose, "augment.side=64"), 3)
    train(view, folder / "images", config, folder=folder, device=CPU)
    return folder


@pytest.fixture
def photos(trained: Path, tmp_path: Path) -> Path:
    """Two images, one of them in a folder below, that are not square."""
    first, second, _ = sorted((trained / "images").iterdir())
    (tmp_path / "photos" / "below").mkdir(parents=True)
    Image.open(first).crop((0, 0, 64, 40)).save(tmp_path / "photos" / "a.png")
    Image.open(second).save(tmp_path / "photos" / "below" / "b.bmp")
    return tmp_path / "photos"


def segment(checkpoint: Path, photos: Path, out: Path, *more: str) -> int:
    return main([str(checkpoint), "--images", str(photos), "--out", str(out), "--device", "cpu", *more])


def times(folder: Path) -> dict[str, int]:
    return {str(it.relative_to(folder)): it.stat().st_mtime_ns for it in folder.rglob("*.*") if it.suffix != ".json"}


def test_maps_are_what_the_network_sees_in_colours_that_are_named(
    compose, trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(trained / FILE, photos, out, "--overlay") == 0
    printed = capsys.readouterr()
    assert f"2 class maps in {out}, named in {out / 'classes.json'}\noverlays: {out / 'overlays'}\n" == printed.out
    assert "segment: 2/2 images" in printed.err
    config = changed(compose, "augment.side=64")
    network = load_network(trained / FILE, config, CPU)
    listed = json.loads((out / "classes.json").read_text())["classes"]
    assert len(listed) == 13
    assert {int(place) for place, it in listed.items() if it["kind"] == "novel"} == {*NOVEL}
    assert listed["12"]["name"] == "ground"
    sides = config.simformer.augment
    for image, made in (("a.png", "a"), ("below/b.bmp", "below/b")):
        pixels = load(photos / image)
        expected = network.class_map(pixels, [sides.side], long_side=sides.long_side)
        np.testing.assert_array_equal(read_map(out / f"{made}.png"), expected)
        shown = np.array(Image.open(out / f"{made}.png").convert("RGB"))
        colour = np.array([list(bytes.fromhex(it["colour"][1:])) for it in listed.values()])[expected]
        np.testing.assert_array_equal(shown, colour)
        overlay = np.array(Image.open(out / "overlays" / f"{made}.jpg")).astype(float)
        mixed = (pixels.permute(1, 2, 0).numpy() + colour) / 2
        assert np.abs(overlay - mixed).mean() < 8  # a JPEG's loss


@pytest.mark.parametrize("orientation", [1, 3, 6, 7, 8])
def test_an_image_that_viewers_turn_is_seen_upright_and_its_map_lies_on_it_for_every_reader(
    trained: Path, photos: Path, tmp_path: Path, orientation: int
) -> None:
    """The same photograph, stored upright and stored turned."""
    upright = Image.open(photos / "a.png").convert("RGB")
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    turned = Image.fromarray(np.ascontiguousarray(as_stored(np.array(upright), orientation)))
    (tmp_path / "in").mkdir()
    upright.save(tmp_path / "in" / "upright.png")
    turned.save(tmp_path / "in" / "turned.png", exif=tags)
    assert segment(trained / FILE, tmp_path / "in", tmp_path / "out", "--overlay") == 0
    expected = read_map(tmp_path / "out" / "upright.png")
    found = Image.open(tmp_path / "out" / "turned.png")
    assert found.size == turned.size
    np.testing.assert_array_equal(np.array(found), as_stored(expected, orientation))
    np.testing.assert_array_equal(np.array(ImageOps.exif_transpose(found)), expected)
    np.testing.assert_array_equal(read_map(tmp_path / "out" / "turned.png"), as_stored(expected, orientation))
    seen = cv2.imread(str(tmp_path / "out" / "turned.png"), cv2.IMREAD_COLOR)  # which heeds the tag
    assert seen.shape[:2] == expected.shape
    overlays = [np.array(Image.open(tmp_path / "out" / "overlays" / f"{name}.jpg")) for name in ("upright", "turned")]
    np.testing.assert_array_equal(*overlays)


@pytest.mark.slow
def test_the_same_call_keeps_what_is_there_and_another_replaces_it(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(trained, photos, out) == 0, "a folder with the checkpoint will do"
    first = times(out)
    (out / "a.png").unlink()
    assert segment(trained / FILE, photos, out) == 0
    assert "1 of them was there already" in capsys.readouterr().out
    second = times(out)
    assert second["below/b.png"] == first["below/b.png"]
    os.utime(photos / "a.png", ns=(1, 1))  # another image under its name
    assert segment(trained / FILE, photos, out) == 0
    third = times(out)
    assert third["a.png"] != second["a.png"]
    assert third["below/b.png"] == second["below/b.png"]
    state = load_checkpoint(trained / FILE)
    save_checkpoint(tmp_path / "other.pt", state | {"novel": [1]})
    assert segment(tmp_path / "other.pt", photos, out) == 0
    assert not times(out).items() & third.items()
    assert json.loads((out / "classes.json").read_text())["classes"]["1"]["kind"] == "novel"
    fourth = times(out)
    assert segment(tmp_path / "other.pt", photos, out, "--short-side", "96") == 0
    assert not times(out).items() & fourth.items()


@pytest.mark.parametrize("name", ["a.png", "classes.json", "overlays/a.jpg"])
def test_files_by_another_hand_stay(
    trained: Path, photos: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes((photos / "a.png").read_bytes())
    assert segment(trained / FILE, photos, out, "--overlay") == 1
    assert f"1 file is there that this command did not write or that were changed since ({out / name})" in (
        capsys.readouterr().err
    )
    assert segment(trained / FILE, photos, out, "--overlay", "--overwrite") == 0
    assert read_map(out / "a.png").shape == (40, 64)


def test_an_image_that_cannot_be_read_stops_or_is_left_out(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a.png").write_bytes((photos / "a.png").read_bytes()[:200])
    assert segment(trained / FILE, photos, tmp_path / "out") == 1
    assert "a.png is cut off or damaged" in (message := capsys.readouterr().err)
    assert "or leave such images out with --on-bad-image skip" in message
    assert segment(trained / FILE, photos, tmp_path / "out", "--on-bad-image", "skip") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1 class map in")
    assert f"1 image could not be read and has no map: {photos / 'a.png'}" in printed
    assert not (tmp_path / "out" / "a.png").exists()


def test_images_that_cannot_be_used_are_refused(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(images: Path, out: Path, *more: str) -> str:
        assert segment(trained / FILE, images, out, *more) == 1
        return capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    assert "there is no image in" in refused(tmp_path / "empty", tmp_path / "out")
    assert "there is no image folder" in refused(tmp_path / "absent", tmp_path / "out")
    assert "is also --images, where maps would lie among the images" in refused(photos, photos)
    assert "is a file, and one map is written per image" in refused(photos, photos / "a.png")
    assert "--long-side 5 is less than the short side, 64" in refused(photos, tmp_path / "out", "--long-side", "5")
    assert "a short side of 32 pixels is too small" in refused(photos, tmp_path / "out", "--short-side", "32")
    assert segment(trained / FILE, photos, photos / "out") == 0
    assert segment(trained / FILE, photos, photos / "out") == 0, "what lies in --out is no input"
    capsys.readouterr()
    (photos / "a.jpg").write_bytes((photos / "a.png").read_bytes())
    assert "a.png would both become" in refused(photos, tmp_path / "out")


def test_files_that_are_no_network_are_refused(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, path = load_checkpoint(trained / FILE), tmp_path / "c.pt"

    def refused() -> str:
        assert segment(path, photos, tmp_path / "out") == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert f"there is no trained network at {path}; give the simformer.pt of a train_simformer stage" in refused()
    path.write_text("none")
    assert "c.pt is not a network of SimFormer's, or is damaged; give the simformer.pt" in refused()
    save_checkpoint(path, {"student": {}})
    assert "c.pt is not a network of SimFormer's" in refused()
    save_checkpoint(path, {name: value for name, value in state.items() if name != "settings"})
    assert "did not keep the network's settings with it; delete its folder" in refused()
    save_checkpoint(path, state | {"classes": state["classes"][:5]})
    assert "c.pt was trained with other settings" in refused()
    held = state["settings"]
    save_checkpoint(path, state | {"settings": held | {"encoder": held["encoder"] | {"colour": 1}}})
    assert "c.pt was written by another version of this program" in refused()
    own = {name: value for name, value in held["simformer"].items() if name != "augment"}
    save_checkpoint(path, state | {"settings": held | {"simformer": own}})
    assert "does not say at which size it was trained, as a published network does not" in refused()
