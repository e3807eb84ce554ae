"""What mal/segment.py does once its options are understood: images and a trained network in, class maps out.

Each file that is written says in itself which call it is of, so that the same call goes on where it was, another one
replaces what has become wrong, and what somebody else has made is known as such.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mal.data.image_folder import folder_fault
from mal.data.images import load_upright
from mal.data.orientations import ORIENTATION, as_stored
from mal.engine.files import atomic_write, digest, read_json, sha256, write_json
from mal.engine.findings import number, some
from mal.engine.progress import Progress
from mal.engine.runtime import pick_device
from mal.errors import ConfigError, DamagedFileError, ImageError
from mal.methods.simformer.checkpoint import FILE, Trained, open_trained
from mal.methods.simformer.infer import MULTIPLE
from mal.pictures import class_colours

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
CLASSES, OVERLAYS = "classes.json", "overlays"
MARK = "mal.segment"  # the key of a PNG's text, and how the comment of a JPEG begins
SMALLEST = 2 * MULTIPLE  # short side: a norm has no statistics of a single cell
LONG = 4  # short sides, where nothing says how long the long one may be: as in the paper, 640 and 2560, 512 and 2048
UPRIGHT = "upright"  # tells calls from those of before 2026-11-27, which saw images as they are stored
SHARE = 0.5  # of a class's colour in an overlay


@dataclass(frozen=True)
class Job:
    """An image, and the files that are made of it."""

    image: Path
    map: Path
    overlay: Path | None

    @property
    def files(self) -> list[Path]:
        return [self.map, *([self.overlay] if self.overlay is not None else [])]

    def is_done(self, call: str) -> bool:
        """Whether all of them are there and of this call."""
        return all(written_by(path) == call for path in self.files)


def segment_images(options: argparse.Namespace) -> str:
    """Write a class map of each image, and overlays where they are asked for; what to say of it.

    Raises:
        MalError: an input that cannot be used, or an output that cannot be written or would replace what is there.
    """
    jobs = plan(options.images, options.out, overlay=options.overlay)
    device = pick_device(options.device)
    trained = open_trained(options.checkpoint, device)
    short, long = _sizes(trained, options)
    network = sha256(options.checkpoint / FILE if options.checkpoint.is_dir() else options.checkpoint)
    if not options.overwrite:
        check_foreign(options, jobs)
    colours = class_colours(len(trained.classes))
    write_json(options.out / CLASSES, {"checkpoint": network, "classes": named(trained, colours)}, indent=1)
    calls = [digest([UPRIGHT, network, short, long, *_looks(job.image)]) for job in jobs]
    todo = [(job, call) for job, call in zip(jobs, calls, strict=True) if not job.is_done(call)]
    bad = []
    with Progress("segment", total=len(jobs), done=len(jobs) - len(todo), unit="image") as progress:
        for job, call in todo:
            try:
                pixels, orientation = load_upright(job.image)
            except ImageError as error:
                if options.on_bad_image == "error":
                    raise ImageError(f"{error}; or leave such images out with --on-bad-image skip") from error
                bad.append(job.image)
            else:
                values = trained.predictor.class_map(pixels, [short], long_side=long)
                write_palette_map(job.map, values, colours, call=call, orientation=orientation)
                if job.overlay is not None:
                    write_overlay(job.overlay, pixels.permute(1, 2, 0).numpy(), values, colours, call=call)
            progress.advance()
    return "\n".join(_said(options, jobs, len(jobs) - len(todo), bad))


def plan(images: Path, out: Path, *, overlay: bool) -> list[Job]:
    """The images of a folder and of those below it, without what lies in `out`, sorted by name.

    Raises:
        ImageError: the folder is absent, cannot be listed, or holds no image.
        ConfigError: two images would have the same map, or `out` is a file or the folder of images itself.
    """
    if fault := folder_fault(images):
        raise ImageError(fault)
    if out.is_file():
        raise ConfigError(f"--out {out} is a file, and one map is written per image; name a folder")
    place = out.resolve()
    if place == images.resolve():
        raise ConfigError(f"--out {out} is also --images, where maps would lie among the images; name another folder")
    found = [
        path
        for path in sorted(images.rglob("*"))
        if path.suffix.lower() in ENDINGS and path.is_file() and place not in path.resolve().parents
    ]
    if not found:
        raise ImageError(f"there is no image in {images}; give a folder with files that end in {', '.join(ENDINGS)}")
    jobs: list[Job] = []
    taken: dict[Path, Path] = {}
    for path in found:
        name = path.relative_to(images)
        drawn = out / OVERLAYS / name.with_suffix(".jpg") if overlay else None
        jobs.append(Job(path, out / name.with_suffix(".png"), drawn))
        if (other := taken.setdefault(jobs[-1].map, path)) != path:
            raise ConfigError(f"{other} and {path} would both become {jobs[-1].map}; rename one of them")
    return jobs


def check_foreign(options: argparse.Namespace, jobs: list[Job]) -> None:
    """
    Raises:
        ConfigError: what would be written is there and was made by another hand; names the first few and --overwrite.
    """
    foreign = [path for job in jobs for path in job.files if path.exists() and written_by(path) is None]
    listed = options.out / CLASSES
    if listed.exists():
        try:
            ours = isinstance(value := read_json(listed), dict) and {"checkpoint", "classes"} <= value.keys()
        except (OSError, DamagedFileError):
            ours = False
        foreign += [] if ours else [listed]
    if foreign:
        raise ConfigError(
            f"--out {options.out}: {number(len(foreign), 'file is', 'files are')} there that this command did not "
            f"write or that were changed since ({some(foreign)}); name another place, or give --overwrite to replace "
            "what has the same name"
        )


def written_by(path: Path) -> str | None:
    """The digest of the call that a file of ours is of; None where there is none, or it is no file of ours."""
    try:
        with Image.open(path) as image:
            text, comment = image.info.get(MARK), image.info.get("comment")
    except OSError:
        return None
    if isinstance(text, str):
        return text
    if isinstance(comment, bytes) and comment.startswith(f"{MARK} ".encode()):
        return comment.removeprefix(f"{MARK} ".encode()).decode(errors="replace")
    return None


def named(trained: Trained, colours: np.ndarray) -> dict[str, dict[str, str]]:
    """Id → name, whether base or novel, and the colour in the palette as #rrggbb."""
    return {
        str(place): {
            "name": name,
            "kind": "novel" if place in trained.novel else "base",
            "colour": f"#{bytes(colours[place]).hex()}",
        }
        for place, name in enumerate(trained.classes)
    }


def write_palette_map(path: Path, values: np.ndarray, colours: np.ndarray, *, call: str, orientation: int = 1) -> None:
    """Write a class map as a PNG whose values are the classes and whose palette shows them; `read_map` reads it.

    Its pixels are those of the image's file, and it has the same EXIF tag: it lies on the image for readers that apply
    the tag, and for those that ignore it.

    Args:
        values: (height, width) uint8, of the upright image.
        colours: (256, 3) uint8, by value.
        call: what it is of.
        orientation: of the image's file, by EXIF; 1: as stored.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    stored = as_stored(values, orientation)
    image = Image.frombytes("P", stored.shape[::-1], stored.tobytes())
    image.putpalette(colours.tobytes())
    text, tags = PngInfo(), Image.Exif()
    text.add_text(MARK, call)
    if orientation != 1:
        tags[ORIENTATION] = orientation
    with atomic_write(path, "wb") as file:
        image.save(file, format="PNG", pnginfo=text, bits=8, exif=tags)


def write_overlay(path: Path, pixels: np.ndarray, values: np.ndarray, colours: np.ndarray, *, call: str) -> None:
    """Write an image with its classes' colours over it, as an upright JPEG.

    Args:
        pixels: (height, width, 3) uint8 RGB, upright.
        values: (height, width) uint8, likewise.

    Raises:
        MalError: the disk is full or the folder cannot be written.
    """
    mixed = (1 - SHARE) * pixels + SHARE * colours[values]
    with atomic_write(path, "wb") as file:
        image = Image.fromarray(mixed.round().astype(np.uint8))
        image.save(file, format="JPEG", quality=90, comment=f"{MARK} {call}".encode())


def _looks(image: Path) -> tuple[int, int]:
    """What changes where an image does."""
    state = image.stat()
    return state.st_size, state.st_mtime_ns


def _sizes(trained: Trained, options: argparse.Namespace) -> tuple[int, int]:
    """The short side in which images are seen, and the longest of the long one, in pixels."""
    short = options.short_side or trained.side
    if short is None:
        raise ConfigError(
            f"{options.checkpoint} does not say at which size it was trained, as a published network does not; give it "
            "with --short-side"
        )
    long = options.long_side or trained.long_side or LONG * short
    if short < SMALLEST:
        raise ConfigError(
            f"a short side of {short} pixels is too small: the network's largest cells have {MULTIPLE}; give "
            f"--short-side {SMALLEST} or more"
        )
    if long < short:
        raise ConfigError(f"--long-side {long} is less than the short side, {short}; give at least as much")
    return short, long


def _said(options: argparse.Namespace, jobs: list[Job], kept: int, bad: list[Path]) -> list[str]:
    said = [f"{number(len(jobs) - len(bad), 'class map')} in {options.out}, named in {options.out / CLASSES}"]
    if kept:
        said[0] += f"; {kept} of them {'was' if kept == 1 else 'were'} there already"
    if options.overlay:
        said.append(f"overlays: {options.out / OVERLAYS}")
    if bad:
        said.append(
            f"{number(len(bad), 'image')} could not be read and {'has' if len(bad) == 1 else 'have'} no map: "
            f"{some(bad)}"
        )
    return said
