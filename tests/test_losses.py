"""The losses against literal sums in float64, and their gradients against finite differences."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from mal.losses import dice
from mal.methods.mal.losses import crf_loss, mil_loss


def literal_dice(p: np.ndarray, t: np.ndarray, smooth: float) -> float:
    overlap = sum(a * b for a, b in zip(p, t, strict=True))
    return 1 - 2 * overlap / (sum(a * a for a in p) + smooth + sum(b * b for b in t) + smooth)


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(rng.random((3, 6, 7)))
    rows = torch.zeros(3, 6, dtype=torch.bool)
    columns = torch.zeros(3, 7, dtype=torch.bool)
    rows[:, 1:4], columns[:, 2:6] = True, True
    return masks, rows, columns


@pytest.mark.parametrize("smooth", [0.0, 0.001])
def test_joint_mil_is_one_dice_over_all_bags(smooth):
    masks, rows, columns = example()
    found = mil_loss(masks, rows, columns, form="joint", smooth=smooth)
    for index, mask in enumerate(masks.numpy()):
        bags = [max(row) for row in mask] + [max(column) for column in mask.T]
        labels = [*rows[index].tolist(), *columns[index].tolist()]
        assert found[index].item() == pytest.approx(
            literal_dice(np.array(bags), np.array(labels, float), smooth), abs=1e-12
        )


@pytest.mark.parametrize("smooth", [0.0, 0.001])
def test_separate_mil_is_dice_of_rows_plus_dice_of_columns(smooth):
    masks, rows, columns = example(1)
    found = mil_loss(masks, rows, columns, form="separate", smooth=smooth)
    for index, mask in enumerate(masks.numpy()):
        expected = literal_dice(mask.max(1), rows[index].double().numpy(), smooth)
        expected += literal_dice(mask.max(0), columns[index].double().numpy(), smooth)
        assert found[index].item() == pytest.approx(expected, abs=1e-12)


def test_crf_loss_is_eq_5():
    masks, _, _ = example(2)
    refined = masks > 0.6
    found = crf_loss(masks, refined, smooth=0.0)
    for index in range(3):
        m, label = masks[index].flatten().numpy(), refined[index].flatten().double().numpy()
        assert found[index].item() == pytest.approx(literal_dice(m, label, 0.0), abs=1e-12)


def test_a_filled_box_satisfies_every_bag():
    _, rows, columns = example()
    masks = (rows[:, :, None] & columns[:, None, :]).double()
    for form in ("joint", "separate"):
        assert mil_loss(masks, rows, columns, form=form, smooth=0.0).abs().max() < 1e-12


def test_an_empty_prediction_against_an_empty_target_is_a_number():
    assert torch.isfinite(dice(torch.zeros(1, 5), torch.zeros(1, 5), smooth=0.0)).all()


@pytest.mark.parametrize("form", ["joint", "separate"])
def test_gradients_agree_with_finite_differences(form):
    masks, rows, columns = example(3)
    masks.requires_grad_(True)
    assert gradcheck(lambda m: mil_loss(m, rows, columns, form=form, smooth=0.001), (masks,))
    refined = masks.detach() > 0.5
    assert gradcheck(lambda m: crf_loss(m, refined, smooth=0.0), (masks,))
