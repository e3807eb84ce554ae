"""What MAL is compared with: masks without learning, of a foundation model, of other programs, of people."""

from mal.methods.baselines import box, disc, ellipse, file, grabcut, gt, sam
from mal.methods.labelling import ImageLabeler, image_labeler
from mal.methods.spec import Labels, Method


def of_images(name: str, masks: ImageLabeler) -> Method:
    """A method that needs an image and its boxes, and nothing else."""
    return Method(name, lambda *_: Labels(make=lambda *_: image_labeler(masks)))


METHODS = (
    of_images("box", box.masks),
    of_images("ellipse", ellipse.masks),
    of_images("grabcut", grabcut.masks),
    disc.METHOD,
    gt.METHOD,
    file.METHOD,
    sam.METHOD,
)
