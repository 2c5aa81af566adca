"""Every bad argument gets one clear sentence."""

import pytest
import torch
from torch import nn

from lfx_utils import NEMU, checks, lafam, represent


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([[1.0]], TypeError, "inputs must be a torch.Tensor of shape .*, got list"),
        (torch.ones(2, 3, dtype=torch.long), TypeError, "floating-point values, got torch.int64"),
        (torch.ones(3), ValueError, r"at least one feature axis, got \(3,\)"),
        (torch.ones(0, 3), ValueError, r"empty batch of shape \(0, 3\)"),
        (torch.tensor([[1.0, float("nan"), float("inf")]]), ValueError, "holds 2 NaN or infinite values out of 3"),
    ],
)
def test_batches(value, error, message):
    with pytest.raises(error, match=message):
        checks.batch("inputs", value)


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ((torch.ones(2, 3),), TypeError, "one tensor of shape .*, got tuple"),
        (torch.ones(2, 3, 4), ValueError, r"\(2, D\), got \(2, 3, 4\)"),
        (torch.ones(3, 4), ValueError, r"\(2, D\), got \(3, 4\)"),
        (torch.full((2, 3), float("nan")), ValueError, "NaN or infinite representations"),
    ],
)
def test_latents(output, error, message):
    with pytest.raises(error, match=message):
        checks.latent(output, 2)


def test_good_arguments_pass_through():
    x = torch.ones(2, 3)
    assert checks.batch("inputs", x) is x and checks.latent(x, 2) is x
    checks.evaluating(lambda x: x)
    checks.evaluating(nn.Linear(2, 2).eval())


def test_a_single_training_submodule_is_named():
    encoder = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    encoder[1].train()
    with pytest.raises(ValueError, match=r"training mode \(1\); call encoder.eval\(\)"):
        checks.evaluating(encoder)
    with pytest.raises(TypeError, match="callable, got int"):
        checks.evaluating(3)


def test_a_function_gives_the_same_twice():
    x, calls = torch.rand(2, 3), []
    checks.function(nn.Linear(3, 4).eval(), (x,), gradient=True)
    checks.function(lambda row: row.numpy() * 2, (x,))
    checks.function(torch.sum, (x,), (1,))
    checks.function(lambda row: row.half() + 1e-4 * torch.rand_like(row), (x,))  # rounding, such as a GPU's
    for drawing in (torch.rand_like, lambda row: calls.append(0) or row[:, : len(calls)]):
        with pytest.raises(ValueError, match="two representations of the same inputs that differ by"):
            checks.function(drawing, (x,))
    checks.function(torch.no_grad()(nn.Linear(3, 4).eval()), (x,))
    with pytest.raises(ValueError, match="passes no gradient back"):
        checks.function(lambda row, other: row + other.detach(), (x, x), gradient=True)
    assert x.grad is None and not x.requires_grad


def test_a_module_is_asked_once_until_something_about_it_changes():
    calls = []

    class Counts(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    encoder, x = Counts(3, 4).eval(), torch.rand(2, 3)
    for _ in range(3):
        checks.function(encoder, (x,))
    assert len(calls) == 2
    checks.function(encoder, (x,), gradient=True)
    assert len(calls) == 4
    with torch.inference_mode():
        checks.function(encoder, (x,))
    assert len(calls) == 6
    encoder.register_forward_hook(lambda module, inputs, output: output + torch.rand_like(output))
    for _ in range(2):  # what has failed is asked again
        with pytest.raises(ValueError, match="two representations"):
            checks.function(encoder, (x,))


def test_a_module_that_begins_to_draw_is_asked_again():
    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.noise = 0.0

        def forward(self, x):
            return x + self.noise * torch.rand_like(x)

    encoder, x = Loud().eval(), torch.rand(2, 3)
    checks.function(encoder, (x,))
    encoder.noise = 0.5
    with pytest.raises(ValueError, match="two representations"):
        checks.function(encoder, (x,))
    encoder.noise = 0.0
    encoder.forward = lambda x: torch.rand(len(x), 4)
    with pytest.raises(ValueError, match="two representations"):
        checks.function(encoder, (x,))


def test_a_module_with_further_arguments_is_asked_every_time():
    class Switched(nn.Module):
        def forward(self, x, noise):
            return x + noise * torch.rand_like(x)

    encoder, x = Switched().eval(), torch.rand(2, 3)
    checks.function(encoder, (x,), (0.0,))
    with pytest.raises(ValueError, match="two representations"):
        checks.function(encoder, (x,), (0.5,))


def test_what_is_no_module_is_asked_every_time():
    calls = []
    plain = lambda row: calls.append(0) or row  # noqa: E731
    for _ in range(2):
        checks.function(plain, (torch.rand(2, 3),))
    assert len(calls) == 4


@pytest.mark.parametrize("draws", [represent, lambda f, x: NEMU(f).fit(x), lambda f, x: lafam(f, f[0], x)])
def test_what_encodes_refuses_an_encoder_that_draws(draws):
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    encoder = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Noise(), nn.Conv2d(4, 4, 3, 2, 1), nn.Flatten()).eval()
    with pytest.raises(ValueError, match="draws at random"):
        draws(encoder, torch.rand(2, 3, 16, 16))


def test_copies_are_what_an_encoder_changes():
    x, y = torch.rand(2, 3), torch.rand(2, 3)
    before = x.clone(), y.clone()
    assert torch.equal(checks.on_copies(lambda a, b, c: a.add_(b.mul_(c)), x, y, 2.0), before[0] + 2 * before[1])
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])
