"""The lookup and its two gradients, which meet in one."""

from __future__ import annotations

import torch

from dissect.models.gather import look_up
from dissect.training.loss import item_cross_entropy
from mixer.segments import segment_sum


def test_gradients_of_rows_and_scores_add_up() -> None:
    table = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    index, weight = torch.tensor([1, 4, 1, 0]), torch.randn(6, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: torch.stack([p.square().sum() for p in look_up(t, index)]), table)
    rows, scored = look_up(table, index)
    (rows.sum() + (scored * weight).sum()).backward()
    expected = weight + torch.bincount(index, minlength=6)[:, None]
    assert table.grad is not None
    torch.testing.assert_close(table.grad, expected)


def test_one_use_alone() -> None:
    index = torch.tensor([2, 2])
    for part, expected in ((0, [0.0, 0.0, 2.0]), (1, [1.0, 1.0, 1.0])):
        table = torch.zeros(3, 1, requires_grad=True)
        look_up(table, index)[part].sum().backward()
        assert table.grad is not None
        assert table.grad[:, 0].tolist() == expected


def test_two_lookups_in_a_row() -> None:
    table = torch.zeros(4, 1, requires_grad=True)
    first, table_1 = look_up(table, torch.tensor([0, 1]))
    second, table_2 = look_up(table_1, torch.tensor([1, 1]))
    (first.sum() + 10 * second.sum() + 100 * table_2.sum()).backward()
    assert table.grad is not None
    assert table.grad[:, 0].tolist() == [101, 121, 100, 100]


def test_segment_sum_by_hand() -> None:
    values = torch.tensor([[1.0], [2.0], [4.0]])
    assert segment_sum(values, torch.tensor([2, 0, 2]), 3)[:, 0].tolist() == [2, 0, 5]


def test_a_gradient_from_outside_is_left_alone() -> None:
    table, given = torch.zeros(4, 2, requires_grad=True), torch.ones(4, 2)
    rows, scored = look_up(table, torch.tensor([0, 1]))
    found = torch.autograd.grad((rows, scored), table, (torch.ones(2, 2), given))[0]
    assert given.tolist() == torch.ones(4, 2).tolist()
    assert found[:, 0].tolist() == [2, 2, 1, 1]


def test_the_gradient_of_the_loss_is_taken_up_without_a_copy() -> None:
    table = torch.randn(5000, 8, requires_grad=True)
    rows, scored = look_up(table, torch.tensor([0, 1]))
    made: list[int] = []
    scored.register_hook(lambda grad: made.append(grad.data_ptr()))
    item_cross_entropy(rows, scored, torch.tensor([3, 4])).backward()
    assert table.grad is not None
    assert made == [table.grad.data_ptr()]
