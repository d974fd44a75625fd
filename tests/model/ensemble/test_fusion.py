"""h and L_h: the formula on the linear toy case, and its gradient by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarec_spark.model.ensemble.fusion import DomainWeights, Fusion, fuse, objective


def test_the_linear_toy_case_is_the_formula_and_its_gradient():
    """f = sigmoid(θᵀx), g = ReLU(φᵀx), h = ReLU(θᵀx + φᵀx), L_h = Σ λ_i L_i(f) + Σ μ_i M_i(g), squared errors, two tasks."""
    random = np.random.default_rng(3)
    x, y = random.normal(size=(2, 5, 3)), random.random((2, 5))
    theta, phi = torch.tensor(random.normal(size=3), requires_grad=True), torch.tensor(random.normal(size=3), requires_grad=True)
    weight, mu = torch.tensor([0.7, 1.3], dtype=torch.float64), torch.tensor([0.2, 2.0], dtype=torch.float64)
    X, Y = torch.tensor(x), torch.tensor(y)

    h = fuse(X @ theta, X @ phi, torch.relu)
    np.testing.assert_allclose(h.detach(), np.maximum(x @ theta.detach().numpy() + x @ phi.detach().numpy(), 0), rtol=1e-12)

    f, g = torch.sigmoid(X @ theta), torch.relu(X @ phi)
    total = objective(((f - Y) ** 2).mean(1), ((g - Y) ** 2).mean(1), weight, mu)
    total.backward()

    t, p = theta.detach().numpy(), phi.detach().numpy()
    by_hand, of_theta, of_phi = 0.0, np.zeros(3), np.zeros(3)
    for task in range(2):
        for row in range(5):
            sigmoid, linear = 1 / (1 + np.exp(-x[task, row] @ t)), x[task, row] @ p
            by_hand += weight[task].item() * (sigmoid - y[task, row]) ** 2 / 5
            by_hand += mu[task].item() * (max(linear, 0) - y[task, row]) ** 2 / 5
            slope = 2 * (sigmoid - y[task, row]) * sigmoid * (1 - sigmoid) / 5
            of_theta += weight[task].item() * slope * x[task, row]
            of_phi += mu[task].item() * 2 * (max(linear, 0) - y[task, row]) * (linear > 0) / 5 * x[task, row]
    assert total.item() == pytest.approx(by_hand, rel=1e-12)
    np.testing.assert_allclose(theta.grad, of_theta, rtol=1e-10)
    np.testing.assert_allclose(phi.grad, of_phi, rtol=1e-10)


def test_the_transfer_part_is_zero_where_nothing_is_lent_and_never_negative():
    part = Fusion(transitions=2.0, sharpness=3.0).phi_part(torch.tensor([0.0, 1.0, 5.0]))
    assert part.tolist() == pytest.approx([0.0, 2 * np.log(4), 2 * np.log(16)])
    assert Fusion(transitions=0.0).phi_part(torch.tensor([5.0])).item() == 0.0


LOSSES, EVENTS = torch.tensor([30.0, 8.0]), torch.tensor([10.0, 2.0])


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Of 100 training events 80 and 20: where domains count the same, an event of the first weighs 1 / (2 · 0.8).
    [("events", 38.0), ("domains", 30 / 1.6 + 8 / 0.4), ("uncertainty", 38.0)],
)
def test_weights_of_domains(kind, expected):
    assert DomainWeights(kind, torch.tensor([80, 20]))(LOSSES, EVENTS).item() == pytest.approx(expected, rel=1e-6)


def test_uncertainty_settles_where_the_weight_is_one_over_the_mean_loss():
    weights = DomainWeights("uncertainty", torch.tensor([80, 20]))
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.02)
    for _ in range(3000):
        optimizer.zero_grad()
        weights(LOSSES, EVENTS).backward()
        optimizer.step()
    assert torch.exp(-weights.log_variance).tolist() == pytest.approx([10 / 30, 2 / 8], rel=1e-3)
