"""Projected gradients: exact where everything is kept, right on average, and nearer with more numbers."""

import pytest
import torch

from lfx_utils.examples import tracin
from lfx_utils.examples.problem import problem
from lfx_utils.examples.projection import Projection
from tests.test_examples import MODELS, convolutional, denoising, mse


@MODELS
@pytest.mark.parametrize("draws", [1, 2])
def test_keeping_all_numbers_changes_nothing(make, draws):
    model, x = make()
    model, x = model.double(), x.double()
    given = model, denoising, [(model.state_dict(), 0.1)], x[:3], x[3:]
    torch.testing.assert_close(tracin(*given, draws=draws, projection=10**9), tracin(*given, draws=draws))


@MODELS
def test_both_sides_are_the_identity_on_average(make):
    model, x = make()
    with problem(model.double(), mse, "encoder", x[0].double()) as setting:
        drawn = [Projection(setting, 16, seed) for seed in range(400)]
        assert drawn[0].numbers < sum(weight.numel() for weight in setting.parameters().values())
        for name, sides in drawn[0].sides.items():
            for side, columns in enumerate(sides):
                if columns is not None:
                    products = torch.stack([each.sides[name][side] @ each.sides[name][side].T for each in drawn])
                    error = (products.mean(0) - torch.eye(len(columns))).square().mean().sqrt()
                    assert error < 1.3 * products.std(0).square().mean().sqrt() / 400**0.5


@MODELS
def test_more_numbers_come_nearer(make):
    model, x = make()
    model, x = model.double(), x.double()
    given = model, mse, [(model.state_dict(), 0.1)], x[:3], x[3:]
    exact = tracin(*given)
    errors = [
        sum((tracin(*given, projection=size, seed=seed) - exact).norm() for seed in range(5)) for size in (9, 100)
    ]
    assert errors[1] < errors[0]


def test_the_projection_holds_fewer_numbers_and_names_what_it_refuses():
    model, x = convolutional()
    given = model, mse, [(model.state_dict(), 0.1)], x[:3], x[3:]
    few, many = (tracin(*given, projection=100, memory=memory) for memory in (0.05, 512))
    torch.testing.assert_close(few, many)
    for projection in (0, 1.5):
        with pytest.raises(ValueError, match="projection must be"):
            tracin(*given, projection=projection)
