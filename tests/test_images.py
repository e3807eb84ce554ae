"""Images: every kind becomes 8-bit RGB by a stated rule, at the turn its annotations were drawn on."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from mal.data.headers import read_header
from mal.data.images import load, load_for, load_upright
from mal.data.orientations import as_stored

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
EXIF = 0x0112
# what a viewer shows for each EXIF orientation, from the stored pixels (H, W, 3)
SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def rgb(path: Path) -> np.ndarray:
    """What `load` gives, as (H, W, 3)."""
    pixels = load(path)
    assert pixels.dtype == torch.uint8
    return pixels.permute(1, 2, 0).numpy()


def grey16(values: np.ndarray, path: Path) -> Path:
    return saved(Image.fromarray(values.astype(np.uint16)), path)


def test_pixels_come_as_colour_by_row_by_column(tmp_path: Path) -> None:
    pixels = load(saved(Image.fromarray(PIXELS), tmp_path / "a.png"))
    assert pixels.shape == (3, 6, 9)
    assert np.array_equal(pixels.numpy(), PIXELS.transpose(2, 0, 1))


def test_pixels_can_be_written_to(tmp_path: Path) -> None:
    path = saved(Image.fromarray(PIXELS), tmp_path / "a.png")
    load(path).zero_()
    assert np.array_equal(rgb(path), PIXELS)


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_a_lossless_image_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "lossless.png"
    assert np.array_equal(rgb(saved(Image.fromarray(pixels), path)), pixels)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    path = saved(
        Image.fromarray(PIXELS[..., 0]), tmp_path / f"a.{suffix}", **({"quality": 95} if suffix == "jpg" else {})
    )
    found = rgb(path)
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0].astype(int) - PIXELS[..., 0]).max() <= (0 if suffix == "png" else 16)


def test_16_bit_grey_is_scaled_by_its_full_range_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 4095, 32768, 65278, 65535]])
    found = rgb(grey16(values, tmp_path / "a.png"))[0, :, 0]
    assert found.tolist() == [round(value * 255 / 65535) for value in values[0].tolist()]
    assert found.tolist() == [0, 0, 1, 1, 16, 128, 254, 255]
    assert np.array_equal(rgb(grey16(values, tmp_path / "a.tif"))[0, :, 2], found)


def test_16_bit_grey_of_either_byte_order_is_the_same(tmp_path: Path) -> None:
    values = np.array([[0, 1000], [40000, 65535]])
    tags = [(256, 2), (257, 2), (258, 16), (259, 1), (262, 1), (273, 110), (278, 2), (279, 8)]  # size, depth, place
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "big.tif").write_bytes(head + values.astype(">u2").tobytes())
    assert np.array_equal(rgb(tmp_path / "big.tif"), rgb(grey16(values, tmp_path / "little.tif")))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = PIXELS[..., 0] > 127
    assert np.array_equal(rgb(saved(Image.fromarray(bits), tmp_path / "a.png"))[..., 1], bits * 255)


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    found = rgb(saved(image, tmp_path / "a.png"))
    table = np.array(image.getpalette()).reshape(-1, 3)
    assert np.array_equal(found, table[np.asarray(image)])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_over_white(tmp_path: Path, mode: str) -> None:
    alpha = np.linspace(0, 255, 54).reshape(6, 9).round().astype(np.uint8)
    colours = PIXELS if mode == "RGBA" else PIXELS[..., :1]
    found = rgb(saved(Image.fromarray(np.dstack([colours, alpha]), mode), tmp_path / "a.png"))
    share = alpha[..., None] / 255
    expected = colours * share + 255 * (1 - share)
    assert np.abs(found - expected).max() <= 1
    assert (found[0, 0] == 255).all()  # the colour under full transparency does not show


def test_a_transparent_colour_becomes_white(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[2, 3] = (1, 2, 3)
    found = rgb(saved(Image.fromarray(pixels), tmp_path / "a.png", transparency=(1, 2, 3)))
    pixels[2, 3] = 255
    assert np.array_equal(found, pixels)


def test_a_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert rgb(saved(image, tmp_path / "a.png", transparency=0))[0].tolist() == [[255] * 3, [40, 50, 60]]
    assert rgb(saved(image, tmp_path / "b.png", transparency=b"\x00\xff"))[0].tolist() == [[255] * 3, [40, 50, 60]]


def test_cmyk_is_converted_by_subtracting_ink(tmp_path: Path) -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255], [0, 0, 0, 128]]], np.uint8)
    found = rgb(saved(Image.fromarray(inks, "CMYK"), tmp_path / "a.tif"))
    assert found[0].tolist() == [[255] * 3, [0, 255, 255], [255, 0, 0], [0] * 3, [127] * 3]
    grey = np.full((16, 16, 4), [0, 0, 0, 128], np.uint8)
    assert np.abs(rgb(saved(Image.fromarray(grey, "CMYK"), tmp_path / "a.jpg")).astype(int) - 127).max() <= 2


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    found = rgb(saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:]))
    assert (found == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_annotations_decide_about_an_exif_rotation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[EXIF] = orientation
    path = saved(Image.fromarray(PIXELS), tmp_path / f"a.{suffix}", exif=exif)
    stored = rgb(path)
    assert stored.shape == (6, 9, 3)  # `load` turns nothing

    as_stored = load_for({"id": 1, "file_name": path.name, "width": 9, "height": 6}, tmp_path)
    assert np.array_equal(as_stored.permute(1, 2, 0), stored)
    if orientation >= 5:  # a quarter turn: the annotations may be drawn on what a viewer shows
        turned = load_for({"id": 1, "file_name": path.name, "width": 6, "height": 9}, tmp_path)
        assert np.array_equal(turned.permute(1, 2, 0), SHOWN[orientation](stored))


def exif_of(tags: dict[int, Any]) -> bytes:
    """An EXIF block with values of any kind, as cameras and programs write it; big-endian, one directory."""
    entries, more = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        if isinstance(value, int):
            entries += struct.pack(">HHIHH", tag, 3, 1, value, 0)
        elif isinstance(value, str):
            entries += struct.pack(">HHI4s", tag, 2, 4, value.encode().ljust(4, b"\0"))
        else:
            rational = isinstance(value, IFDRational)
            data = struct.pack(">ii", value.numerator, value.denominator) if rational else struct.pack(">d", value)
            entries += struct.pack(">HHII", tag, 10 if rational else 12, 1, start + len(more))
            more += data
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + entries + bytes(4) + more


def turned_file(path: Path, image: Image.Image, orientation: object, **options: Any) -> Path:
    exif = Image.Exif()
    exif[EXIF] = orientation
    return saved(image, path, exif=exif, **options)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_upright_is_what_a_viewer_shows_and_there_is_a_way_back(tmp_path: Path, orientation: int, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = turned_file(tmp_path / f"a.{suffix}", Image.fromarray(PIXELS), orientation, **options)
    plain = rgb(saved(Image.fromarray(PIXELS), tmp_path / f"b.{suffix}", **options))
    assert np.array_equal(rgb(path), plain)  # as stored
    upright, found = load_upright(path)
    assert found == orientation
    shown = upright.permute(1, 2, 0).numpy()
    assert np.array_equal(shown, SHOWN[orientation](plain))
    assert np.array_equal(as_stored(shown, orientation), plain)
    assert np.array_equal(as_stored(shown[..., 0], orientation), plain[..., 0])
    entry = {"id": 1, "file_name": path.name, "width": 9, "height": 6}
    assert np.array_equal(load_for(entry, tmp_path).permute(1, 2, 0), plain)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiffs_of_every_kind_are_turned_as_others_are(
    tmp_path: Path, orientation: int, mode: str, compression: str | None
) -> None:
    kinds = {"I;16": Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)}
    image = kinds.get(mode) or Image.fromarray(PIXELS).convert(mode)
    plain = rgb(saved(image, tmp_path / "b.tif", compression=compression))
    path = turned_file(tmp_path / "a.tif", image, orientation, compression=compression)
    assert np.array_equal(rgb(path), plain)
    assert np.array_equal(load_upright(path)[0].permute(1, 2, 0), SHOWN[orientation](plain))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({EXIF: 6, 0x011A: IFDRational(-1, 3)}, 6),  # what cannot be written again matters to nobody
        ({EXIF: IFDRational(6, 1)}, 6),
        ({EXIF: 6.0}, 6),
        ({EXIF: IFDRational(1, 2)}, 1),
        ({EXIF: "six"}, 1),
    ],
)
def test_a_turn_is_read_from_odd_tags(tmp_path: Path, suffix: str, tags: dict[int, Any], expected: int) -> None:
    path = saved(Image.fromarray(PIXELS), tmp_path / f"a.{suffix}", exif=exif_of(tags))
    upright, found = load_upright(path)
    assert (found, type(found)) == (expected, int)
    assert upright.shape == ((3, 9, 6) if expected == 6 else (3, 6, 9))


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_tags_that_are_none_turn_nothing(tmp_path: Path, suffix: str) -> None:
    path = saved(Image.fromarray(PIXELS), tmp_path / f"a.{suffix}", exif=b"Exif\0\0no such thing")
    upright, found = load_upright(path)
    assert (found, upright.shape) == (1, (3, 6, 9))
    assert read_header(path) == (9, 6, 1)


@pytest.mark.parametrize("orientation", [None, 0, 9])
def test_an_image_without_a_turn_is_upright_as_stored(tmp_path: Path, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[EXIF] = orientation
    path = saved(Image.fromarray(PIXELS), tmp_path / "a.png", exif=exif)
    upright, found = load_upright(path)
    assert found == 1
    assert np.array_equal(upright.permute(1, 2, 0), PIXELS)


@pytest.mark.parametrize("orientation", SHOWN)
def test_a_square_image_is_taken_as_stored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[EXIF] = orientation
    path = saved(Image.fromarray(PIXELS[:, :6]), tmp_path / "a.png", exif=exif)
    pixels = load_for({"id": 1, "file_name": "a.png", "width": 6, "height": 6}, tmp_path)
    assert np.array_equal(pixels.permute(1, 2, 0), rgb(path))


def test_a_rotated_image_of_another_mode_is_converted_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF] = 6
    values = PIXELS[..., 0].astype(np.uint16) * 257
    saved(Image.fromarray(values), tmp_path / "a.png", exif=exif)
    pixels = load_for({"id": 1, "file_name": "a.png", "width": 6, "height": 9}, tmp_path)
    assert np.array_equal(pixels[0], np.rot90(PIXELS[..., 0], -1))


@pytest.mark.parametrize(
    ("annotations", "folder"),
    [
        ("coco_mini/annotations/instances_train2017_mini.json", "coco_mini/train2017"),
        ("lvis_mini/lvis_val_mini.json", "lvis_mini/images"),
        ("car_parts/test/annotations.json", "car_parts/test/JPEGImages"),
    ],
)
def test_real_photographs_are_those_their_annotations_describe(
    shared_data: Path, annotations: str, folder: str
) -> None:
    images = json.loads((shared_data / annotations).read_text())["images"]
    grey = {"000000000086.jpg"}  # COCO has JPEGs of one channel
    for image in images[::9] + [image for image in images if image["file_name"] in grey]:
        path = shared_data / folder / image["file_name"]
        pixels = load_for(image, shared_data / folder)
        assert pixels.shape == (3, image["height"], image["width"])
        with Image.open(path) as theirs:
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(theirs.convert("RGB")))
