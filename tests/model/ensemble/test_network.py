"""A network's compiled scores are those that it learnt with, and depend on nothing but the pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarec_spark.model.ensemble.network import Network, _logarithms


def network(sums: int, others: int) -> Network:
    torch.manual_seed(3)
    made = Network(sums, others)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def inputs(pairs: int, sums: int, others: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    return torch.rand(pairs, sums) ** 8 * 3, torch.randn(pairs, others)


@pytest.mark.parametrize(("pairs", "sums", "others"), [(0, 2, 1), (1, 10, 5), (64, 3, 0), (1000, 10, 4), (130, 1, 1)])
def test_scores_are_those_that_were_learnt_with(pairs, sums, others):
    made, given = network(sums, others), inputs(pairs, sums, others)
    learnt = made.train().score(*given)
    assert learnt.requires_grad
    found = made.eval().score(*given)
    assert found.shape == (pairs,) and found.dtype == torch.float32
    torch.testing.assert_close(found, learnt.detach(), rtol=1e-5, atol=2e-6)


def test_a_score_is_the_same_to_the_last_bit_whatever_pairs_are_beside_it():
    made, (sums, others) = network(10, 5).eval(), inputs(777, 10, 5)
    whole = made.score(sums, others)
    order = torch.randperm(777)
    assert torch.equal(made.score(sums[order], others[order]), whole[order])
    for first in (0, 1, 63, 64, 700):
        assert torch.equal(made.score(sums[first : first + 3], others[first : first + 3]), whole[first : first + 3])
    assert torch.equal(made.score(sums[:1].expand(70, -1), others[:1].expand(70, -1)), whole[:1].expand(70))


def test_the_logarithm_is_exact_to_some_parts_in_ten_million():
    sums = np.concatenate([[0], np.logspace(-7, 6, 63)]).astype(np.float32)
    found = np.empty(64, np.float32)
    _logarithms(sums, found)
    np.testing.assert_allclose(found, np.log1p(10 * sums.astype(np.float64)), rtol=2e-7, atol=7e-8)
