"""From a network to class maps: padding, sizes, mirror images and what is written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mal.data.semantic import FILE, read_semantic, write_map
from mal.engine.runtime import seed_everything
from mal.methods.simformer import maps
from mal.methods.simformer.infer import Predictor, averaged, padded_input
from mal.methods.simformer.network import SimFormer
from tests.simformer_cases import changed, draw

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def predictor(compose) -> Predictor:
    config = changed(compose)
    seed_everything(0, "test")
    network = SimFormer(config.encoder, config.simformer.network, classes=13)
    return Predictor(network.eval(), CPU, torch.float32)


def test_scores_are_those_of_the_padded_image_cut_and_resized(predictor: Predictor) -> None:
    image = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8)
    found = predictor.scores(image, [40], long_side=100)
    whole = torch.tensor(predictor.network.backbone.mean)[:, None, None].repeat(1, 64, 64)
    whole[:, :40, :56] = image / 255
    with torch.inference_mode():
        outputs = predictor.network(whole[None])
    masks = F.interpolate(outputs.masks[-1], size=(64, 64), mode="bilinear", align_corners=False)[0].sigmoid()
    classes = outputs.classes[-1][0].softmax(-1)
    by_hand = sum(classes[q, :-1, None, None] * masks[q] for q in range(len(masks)))[:, :40, :56]
    assert torch.allclose(found, by_hand, atol=1e-6)
    assert np.array_equal(predictor.class_map(image, [40], long_side=100), by_hand.argmax(0).numpy())


def test_the_padding_is_what_the_normalisation_makes_nothing_of() -> None:
    whole = padded_input(torch.full((3, 33, 64), 255, dtype=torch.uint8), (0.1, 0.2, 0.3))
    assert whole.shape == (3, 64, 64)
    assert whole[:, 33, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert bool((whole[:, :33] == 1).all())


def test_sizes_and_mirror_images_are_averaged(predictor: Predictor) -> None:
    image = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
    both = predictor.scores(image, [32, 64], long_side=200, flip=True)
    each = [predictor.scores(image, [short], long_side=200, flip=True) for short in (32, 64)]
    assert torch.allclose(both, (each[0] + each[1]) / 2, atol=1e-6)
    mirrored = predictor.scores(image.flip(-1), [32], long_side=200, flip=True)
    assert torch.allclose(mirrored.flip(-1), each[0], atol=1e-6)


def test_the_long_side_has_a_limit() -> None:
    seen = []

    def of_one(image: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(image.shape))
        return image[:1].float()

    image = torch.zeros(3, 20, 80, dtype=torch.uint8)
    assert averaged(image, [40, 20], of_one, long_side=120, flip=False).shape == (1, 20, 80)
    assert seen == [(3, 30, 120), (3, 20, 80)]


def test_class_maps_go_on_where_a_killed_call_was(compose, predictor: Predictor, tmp_path: Path) -> None:
    truth = read_semantic(draw(tmp_path / "data", images=2))
    config = changed(compose)
    made = np.full((64, 64), 7, dtype=np.uint8)
    write_map(tmp_path / "out" / truth.images[0].map, made)  # it was written before the kill
    maps.segment(predictor, truth, tmp_path / "data" / "images", config, tmp_path / "out")
    written = read_semantic(tmp_path / "out" / FILE, maps=True)
    assert [image.id for image in written.images] == [image.id for image in truth.images]
    assert np.array_equal(written.map_of(written.images[0]), made)
    assert written.map_of(written.images[1]).shape == (64, 64)
