"""Step 9, and steps 2 to 9 together: which points teach the mask head, and Table 2's other supervisions."""

import pytest
import torch

from mal.methods.attentionshift.config.steps import StepsConfig
from mal.methods.attentionshift.mask_points import mask_points
from mal.methods.attentionshift.mil import mil_loss
from mal.methods.attentionshift.scaling import min_max, upsample
from mal.methods.attentionshift.teaching import Chosen, choose_boxes, teach

PATCH, SIZE = 8, (8, 10)


def test_key_points_replace_raw_positives_and_negatives_stay():
    raw = [(torch.tensor([[1.5, 1.5]]), torch.tensor([[9.5, 9.5], [8.5, 9.5]]))]
    (points, labels), *rest = mask_points(raw, [torch.tensor([[4.0, 4], [8, 4]])], fallback="instance")
    assert points.tolist() == [[4, 4], [8, 4], [9.5, 9.5], [8.5, 9.5]]
    assert labels.tolist() == [1, 1, 0, 0]
    assert rest == []


def test_an_instance_without_key_points_keeps_its_raw_positives_but_not_as_released():
    """⚑: as soon as one instance of the image has a key-point, the released program takes the others' positives."""
    positive, negative, none = torch.tensor([[1.5, 1.5]]), torch.tensor([[9.5, 9.5]]), torch.zeros(0, 2)
    raw = [(positive, negative)] * 2
    one = [torch.tensor([[4.0, 4]]), none]
    found = {fallback: mask_points(raw, one, fallback=fallback)[1] for fallback in ("instance", "image")}
    assert [labels.tolist() for _, labels in found.values()] == [[1, 0], [0]]
    assert found["instance"][0].tolist() == [[1.5, 1.5], [9.5, 9.5]]
    for fallback in ("instance", "image"):
        assert [labels.tolist() for _, labels in mask_points(raw, [none, none], fallback=fallback)] == [[1, 0]] * 2
    empty = mask_points([(none, none)], [none], fallback="instance")[0]
    assert [part.shape for part in empty] == [(0, 2), (0,)]


def image(seed: int, objects: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Attention of 8 blocks among 1 + 80 + 5 tokens, features, points and labels."""
    draw = torch.Generator().manual_seed(seed)
    count = 1 + SIZE[0] * SIZE[1] + 5
    logits = 3 * torch.randn(8, count, count, generator=draw, dtype=dtype)
    points = torch.rand(objects, 2, generator=draw, dtype=dtype) * torch.tensor([80.0, 64])
    return {
        "attention": logits.softmax(2),
        "rows": torch.arange(count - 5, count - 5 + objects),
        "features": torch.randn(6, *SIZE, generator=draw, dtype=dtype),
        "points": points,
        "labels": torch.arange(objects) % 3,
    }


def scorer(weight: torch.Tensor):
    """Logits of 3 classes from boxes (n, D, 4), through a weight (4, 6)."""

    def score(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ((boxes / 80) @ weight).split(3, -1)

    return score


def chosen_of(parts: dict[str, torch.Tensor], weight: torch.Tensor, config: StepsConfig) -> Chosen:
    given = (parts[name] for name in ("attention", "rows", "points", "labels"))
    attention, *others = given
    return choose_boxes(list(attention), *others, scorer(weight), size=SIZE, own=SIZE, patch=PATCH, config=config)


def settings(**changes: str) -> StepsConfig:
    config = StepsConfig()
    for name, value in changes.items():
        setattr(config.shift if name == "method" else config.mask_points, name, value)
    return config


def weights() -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(5)).requires_grad_()


def test_the_chosen_box_and_map_are_of_the_scorers_best_depth():
    parts, weight = image(0, 3), weights()
    found = chosen_of(parts, weight, settings())
    loss, index = mil_loss(*scorer(weight)(found.candidates), parts["labels"])
    torch.testing.assert_close(found.loss, loss)
    assert found.index.tolist() == index.tolist()
    assert found.candidates.shape == (3, 7, 4)
    # the map of each: its token's row of the product of index + 1 whole matrices
    for i, k in enumerate(index.tolist()):
        product = torch.eye(86)
        for block in parts["attention"].flip(0)[: k + 1]:
            product = product @ (block + torch.eye(86)) / 2
        cells = product[parts["rows"][i], 1:81].reshape(1, *SIZE)
        torch.testing.assert_close(found.attention[i], min_max(upsample(cells, PATCH))[0])
        assert found.boxes[i].tolist() == found.candidates[i, k].tolist()
    found.loss.backward()
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("objects", [0, 1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "kmeans"},
        {"method": "kmeans_star"},
        {"fallback": "image"},
        {"supervision": "mask"},
        {"source": "attention"},
        {"source": "attention", "supervision": "mask"},
    ],
)
def test_every_supervision_teaches_any_number_of_instances(objects, changes):
    parts, config = image(1, objects), settings(**changes)
    chosen = chosen_of(parts, weights(), config)
    features = parts["features"].requires_grad_()
    found = [
        teach(
            chosen,
            features,
            parts["points"],
            patch=PATCH,
            generator=torch.Generator().manual_seed(seed),
            config=config,
        )
        for seed in (3, 3, 4)
    ]
    first = found[0]
    if config.mask_points.supervision == "mask":
        assert first.points is None
        assert first.masks.shape == (objects, 64, 80)
        assert first.masks.dtype == torch.bool
    else:
        assert first.masks is None
        assert len(first.points) == objects
        for (points, labels), (again, _) in zip(first.points, found[1].points, strict=True):
            assert len(points) == len(labels)
            assert not points.requires_grad
            assert ((points >= 0) & (points <= torch.tensor([80, 64]))).all()
            assert torch.equal(points, again)  # the draws follow the generator's seed
        if objects and not changes:
            others = [points.tolist() for points, _ in found[2].points]
            assert [points.tolist() for points, _ in first.points] != others
    assert (first.maps is None) == (config.mask_points.source == "attention")
    assert (first.parts is None) == (config.mask_points.source == "attention")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing_but_the_networks_own_numbers(dtype):
    """Attention and features rounded by the network; from there the same bits as without autocast."""
    parts, config = image(4, 2), settings()
    for name in ("attention", "features"):
        parts[name] = parts[name].to(dtype)

    def run(enabled: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            chosen = chosen_of(parts, torch.zeros(4, 6), config)  # the scorer's own rounding aside: all boxes are equal
            taught = teach(
                chosen,
                parts["features"],
                parts["points"],
                patch=PATCH,
                generator=torch.Generator().manual_seed(0),
                config=config,
            )
        return [chosen.candidates, taught.maps.foreground, taught.maps.background, *(p for p, _ in taught.points)]

    for found, expected in zip(run(True), run(False), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_a_dense_mask_is_the_map_above_its_threshold():
    parts = image(2, 2)
    for source, expected in (
        ("parts", lambda taught: taught.maps.foreground > 0.35),
        ("attention", lambda taught: taught.chosen.attention >= 0.2),
    ):
        config = settings(supervision="mask", source=source)
        chosen = chosen_of(parts, weights(), config)
        taught = teach(
            chosen, parts["features"], parts["points"], patch=PATCH, generator=torch.Generator(), config=config
        )
        assert torch.equal(taught.masks, expected(taught))
        assert taught.masks.any()


def test_two_objects_of_one_point_and_class_are_taught():
    parts, config = image(3, 2), settings()
    parts["points"][1] = parts["points"][0]
    parts["labels"][1] = parts["labels"][0]
    chosen = chosen_of(parts, weights(), config)
    taught = teach(chosen, parts["features"], parts["points"], patch=PATCH, generator=torch.Generator(), config=config)
    assert taught.maps.foreground.isfinite().all()
    assert len(taught.points) == 2
