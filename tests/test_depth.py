"""Images of more than 8 bits a channel: right by a stated rule, or refused; never black without a word."""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from test_bad_input import refused_by

from mal.data.images import load, load_for
from mal.engine import notes
from mal.errors import ImageError

VALUES = np.array([[0, 400, 1111, 1500], [2047, 3000, 3500, 4000]], dtype=np.uint16)  # 12 bits
FULL = np.array([[0, 128, 129], [32768, 65278, 65535]], dtype=np.uint16)


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    notes._known[:] = bytes(notes._PLACES)
    yield
    notes._known[:] = bytes(notes._PLACES)


def tiff(path: Path, values: np.ndarray, **tags: object) -> Path:
    numbers = {"smax": 341, "max": 281, "photometric": 262}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[numbers[name]] = value
    Image.fromarray(values).save(path, tiffinfo=info)
    return path


def pgm(path: Path, values: np.ndarray, largest: int) -> Path:
    height, width = values.shape
    path.write_bytes(b"P5\n%d %d\n%d\n" % (width, height, largest) + values.astype(">u2").tobytes())
    return path


def png(path: Path, values: np.ndarray, *chunks: tuple[bytes, bytes]) -> Path:
    """16 bits a channel: (H, W) grey, or (H, W, C) with 2 grey and alpha, 3 RGB, 4 RGBA."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in parts
        )
    )
    return path


def packed_12_bits(path: Path, values: np.ndarray) -> Path:
    height, width = values.shape
    bits = "".join(f"{value:012b}" for value in values.ravel().tolist())
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 110), (278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)
    return path


def grey_of(path: Path) -> list[list[int]]:
    pixels = load(path)
    assert (pixels == pixels[:1]).all()
    return pixels[0].tolist()


def scaled(values: np.ndarray, top: int) -> list[list[int]]:
    return [[(value * 255 + top // 2) // top for value in row] for row in values.tolist()]


def test_twelve_bits_in_a_file_of_sixteen_are_seen_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (
        tiff(tmp_path / "a.tif", VALUES),
        png(tmp_path / "b.png", VALUES),
        pgm(tmp_path / "c.pgm", VALUES, 65535),
    ):
        assert grey_of(path) == scaled(VALUES, 4095)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1  # in a whole run
    assert said[0].startswith(
        f"note: {tmp_path / 'a.tif'} has grey of 16 bits and no value above 4000: taken for 12 bits"
    )
    assert "0 … 4095" in said[0]
    assert "SMaxSampleValue" in said[0]


@pytest.mark.parametrize(
    ("largest", "top"),
    [(1, 255), (255, 255), (256, 1023), (1023, 1023), (1024, 4095), (4095, 4095), (4096, 16383), (16383, 16383),
     (16384, 65535), (65535, 65535)],
)  # fmt: skip
def test_the_range_is_that_of_the_fewest_bits_of_a_camera(tmp_path: Path, largest: int, top: int) -> None:
    values = np.array([[0, largest // 2, largest]], dtype=np.uint16)
    assert grey_of(png(tmp_path / "a.png", values)) == scaled(values, top)


def test_a_black_image_is_black_and_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grey_of(png(tmp_path / "a.png", VALUES * 0)) == [[0] * 4] * 2
    assert capsys.readouterr().err == ""


def test_the_full_range_is_nothing_to_speak_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tiff(tmp_path / "a.tif", FULL), png(tmp_path / "b.png", FULL), pgm(tmp_path / "c.pgm", FULL, 65535)):
        assert grey_of(path) == scaled(FULL, 65535)
    assert capsys.readouterr().err == ""


def test_two_ranges_in_one_run_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(png(tmp_path / "bright.png", FULL))
    for name in ("dark.png", "darker.png"):
        load(png(tmp_path / name, VALUES))
    said = capsys.readouterr().err
    assert said.count("brightness cannot be compared") == 1
    assert f"{tmp_path / 'dark.png'} is read as 12 bits and images before it as 16" in said
    assert "save all with 8 bits a channel, by one rule" in said


def test_processes_that_read_images_speak_as_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = png(tmp_path / "a.png", VALUES)
    for _ in range(3):  # one after the other, as the loaders of three stages are
        child = os.fork()
        if child == 0:
            load(path)
            os._exit(0)
        os.waitpid(child, 0)
    load(path)
    assert capfd.readouterr().err.count("taken for 12 bits") == 1


def test_a_range_that_the_file_states_is_taken_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = VALUES // 8  # by its values it might have 9 bits
    for path in (
        tiff(tmp_path / "a.tif", dark, smax=4095.0),
        tiff(tmp_path / "b.tif", dark, smax=4000.0),  # of 12 bits too
        packed_12_bits(tmp_path / "c.tif", dark),
        pgm(tmp_path / "d.pgm", dark, 4095),
    ):
        found = grey_of(path)
        assert np.abs(np.array(found) - scaled(dark, 4095)).max() <= (path.suffix == ".pgm"), (
            path
        )  # Pillow rounds twice
    assert capsys.readouterr().err == ""


def test_a_pixel_beyond_what_the_file_states_is_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", VALUES, smax=1023.0)
    refused_by(load, path, kind=ImageError, says=[str(path), "go up to 1023", "one is 4000", "8 bits a channel"])


def test_a_16_bit_pgm_is_not_taken_for_32_bits(tmp_path: Path) -> None:
    height, width = VALUES.shape
    plain = tmp_path / "plain.pgm"
    plain.write_text(f"P2\n{width} {height}\n4095\n" + " ".join(map(str, VALUES.ravel().tolist())))
    for path in (plain, pgm(tmp_path / "a.pgm", VALUES, 4095)):
        assert np.abs(np.array(grey_of(path)) - scaled(VALUES, 4095)).max() <= 1
    plain.write_text(f"P2\n{width} {height}\n65535\n" + " ".join(map(str, VALUES.ravel().tolist())))
    assert grey_of(plain) == scaled(VALUES, 4095)


def test_white_is_white_where_zero_means_white(tmp_path: Path) -> None:
    inverted = 65535 - FULL
    assert grey_of(tiff(tmp_path / "a.tif", inverted, photometric=0)) == scaled(FULL, 65535)


def test_a_transparent_grey_is_white(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", FULL, (b"tRNS", struct.pack(">H", 129)))
    assert grey_of(path) == [[0, 0, 255], *scaled(FULL[1:], 65535)]


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_keep_their_upper_8(tmp_path: Path, channels: int) -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (5, 6, channels)).astype(np.uint16)
    colours[..., 3:] = 65535
    found = load(png(tmp_path / "a.png", colours)).permute(1, 2, 0).numpy()
    assert np.array_equal(found, colours[..., :3] >> 8)


def test_grey_with_alpha_of_16_bits_lies_over_white(tmp_path: Path) -> None:
    pixels = np.dstack([FULL, np.array([[65535] * 3, [65535, 0, 65535]], np.uint16)])
    found = grey_of(png(tmp_path / "a.png", pixels))
    assert found == [[0, 0, 0], [128, 255, 255]]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_in_the_lower_bits_are_refused(tmp_path: Path, channels: int) -> None:
    colours = np.repeat(VALUES[..., None], channels, axis=2)
    if channels in (2, 4):
        colours[..., -1] = 65535
    path = png(tmp_path / "a.png", colours)
    refused_by(load, path, kind=ImageError, says=[str(path), "colours of 16 bits", "lower 12", "8 bits a channel"])
    load(png(tmp_path / "black.png", colours * 0))  # nothing is lost in it


def test_dark_colours_of_16_bits_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = np.repeat(VALUES[..., None] * 4, 3, axis=2)  # 14 bits
    found = load(png(tmp_path / "a.png", colours)).permute(1, 2, 0).numpy()
    assert np.array_equal(found, colours >> 8)
    assert "so it is dark" in capsys.readouterr().err


def test_signed_and_floating_pixels_are_refused_by_their_own_names(tmp_path: Path) -> None:
    tags = [(256, 3), (257, 2), (258, 16), (259, 1), (262, 1), (273, 122), (278, 2), (279, 12), (339, 2)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    signed = tmp_path / "signed.tif"
    signed.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + FULL.tobytes())
    refused_by(load, signed, kind=ImageError, says=[str(signed), "signed 16-bit", "save it with 8 or 16 bits"])
    height, width = VALUES.shape
    floats = tmp_path / "a.pfm"
    floats.write_bytes(b"Pf\n%d %d\n-1.0\n" % (width, height) + (VALUES / 4095).astype("<f4").tobytes())
    refused_by(load, floats, kind=ImageError, says=[str(floats), "floating-point", "save it with 8 or 16 bits"])


def test_a_turned_deep_image_keeps_its_range(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(VALUES).save(tmp_path / "a.png", exif=exif)
    height, width = VALUES.shape
    found = load_for({"id": 1, "file_name": "a.png", "width": height, "height": width}, tmp_path)
    assert found[0].tolist() == np.rot90(scaled(VALUES, 4095), -1).tolist()


def test_a_claimed_size_is_compared_before_a_pixel_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")

    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", decoded)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.getexif", lambda _: {})
    entry = {"id": 3, "file_name": "a.png", "width": 13_000, "height": 13_000}
    refused_by(load_for, entry, tmp_path, kind=ImageError, says=["64 x 64", "image 3", "13000 x 13000"])


def test_an_image_of_a_hundred_megapixels_is_opened_without_pillows_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here, and refuses from 2,000
    assert load(tmp_path / "a.png").shape == (3, 30, 40)
