"""Co-content teacher forcing reads the line that a coordinate names; R's option the one that it does not."""

import pytest
import torch

from mal.methods.partialres.cctf import NONE, X, Y, content, lines

H, W, BINS = 4, 5, 100


def planted(what: str, size: int = 1) -> torch.Tensor:
    """(size, H, W, 1) float64: each cell's column or row."""
    across, down = torch.arange(W).expand(H, W), torch.arange(H)[:, None].expand(H, W)
    return (across if what == "column" else down)[None, ..., None].double().expand(size, -1, -1, -1)


def nothing(size: int = 1) -> torch.Tensor:
    return torch.zeros(size, H, W, dtype=torch.bool)


def read(image: torch.Tensor, padding: torch.Tensor, kind: str, tokens: list[int], axes: list[int]) -> torch.Tensor:
    repeated = [torch.tensor([each] * len(image)) for each in (tokens, axes)]
    return content(*repeated, lines(image, padding, kind), BINS)[..., 0]


def test_matched_reads_where_the_coordinate_points():
    tokens = [0, 19, 20, 50, 99]
    assert read(planted("column"), nothing(), "matched", tokens, [X] * 5).tolist() == [[0, 0, 1, 2, 4]]
    assert read(planted("row"), nothing(), "matched", tokens, [Y] * 5).tolist() == [[0, 0, 0, 2, 3]]
    # the other way round a line holds every value: its mean
    assert read(planted("row"), nothing(), "matched", tokens, [X] * 5).tolist() == [[1.5] * 5]
    assert read(planted("column"), nothing(), "matched", tokens, [Y] * 5).tolist() == [[2.0] * 5]


def test_transposed_reads_the_row_of_an_x_and_the_column_of_a_y_and_for_end_the_last():
    tokens = [0, 33, 34, 99, BINS]
    assert read(planted("row"), nothing(), "transposed", tokens, [X] * 5).tolist() == [[0, 0, 1, 2, 3]]
    assert read(planted("column"), nothing(), "transposed", tokens, [Y] * 5).tolist() == [[0, 1, 1, 3, 4]]


@pytest.mark.parametrize("kind", ["matched", "transposed"])
def test_a_task_adds_nothing(kind):
    image = planted("column") + 1
    assert read(image, nothing(), kind, [BINS + 1, BINS + 2], [NONE, NONE]).tolist() == [[0, 0]]


def test_end_adds_nothing_when_matched():
    assert read(planted("column") + 1, nothing(), "matched", [BINS, BINS], [X, Y]).tolist() == [[0, 0]]


def test_padding_is_left_out_when_matched_and_taken_in_when_transposed():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, H, W, 1, generator=generator, dtype=torch.float64)
    padding = nothing(2)
    padding[0, 3], padding[1, :, 2:] = True, True
    found = read(image, padding, "matched", [30, 30, 70], [X, Y, X])
    assert found[0, 0].item() == pytest.approx(image[0, :3, 1].mean().item())
    assert found[1, 0].item() == pytest.approx(image[1, :, 1].mean().item())
    assert found[0, 1].item() == pytest.approx(image[0, 1].mean().item())
    assert found[1, 1].item() == pytest.approx(image[1, 1, :2].mean().item())
    assert found[1, 2].item() == 0  # a column of padding alone
    found = read(image, padding, "transposed", [99, 99], [X, Y])
    assert found[0].tolist() == pytest.approx([image[0, 2].mean().item(), image[0, :, 3].mean().item()])


def test_a_bin_across_two_columns_reads_the_one_of_its_centre():
    image = torch.arange(3.0)[None, None, :, None].expand(1, 2, 3, 1)
    tokens = torch.arange(4)[None]  # bins of ¾ column: centres at ⅜, 9/8, 15/8, 21/8
    padding = torch.zeros(1, 2, 3, dtype=torch.bool)
    found = content(tokens, torch.full((1, 4), X), lines(image, padding, "matched"), 4)
    assert found[0, :, 0].tolist() == [0, 1, 1, 2]


def test_the_gradient_reaches_the_line_and_nothing_else():
    image = torch.randn(1, H, W, 2, requires_grad=True)
    content(torch.tensor([[50]]), torch.tensor([[X]]), lines(image, nothing(), "matched"), BINS).sum().backward()
    expected = torch.zeros(1, H, W, 2)
    expected[:, :, 2] = 1 / H
    torch.testing.assert_close(image.grad, expected)
