"""The Kronecker-factored solver where it is exact, against the exact solve, and where that is refused."""

import pytest
import torch
from torch import nn

from lfx_utils.examples import influence, tracin
from lfx_utils.models.autoencoders import Autoencoder
from tests.test_examples import convolutional, linear_problem, mse


def correlation(first, second):
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


def test_exact_where_the_curvature_is_a_kronecker_product():
    model, test, train, slopes, hessian = linear_problem()
    expected = slopes(test) @ torch.linalg.solve(hessian + 0.1 * torch.eye(8), slopes(train).T) / 30
    found = influence(model, mse, test, train, damping=0.1, solver="ekfac")
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_eigenvalues_are_right_for_every_single_example():
    """With one training example a layer's block has rank one in each factor's span: the diagonal must be E g²."""
    torch.manual_seed(0)
    model = Autoencoder(nn.Linear(4, 1), nn.Linear(1, 4)).double().eval()
    test, train = torch.randn(6, 4).double(), torch.randn(1, 4).double()
    exact = influence(model, mse, test, train, damping=0.1)
    found = influence(model, mse, test, train, damping=0.1, solver="ekfac")
    assert (found - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_nearer_to_the_exact_solve_than_plain_gradients_are():
    model, x = convolutional()
    model, x = model.double(), x.double()
    test, train = x[:4], x[4:]
    exact = influence(model, mse, test, train, damping=1e-3)
    found = influence(model, mse, test, train, damping=1e-3, solver="ekfac")
    plain = tracin(model, mse, [(model.state_dict(), 1.0)], test, train)
    assert correlation(found, exact) > max(0.7, correlation(plain, exact))


def test_runs_where_the_exact_solve_is_refused():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, 200), nn.Tanh(), nn.Linear(200, 64))
    model, x = Autoencoder(encoder, nn.Linear(64, 64)).eval(), torch.rand(202, 64)
    with pytest.raises(ValueError, match="'ekfac', an approximation"):
        influence(model, mse, x[:2], x[2:], damping=1e-2)
    found = influence(model, mse, x[:2], x[2:], damping=1e-2, solver="ekfac")
    exact = influence(model, mse, x[:2], x[2:], damping=1e-2, solver="cg")
    assert correlation(found, exact) > 0.9


def test_refuses_what_it_does_not_know():
    model, x = Autoencoder(nn.PReLU(3), nn.Linear(3, 3)).eval(), torch.rand(4, 3)
    with pytest.raises(ValueError, match="linear and convolutional layers"):
        influence(model, mse, x[:1], x, solver="ekfac")
    with pytest.raises(ValueError, match="unless solver is 'direct' or 'ekfac'"):
        influence(model, mse, x[:1], x, solver="ekfac", curvature="hessian")
