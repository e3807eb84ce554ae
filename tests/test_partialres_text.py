"""Words become the ids that a vocabulary gives them, and one vector that padding does not change."""

import pytest
import torch
from torch import nn

from mal.errors import WeightsError
from mal.methods.partialres.config.network import TextConfig
from mal.methods.partialres.text.glove import read_glove
from mal.methods.partialres.text.gru import TextEncoder
from mal.methods.partialres.text.vocabulary import KNOWN, PADDING, UNKNOWN, Vocabulary

TEXTS = [["the", "red", "star"], ["the", "leftmost", "circle"], ["red", "circle"]]
SMALL = TextConfig(width=6, hidden=5, words=4)


def test_a_vocabulary_is_sorted_and_has_each_word_once():
    assert Vocabulary.build(TEXTS).words == ("circle", "leftmost", "red", "star", "the")
    assert Vocabulary.build(reversed(TEXTS)) == Vocabulary.build(TEXTS)
    assert len(Vocabulary.build(TEXTS)) == 5 + KNOWN


def test_words_are_cut_padded_and_unknown_ones_share_an_id():
    vocabulary = Vocabulary.build(TEXTS)
    assert vocabulary.encode(["the", "blue", "star"], 5) == [6, UNKNOWN, 5, PADDING, PADDING]
    assert vocabulary.encode(["the", "red", "star"], 2) == [6, 4]
    assert vocabulary.encode([], 2) == [PADDING, PADDING]
    assert vocabulary.all_unknown(["blue", "square"])
    assert vocabulary.all_unknown([])
    assert not vocabulary.all_unknown(["blue", "star"])


def test_glove_gives_each_word_its_line_and_the_others_the_mean(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2 3\nred 5 6 7\nzebra 100 100 100\n")
    found = read_glove(file, ["red", "star", "the"])
    assert found.tolist() == [[0, 0, 0], [3, 4, 5], [5, 6, 7], [3, 4, 5], [1, 2, 3]]


def test_words_of_gloves_that_have_spaces_and_word2vecs_first_line_are_passed_over(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("4 3\nthe 1 2 3\nat name@domain.com 7 8 9\nred . 4 4 4\nat 5 6 7\n")
    assert read_glove(file, ["at", "red", "the"])[KNOWN:].tolist() == [[5, 6, 7], [3, 4, 5], [1, 2, 3]]


def test_blank_lines_among_word_vectors_are_passed_over(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("\nthe 1 2\n   \nred 3 4\n\n")
    assert read_glove(file, ["red", "the"])[KNOWN:].tolist() == [[3, 4], [1, 2]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zebra 1 2\n", "for none of the 2 words"),
        ("the 1 2\nred 1\n", "line 2: has 1 numbers, where the first has 2"),
        ("the 1 2\nred 1 2 3\n", "line 2: has 3 numbers, where the first has 2"),
        ("the 1 x\n", "line 1: a word must be followed by numbers"),
        ("the 1 nan\n", "not finite"),
        ("the\n", "line 1: has 0 numbers"),
        ("", "for none of the 2 words"),
    ],
)
def test_a_file_that_is_not_gloves_is_refused_with_a_way_out(tmp_path, text, said):
    file = tmp_path / "glove.txt"
    file.write_text(text)
    with pytest.raises(WeightsError, match=said) as error:
        read_glove(file, ["the", "red"])
    assert "partialres.network.text.vectors" in str(error.value)


def test_an_absent_glove_file_is_a_sentence(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_glove(tmp_path / "none.txt", ["the"])


def test_the_vector_is_the_largest_output_of_a_gru_over_the_expressions_own_words():
    torch.manual_seed(0)
    encoder = TextEncoder(SMALL, ids=8).double()
    words = torch.tensor([[3, 4, 0, 0], [5, 6, 7, 2], [2, 0, 0, 0]])
    found = encoder(words)
    assert found.shape == (3, encoder.channels)
    for row, length in enumerate((2, 4, 1)):
        alone = encoder.embedding(words[row : row + 1, :length])
        expected = encoder.gru(alone)[0].amax(1)[0]
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-12)


def test_one_direction_of_the_gru_is_the_published_recurrence():
    torch.manual_seed(0)
    encoder = TextEncoder(SMALL, ids=8).double()
    words = torch.tensor([[3, 4, 5]])
    gru, state, states = encoder.gru, torch.zeros(5, dtype=torch.float64), []
    for vector in encoder.embedding(words)[0]:
        of_input = (gru.weight_ih_l0 @ vector + gru.bias_ih_l0).chunk(3)
        of_state = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
        reset, update = ((a + b).sigmoid() for a, b in zip(of_input[:2], of_state[:2], strict=True))
        state = (1 - update) * (of_input[2] + reset * of_state[2]).tanh() + update * state
        states.append(state)
    torch.testing.assert_close(encoder(words)[0, :5], torch.stack(states).amax(0), rtol=0, atol=1e-12)


def test_an_expression_without_words_has_a_finite_vector():
    encoder = TextEncoder(SMALL, ids=8)
    assert encoder(torch.zeros(2, 4, dtype=torch.int64)).isfinite().all()


def test_given_vectors_are_frozen_and_learned_ones_start_at_one():
    vectors = torch.rand(4000, 6)
    frozen = TextEncoder(TextConfig(width=6, hidden=5, vectors="glove.txt"), ids=4000, vectors=vectors)
    assert torch.equal(frozen.embedding.weight, vectors)
    assert not frozen.embedding.weight.requires_grad
    learned = TextEncoder(SMALL, ids=4000)
    assert learned.embedding.weight.requires_grad
    assert learned.embedding.weight.std().item() == pytest.approx(1, abs=0.05)
    assert not learned.embedding.weight[: UNKNOWN + 1].any()


def test_vectors_of_another_width_name_the_setting():
    with pytest.raises(WeightsError, match=r"partialres\.network\.text\.width=6; set it to 3"):
        TextEncoder(SMALL, ids=4, vectors=torch.rand(4, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_computes_in_float32(dtype):
    torch.manual_seed(0)
    encoder, words = TextEncoder(SMALL, ids=8), torch.tensor([[3, 4, 0, 0], [5, 6, 7, 2]])
    expected = encoder(words)
    with torch.autocast("cpu", dtype=dtype):
        found = encoder(words)
        found.sum().backward()
    assert torch.equal(found, expected)
    assert all(each.grad is not None and each.grad.isfinite().all() for each in encoder.parameters())


def test_both_ways_are_read():
    assert isinstance(TextEncoder(SMALL, ids=8).gru, nn.GRU)
    torch.manual_seed(0)
    encoder = TextEncoder(SMALL, ids=8)
    forward, backward = encoder(torch.tensor([[3, 4, 5, 0], [5, 4, 3, 0]]))
    assert not torch.allclose(forward, backward)
