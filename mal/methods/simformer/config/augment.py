"""Settings of what training shows of an image. Sources: docs/method/simformer.md (R the released program, P the
paper)."""

from dataclasses import dataclass

from mal.bounds import choice, number, numbers, sizes


@dataclass
class AugmentConfig:
    side: int = number(640, 1, 1 << 14)  # of the crop, and the short side at a scale of 1; pixels (R: ADE20K 512)
    long_side: int = number(2560, 1, 1 << 16)  # at most, in pixels (R: ADE20K 2048)
    # drawn, as a factor of the short side (P; R: COCO-Stuff .5 to 1.5)
    scales: list[float] = sizes([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0])
    crop: bool = True  # false: whole images, so that what their tags say can be seen
    tries: int = number(50, 1, 1 << 12)  # crops drawn, at most, until one shows something to learn (R)
    # what a crop must show. paper: a base pixel, unless the image has tags | released: a pixel of any class, also of a
    # hidden one
    redraw: str = choice("paper", ("paper", "released"))
    # in re-training alone: tries after which a crop is learned with its true masks (R: 30); null: never
    true_masks_after: int | None = None
    tags: str = choice("image", ("image", "crop"))  # crop: novel classes in the crop, by their hidden masks (released)
    colour: bool = True  # SSD's (R)
    colour_chance: float = number(0.5, 0, 1)  # of each of the four
    brightness: float = number(32.0, 0, 255)  # of 255, added or taken
    contrast: list[float] = numbers([0.5, 1.5], 2, 0, 100)
    saturation: list[float] = numbers([0.5, 1.5], 2, 0, 100)
    hue: float = number(18.0, 0, 90)  # of 180, to either side
    flip: float = number(0.5, 0, 1)


def reads_truth(config: AugmentConfig) -> bool:
    """Whether a released rule looks at hidden masks."""
    by_crop = config.crop and (config.redraw == "released" or config.true_masks_after is not None)
    return config.tags == "crop" or by_crop
