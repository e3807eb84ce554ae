"""Samples and batches: what of an object is shown, asked, and drawn anew."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mal.methods.partialres.config import PartialresConfig
from mal.methods.partialres.config.learning import RecConfig, ResConfig
from mal.methods.partialres.config.network import NetworkConfig, TextConfig
from mal.methods.partialres.config.sequence import ImageConfig, SequenceConfig
from mal.methods.partialres.contours import outer_contour
from mal.methods.partialres.data import TrainingObjects, collate
from mal.methods.partialres.filling import mask_of
from mal.methods.partialres.losses import sequence_loss
from mal.methods.partialres.objects import Referred
from mal.methods.partialres.polygons import to_image
from mal.methods.partialres.sequences import UNLEARNED, points_of, read_back
from mal.methods.partialres.text.vocabulary import Vocabulary
from mal.metrics.masks import iou
from mal.segmenters.data import order
from tests.partialres_masks import blob

SIZES = ((40, 50), (50, 40), (45, 45))  # height, width of the images
EXPRESSIONS = ((("left", "star"), ("the", "red", "one")), (("rightmost", "star"),), (("star",), ("it",)))
VOCABULARY = Vocabulary.build(text for each in EXPRESSIONS for text in each)
WHOLE = ImageConfig(side=64, crop=False)
FINE = SequenceConfig(points=40, bins=1000)


def config(**parts: object) -> PartialresConfig:
    given = {"image": WHOLE, "sequence": FINE, "network": NetworkConfig(text=TextConfig(words=4)), **parts}
    return replace(PartialresConfig(), **given)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Referred], dict[int, np.ndarray], Path]:
    """Three images with an object each, in white on black, and their masks."""
    folder = tmp_path_factory.mktemp("images")
    objects, masks = [], {}
    for i, (height, width) in enumerate(SIZES):
        mask = blob(i, height, width)
        Image.fromarray((mask * 255).astype(np.uint8)).convert("RGB").save(folder / f"{i}.png")
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min())
        entry = {"id": i, "file_name": f"{i}.png", "width": width, "height": height}
        objects.append(Referred(entry, 10 + i, tuple(map(float, box)), EXPRESSIONS[i]))
        masks[10 + i] = mask
    return objects, masks, folder


def dataset(scene, task: str, masks: dict | None = None, seed: int = 0, **parts: object) -> TrainingObjects:
    objects, own, folder = scene
    return TrainingObjects(
        objects, folder, config(**parts), VOCABULARY, task=task, masks=own if masks is None else masks, seed=seed
    )


def same(first, second) -> bool:
    tensors = ("pixels", "words", "valid", "inputs", "labels", "weights", "boxes")
    return first.ids == second.ids and all(torch.equal(getattr(first, n), getattr(second, n)) for n in tensors)


def test_a_box_sample_says_where_the_object_is(scene):
    for index, this in enumerate(scene[0]):
        sample = dataset(scene, "box", masks={})[0, index]
        factor = 64 / max(SIZES[index])
        x, y, width, height = this.box
        expected = np.array([x, y, x + width, y + height]) * factor
        assert np.array(sample.box) * 64 == pytest.approx(expected)
        assert np.abs(read_back(sample.targets.labels[:4], 1000, 64, "centre") - expected).max() <= 0.0321
        assert sample.targets.labels[4] == 1000
        assert sample.targets.weights[0] == RecConfig().first
        assert sample.valid == pytest.approx((SIZES[index][1] / max(SIZES[index]), SIZES[index][0] / max(SIZES[index])))
        assert sample.mask is None
        assert sample.id == this.id


def test_a_mask_samples_tokens_draw_the_mask(scene):
    for index, (height, width) in enumerate(SIZES):
        sample = dataset(scene, "mask")[0, index]
        points = to_image(points_of(sample.targets.inputs[1:], 1000, 64, "centre"), height, width, 64)
        assert iou(mask_of(points, height, width, "contour"), scene[1][10 + index]) > 0.85
        assert sample.targets.weights[-1] == pytest.approx(ResConfig().end)


def test_what_is_drawn_follows_from_seed_draw_and_index_alone(scene):
    """So a run that was killed goes on with the same batches."""
    parts = {"image": ImageConfig(side=64, flip=True), "sequence": replace(FINE, shuffle=0.5)}

    def batches(seed: int, first: int, stop: int):
        images = dataset(scene, "mask", seed=seed, **parts)
        return [collate([images[key]]) for key in order(3, seed=0, first=first, stop=stop)]

    whole, resumed, other = batches(0, 0, 9), batches(0, 4, 9), batches(1, 0, 9)
    assert all(map(same, whole[4:], resumed))
    assert not any(map(same, whole, other))


def test_each_draw_takes_a_random_expression_of_the_object(scene):
    images = dataset(scene, "box", masks={})
    counts = Counter(tuple(images[draw, 0].words) for draw in range(400))
    expected = {tuple(VOCABULARY.encode(text, 4)) for text in EXPRESSIONS[0]}
    assert set(counts) == expected
    assert min(counts.values()) > 150
    assert {tuple(images[draw, 1].words) for draw in range(20)} == {tuple(VOCABULARY.encode(EXPRESSIONS[1][0], 4))}


def test_a_flipped_sample_has_everything_flipped(scene):
    images = dataset(scene, "mask", image=replace(WHOLE, flip=True))
    plain = dataset(scene, "mask")[0, 0]
    width = 64 * plain.valid[0]
    flips = 0
    for draw in range(40):
        sample = images[draw, 0]
        if torch.equal(sample.image, plain.image):
            assert sample.box == plain.box
            continue
        flips += 1
        wide = round(width)
        assert torch.equal(sample.image[:, :, :wide].flip(-1), plain.image[:, :, :wide])
        assert sample.box == pytest.approx((1 - plain.box[2], plain.box[1], 1 - plain.box[0], plain.box[3]))
        points = to_image(points_of(sample.targets.inputs[1:], 1000, 64, "centre"), *SIZES[0], 64)
        assert iou(mask_of(points, *SIZES[0], "contour"), scene[1][10][:, ::-1]) > 0.85
        assert VOCABULARY.encode(("left", "star"), 4) != sample.words
    assert 8 < flips < 32


@pytest.mark.parametrize("task", ["box", "mask"])
def test_scaled_samples_show_the_object_where_their_tokens_say(scene, task):
    """The object alone is white: whatever scale and window, its white pixels lie in its box and in its contour."""
    images = dataset(scene, task, image=ImageConfig(side=64), sequence=replace(FINE, points=60))
    views = set()
    for draw in range(25):
        sample = images[draw, draw % 3]
        views.add(sample.valid)
        wide, high = round(64 * sample.valid[0]), round(64 * sample.valid[1])
        white = (sample.image[0] > 127).numpy()
        white[high:] = white[:, wide:] = False  # grey
        rows, columns = np.nonzero(white)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(np.array(sample.box) * 64 - seen).max() < 1.6
        if task == "mask":
            filled = mask_of(points_of(sample.targets.inputs[1:], 1000, 64, "centre"), 64, 64, "contour")
            assert iou(filled, white) > 0.75
    assert len(views) > 10


def test_both_tasks_in_one_are_shown_whole_and_unknown_masks_are_not_learned(scene):
    images = dataset(scene, "taskwise", masks={10: scene[1][10]}, image=ImageConfig(side=64))
    batch = collate([images[5, index] for index in range(3)])
    assert batch.valid.numpy() == pytest.approx(np.array([[1, 0.8], [0.8, 1], [1, 1]]))
    assert (batch.labels[0] != UNLEARNED).all()
    assert (batch.labels[1:, 5:] == UNLEARNED).all()
    assert (batch.labels[1:, :5] != UNLEARNED).all()
    assert (batch.weights[:, 0] == 1.5).all()
    assert (batch.weights[:, 1:] == 1).all()


def test_shuffled_sequences_are_as_many_as_the_setting_says(scene):
    straight = dataset(scene, "mask")[0, 0].targets.inputs.reshape(-1)[1:]
    images = dataset(scene, "mask", sequence=replace(FINE, shuffle=0.2))
    drawn = [images[draw, 0].targets.inputs[1:] for draw in range(200)]
    changed = [each for each in drawn if each.tolist() != straight.tolist()]
    assert 20 < len(changed) < 65
    for each in changed:
        assert sorted(each.reshape(-1, 2).tolist()) == sorted(straight.reshape(-1, 2).tolist())


def test_short_sequences_of_a_batch_are_filled_up_with_the_end(scene):
    images = dataset(scene, "mask", sequence=SequenceConfig(points=90, bins=100, sampler="pixels"))
    batch = collate([images[0, index] for index in range(3)])
    assert batch.inputs.shape == batch.labels.shape == batch.weights.shape == (3, 181)
    for row in range(3):
        count = len(outer_contour(scene[1][10 + row]))
        kept = -(-count // -(-count // 90))
        assert (batch.labels[row, : 2 * kept] < 100).all()
        assert (batch.labels[row, 2 * kept :] == 100).all()


def test_the_rival_gets_small_masks(scene):
    network = NetworkConfig(model="query", text=TextConfig(words=4))
    batch = collate([dataset(scene, "mask", network=network)[0, index] for index in range(3)])
    assert batch.masks is not None
    assert batch.masks.shape == (3, 16, 16)
    for row, (height, width) in enumerate(SIZES):
        expected = scene[1][10 + row].sum() * (64 / max(height, width)) ** 2
        assert batch.masks[row].sum().item() * 16 == pytest.approx(expected, rel=0.05)
    assert collate([dataset(scene, "box", masks={}, network=network)[0, 0]]).masks is None


def test_a_batch_moves_whole_and_shows_images_between_0_and_1(scene):
    batch = collate([dataset(scene, "mask")[0, index] for index in range(3)])
    moved = batch.to(torch.device("cpu"))
    assert same(batch, moved)
    assert moved.images.dtype == torch.float32
    assert torch.equal(moved.images, batch.pixels.float() / 255)
    assert batch.images.min() == 0
    assert batch.images.max() == 1
    assert (batch.words.dtype, batch.inputs.dtype, batch.labels.dtype) == (torch.int64,) * 3
    assert batch.ids == [10, 11, 12]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("task", ["box", "mask", "taskwise"])
def test_batches_of_every_task_are_learned_from_under_autocast(scene, task, dtype):
    images = dataset(scene, task, masks={10: scene[1][10]} if task == "taskwise" else None)
    batch = collate([images[0, index] for index in range(3)])
    torch.manual_seed(0)
    table = torch.nn.Embedding(1003, 8)
    head = torch.nn.Linear(8, 1001)
    with torch.autocast("cpu", dtype=dtype):
        loss = sequence_loss(head(table(batch.inputs)), batch.labels, batch.weights, smoothing=0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert table.weight.grad is not None
    assert torch.isfinite(table.weight.grad).all()
    assert table.weight.grad.abs().sum() > 0
