"""The row-wise optimiser."""

from __future__ import annotations

import pytest
import torch

from metarec_spark.training.optimizer import BETAS, EPSILON, RowwiseAdam


def step_by_hand(table, first, second, rows, gradient, rate, step):
    """One row at a time, in plain numbers."""
    for row, slope in zip(rows, gradient, strict=True):
        second[row] = BETAS[1] * second[row] + (1 - BETAS[1]) * float((slope**2).mean())
        for column in range(table.shape[1]):
            first[row, column] = BETAS[0] * first[row, column] + (1 - BETAS[0]) * slope[column]
            width = (second[row] / (1 - BETAS[1] ** step)) ** 0.5 + EPSILON
            table[row, column] -= rate * first[row, column] / (1 - BETAS[0] ** step) / width


def test_every_step_by_hand():
    random = torch.Generator().manual_seed(0)
    table = torch.randn(5, 3, generator=random, dtype=torch.float64)
    expected, first, second = table.clone(), torch.zeros(5, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    optimizer = RowwiseAdam(table)
    for step, rows in enumerate(([0, 3], [3], [0, 1, 2, 3, 4], [4, 1]), start=1):
        gradient = torch.randn(len(rows), 3, generator=random, dtype=torch.float64)
        optimizer.step(torch.tensor(rows), gradient, 0.1, step)
        step_by_hand(expected, first, second, rows, gradient, 0.1, step)
        torch.testing.assert_close(table, expected)


@pytest.mark.parametrize("rows", [[1], [1, 2]])
def test_untouched_rows_stay_as_they_are(rows):
    table = torch.randn(4, 3)
    before, optimizer = table.clone(), RowwiseAdam(table)
    optimizer.step(torch.tensor(rows), torch.ones(len(rows), 3), 0.1, 1)
    untouched = [row for row in range(4) if row not in rows]
    assert torch.equal(table[untouched], before[untouched])
    assert not optimizer.first[untouched].any() and not optimizer.second[untouched].any()
    assert (table[rows] != before[rows]).all()
