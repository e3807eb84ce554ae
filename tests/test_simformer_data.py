"""Samples with their references, and batches of them."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from mal.data.semantic import IGNORED, MappedImage, SemanticFile, read_semantic, write_map, write_semantic
from mal.engine import ranks
from mal.errors import AnnotationError, ConfigError
from mal.methods.simformer.config.augment import AugmentConfig
from mal.methods.simformer.config.pairs import PairsConfig
from mal.methods.simformer.data import TrainingImages, base_classes, collate, inputs_of
from mal.segmenters.data import order
from tests.simformer_cases import base_of

SIZES = [(40, 40), (40, 60), (50, 40), (40, 40), (64, 40), (40, 40)]
TRUTH = [[0, 2], [0, 2, 3], [1, 3], [1], [0, 3], [1, 2]]  # 2 and 3 are novel
WHOLE = AugmentConfig(side=40, crop=False)
CROPS = AugmentConfig(side=32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(weak file, true file, image folder): columns of classes over noise."""
    root = tmp_path_factory.mktemp("semantic")
    draw, truth, weak = np.random.default_rng(0), [], []
    for number, ((height, width), classes) in enumerate(zip(SIZES, TRUTH, strict=True)):
        name = f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / name)
        values = np.repeat(np.array(classes, dtype=np.uint8), -(-width // len(classes)))[None, :width]
        values = np.ascontiguousarray(values.repeat(height, 0))
        truth.append(MappedImage(10 + number, name, width, height, f"maps/{name}"))
        weak.append(replace(truth[-1], tags=tuple(each for each in classes if each > 1)))
        for folder, shown in (("truth", values), ("weak", np.where(values > 1, IGNORED, values).astype(np.uint8))):
            (root / folder / "maps").mkdir(parents=True, exist_ok=True)
            write_map(root / folder / "maps" / name, shown)
    names = ("a", "b", "c", "d")
    write_semantic(root / "truth" / "semantic.json", SemanticFile(names, tuple(truth)))
    write_semantic(root / "weak" / "weak.json", SemanticFile(names, tuple(weak), (2, 3)))
    return read_semantic(root / "weak" / "weak.json"), read_semantic(root / "truth" / "semantic.json"), root


def dataset(folders, kind: str = "cross", augment: AugmentConfig = CROPS, *, seed: int = 0, truth: bool = False):
    weak, true, images = folders
    pairs = PairsConfig(kind=kind)
    return TrainingImages(weak, images, pairs=pairs, augment=augment, seed=seed, truth=true if truth else None)


def same(first, second) -> bool:
    tensors = all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("images", "labels", "inside"))
    return tensors and all(getattr(first, name) == getattr(second, name) for name in ("base", "tags", "ids", "pairs"))


def batches(images: TrainingImages, first: int, stop: int, size: int = 2, part: slice = slice(None)):
    positions = order(len(images), seed=0, first=first * size, stop=stop * size)
    while keys := list(islice(positions, size)):
        yield collate([images[key] for key in keys[part]], "cross", CROPS)


def test_what_is_seen_follows_from_seed_draw_and_index_alone(folders):
    """So a run that was killed goes on with the same batches."""
    whole = list(batches(dataset(folders), 0, 6))
    resumed = list(batches(dataset(folders), 4, 6))
    assert len(whole) == 6
    assert all(map(same, whole[4:], resumed))
    other = list(batches(dataset(folders, seed=1), 0, 6))
    assert not any(map(same, whole, other))


def test_each_process_gets_its_part_of_the_inputs_with_their_references(folders, monkeypatch):
    whole = next(batches(dataset(folders), 0, 1, size=4))
    monkeypatch.setattr(ranks, "size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        own = next(batches(dataset(folders), 0, 1, size=4, part=ranks.own_part(4, "inputs")))
        places = [2 * rank, 2 * rank + 1, 4 + 2 * rank, 5 + 2 * rank]
        assert torch.equal(own.images, whole.images[places])
        assert torch.equal(own.labels, whole.labels[places])
        assert own.ids == [whole.ids[place] for place in places]
        assert own.pairs == [(0, 2), (1, 3)]


def test_two_draws_of_an_image_differ_and_so_do_those_of_its_reference(folders):
    images = dataset(folders)
    drawn = [images[draw, 3] for draw in range(6)]
    assert len({own.image.numpy().tobytes() for own, _ in drawn}) == 6
    shown: dict[int, list[bytes]] = {}
    for _, other in drawn:
        shown.setdefault(other.image_id, []).append(other.image.numpy().tobytes())
    assert max(map(len, shown.values())) > 1
    assert all(len(set(each)) == len(each) for each in shown.values())


def test_a_batch_has_inputs_first_and_then_their_references(folders):
    images = dataset(folders, augment=WHOLE)
    items = [images[0, index] for index in range(3)]
    batch = collate(items, "cross", WHOLE)
    assert batch.ids == [10, 11, 12, *(reference.image_id for _, reference in items)]
    assert batch.pairs == [(0, 3), (1, 4), (2, 5)]
    for a, b in batch.pairs:
        assert batch.ids[a] != batch.ids[b]
        assert len(set(batch.tags[a]) & set(batch.tags[b])) == 1


@pytest.mark.parametrize(
    ("kind", "inputs", "pairs"),
    [
        ("cross", 2, [(0, 2), (1, 3)]),
        ("random", 2, [(0, 2), (1, 3)]),
        ("base", 2, [(0, 2), (1, 3)]),
        ("self", 2, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ("sampler", 2, []),
        ("none", 4, []),
    ],
)
def test_kinds_of_pairs(folders, kind, inputs, pairs):
    images = dataset(folders, kind, WHOLE)
    batch = collate([images[0, index] for index in range(inputs_of(4, kind))], kind, WHOLE)
    assert batch.images.shape[0] == len(batch.ids) == len(batch.tags) == 4
    assert batch.ids[:inputs] == [10 + index for index in range(inputs)]
    assert batch.pairs == pairs


def test_self_and_sampler_see_what_cross_sees(folders):
    found = [[dataset(folders, kind)[3, i][1].image_id for i in range(6)] for kind in ("cross", "self", "sampler")]
    assert found[0] == found[1] == found[2]


def test_an_odd_batch_cannot_be_paired():
    assert inputs_of(5, "none") == 5
    with pytest.raises(ConfigError, match=r"simformer\.learning\.batch=5 is odd, .* choose an even one"):
        inputs_of(5, "cross")


def test_padding_is_grey_unlabelled_and_outside(folders):
    images = dataset(folders, augment=replace(WHOLE, colour=False, flip=0.0))
    batch = collate([images[0, 1]], "cross", WHOLE)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.images.dtype == torch.float32
    assert batch.inside[0].sum() == 40 * 60
    assert bool(batch.inside[0, :40, :60].all())
    outside = ~batch.inside
    assert bool((batch.labels[outside] == IGNORED).all())
    assert bool((batch.images.permute(0, 2, 3, 1)[outside] == 128 / 255).all())
    stored = torch.from_numpy(np.array(Image.open(images.images / "1.png"))).permute(2, 0, 1)
    torch.testing.assert_close(batch.images[0, :, :40, :60] * 255, stored.float())


def test_labels_hold_base_classes_alone_and_tags_are_the_images(folders):
    batch = collate([dataset(folders)[draw, index] for draw in range(3) for index in range(6)], "cross", CROPS)
    assert set(batch.labels.unique().tolist()) == {0, 1, IGNORED}
    assert batch.truth is None
    tags = [[each for each in TRUTH[identity - 10] if each > 1] for identity in batch.ids]
    assert batch.tags == tags


def test_tags_of_the_crop_come_from_hidden_masks(folders):
    images = dataset(folders, augment=AugmentConfig(side=32, scales=[2.0], tags="crop"), truth=True)
    found = set()
    for draw in range(20):
        own, _ = images[draw, 1]
        assert own.tags == sorted({each for each in own.truth.unique().tolist() if each in (2, 3)})
        found.add(tuple(own.tags))
    assert len(found) > 1


@pytest.mark.parametrize("setting", [{"tags": "crop"}, {"redraw": "released"}])
def test_rules_that_read_hidden_masks_need_them(folders, setting):
    with pytest.raises(ConfigError, match="which look at hidden masks"):
        dataset(folders, augment=replace(CROPS, **setting))


def test_true_masks_are_learned_in_re_training_alone(folders):
    weak, truth, images = folders
    after = replace(CROPS, true_masks_after=0)
    hidden = TrainingImages(weak, images, pairs=PairsConfig(), augment=after, seed=0, truth=truth)
    assert not {2, 3} & {int(each) for index in range(6) for each in hidden[0, index][0].labels.unique()}
    predicted = replace(weak, novel=None)
    again = TrainingImages(predicted, images, pairs=PairsConfig(kind="none"), augment=after, seed=0, truth=truth)
    assert {2, 3} <= {int(each) for index in range(6) for each in again[0, index][0].labels.unique()}
    with pytest.raises(ConfigError, match="which look at hidden masks"):
        TrainingImages(predicted, images, pairs=PairsConfig(kind="none"), augment=after, seed=0)


def test_hidden_masks_of_other_images_are_refused(folders):
    weak, truth, images = folders
    fewer = replace(truth, images=truth.images[1:])
    with pytest.raises(AnnotationError, match="hold class maps of different images"):
        TrainingImages(weak, images, pairs=PairsConfig(), augment=CROPS, seed=0, truth=fewer)


def test_base_classes_are_those_of_the_maps(folders):
    assert base_classes(folders[0]).tolist() == [[each in there for each in (0, 1, 9, 9)] for there in TRUTH]


@pytest.mark.parametrize("augment", [WHOLE, CROPS])
def test_a_batch_names_the_classes_that_its_labels_have(folders, augment):
    images = dataset(folders, augment=augment)
    batch = collate([images[draw, index] for draw in range(3) for index in range(len(SIZES))], "cross", augment)
    assert batch.base == base_of(batch.labels)
    assert [0] in batch.base
    assert [1] in batch.base


def test_batches_move_whole(folders):
    batch = collate([dataset(folders)[0, 0]], "cross", CROPS)
    moved = batch.to(torch.device("meta"))
    assert {moved.images.device.type, moved.labels.device.type, moved.inside.device.type} == {"meta"}
    truth = collate([dataset(folders, truth=True)[0, 0]], "cross", CROPS)
    assert truth.truth is not None
    assert truth.to(torch.device("meta")).truth is None  # points are drawn where the batch comes from
    assert moved.tags == batch.tags
