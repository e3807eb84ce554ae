"""What a training does not read does not change its settings, and so not its key."""

import pytest

from mal.methods.partialres import lessons
from tests.partialres_cases import changed


def test_boxes_do_not_depend_on_what_only_masks_have(compose) -> None:
    """So that one training of boxes serves every row."""
    plain = lessons.for_boxes(changed(compose)).partialres
    for settings in (("sequence.points=9", "sequence.sampler=pixels"), ("parts.cctf=none", "parts.pmca=false")):
        other = lessons.for_boxes(changed(compose, *settings)).partialres
        assert (other.sequence, other.parts) == (plain.sequence, plain.parts)
    with_parts = lessons.for_boxes(changed(compose, "parts.rec=true")).partialres
    assert (with_parts.parts.cctf, with_parts.parts.pmca) == ("matched", True)


QUERY, TASKWISE = "network.model=query", "sequence.task=taskwise"
UNREAD = {  # training and what it is like → settings that it does not read
    ("box",): ("sequence.points=9", "sequence.shuffle=0.5", "image.scales=[0.5, 1]", "parts.pmca=false"),
    ("box", QUERY): ("rec.first=9", "res.smoothing=0.5", "sequence.bins=99", "parts.cctf=none"),
    ("mask",): ("rec.first=9", "image.scales=[0.5, 1]", "network.query.queries=5"),
    ("mask", QUERY): ("rec.first=9", "res.end=0.5", "res.smoothing=0.5", "sequence.points=9"),
    ("mask", "res.start=none"): ("res.start_from=raw", "rec.first=9"),
    ("mask", TASKWISE, "res.start=none"): ("res.end=0.5", "image.crop=true", "image.scales=[0.5, 1]"),
}
READ = {
    ("box",): ("rec.first=9", "res.smoothing=0.5", "image.crop=true", "image.flip=false"),
    ("box", "image.crop=true"): ("image.scales=[0.5, 1]",),
    ("mask",): ("res.end=0.5", "res.smoothing=0.5", "image.crop=true", "sequence.shuffle=0.5"),
    ("mask", QUERY): ("network.query.queries=5", "image.crop=true"),
    ("mask", TASKWISE, "res.start=none"): ("rec.first=9", "res.smoothing=0.5", "image.flip=false"),
}


def taught(compose, training: str, *settings: str) -> object:
    """What a training is told, beside the other training's schedule, which its key leaves out."""
    config = changed(compose, *settings)
    own = (lessons.for_boxes if training == "box" else lessons.for_masks)(config).partialres
    whole = (own.network, own.parts, own.sequence, own.image, own.rec.first, own.res.smoothing)
    return whole if training == "box" else (*whole, own.res)


@pytest.mark.parametrize("training", UNREAD, ids=" ".join)
def test_settings_that_are_not_read_have_one_value(compose, training: tuple[str, ...]) -> None:
    for setting in UNREAD[training]:
        assert taught(compose, *training, setting) == taught(compose, *training), setting


@pytest.mark.parametrize("training", READ, ids=" ".join)
def test_settings_that_are_read_stay(compose, training: tuple[str, ...]) -> None:
    for setting in READ[training]:
        assert taught(compose, *training, setting) != taught(compose, *training), setting
