"""The whole network: it learns what an expression means, hands itself on, and stands half precision."""

import re
from pathlib import Path

import pytest
import torch
from partialres_networks import BINS, LEXICON, PLAIN, POINTS, batch, config, inputs, network
from torch.nn import functional as F

from mal.errors import ConfigError, MalError, WeightsError
from mal.methods.partialres.checkpoint import FILE, build, load, save
from mal.methods.partialres.checks import check
from mal.methods.partialres.config.network import PartsConfig
from mal.methods.partialres.lessons import rec_parts
from mal.methods.partialres.network import PartialRes, load_fitting
from mal.methods.partialres.own_files import wrote
from mal.methods.partialres.query import QueryNetwork

CPU = torch.device("cpu")


def test_shapes_at_each_stride():
    for stride, side in ((8, 8), (16, 4), (32, 2)):
        ours = network(stride=stride).eval()
        memory = ours.encode(*batch())
        assert memory.grid == (side, side)
        assert memory.tokens.shape == memory.positions.shape == (3, side * side + 1, 16)
        assert not memory.positions[:, -1].any()
        assert not memory.padding[:, -1].any()
        assert memory.cells.tolist() == [[side, -(-3 * side // 4)], [side // 2, side], [side, side]]
        assert ours.logits(memory, inputs("mask")).shape == (3, 2 * POINTS + 1, BINS + 1)


def test_without_a_language_token_the_memory_is_the_image():
    ours = network(language_token=False).eval()
    memory = ours.encode(*batch())
    assert memory.tokens.shape[1] == 64
    assert memory.others == 0
    assert ours.logits(memory, inputs("mask")).isfinite().all()
    assert ours.greedy(memory, BINS + 2, 3).shape == (3, 3)


def test_greedy_decoding_from_images_is_teacher_forcing_on_its_own_output():
    ours = network(task="taskwise").eval()
    images, words, valid = batch()
    with torch.no_grad():
        memory = ours.encode(images, words, valid)
        box, mask = ours.greedy(memory, BINS + 1, 4), ours.greedy(memory, BINS + 2, 2 * POINTS + 1)
        start, middle = torch.full((3, 1), BINS + 1), torch.full((3, 1), BINS + 2)
        logits = ours(images, words, valid, torch.cat([start, box, middle, mask[:, :-1]], dim=1))
    best = logits.amax(-1)[:, 5:]
    taken = logits[:, 5:].gather(2, mask[..., None])[..., 0]
    torch.testing.assert_close(taken, best, rtol=0, atol=1e-5)


def test_it_learns_that_the_expression_decides():
    """One image, two expressions, two boxes."""
    torch.manual_seed(0)
    ours = PartialRes(config(dropout=0.0), lexicon=LEXICON, parts=PartsConfig(), load=False, boxes_only=True)
    images = batch(1)[0].expand(2, -1, -1, -1)
    words, valid = torch.tensor([[2, 3, 0, 0], [2, 4, 0, 0]]), torch.ones(2, 2)
    boxes = torch.tensor([[1, 2, 5, 6], [8, 9, 14, 15]])
    tokens = torch.cat([torch.full((2, 1), BINS + 1), boxes], dim=1)
    optimizer = torch.optim.Adam(ours.parameters(), lr=3e-3)
    for _ in range(60):
        loss = F.cross_entropy(ours(images, words, valid, tokens)[:, :4].flatten(0, 1), boxes.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ours.eval()
    with torch.no_grad():
        assert torch.equal(ours.greedy(ours.encode(images, words, valid), BINS + 1, 4), boxes)


VARIANTS = [
    ("zero", PLAIN, "mask"),
    ("zero", PLAIN, "box"),
    ("learnable", PartsConfig(), "mask"),
    ("learnable", PartsConfig(cctf="transposed", pmca_start="zero"), "mask"),
    ("taskwise", PartsConfig(), "taskwise"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("task", "parts", "kind"), VARIANTS)
def test_a_step_in_half_precision_is_finite_and_close(dtype, task, parts, kind):
    ours = network(task=task, parts=parts, dropout=0.0)
    ours.eval()  # batch statistics of three small images differ more between the types than anything else
    tokens = inputs(kind)
    expected = ours(*batch(), tokens).detach()
    ours.train()
    with torch.autocast("cpu", dtype=dtype):
        F.cross_entropy(ours(*batch(), tokens).flatten(0, 1), torch.zeros(tokens.numel(), dtype=torch.long)).backward()
    assert all(each.grad.isfinite().all() for each in ours.parameters() if each.grad is not None)
    fresh = network(task=task, parts=parts, dropout=0.0).eval()
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        found = fresh(*batch(), tokens)
        decoded = fresh.greedy(fresh.encode(*batch()), BINS + 2 if kind != "box" else BINS + 1, 4)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.15
    assert decoded.max() <= BINS


def test_masks_start_from_boxes_with_all_that_fits():
    boxes = network(parts=PLAIN, boxes_only=True)
    with torch.no_grad():
        for each in boxes.parameters():
            each.add_(1)
    masks = network()
    before = {name: value.clone() for name, value in masks.state_dict().items()}
    new = load_fitting(masks, boxes.state_dict())
    assert {name.split(".")[1] if "modulation" not in name else "modulation" for name in new} == {
        "task", "places", "modulation"
    }  # fmt: skip
    after, given = masks.state_dict(), boxes.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name] if name in new else given[name]), name


def test_the_table_of_positions_and_the_task_stay_new_even_where_they_fit():
    first = network()
    with torch.no_grad():
        first.decoder.places.fill_(7)
        first.decoder.task.fill_(7)
    second = network()
    assert load_fitting(second, first.state_dict()) == ["decoder.places", "decoder.task"]
    assert not (second.decoder.places == 7).any()
    assert not (second.decoder.task == 7).any()


def test_boxes_are_learned_without_the_parts_unless_asked():
    full = PartsConfig(cctf="transposed")
    assert rec_parts(full) == PartsConfig(cctf="none", pmca=False)
    both = PartsConfig(cctf="transposed", rec=True)
    assert rec_parts(both) is both


def test_a_width_that_cannot_be_shared_is_refused():
    def refused(**network: int) -> str:
        settings = config(**network)
        settings.partialres.rec.steps = settings.partialres.res.steps = 1
        with pytest.raises(ConfigError) as raised:
            check(settings)
        return str(raised.value)

    assert re.search(r"width=20 must be a multiple of .*\.heads=8; set it to 24", refused(width=20, heads=8))
    assert re.search(r"width=18 must be a multiple of 4 \(.*\); set it to 20", refused(width=18, heads=2))


def test_a_sequence_that_is_too_long_is_refused():
    ours = network(boxes_only=True).eval()
    memory = ours.encode(*batch())
    with pytest.raises(
        ConfigError, match=r"a sequence of 11 tokens is longer than the 5 .* partialres\.sequence\.points"
    ):
        ours.logits(memory, inputs("mask"))
    with pytest.raises(ConfigError, match="a sequence of 6 tokens"):
        ours.greedy(memory, BINS + 2, 6)


def test_attention_maps_are_of_each_token():
    ours = network().eval()
    maps = ours.attention(ours.encode(*batch()), inputs("mask"))
    assert maps.shape == (3, 2 * POINTS + 1, 8, 8)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(3, 2 * POINTS + 1))


@pytest.mark.parametrize("model", ["sequence", "query"])
@pytest.mark.parametrize("rec", [False, True])
def test_a_file_gives_back_the_network_its_words_and_either_weights(tmp_path, model, rec):
    settings = config(model=model)
    torch.manual_seed(0)
    raw, ema = (build(settings, lexicon=LEXICON, rec=rec, load=False) for _ in range(2))
    assert isinstance(raw, QueryNetwork if model == "query" else PartialRes)
    path = tmp_path / FILE
    save(path, config=settings, raw=raw.state_dict(), ema=ema.state_dict(), lexicon=LEXICON, task="mask")
    assert wrote(torch.load(path, weights_only=True))
    for name, expected in (("raw", raw), ("ema", ema)):
        found = load(path, settings, CPU, weights=name, rec=rec)
        assert found.lexicon == LEXICON
        assert not found.network.training
        state = found.network.state_dict()
        assert all(torch.equal(state[key], value) for key, value in expected.state_dict().items())


def test_a_file_of_other_settings_is_refused(tmp_path: Path):
    settings = config()
    state = build(settings, lexicon=LEXICON, load=False).state_dict()
    save(tmp_path / FILE, config=settings, raw=state, ema=state, lexicon=LEXICON, task="mask")
    other = config(width=32)
    with pytest.raises(WeightsError, match="was trained with other settings"):
        load(tmp_path / FILE, other, CPU)
    with pytest.raises(MalError, match="there is no checkpoint"):
        load(tmp_path / "none.pt", settings, CPU)
    assert not wrote({"config": "", "partialres": {}})
