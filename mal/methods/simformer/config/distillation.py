"""Settings of DistLoss. Sources: docs/method/simformer.md (R the released program, P the paper)."""

from dataclasses import dataclass

from mal.bounds import choice, number


@dataclass
class DistillationConfig:
    weight: float = number(0.1, 0, 1e6)  # of DistLoss (R: COCO-Stuff; ADE20K .5; 0 on S1)
    loss: str = choice("cce", ("cce", "ce"))  # complementary or plain cross-entropy (R: ce on S1 and S3)
    # what learns from SimNet on pixel i of an image and pixel j of its reference. across: the similarity of these two,
    # as the paper says | within: that of points i and j of the image itself (released)
    student: str = choice("across", ("across", "within"))
    # paper: points are pixels of the image that are not of a base class; where these are short, fewer | released: also
    # of the padding; where these are short, any pixel
    points: str = choice("paper", ("paper", "released"))
