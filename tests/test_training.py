"""The training loop: it learns, stops, resumes to the same end, and says what is wrong."""

import pytest
import torch
from torch import nn

from lfx_utils.training import evaluate, fit


def problem():
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    return x, x @ torch.tensor([[1.0], [2.0], [-1.0]])


def square(model, x, y):
    return (model(x) - y).square().mean()


def noisy(model, x, y):
    return (model(x + 0.1 * torch.randn_like(x)) - y).square().mean()


def linear():
    torch.manual_seed(1)
    return nn.Linear(3, 1)


def test_a_linear_model_finds_the_weights_of_a_linear_law():
    model, data = linear(), problem()
    history = fit(
        model, square, data, epochs=200, batch_size=16, optimiser=torch.optim.Adam(model.parameters(), lr=0.05)
    )
    assert torch.allclose(model.weight, torch.tensor([[1.0, 2.0, -1.0]]), atol=1e-2)
    assert history.train[-1] < 1e-3 * history.train[0] and not model.training


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole, parts = linear(), linear()
    fit(whole, noisy, problem(), epochs=6, batch_size=16, validation=problem(), patience=5)
    fit(
        parts, noisy, problem(), epochs=3, batch_size=16, validation=problem(), patience=5, checkpoint=tmp_path / "c.pt"
    )
    parts = linear()
    history = fit(
        parts, noisy, problem(), epochs=6, batch_size=16, validation=problem(), patience=5, checkpoint=tmp_path / "c.pt"
    )
    assert torch.equal(whole.weight, parts.weight) and len(history.train) == 6
    assert not list(tmp_path.glob("*.part"))


def test_early_stopping_returns_the_best_epoch():
    model, (x, y) = linear(), problem()
    # Labels of the opposite sign: every step of training makes the validation loss worse.
    history = fit(
        model,
        square,
        (x, y),
        epochs=50,
        batch_size=16,
        validation=(x, -y),
        patience=3,
        optimiser=torch.optim.Adam(model.parameters(), lr=0.05),
    )
    assert len(history.train) < 50 and len(history.train) == history.best_epoch + 4
    assert evaluate(model, square, (x, -y)) == pytest.approx(min(history.validation))


def test_snapshots_are_copies_at_the_asked_epochs():
    model = linear()
    history = fit(model, square, problem(), epochs=6, batch_size=16, snapshot_every=2)
    assert len(history.snapshots) == 3
    assert torch.equal(history.snapshots[-1]["weight"], model.weight) and not torch.equal(
        history.snapshots[0]["weight"], model.weight
    )


def test_divergence_is_an_error_and_the_last_finite_weights_stay():
    model = linear()
    with pytest.raises(FloatingPointError, match="diverging: the loss is .* in epoch"):
        fit(
            model,
            square,
            problem(),
            epochs=200,
            batch_size=16,
            optimiser=torch.optim.SGD(model.parameters(), lr=1e4),
            name="diverging",
        )
    assert torch.isfinite(model.weight).all() and not model.training


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((torch.rand(3, 3), torch.rand(2, 1)), {}, r"lengths \[3, 2\]"),
        ((torch.rand(0, 3), torch.rand(0, 1)), {}, "non-empty"),
        (None, {"patience": 2}, "patience needs validation"),
    ],
)
def test_bad_arguments(data, options, message):
    with pytest.raises(ValueError, match=message):
        fit(linear(), square, data or problem(), epochs=1, **options)


def test_a_checkpoint_of_another_model_or_a_damaged_one_is_refused(tmp_path):
    fit(linear(), square, problem(), epochs=1, checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="does not fit this model or is damaged"):
        fit(nn.Linear(3, 2), square, problem(), epochs=2, checkpoint=tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="delete it to start afresh"):
        fit(linear(), square, problem(), epochs=2, checkpoint=tmp_path / "c.pt")


def test_evaluation_is_repeatable_and_leaves_mode_and_generator_alone():
    model, data = linear(), problem()
    assert evaluate(model, noisy, data) == evaluate(model, noisy, data)
    state = torch.get_rng_state()
    evaluate(model, noisy, data)
    assert torch.equal(torch.get_rng_state(), state) and model.training


def test_batches_of_one_train_and_a_skipped_last_row_does_not_count():
    model = linear()
    before = model.weight.detach().clone()
    history = fit(model, square, problem(), epochs=1, batch_size=1)
    assert history.train[0] > 0 and not torch.equal(model.weight, before)
    constant = lambda model, x: 0 * model(x).sum() + 1.0  # noqa: E731
    assert fit(linear(), constant, (torch.rand(3, 3),), epochs=1, batch_size=2).train == [1.0]
