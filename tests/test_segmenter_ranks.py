"""Two processes with half a batch each have the gradients of one process with all of it."""

from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from mal import segmenters
from mal.engine import ranks
from mal.segmenters import loop
from mal.segmenters.batch_norm import share_batch_norms
from mal.segmenters.data import Sample
from tests.in_processes import in_processes
from tests.small_segmenters import AS_PUBLISHED, small
from tests.test_segmenter import CPU

# Everything is sampled, so that nothing is drawn; and proposals are few, so that the same ones survive rounding.
WHOLE = ("proposals.sampled=65536", "heads.sampled=65536", "heads.positive=1", "proposals.before_nms=[24,24]")
CHANGES = {
    "mask_rcnn_tiny": (*WHOLE, "pyramid.fpn_norm=true"),
    "mask_rcnn_tiny boxes": (*WHOLE, "mask_head=false"),
    "cascade_tiny": WHOLE,
    "solov2_tiny": (),
    "mask2former_tiny": (),
    "mask_rcnn_tiny as published": (*WHOLE, *AS_PUBLISHED["mask_rcnn_tiny as published"]),
    "cascade_tiny as published": (*WHOLE, *AS_PUBLISHED["cascade_tiny as published"]),
    "solov2_tiny as published": AS_PUBLISHED["solov2_tiny as published"],
}


def samples() -> list[Sample]:
    """Four images of 64 pixels with 0 to 4 boxes, filled: two processes have 1 and 6."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for number, count in enumerate((0, 1, 4, 2)):
        left_top = torch.randint(0, 32, (count, 2), generator=generator).float()
        boxes = torch.cat([left_top, left_top + torch.randint(12, 32, (count, 2), generator=generator)], dim=1)
        masks = torch.zeros(count, 64, 64, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        image = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
        labels = torch.randint(1, 3, (count,), generator=generator)
        found.append(Sample(image=image, boxes_xyxy=boxes, labels=labels, masks=masks, image_id=number))
    return found


def step(name: str) -> dict[str, Any]:
    """Losses, the gradients' digest and the batch norms' statistics of one step on this process's part of the batch."""
    menu = name.split()[0]
    config = small(menu, *CHANGES[name])
    built = segmenters.find(config)
    torch.manual_seed(1)
    model = built.build(config, classes=2).train()
    if ranks.size() > 1:
        share_batch_norms(model)
    network = ranks.synchronised(loop._Losses(model, built.losses))
    draw, drawn = torch.rand, torch.rand(997, 2)
    torch.rand = lambda *size, **_: drawn[: size[-2]].expand(*size).clone()  # the same points for every mask
    try:
        losses = network(samples()[ranks.own_part(4, "batch")])
    finally:
        torch.rand = draw
    torch.stack(list(losses.values())).sum().backward()
    gradients = {n: p.grad.flatten() for n, p in model.named_parameters() if p.grad is not None}
    return {
        "losses": {name: ranks.mean(loss.detach()).item() for name, loss in losses.items()},
        "gradients": {name: gradient.tolist() for name, gradient in gradients.items()},
        "buffers": {name: b.flatten().tolist() for name, b in model.named_buffers() if "running" in name},
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_gradients_do_not_depend_on_the_number_of_processes(name: str) -> None:
    alone = step(name)
    for answer in in_processes(2, step, name):
        assert answer["losses"] == pytest.approx(alone["losses"], rel=1e-4, abs=1e-6)
        assert answer["gradients"].keys() == alone["gradients"].keys()
        for kind in ("gradients", "buffers"):
            expected = {key: torch.tensor(values) for key, values in alone[kind].items()}
            least = 1e-3 * max((values.norm() for values in expected.values()), default=0)  # a bias before a norm has 0
            for key, values in expected.items():
                error = (torch.tensor(answer[kind][key]) - values).norm()
                assert error < 1e-3 * max(values.norm(), least), (kind, key, error, values.norm())


def norms() -> list[nn.Module]:
    torch.manual_seed(1)
    plain, active = nn.BatchNorm2d(3), BatchNormAct2d(3, momentum=0.3)
    for norm in (plain, active):
        nn.init.normal_(norm.weight, 1.0)
        nn.init.normal_(norm.bias)
    return [plain, active, nn.BatchNorm2d(3, affine=False, momentum=None)]


def batches() -> list[Tensor]:
    """Of three processes; one has nothing. Far from 0, where sums of squares lose their digits."""
    generator = torch.Generator().manual_seed(2)
    return [100 + torch.randn(count, 3, 4, 5, generator=generator) for count in (2, 0, 3)]


def normalise() -> list[Any]:
    """Each norm's outputs, gradients and statistics, for the part of this process."""
    answers = []
    for norm in norms():
        keys = list(norm.state_dict())
        share_batch_norms(norm)
        assert list(norm.state_dict()) == keys
        x = batches()[ranks.rank()].requires_grad_()
        y = norm.train()(x)
        (y * torch.arange(1.0, 6) * (1 + ranks.rank())).sum().backward()
        own = [p.grad for p in norm.parameters()]
        total = [ranks.summed(g).tolist() for g in own if g is not None]
        norm.eval()
        answers.append([y.tolist(), x.grad.tolist(), total, norm.running_mean.tolist(), norm.running_var.tolist(),
                        int(norm.num_batches_tracked), norm(torch.ones(1, 3, 1, 1)).flatten().tolist()])  # fmt: skip
    return answers


@pytest.mark.slow
def test_batch_norms_of_three_processes_are_one_of_all() -> None:
    answers = in_processes(3, normalise)
    weights = torch.cat([torch.full((len(batch), 1, 1, 1), 1.0 + rank) for rank, batch in enumerate(batches())])
    for number, norm in enumerate(norms()):
        norm, x = norm.double(), torch.cat(batches()).double().requires_grad_()
        y = norm.train()(x)
        (y * torch.arange(1.0, 6) * weights).sum().backward()
        norm.eval()
        given = norm(torch.ones(1, 3, 1, 1).double()).flatten()
        for part, expected in ((0, y), (1, x.grad)):
            mine = torch.cat([torch.tensor(a[number][part], dtype=torch.float64).reshape(-1, 3, 4, 5) for a in answers])
            torch.testing.assert_close(mine, expected.detach(), rtol=1e-4, atol=5e-4)
        for answer in answers:
            _, _, gradients, mean, variance, tracked, evaluated = answer[number]
            for mine, parameter in zip(gradients, norm.parameters(), strict=True):
                torch.testing.assert_close(torch.tensor(mine).double(), parameter.grad, rtol=1e-3, atol=1e-2)
            torch.testing.assert_close(torch.tensor(mean).double(), norm.running_mean, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(torch.tensor(variance).double(), norm.running_var, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(torch.tensor(evaluated).double(), given, rtol=1e-4, atol=1e-5)
            assert tracked == 1


def test_a_process_alone_normalises_as_before() -> None:
    for shared, plain in zip(norms(), norms(), strict=True):
        x = batches()[0]
        assert torch.equal(share_batch_norms(shared).train()(x), plain.train()(x))
        assert torch.equal(shared.running_var, plain.running_var)


def shares() -> list[float]:
    count = [3, 0, 5][ranks.rank()]
    return [
        float(ranks.weight(count, device=CPU)),
        float(ranks.weight(count, device=CPU, more=1)),
        float(ranks.weight(0, device=CPU)),
        ranks.on_first(lambda: ranks.weight(7, device=CPU)),
    ]


@pytest.mark.slow
def test_weights_are_shares_of_the_mean_count() -> None:
    answers = in_processes(3, shares)
    means = torch.tensor([0.5, 0.0, 2.0])  # each process's sums over 3, no and 5 things; their divisors are counts
    assert [answer[0] for answer in answers] == pytest.approx([3 * 3 / 8, 0, 5 * 3 / 8])
    assert (means * torch.tensor([a[0] for a in answers])).mean().item() == pytest.approx((3 * 0.5 + 5 * 2.0) / 8)
    assert [answer[1] for answer in answers] == pytest.approx([4 * 3 / 9, 1 * 3 / 9, 6 * 3 / 9])
    assert [answer[2:] for answer in answers] == [[0.0, 1.0]] * 3
    assert ranks.weight(7, device=CPU) == 1.0
