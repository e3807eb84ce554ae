"""SimNet, SimLoss and its balance, against loops in float64 and closed forms."""

import math

import pytest
import torch

from mal.data.semantic import IGNORED
from mal.engine import ranks
from mal.methods.simformer.config.distillation import DistillationConfig
from mal.methods.simformer.config.similarity import SimilarityConfig
from mal.methods.simformer.pair_losses import PairLosses
from mal.methods.simformer.points import PairPoints
from mal.methods.simformer.similarity import Balance, SimNet, count, sim_loss, targets
from mal.segmenters.precision import lower_precision

WIDTH, SIDE, POINTS = 8, 6, 5
PLAIN = SimilarityConfig()
NO_DISTILLATION = DistillationConfig(weight=0)


def by_hand(network: SimNet, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(n, C) and (m, C) → P(one class) (n, m), pair by pair, with the norms' statistics of all pairs."""
    rows = torch.stack([torch.cat([i, j]) for i in left for j in right])

    def norm(layer, rows):
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        return (rows - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias

    def linear(layer, rows):
        return torch.stack([layer.weight @ row + layer.bias for row in rows])

    def rest(layers, rows):
        first, _, middle, second, _ = layers
        return norm(second, linear(middle, norm(first, rows).clamp(min=0))).clamp(min=0)

    first = network.first
    rows = rest(first.rest, linear(first.linear, rows)) + linear(first.shortcut, rows).clamp(min=0)
    for block in network.rest:
        rows = rest(block.path[1:], linear(block.path[0], rows)) + rows
    return linear(network.head, rows).softmax(1)[:, 1].view(len(left), len(right))


def network(width: int = WIDTH) -> SimNet:
    torch.manual_seed(0)
    return SimNet(width).double()


def test_at_the_papers_width_it_has_the_papers_parameters():
    assert sum(parameter.numel() for parameter in SimNet(256).parameters()) == 595_202


@pytest.mark.parametrize("training", [True, False])
def test_simnet_is_three_residual_blocks_on_each_concatenation(training):
    """Its norms use the call's own pairs after training too."""
    simnet, draw = network().train(training), torch.Generator().manual_seed(1)
    left, right = (torch.randn(n, WIDTH, generator=draw, dtype=torch.float64) for n in (4, 3))
    torch.testing.assert_close(simnet(left[None], right[None])[0].sigmoid(), by_hand(simnet, left, right))


def test_both_orders_of_two_images_share_the_norms_statistics():
    simnet, draw = network(), torch.Generator().manual_seed(1)
    left, right = torch.randn(2, 2, 3, WIDTH, generator=draw, dtype=torch.float64)
    both = simnet(left, right)
    assert not torch.allclose(both[0], simnet(left[:1], right[:1])[0])
    torch.testing.assert_close(simnet(left.flip(0), right.flip(0)), both.flip(0))


def test_one_to_three_weighs_three_quarters_and_one():
    balance = Balance(25)
    for _ in range(25):
        balance.add(torch.tensor([1, 3]))
    assert balance.weights().tolist() == [0.75, 0.25]


def test_before_the_first_step_there_is_a_pair_of_each():
    balance = Balance(25)
    assert balance.weights().tolist() == [0.5, 0.5]
    balance.add(torch.tensor([0, 2]))
    assert balance.weights().tolist() == [0.75, 0.25]


def test_the_twenty_sixth_step_forgets_the_first():
    balance = Balance(25)
    balance.add(torch.tensor([100, 0]))
    for _ in range(24):
        balance.add(torch.tensor([0, 1]))
    assert balance.weights().tolist() == pytest.approx([24 / 124, 100 / 124])
    balance.add(torch.tensor([0, 1]))
    assert balance.weights().tolist() == [1, 0]


def test_steps_without_pairs_weigh_nothing_and_are_numbers():
    balance = Balance(2)
    balance.add(torch.tensor([0, 0]))
    balance.add(torch.tensor([0, 0]))
    assert balance.weights().tolist() == [0, 0]


def test_a_checkpoint_keeps_the_window():
    balance, resumed = Balance(3), Balance(3)
    for step in range(5):
        balance.add(torch.tensor([step, 2 * step + 1]))
    resumed.load_state_dict(balance.state_dict())
    for each in (balance, resumed):
        each.add(torch.tensor([7, 1]))
    assert torch.equal(balance.weights(), resumed.weights())
    assert balance.weights().tolist() == pytest.approx([17 / 31, 14 / 31])


def test_pairs_of_all_processes_count_together(monkeypatch):
    monkeypatch.setattr(ranks, "summed", lambda counts: counts + torch.tensor([1, 5]))
    balance = Balance(2)
    balance.add(torch.tensor([1, 2]))
    assert balance.counts.tolist() == [[1, 1], [2, 7]]


def test_simloss_is_a_loop_over_counted_pairs():
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 4, 3, generator=draw, dtype=torch.float64)
    left, right = torch.tensor([[0, 1, IGNORED, 0], [2, 2, IGNORED, 1]]), torch.tensor([[1, IGNORED, 0], [2, 0, 1]])
    total, pairs, positives = 0.0, 0, 0
    for k in range(2):
        for i, a in enumerate(left[k].tolist()):
            for j, b in enumerate(right[k].tolist()):
                if a == IGNORED and b == IGNORED:
                    continue
                p = 1 / (1 + math.exp(-float(logits[k, i, j])))
                total -= 0.7 * math.log(p) if a == b else 0.3 * math.log(1 - p)
                pairs, positives = pairs + 1, positives + (a == b)
    same, counted = targets(left, right)
    assert count(same, counted).tolist() == [positives, pairs - positives]
    assert float(sim_loss(logits, same, counted, torch.tensor([0.7, 0.3]).double())) == pytest.approx(total / pairs)


def test_without_a_counted_pair_simloss_is_zero():
    nowhere = torch.full((1, 2), IGNORED)
    assert float(sim_loss(torch.randn(1, 2, 2), *targets(nowhere, nowhere), torch.zeros(2))) == 0


def outputs(images: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    shapes = {"pixels": (WIDTH, SIDE, SIDE), "classes": (7, 5), "masks": (7, SIDE, SIDE)}
    return {
        name: torch.randn(images, *shape, generator=draw, dtype=dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def pair(first: int, second: int, seed: int) -> PairPoints:
    draw = torch.Generator().manual_seed(seed)
    places = tuple(torch.randint(SIDE * SIDE, (POINTS,), generator=draw) for _ in range(2))
    labels = tuple(torch.tensor([0, 1, IGNORED])[torch.randint(3, (POINTS,), generator=draw)] for _ in range(2))
    truth = tuple(torch.tensor([each]) for each in (2, 2 + seed % 2))
    return PairPoints((first, second), places, labels, truth, hidden=None)


def losses(config: SimilarityConfig = PLAIN) -> PairLosses:
    torch.manual_seed(0)
    return PairLosses(WIDTH, [2, 3], similarity=config, distillation=NO_DISTILLATION).double()


def test_simloss_compares_both_ways_and_is_the_mean_over_pairs_of_images():
    module, seen, pairs = losses(SimilarityConfig(weight=2.0)), outputs(4), [pair(0, 2, 0), pair(1, 3, 1)]
    found = module(**seen, points=pairs)
    weights, total = module.balance.weights(), 0.0
    counts = torch.zeros(2, dtype=torch.int64)
    for each in pairs:
        a, b = (seen["pixels"][i].flatten(1)[:, at].T for i, at in zip(each.images, each.places, strict=True))
        left, right = torch.stack([a, b]), torch.stack([b, a])
        wanted = targets(torch.stack(each.labels), torch.stack(each.labels[::-1]))
        counts += count(*wanted)
        total += sim_loss(module.simnet(left, right), *wanted, weights).item() / 2
    assert found["similarity"].item() == pytest.approx(2 * total)
    assert float(found["distillation"]) == 0
    assert module.balance.counts[-2:].tolist() == [[1, 1], counts.tolist()]


@pytest.mark.parametrize("detach", [True, False])
def test_simlosss_gradient_stops_at_the_embeddings(detach):
    module, seen = losses(SimilarityConfig(detach=detach)), outputs(2)
    module(**seen, points=[pair(0, 1, 0)])["similarity"].backward()
    assert (seen["pixels"].grad is None) == detach
    assert seen["classes"].grad is None
    assert seen["masks"].grad is None
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.simnet.head.parameters()
    )


def test_the_released_count_takes_every_pair_and_tells_hidden_classes_apart():
    module = losses(SimilarityConfig(counts="released"))
    module(**outputs(2), points=[pair(0, 1, 0), pair(0, 1, 1)])
    assert module.balance.counts[-1].tolist() == [2, 2]  # each pair of images both ways


def test_without_weight_simnet_is_not_asked():
    module = losses(SimilarityConfig(weight=0))
    assert float(module(**outputs(2), points=[pair(0, 1, 0)])["similarity"]) == 0
    assert module.balance.counts.sum() == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_float32_and_close(dtype):
    found = []
    for each in (torch.float32, dtype):
        module = losses().float()
        lower_precision(module, ["simnet"], dtype=each, device=torch.device("cpu"))
        seen = {name: values.detach() for name, values in outputs(2, torch.float32).items()}
        loss = module(**seen, points=[pair(0, 1, 0)])["similarity"]
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(bool(parameter.grad.isfinite().all()) for parameter in module.simnet.parameters())
        found.append(loss.item())
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_embeddings_in_half_precision_are_compared_in_float32():
    module = losses().float()
    seen = {name: values.detach().bfloat16() for name, values in outputs(2).items()}
    assert module(**seen, points=[pair(0, 1, 0)])["similarity"].dtype == torch.float32
