"""The training loop: it learns, stops, resumes to the same end, and says what is wrong."""

import time

import pytest
import torch
from torch import nn

from lfx_utils.training import evaluate, fit
from lfx_utils.training.resume import checksum


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
        (None, {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        (None, {"epochs": -1}, "epochs must be an integer of at least 1, got -1"),
        ((torch.rand(3, 3), torch.tensor([[1.0], [float("nan")], [0.0]])), {}, r"data\[1\] holds 1 NaN"),
        (None, {"validation": (torch.rand(0, 3), torch.rand(0, 1))}, "validation must hold non-empty"),
        (None, {"validation": (torch.rand(9, 3), torch.rand(8, 1))}, r"validation .* lengths \[9, 8\]"),
        (None, {"validation": (torch.rand(9, 3),)}, "validation must hold as many tensors as data, 2, got 1"),
        (None, {"optimiser": torch.optim.Adam(nn.Linear(3, 1).parameters())}, "optimiser must hold parameters of the"),
    ],
)
def test_bad_arguments(data, options, message):
    with pytest.raises(ValueError, match=message):
        fit(linear(), square, data or problem(), **{"epochs": 1} | options)


def run(checkpoint, *, model=None, loss=noisy, data=None, **options):
    """A short training of a linear model; what came of it, and how often its loss was asked for."""
    model, calls = model or linear(), []

    def counting(*arguments):
        calls.append(1)
        return loss(*arguments)

    asked = {"epochs": 2, "batch_size": 16, "optimiser": torch.optim.Adam(model.parameters(), 1e-2)}
    fit(model, counting, data or problem(), checkpoint=checkpoint, **asked | options)
    return model, len(calls)


def other_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5))


OTHERS = {
    "data": {"data": tuple(10 * each for each in problem())},
    "one value of the data": {"data": tuple(each + (each == each.max()) * 1e-3 for each in problem())},
    "first weights": {"model": nn.Linear(3, 1)},
    "architecture": {"model": nn.Linear(3, 1, bias=False)},
    "a layer without weights": {"model": other_model()},
    "precision": {"model": linear().double(), "data": tuple(each.double() for each in problem())},
    "loss": {"loss": lambda model, x, y: (model(x) - y).abs().mean()},
    "weight of a term in the loss": {"loss": lambda model, x, y: noisy(model, x, y) + 1e-2 * model.weight.norm()},
    "seed": {"seed": 1},
    "batch_size": {"batch_size": 8},
    "validation": {"validation": problem()},
    "snapshot_every": {"snapshot_every": 1},
    "optimiser": {"optimiser": torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1e-2)},
    "what else tells runs apart": {"run": {"encoder": "abc"}},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_run_is_refused_before_any_training(other, tmp_path):
    run(tmp_path / "c.pt")
    kept, options = (tmp_path / "c.pt").read_bytes(), dict(OTHERS[other])
    if "optimiser" in options:
        options["model"] = linear()
        options["optimiser"] = torch.optim.SGD(options["model"].parameters(), 1e-2)
    with pytest.raises(ValueError, match="c.pt is another run's, which differs in: .*; delete it, or name another"):
        run(tmp_path / "c.pt", **options)
    assert (tmp_path / "c.pt").read_bytes() == kept


def test_the_refusal_says_what_differs(tmp_path):
    run(tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"differs in: data, loss, batch_size \(16 there, 8 here\); delete"):
        run(tmp_path / "c.pt", batch_size=8, data=tuple(each.flip(0) for each in problem()))


def test_a_finished_run_is_returned_and_later_draws_are_the_same(tmp_path):
    model, asked = run(tmp_path / "c.pt")
    later = torch.rand(3)
    again, few = run(tmp_path / "c.pt")
    assert torch.equal(torch.rand(3), later) and few == 1 < asked  # one look at the loss, by which runs are told apart
    assert torch.equal(model.weight, again.weight)
    with pytest.raises(ValueError, match="holds 2 epochs of this run, and epochs=1 are fewer"):
        run(tmp_path / "c.pt", epochs=1)


def test_keeping_a_checkpoint_changes_nothing_in_the_training(tmp_path):
    def norm():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))

    plain, kept = (run(path, model=norm())[0] for path in (None, tmp_path / "c.pt"))
    for one, other in zip(plain.state_dict().values(), kept.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_checkpoints_that_cannot_be_are_told_before_the_training(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "c.pt").write_bytes(b"half a file")
    torch.save({"model": {}}, tmp_path / "older.pt")
    for path, message in (
        (tmp_path, "must name a file, got the folder"),
        (tmp_path / "file" / "c.pt", "must name a file that can be written"),
        (tmp_path / "c.pt", "is damaged, or is no file of a training"),
        (tmp_path / "older.pt", "is damaged, or is no file of a training"),
    ):
        model = linear()
        with pytest.raises(ValueError, match=message):
            run(path, model=model)
        assert torch.equal(model.weight, linear().weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_checksums_of_tensors_of_any_kind(dtype):
    whole = (torch.arange(24).view(4, 6) % 5 % 2).to(dtype)
    assert checksum(whole.T.contiguous()) == checksum(whole.T) != checksum(whole)
    assert checksum({"a": whole}) != checksum({"b": whole})
    assert checksum([whole, None]) != checksum([whole, 1]) and checksum(whole[0, 0]) != checksum(whole[0, 1])


def test_checksums_of_a_large_data_set_are_quick():
    images = torch.zeros(60_000, 1, 28, 28)
    began = time.process_time()
    checksum(images)
    assert time.process_time() - began < 1.5  # 0.13 s on the machine that this was written on


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


def test_weights_that_break_in_the_last_step_are_not_kept():
    # The loss is finite, its gradient is not: the root has an infinite slope at 0.
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    with pytest.raises(FloatingPointError, match="a weight is not finite in epoch 1"):
        fit(model, lambda m, x: m(x).abs().sqrt().mean(), (torch.ones(4, 1),), epochs=1)
    assert model.weight.item() == 0


def test_validation_data_stay_what_they_were_where_a_model_works_in_place():
    class Centred(nn.Linear):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    validation = problem()
    fit(Centred(3, 1), square, problem(), epochs=2, validation=validation)
    assert all(map(torch.equal, validation, problem()))
