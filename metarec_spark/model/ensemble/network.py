"""A small network that scores pairs of a user and an item: the log-odds of being next, from sums of item-to-item signals.

Shape suffixes: n pairs of a user and an item, S sums, O other inputs, H hidden units.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from metarec_spark.runtime.numba_cache import compiled

HIDDEN = 32
_LANES = 64
"""Pairs that are scored at a time: a few vector registers."""
_STEP = 4
"""Inputs that are added at a time."""
_F = np.float32


class Network(nn.Module):
    """(Sums, others) → a score: a linear part plus a hidden layer, whose output weights start at zero.

    Each sum enters twice: by its logarithm, which resolves small sums, and as it is up to a bound, which resolves large ones.
    """

    def __init__(self, sums: int, others: int) -> None:
        super().__init__()
        inputs = 2 * sums + others
        self.linear, self.hidden, self.out = nn.Linear(inputs, 1), nn.Linear(inputs, HIDDEN), nn.Linear(HIDDEN, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def score(self, sums: Tensor, others: Tensor) -> Tensor:
        """[n, S] and [n, O] → [n].

        In evaluation mode, a compiled loop scores a few pairs at a time: a pair's score depends on its own inputs alone.
        """
        if self.training:
            inputs = torch.cat([torch.log1p(10 * sums), (3 * sums).clamp(max=4), others], 1)
            return (self.linear(inputs) + self.out(torch.relu(self.hidden(inputs)))).squeeze(1)
        weights = np.concatenate([self.linear.weight.detach(), self.hidden.weight.detach()])
        weights = np.pad(weights, ((0, 0), (0, -weights.shape[1] % _STEP)))
        biases = np.concatenate([self.linear.bias.detach(), self.hidden.bias.detach()])
        out = self.out.weight.detach().numpy()[0]
        return torch.from_numpy(_scores(sums.contiguous().numpy(), others.contiguous().numpy(), weights, biases, out))


@compiled(fastmath={"contract"})
def _scores(sums: np.ndarray, others: np.ndarray, weights: np.ndarray, biases: np.ndarray, out: np.ndarray) -> np.ndarray:
    """[n] float32 from [n, S], [n, O], [1 + H, 2 S + O or more] with the linear part first, [1 + H] and [H]."""
    number, inputs = sums.shape[1], np.zeros((weights.shape[1], _LANES), np.float32)
    layer, total, scores = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32), np.empty(len(sums), np.float32)
    for first in range(0, len(sums), _LANES):
        size = min(_LANES, len(sums) - first)
        for pair in range(size):
            for i in range(number):
                inputs[number + i, pair] = sums[first + pair, i]
            for i in range(others.shape[1]):
                inputs[2 * number + i, pair] = others[first + pair, i]
        for i in range(number):
            _logarithms(inputs[number + i], inputs[i])
            for pair in range(_LANES):
                inputs[number + i, pair] = min(_F(3) * inputs[number + i, pair], _F(4))
        _products(weights[0], biases[0], inputs, total)
        for unit in range(len(out)):
            _products(weights[1 + unit], biases[1 + unit], inputs, layer)
            weight = out[unit]
            for pair in range(_LANES):
                total[pair] += weight * max(layer[pair], _F(0))
        scores[first : first + size] = total[:size]
    return scores


@compiled(fastmath={"contract"})
def _products(weights: np.ndarray, bias: np.float32, inputs: np.ndarray, into: np.ndarray) -> None:
    """Sum weighted inputs, a few at a time, so that sums stay in registers."""
    into[:] = bias
    for i in range(0, len(weights), _STEP):
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for pair in range(_LANES):
            into[pair] += a * inputs[i, pair] + b * inputs[i + 1, pair] + c * inputs[i + 2, pair] + d * inputs[i + 3, pair]


@compiled(fastmath={"contract"})
def _logarithms(sums: np.ndarray, into: np.ndarray) -> None:
    """log(1 + 10 · sum) of sums ≥ 0, to about 1e-7: the polynomial of Cephes' logf, without branches, so that it vectorises."""
    one = np.empty(_LANES, np.float32)
    bits = one.view(np.int32)
    power = np.empty(_LANES, np.float32)
    for i in range(_LANES):
        one[i] = _F(1) + _F(10) * sums[i]
    for i in range(_LANES):
        # The mantissa goes to [√½, √2), where the polynomial is good.
        shift = np.int32((bits[i] & np.int32(0x7FFFFF)) > np.int32(0x3504F3))
        power[i] = _F((bits[i] >> np.int32(23)) - np.int32(127) + shift)
        bits[i] = (bits[i] & np.int32(0x7FFFFF)) | ((np.int32(127) - shift) << np.int32(23))
    for i in range(_LANES):
        x = one[i] - _F(1)
        y = _F(7.0376836292e-2)
        y = y * x + _F(-1.1514610310e-1)
        y = y * x + _F(1.1676998740e-1)
        y = y * x + _F(-1.2420140846e-1)
        y = y * x + _F(1.4249322787e-1)
        y = y * x + _F(-1.6668057665e-1)
        y = y * x + _F(2.0000714765e-1)
        y = y * x + _F(-2.4999993993e-1)
        y = y * x + _F(3.3333331174e-1)
        y = y * x * x * x - _F(0.5) * x * x
        into[i] = power[i] * _F(0.693147180559945) + (x + y)
