"""The decoder sees no later token, decodes what it would under teacher forcing, and reads its [TASK]."""

import pytest
import torch
from partialres_networks import BINS, NETWORK, POINTS, config, inputs, memory

from mal.methods.partialres.cctf import NONE, X, Y
from mal.methods.partialres.config.network import PartsConfig
from mal.methods.partialres.decoder import Decoder, axes_of, greedy

END, TASK_BOX, TASK_MASK = BINS, BINS + 1, BINS + 2
BARE = PartsConfig(cctf="none", pmca=False)
PARTS = [PartsConfig(), PartsConfig(cctf="transposed"), BARE]


def decoder(task: str = "learnable", parts: PartsConfig | None = None, *, boxes_only: bool = False) -> Decoder:
    torch.manual_seed(0)
    made = Decoder(NETWORK, config(task=task).partialres.sequence, parts or PartsConfig(), boxes_only=boxes_only)
    return made.double().eval()


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("task", ["mask", "taskwise"])
def test_a_token_leaves_earlier_logits_alone_and_changes_later_ones(parts, task):
    ours, tokens = decoder("taskwise" if task == "taskwise" else "learnable", parts), inputs(task)
    read = ours.read(memory())
    before = ours(tokens, read)
    for place in (1, 4, tokens.shape[1] - 1):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 5) % BINS
        after = ours(other, read)
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-12)
        assert not torch.isclose(after[:, place:], before[:, place:]).all()


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("task", ["zero", "learnable", "taskwise"])
def test_greedy_decoding_is_teacher_forcing_on_its_own_output(parts, task):
    ours, seen, steps = decoder(task, parts), memory(), 2 * POINTS + 1
    with torch.no_grad():
        for layer in ours.head[::2]:  # so that not every token is the same
            layer.weight.mul_(4)
            torch.nn.init.normal_(layer.bias)
    found = greedy(ours, seen, TASK_MASK, steps)
    assert found.shape == (3, steps)
    start = torch.full((3, 1), TASK_MASK)
    before = start
    if task == "taskwise":
        box = greedy(ours, seen, TASK_BOX, 4)
        before = torch.cat([torch.full((3, 1), TASK_BOX), box, start], dim=1)
    logits = ours(torch.cat([before, found[:, :-1]], dim=1), ours.read(seen))[:, before.shape[1] - 1 :]
    assert torch.equal(logits.argmax(-1), found)
    assert len(found.unique()) > 1


@pytest.mark.parametrize("parts", PARTS)
def test_each_steps_logits_are_teacher_forcings(parts):
    ours, tokens = decoder(parts=parts), inputs("mask")
    read, past = ours.read(memory()), []
    expected = ours(tokens, read)
    for place, axis in enumerate([NONE, *[X, Y] * POINTS]):
        found = ours.step(tokens[:, place], axis, read, past)
        torch.testing.assert_close(found, expected[:, place], rtol=0, atol=1e-5)
    assert len(past) == 2
    assert past[0].keys.shape[2] == 2 * POINTS + 1


def test_a_box_has_no_end():
    ours = decoder("taskwise")
    with torch.no_grad():
        ours.head[-1].bias[END] = 100
    assert (greedy(ours, memory(), TASK_BOX, 4) < END).all()
    assert (greedy(ours, memory(), TASK_MASK, 3) == END).all()


def test_axes_count_from_the_last_task():
    tokens = torch.tensor([[TASK_BOX, 1, 2, 3, 4, TASK_MASK, 5, 6, END, END], [TASK_MASK, 1, 2, 3, 4, 5, 6, 7, 8, END]])
    assert axes_of(tokens, END).tolist() == [[NONE, X, Y, X, Y, NONE, X, Y, X, Y], [NONE, *[X, Y] * 4, X]]


def test_zero_has_no_parameter_and_the_others_one_or_two_vectors():
    assert decoder("zero").task is None
    assert decoder("learnable").task.shape == (1, NETWORK.width)
    assert decoder("taskwise").task.shape == (2, NETWORK.width)
    assert decoder("taskwise", boxes_only=True).task is None
    lengths = [len(decoder(task).places) for task in ("zero", "learnable", "taskwise")]
    assert lengths == [2 * POINTS + 1, 2 * POINTS + 1, 2 * POINTS + 6]
    assert len(decoder("learnable", boxes_only=True).places) == 5


def test_a_learnable_task_is_of_masks_alone():
    ours = decoder("learnable")
    read = ours.read(memory())
    ours(inputs("box"), read).logsumexp(-1).sum().backward()
    assert not ours.task.grad.any()
    ours(inputs("mask"), ours.read(memory())).logsumexp(-1).sum().backward()
    assert ours.task.grad.abs().sum() > 0


def test_each_of_two_tasks_has_a_gradient_and_they_are_told_apart():
    ours = decoder("taskwise")
    ours(inputs("taskwise"), ours.read(memory())).logsumexp(-1).sum().backward()
    assert ours.task.grad.abs().sum(1).gt(0).all()
    read = ours.read(memory())
    of_box, of_mask = (ours(torch.full((3, 1), task), read) for task in (TASK_BOX, TASK_MASK))
    assert not torch.isclose(of_box, of_mask).all()


def test_zero_starts_boxes_and_masks_alike():
    ours = decoder("zero")
    read = ours.read(memory())
    assert torch.equal(ours(torch.full((3, 1), TASK_BOX), read), ours(torch.full((3, 1), TASK_MASK), read))


@pytest.mark.parametrize("parts", [PartsConfig(), BARE])
def test_what_stands_in_padding_does_not_matter(parts):
    ours, seen = decoder(parts=parts), memory()
    other = seen._replace(tokens=torch.where(seen.padding[..., None], 1e3, seen.tokens))
    tokens = inputs("mask")
    found = [ours(tokens, ours.read(each)) for each in (seen, other)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    assert torch.equal(greedy(ours, seen, TASK_MASK, 5), greedy(ours, other, TASK_MASK, 5))


def test_positions_are_no_values():
    ours = decoder(parts=BARE)
    seen = memory()
    flat = seen._replace(tokens=torch.ones_like(seen.tokens))  # equal values: wherever it looks it sees the same
    moved = flat._replace(positions=2 * flat.positions)
    tokens = inputs("mask")
    found = [ours(tokens, ours.read(each)) for each in (flat, moved)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", [PartsConfig(), BARE])
def test_attention_is_the_last_layers_over_the_image_alone(parts):
    ours, seen, tokens = decoder(parts=parts), memory(), inputs("mask")
    read = ours.read(seen)
    given: list = []
    last = ours.layers[-1]
    attend = last.cross.attend
    last.cross.attend = lambda *arguments: given.append(arguments) or attend(*arguments)
    ours(tokens, read)
    del last.cross.attend
    expected = last.cross.weights(*given[0]).mean(1)[..., :24]
    found = ours.attention(tokens, read)
    assert found.shape == (3, 2 * POINTS + 1, 4, 6)
    torch.testing.assert_close(found.flatten(2), expected / expected.sum(-1, keepdim=True), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sum((2, 3)), torch.ones(3, 2 * POINTS + 1, dtype=torch.float64))
    assert not found[0, :, 3].any()


def test_tables_start_normal_and_matrices_xavier_uniform():
    sequence = config().partialres.sequence
    sequence.points, sequence.bins = 200, 400
    ours = Decoder(NETWORK, sequence, PartsConfig())
    for table in (ours.embedding.weight, ours.places):
        assert table.std().item() == pytest.approx(1, abs=0.05)
    bound = (6 / (16 + 401)) ** 0.5
    assert 0.98 * bound < ours.head[-1].weight.abs().max().item() <= bound
    assert [tuple(each.weight.shape) for each in ours.head[::2]] == [(16, 16), (16, 16), (401, 16)]
