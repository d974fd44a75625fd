"""The optimizers: AdamW for the network, row-wise Adam for the tables of embeddings; and the learning-rate schedule."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

BETAS, EPSILON = (0.9, 0.98), 1e-8
WARM_UP, FLOOR = 0.05, 0.05
"""Share of the steps in which the learning rate rises, and share of the peak to which it then falls."""


class RowwiseAdam:
    """Adam for a table of embeddings: state and weights of untouched rows stay as they are, and cost nothing.

    The first moment has the table's shape. The second is one number a row, the mean over its columns, as in FBGEMM's partial
    row-wise Adam.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table.detach()
        self.first = torch.zeros_like(self.table)
        """[I, D] float32."""
        self.second = torch.zeros(len(table), 1, dtype=table.dtype)
        """[I, 1] float32."""

    @torch.no_grad()
    def step(self, rows_R: Tensor, gradient_RD: Tensor, rate: float, step: int) -> None:
        """Update some rows, each given once.

        Parameters
        ----------
        rate
            Learning rate.
        step
            Number of the step, from 1; it corrects the bias of moments that start at zero.
        """
        whole = len(rows_R) == len(self.table)
        first, second = (self.first, self.second) if whole else (self.first[rows_R], self.second[rows_R])
        first.lerp_(gradient_RD, 1 - BETAS[0])
        second.lerp_(gradient_RD.square().mean(1, keepdim=True), 1 - BETAS[1])
        width = (second / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
        change = (first / width).mul_(-rate / (1 - BETAS[0] ** step))
        if whole:
            self.table += change
        else:
            self.first[rows_R], self.second[rows_R] = first, second
            self.table.index_add_(0, rows_R, change)


class Optimizer:
    """The optimizers of one model.

    Parameters
    ----------
    network, tables
        Parameters by name.
    weights
        Learned weights of the objective, which are trained with the network.
    """

    def __init__(
        self,
        network: dict[str, torch.nn.Parameter],
        tables: dict[str, torch.nn.Parameter],
        weights: dict[str, torch.nn.Parameter] | None = None,
    ) -> None:
        self.network = [*network.values(), *(weights or {}).values()]
        self.adam = torch.optim.AdamW(self.network, lr=0.0, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True)
        self.rows = {name: RowwiseAdam(table) for name, table in tables.items()}

    def of_trained(self, by_table: dict[str, Value]) -> dict[str, Value]:
        """Only the entries of tables that are trained."""
        return {name: value for name, value in by_table.items() if name in self.rows}

    def zero_grad(self) -> None:
        """Drop the network's gradients."""
        for parameter in self.network:
            parameter.grad = None

    def step(self, touched: dict[str, tuple[Tensor, Tensor]], rate: float, step: int) -> None:
        """One step: the network by its gradients, each table by its touched rows and their gradients."""
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        for name, (rows, gradient) in touched.items():
            self.rows[name].step(rows, gradient, rate, step)

    def state(self) -> dict[str, Tensor]:
        """All moments by name."""
        state = {f"{name}.{part}": getattr(rows, part) for name, rows in self.rows.items() for part in ("first", "second")}
        for position, moments in self.adam.state_dict()["state"].items():
            state |= {f"network.{position}.{name}": value for name, value in moments.items()}
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the moments that :meth:`state` returned."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            owner, _, part = name.rpartition(".")
            if owner in self.rows:
                getattr(self.rows[owner], part).copy_(value)
            else:
                moments.setdefault(int(owner.removeprefix("network.")), {})[part] = value
        self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})


def linear_decay(done: int, total: int) -> float:
    """Factor of a learning rate that falls linearly from 1 to ``FLOOR`` over ``total`` steps, after ``done`` of them."""
    return 1 - (1 - FLOOR) * done / total


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step, from 0: linear warm-up over the first 5 % of ``steps``, then linear decay to 5 % of the peak."""
    warm_up = max(1, int(WARM_UP * steps))
    return peak * min((step + 1) / warm_up, linear_decay(step - warm_up, max(1, steps - warm_up)))
