"""DistLoss, against loops in float64 and closed forms."""

import math

import pytest
import torch

from mal.methods.simformer.config.distillation import DistillationConfig
from mal.methods.simformer.config.similarity import SimilarityConfig
from mal.methods.simformer.distillation import alike, cce, ce, dist_loss, novel_scores, student
from mal.methods.simformer.pair_losses import PairLosses
from mal.methods.simformer.points import PairPoints
from mal.segmenters.precision import lower_precision

NOVEL, CLASSES, QUERIES, WIDTH, SIDE = [1, 3], 4, 6, 8, 5


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("teacher", "student", "loss"),
    [(1, 1, -0.5 * math.log(2)), (0, 0, -0.5 * math.log(2)), (1, 0, 0), (0, 1, 0), (0.5, 0, 0), (0.5, 0.7, 0)],
)
def test_cce_in_closed_form(teacher, student, loss):
    assert float(cce(double(teacher), double(student))) == pytest.approx(loss, abs=1e-12)


def test_cce_says_nothing_where_the_teacher_does_not_know():
    similarity = double(0.3).requires_grad_()
    cce(double(0.5), similarity).sum().backward()
    assert similarity.grad.tolist() == [0]


def test_ce_is_cross_entropy_of_what_is_clamped():
    found = ce(double(0.0, 1.0, 0.3), double(1.0, 0.995, 0.6))
    wanted = [
        -0.01 * math.log(0.99) - 0.99 * math.log(0.01),
        -0.99 * math.log(0.99) - 0.01 * math.log(0.01),
        -0.3 * math.log(0.6) - 0.7 * math.log(0.4),
    ]
    assert found.tolist() == pytest.approx(wanted)


def test_scores_are_sums_over_queries():
    draw = torch.Generator().manual_seed(0)
    classes = torch.randn(QUERIES, CLASSES + 1, generator=draw, dtype=torch.float64)
    masks = torch.randn(QUERIES, 3, generator=draw, dtype=torch.float64)
    found = novel_scores(classes, masks, torch.tensor(NOVEL))
    for point in range(3):
        for column, number in enumerate(NOVEL):
            wanted = 0.0
            for query in range(QUERIES):
                exps = [math.exp(value) for value in classes[query].tolist()]
                wanted += exps[number] / sum(exps) / (1 + math.exp(-float(masks[query, point])))
            assert float(found[point, column]) == pytest.approx(wanted)


def test_alike_is_the_cosine_and_not_negative():
    left, right = double(3, 4, 1, 0).view(2, 2), double(4, 3, -1, 0, 0, 0).view(3, 2)
    torch.testing.assert_close(alike(left, right), double(0.96, 0, 0, 0.8, 0, 0).view(2, 3))


def test_scores_whose_squares_vanish_are_still_compared():
    left = torch.tensor([[3e-25, 4e-25]])
    assert float(alike(left, torch.tensor([[4e-19, 3e-19]]))) == pytest.approx(0.96, abs=0.05)
    left = torch.tensor([[3e-20, 4e-20]], requires_grad=True)
    found = alike(left, torch.tensor([[0.0, 0.0], [4.0, 3.0]]))
    assert found[0].tolist() == pytest.approx([0, 0.96])
    found.sum().backward()
    assert bool(left.grad.isfinite().all())


def test_one_hot_scores_tell_students_across_from_students_within():
    """All of the image's points say one class, all of its reference's the other."""
    at_first, at_second = double(1, 0).expand(3, 2), double(0, 1).expand(3, 2)
    assert student(at_first, at_second, "across").tolist() == [[0, 0, 0]] * 3
    assert student(at_first, at_second, "within").tolist() == [[1, 1, 1]] * 3
    same = torch.full((3, 3), 40.0, dtype=torch.float64)  # the teacher is sure that they are of one class
    assert float(dist_loss(same, student(at_first, at_second, "across"), "cce")) == 0
    assert float(dist_loss(same, student(at_first, at_second, "within"), "cce")) == pytest.approx(-0.5 * math.log(2))


@pytest.mark.parametrize(("first", "second"), [(4, 2), (2, 4)])
def test_within_takes_as_many_points_as_both_images_have(first, second):
    found = student(torch.rand(first, 2), torch.rand(second, 2), "within")
    assert found.shape == (first, min(first, second))
    assert dist_loss(torch.zeros(first, second), found, "cce") == 0


def outputs(images: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    shapes = {"pixels": (WIDTH, SIDE, SIDE), "classes": (QUERIES, CLASSES + 1), "masks": (QUERIES, SIDE, SIDE)}
    return {
        name: torch.randn(images, *shape, generator=draw, dtype=dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def pair(first: int, second: int, hidden: tuple[list[int], list[int]] | None) -> PairPoints:
    nothing = (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    places = None if hidden is None else (torch.tensor(hidden[0]).long(), torch.tensor(hidden[1]).long())
    return PairPoints((first, second), nothing, nothing, None, places)


def losses(**settings) -> PairLosses:
    torch.manual_seed(0)
    distillation = DistillationConfig(**{"weight": 0.1, **settings})
    module = PairLosses(WIDTH, NOVEL, similarity=SimilarityConfig(weight=0), distillation=distillation)
    return module.double()


@pytest.mark.parametrize("kind", ["across", "within"])
@pytest.mark.parametrize("loss", ["cce", "ce"])
def test_distloss_is_a_loop_over_pairs_of_points(kind, loss):
    """The second pair of images shares no novel class: it counts, with 0."""
    module, seen, points = losses(student=kind, loss=loss), outputs(3), ([3, 8, 24], [0, 7, 12])
    found = module(**seen, points=[pair(0, 2, points), pair(0, 1, None)])["distillation"]
    a, b = (seen["pixels"][i].flatten(1)[:, at].T for i, at in zip((0, 2), points, strict=True))
    teacher = module.simnet(a[None], b[None])[0].sigmoid()
    scores = [
        novel_scores(seen["classes"][i], seen["masks"][i].flatten(1)[:, at], torch.tensor(NOVEL))
        for i, at in zip((0, 2), points, strict=True)
    ]
    total = 0.0
    for i in range(3):
        for j in range(3):
            left, right = scores[0][i].tolist(), scores[1 if kind == "across" else 0][j].tolist()
            s = sum(x * y for x, y in zip(left, right, strict=True)) / math.hypot(*left) / math.hypot(*right)
            t = teacher[i, j].item()
            if loss == "cce":
                total -= max(t - 0.5, 0) * math.log(1 + s) + max(0.5 - t, 0) * math.log(2 - s)
            else:
                s, t = min(max(s, 0.01), 0.99), min(max(t, 0.01), 0.99)
                total -= t * math.log(s) + (1 - t) * math.log(1 - s)
    assert found.item() == pytest.approx(0.1 * total / 9 / 2)


def test_distlosss_gradient_reaches_both_heads_and_stops_at_simnet():
    module, seen = losses(), outputs(2)
    module(**seen, points=[pair(0, 1, ([1, 2], [3, 4]))])["distillation"].backward()
    assert all(bool((seen[name].grad.flatten(1).abs().sum(1) > 0).all()) for name in ("classes", "masks"))
    assert seen["pixels"].grad is None
    assert all(parameter.grad is None for parameter in module.simnet.parameters())


def test_nothing_is_asked_of_the_teacher():
    logits, similarity = torch.zeros(2, 2, requires_grad=True), torch.full((2, 2), 0.5, requires_grad=True)
    dist_loss(logits + 1, similarity, "cce").backward()
    assert logits.grad is None
    assert bool((similarity.grad < 0).all())


def test_only_novel_columns_are_compared():
    module, seen, points = losses(), outputs(2), [pair(0, 1, ([1, 2], [3, 4]))]
    before = module(**seen, points=points)["distillation"].item()
    with torch.no_grad():  # more of everything else: all scores shrink alike
        for column in set(range(CLASSES + 1)) - set(NOVEL):
            seen["classes"][:, :, column] = 0
        seen["classes"][:] = seen["classes"][:, :1]
        for column in NOVEL:
            seen["classes"][:, :, column] += column
    alone = module(**seen, points=points)["distillation"].item()
    assert alone != before
    with torch.no_grad():
        seen["classes"][:, :, 0] += 3
    assert module(**seen, points=points)["distillation"].item() == pytest.approx(alone)


@pytest.mark.parametrize("hidden", [None, ([], [1]), ([1], [2])])
def test_without_pairs_that_can_be_compared_it_is_zero(hidden):
    assert losses()(**outputs(2), points=[pair(0, 1, hidden)])["distillation"].item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_float32_and_close(dtype):
    found = []
    for each in (torch.float32, dtype):
        module = losses(weight=1.0).float()
        lower_precision(module, ["simnet"], dtype=each, device=torch.device("cpu"))
        seen = outputs(2, torch.float32)
        loss = module(**seen, points=[pair(0, 1, ([1, 2, 3], [3, 4]))])["distillation"]
        loss.backward()
        assert loss.dtype == torch.float32
        assert bool(seen["classes"].grad.isfinite().all())
        found.append(loss.item())
    assert found[1] == pytest.approx(found[0], rel=0.05)
