"""Ensembles: every model against plain PyTorch training of it alone, resuming, stopping, and models that break."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from lfx_utils.datasets import sprites
from lfx_utils.models import vae
from lfx_utils.training import ensembles

BETAS, SEEDS = (1.0, 4.0, 10.0), (0, 5, 9)
MAKE = partial(vae.VAE, 8, 2, width=2)
WEIGHTS = [vae.weights(kind, beta) for kind, beta in zip(("beta", "tc", "tc"), BETAS, strict=True)]
SETTINGS = tuple(zip(*WEIGHTS, strict=True))


@pytest.fixture(scope="module")
def images():
    return torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()


def alone(images, seed, setting, epochs, batch_size=16):
    """The training that an ensemble promises each of its models, with nothing but PyTorch."""
    torch.manual_seed(seed)
    model = MAKE()
    adam, history = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5), []
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=generator)
        noise, total = torch.randn(len(images), 2, generator=generator), 0.0
        for start in range(0, len(images), batch_size):
            batch = order[start : start + batch_size]
            loss = vae.objective(model, images[batch], noise[start : start + batch_size], *setting)
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() * len(batch)
        history.append(total / len(images))
    return model, history


def weights_of(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


@pytest.mark.parametrize("together", [True, False])
def test_every_model_equals_the_one_trained_alone(images, together):
    models = ensembles.build(MAKE, SEEDS)
    start = [weights_of(model) for model in models]
    options = dict(seeds=SEEDS, noise=2, settings=SETTINGS, epochs=4, batch_size=16, together=together)
    records = ensembles.fit(models, vae.objective, images, **options)
    for model, record, first, seed, setting in zip(models, records, start, SEEDS, WEIGHTS, strict=True):
        twin, history = alone(images, seed, setting, epochs=4)
        assert torch.allclose(weights_of(model), weights_of(twin), atol=1e-5)
        assert (weights_of(twin) - first).abs().max() > 1e-3
        assert record.train == pytest.approx(history, rel=1e-5) and record.best_epoch == 3 and not record.stopped
        assert not model.training


def test_stratified_loss_and_prepared_data(images):
    # Indices instead of images, drawn batch by batch: the same as the images themselves.
    index = torch.arange(0, sprites.N, 20_000)
    small = lambda rows: vae.resize(sprites.render(rows), 8)  # noqa: E731
    loss = partial(vae.objective, total=len(index))
    options = dict(seeds=SEEDS, noise=2, settings=SETTINGS, epochs=2, batch_size=10)
    lazy, ready = ensembles.build(MAKE, SEEDS), ensembles.build(MAKE, SEEDS)
    ensembles.fit(lazy, loss, index, prepare=small, together=True, **options)
    ensembles.fit(ready, loss, small(index), together=False, **options)
    for one, other in zip(lazy, ready, strict=True):
        assert torch.allclose(weights_of(one), weights_of(other), atol=1e-5)


def test_build_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second, again = ensembles.build(MAKE, (1, 2, 1))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(weights_of(first), weights_of(again)) and not torch.equal(weights_of(first), weights_of(second))


class Line(nn.Module):
    """One weight, so that what training does to it can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        return self.weight * inputs


def test_early_stopping_freezes_a_model_with_its_best_weights():
    # Adam moves a weight by about 1e-3 a step towards its target; the validation target is 0.003 for both models.
    ones = torch.ones(4, 1)

    def pull(model, inputs, noise, target):
        aim = torch.where(inputs > 0, target, 0.003)
        return (model(inputs.abs()) - aim).square().mean()

    models = [Line(), Line()]
    options = dict(seeds=(0, 1), noise=0, settings=((1.0, -1.0),), epochs=30, batch_size=4, patience=5)
    towards, away = ensembles.fit(models, pull, ones, validation=-ones, **options)
    assert len(away.train) == 6 and away.best_epoch == 0 and "5 epochs" in away.stopped  # only ever farther
    assert len(towards.train) == 8 and towards.best_epoch == 2 and "5 epochs" in towards.stopped
    assert models[0].weight.item() == pytest.approx(0.003, abs=1e-4)
    assert models[1].weight.item() == pytest.approx(-0.001, abs=1e-4)


def test_rate_is_the_step_of_adam():
    # Adam's first step has the length of its rate, whatever the gradient.
    for rate in (1e-3, 0.25):
        model = Line()
        loss = lambda m, x, eps: (m(x) - 5).square().mean()  # noqa: E731
        ensembles.fit([model], loss, torch.ones(4, 1), seeds=[0], noise=0, epochs=1, rate=rate)
        assert model.weight.item() == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("together", [True, False])
def test_a_model_that_breaks_is_named_and_the_others_go_on(images, together):
    def loss(model, inputs, noise, setting):
        return vae.objective(model, inputs, noise, 1.0, 0.0) + 0 * setting.log()

    models = ensembles.build(MAKE, SEEDS)
    before = weights_of(models[1])
    options = dict(noise=2, epochs=3, batch_size=16, together=together)
    with pytest.warns(
        UserWarning, match="the second: loss or weights not finite in epoch 1; it keeps its first weights"
    ):
        names = ["the first", "the second", "the third"]
        records = ensembles.fit(models, loss, images, seeds=SEEDS, settings=((1.0, -1.0, 1.0),), names=names, **options)
    assert [len(record.train) for record in records] == [3, 1, 3] and math.isnan(records[1].train[0])
    assert records[1].best_epoch is None and torch.equal(weights_of(models[1]), before)
    twin, _ = alone(images, SEEDS[2], (1.0, 0.0), epochs=3)
    assert torch.allclose(weights_of(models[2]), weights_of(twin), atol=1e-5)  # as if the second had never been


def test_weights_that_break_in_the_last_step_are_not_kept():
    # The loss is finite, its gradient is not: √ has an infinite slope at 0.
    with pytest.warns(UserWarning, match="model 0: .* epoch 1"):
        model = Line()
        ensembles.fit(
            [model], lambda m, x, eps: m(x).abs().sqrt().mean(), torch.ones(4, 1), seeds=[0], noise=0, epochs=5
        )
    assert model.weight.item() == 0


def test_resumed_training_ends_the_same(images, tmp_path):
    path, whole = tmp_path / "runs" / "ensemble.pt", ensembles.build(MAKE, SEEDS)
    options = dict(seeds=SEEDS, noise=2, settings=SETTINGS, batch_size=16, validation=images[:16], patience=3)
    expected = ensembles.fit(whole, vae.objective, images, epochs=5, **options)
    ensembles.fit(ensembles.build(MAKE, SEEDS), vae.objective, images, epochs=2, checkpoint=path, **options)
    calls = []

    def counting(*arguments):
        calls.append(1)
        return vae.objective(*arguments)

    resumed = ensembles.build(MAKE, SEEDS)
    records = ensembles.fit(resumed, counting, images, epochs=5, checkpoint=path, **options)
    assert records == expected and calls
    for one, other in zip(resumed, whole, strict=True):
        assert torch.equal(weights_of(one), weights_of(other))
    calls.clear()
    done = ensembles.fit(ensembles.build(MAKE, SEEDS), counting, images, epochs=5, checkpoint=path, **options)
    assert done == expected and len(calls) == len(SEEDS)  # one look at each loss, by which runs are told apart
    assert [file.name for file in path.parent.iterdir()] == ["ensemble.pt"]


def test_checkpoints_of_other_runs_and_damaged_ones(images, tmp_path):
    path = tmp_path / "ensemble.pt"

    def train(make=MAKE, seeds=SEEDS, loss=vae.objective, rows=images, **changed):
        options = dict(noise=2, epochs=2, settings=SETTINGS, checkpoint=path, batch_size=16) | changed
        ensembles.fit(ensembles.build(make, seeds), loss, rows, seeds=seeds, **options)

    train()
    for changed, message in (
        ({"seeds": (0, 5, 8)}, "first weights, loss, seeds"),
        ({"make": partial(vae.VAE, 8, 2, width=3)}, "first weights"),
        ({"rows": 1 - images}, "data, loss"),
        ({"loss": lambda *arguments: vae.objective(*arguments) + 0.1}, "loss"),
        ({"settings": (SETTINGS[0], (0.0, 3.0, 9.5))}, "settings"),
        ({"validation": images}, "validation"),
        ({"rate": 1e-2}, r"rate \(0.001 there, 0.01 here\)"),
    ):
        with pytest.raises(ValueError, match=f"ensemble.pt is another run's, which differs in: {message}"):
            train(**changed)
    with pytest.raises(ValueError, match="holds 2 epochs of this run, and epochs=1 are fewer"):
        train(epochs=1)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="ensemble.pt is damaged"):
        train()


def test_bad_arguments(images):
    models, options = ensembles.build(MAKE, SEEDS), dict(noise=2, epochs=1)
    with pytest.raises(ValueError, match="seeds must hold one value a model, 3, got 2"):
        ensembles.fit(models, vae.objective, images, seeds=SEEDS[:2], **options)
    with pytest.raises(ValueError, match=r"settings\[1\] must hold"):
        ensembles.fit(models, vae.objective, images, seeds=SEEDS, settings=(BETAS, BETAS[:1]), **options)
    with pytest.raises(ValueError, match="patience needs validation"):
        ensembles.fit(models, vae.objective, images, seeds=SEEDS, settings=SETTINGS, patience=2, **options)
    with pytest.raises(ValueError, match="at least, got 3 and 1"):
        ensembles.fit(models, vae.objective, images[:1], seeds=SEEDS, settings=SETTINGS, **options)
    with pytest.raises(ValueError, match="at least, got 0 and 50"):
        ensembles.fit([], vae.objective, images, seeds=[], **options)
    for few in (images[:0], images[:1]):
        with pytest.raises(ValueError, match="validation must hold 2 examples"):
            ensembles.fit(models, vae.objective, images, seeds=SEEDS, settings=SETTINGS, validation=few, **options)
    with pytest.raises(ValueError, match="data holds 1600 NaN"):
        broken = images.clone()
        broken[:25] = math.nan
        ensembles.fit(models, vae.objective, broken, seeds=SEEDS, settings=SETTINGS, **options)
    for odd in (vae.VAE(8, 3, width=2), nn.BatchNorm1d(3)):
        with pytest.raises(ValueError, match="one architecture and hold no buffers"):
            ensembles.fit([odd, models[0]], vae.objective, images, seeds=(0, 1), **options)
    with pytest.raises(ValueError, match="one architecture and hold no buffers"):
        ensembles.fit([nn.BatchNorm1d(3)] * 2, vae.objective, images, seeds=(0, 1), **options)
