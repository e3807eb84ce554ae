"""Settings of sequences: points on a contour, their bins, the [TASK] token, and the way back to a mask."""

from dataclasses import dataclass

from mal.bounds import choice, number, numbers


@dataclass
class SequenceConfig:
    points: int = number(18, 3, 1 << 10)  # of a contour (SeqTR: RefCOCO 18, RefCOCO+ and RefCOCOg 12)
    bins: int = number(1000, 2, 1 << 16)  # of a coordinate
    # arc: points equal in arc length | pixels: every ⌈n/N⌉-th pixel of the contour (R)
    sampler: str = choice("arc", ("arc", "pixels"))
    shuffle: float = number(0, 0, 1)  # share of the sequences whose points come in random order (SeqTR: +, g .2)
    # zero: a fixed 0 | learnable: one vector, new in the training of masks | taskwise: two, for boxes and masks, in one
    # training of both
    task: str = choice("learnable", ("zero", "learnable", "taskwise"))
    read_back: str = choice("centre", ("centre", "floor"))  # of a bin (R: floor)
    fill: str = choice("contour", ("contour", "coco"))  # with the contour's pixels | by COCO's rasteriser (R)


@dataclass
class ImageConfig:
    side: int = number(640, 32, 1 << 12)  # of the square that an image is letterboxed into; a multiple of 32
    crop: bool = True  # R's augmentation by scale and window; false: none
    scales: list[float] = numbers([0.3, 1.4], 2, 0.01, 10)
    flip: bool = False  # half of the images mirrored, with left and right swapped in their expressions
