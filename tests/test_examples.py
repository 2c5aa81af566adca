"""Example importance against closed forms, one example at a time, scikit-learn, SciPy and retraining."""

import copy
import math
import sys

import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors
from torch import nn

from lfx_utils.examples import (
    contrastive,
    curvature,
    dknn,
    influence,
    represent,
    similarity_rates,
    simplex,
    top,
    tracin,
)
from lfx_utils.examples.curvature import gauss_newton_product
from lfx_utils.examples.problem import problem
from lfx_utils.models.autoencoders import Autoencoder, mnist_autoencoder
from lfx_utils.models.sequences import WindowTransformer, ecg_autoencoder
from lfx_utils.models.simclr import augment, projected, small_encoder


def rand(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def mse(model, x):
    return (model(x) - x).square().mean()


def denoising(model, x):
    return (model(x + 0.3 * torch.randn_like(x)) - x).square().mean()


def close(found, expected, tolerance):
    """Equal to within `tolerance` of the largest score."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def trained_a_little(model, x, seed=0):
    """A few steps in training mode: batch norm's statistics and the biases are no longer a fresh model's."""
    torch.manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        optimiser.zero_grad()
        mse(model.train(), x).backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return model.eval()


def convolutional():
    torch.manual_seed(0)
    x = torch.rand(14, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return trained_a_little(mnist_autoencoder(), x), x


def recurrent():
    torch.manual_seed(0)
    x = torch.rand(9, 12, 1, generator=torch.Generator().manual_seed(0))
    return trained_a_little(ecg_autoencoder(3, 12), x), x


def attending():
    torch.manual_seed(0)
    x = torch.rand(9, 20, 1, generator=torch.Generator().manual_seed(0))
    decoder = nn.Sequential(nn.Linear(4, 20), nn.Unflatten(1, (20, 1)))
    return trained_a_little(Autoencoder(WindowTransformer(4, 20, width=8), decoder), x), x


class Gated(nn.Module):
    """A recurrent encoder that is no LSTM: sequences (B, T, 4) to (B, 4)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(4, 4, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0][:, -1]


MODELS = pytest.mark.parametrize("make", [convolutional, recurrent, attending])


def gradients_one_by_one(model, loss, x, draws=(None,)):
    """Plain autograd, one example at a time; a draw's number seeds the noise."""
    rows = []
    for i in range(len(x)):
        total = 0
        for draw in draws:
            if draw is not None:
                torch.manual_seed(draw)
            total += torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss(model, x[i : i + 1]), list(model.encoder.parameters()))]
            )
        rows.append(total / len(draws))
    return torch.stack(rows)


# --- representations
# ------------------------------------------------------------------------------------------------


def test_represent_equals_one_call():
    model, x = convolutional()
    close(represent(model.encoder, x, batch_size=5), model.encoder(x).detach(), 1e-6)
    with pytest.raises(ValueError, match="training mode"):
        represent(model.encoder.train(), x)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_dknn_against_scikit_learn(k):
    test, train = rand(300, 5), rand(40, 5, seed=1)
    distances, indices = NearestNeighbors(n_neighbors=k).fit(train.numpy()).kneighbors(test.numpy())
    expected = torch.zeros(300, 40, dtype=torch.double).scatter_(1, torch.tensor(indices), 1 / torch.tensor(distances))
    close(dknn(test, train, k), expected, 1e-12)
    if k == 40:
        close(dknn(test, train), expected, 1e-12)


def test_dknn_kernels_against_scikit_learn():
    test, train = rand(6, 5), rand(40, 5, seed=1)
    variance = train.var(0, correction=0).sum().item()
    close(dknn(test, train, kernel="rbf"), torch.tensor(rbf_kernel(test, train, gamma=0.5 / variance)), 1e-12)
    close(dknn(test, train, kernel="polynomial"), torch.tensor(polynomial_kernel(test, train, degree=2)), 1e-12)
    close(dknn(test, train, kernel=lambda a, b: a @ b.T), test @ train.T, 1e-12)


def test_dknn_survives_identical_points_and_far_origins():
    train = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 1_000
    scores = dknn(train[:4], train)
    assert torch.isfinite(scores).all()
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]
    exact = 1 / (train[:4, None].double() - train[None].double()).norm(dim=2)
    off = ~torch.eye(4, 50, dtype=torch.bool)
    # A distance computed as ‖a‖² + ‖b‖² − 2⟨a, b⟩ would have lost every digit here.
    torch.testing.assert_close(scores[off].double(), exact[off], rtol=1e-5, atol=0)
    assert torch.isfinite(dknn(torch.ones(2, 3), torch.ones(5, 3))).all()


def objective(weights, test, train):
    return (test - weights @ train).square().sum(1)


@pytest.mark.parametrize("size, reach", [(2, 1.0), (2, 4.0), (9, 1.0), (30, 1.0)])
def test_simplex_against_slsqp(size, reach):
    """Inside and outside the hull, with fewer and with more points than dimensions."""
    test, train = reach * rand(4, size), rand(12, size, seed=1)
    found = simplex(test, train)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.double))
    for row, h in zip(found, test, strict=True):
        best = minimize(
            lambda w, h=h: objective(torch.tensor(w)[None], h[None], train).item(),
            [1 / 12] * 12,
            jac=lambda w, h=h: (2 * (torch.tensor(w) @ train - h) @ train.T).numpy(),
            bounds=[(0, 1)] * 12,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert objective(row[None], h[None], train).item() <= best.fun + 1e-6


def test_simplex_picks_the_least_norm_of_many_solutions():
    """In one dimension the answer is known: all points on a line, target at their mean, uniform weights."""
    train = rand(7, 1)
    close(simplex(train.mean(0, keepdim=True), train), torch.full((1, 7), 1 / 7, dtype=torch.double), 1e-6)
    test, train = 0.3 * rand(5, 3), rand(40, 3, seed=1)
    found = simplex(test, train)
    for row in found:
        # Among the positive weights no move that keeps sum and reconstruction may shorten λ.
        support = row > 1e-9
        free = torch.linalg.svd(torch.cat([train[support], torch.ones(int(support.sum()), 1)], 1).T).Vh[4:]
        assert (free @ row[support]).abs().max() < 1e-6


def test_simplex_never_worse_than_adam_and_adam_is_algorithm_4():
    test, train = rand(6, 3), rand(25, 3, seed=1)
    adam = simplex(test, train, solver="adam", epochs=300, learning_rate=0.05)
    assert (objective(simplex(test, train), test, train) <= objective(adam, test, train) + 1e-7).all()
    # One step of Adam moves each preweight by the learning rate against the sign of its gradient.
    step = simplex(test, train, solver="adam", epochs=1, learning_rate=0.05)
    uniform = torch.full((6, 25), 1 / 25, dtype=torch.double)
    slope = 2 * (uniform @ train - test) @ train.T
    sign = (slope - slope.mean(1, keepdim=True)).sign()
    close(step, (-0.05 * sign).softmax(1), 1e-5)


def test_simplex_shares_between_duplicates_and_finds_a_training_point():
    train = rand(10, 20)
    weights = simplex(train[:2], torch.cat([train, train[:1]]))
    torch.testing.assert_close(weights[0, 0], weights[0, 10])
    assert weights[0, 0] == pytest.approx(0.5, abs=1e-4)
    assert weights[1, 1] == pytest.approx(1, abs=1e-4)
    constant = simplex(rand(2, 3), torch.ones(4, 3, dtype=torch.double))
    close(constant, torch.full((2, 4), 0.25, dtype=torch.double), 1e-9)


@pytest.mark.parametrize("reach", [1.0, 4.0])
def test_representation_based_scores_are_invariant_under_rotations(reach):
    """LF Prop. A.5; a shear breaks it."""
    test, train = reach * rand(5, 4), rand(60, 4, seed=1)
    rotation = torch.linalg.qr(rand(4, 4, seed=2)).Q
    shear = torch.eye(4, dtype=torch.double) + torch.triu(torch.ones(4, 4, dtype=torch.double), 1)
    for method in (
        dknn,
        lambda a, b: dknn(a, b, 5, "rbf"),
        lambda a, b: dknn(a, b, kernel="polynomial"),
        simplex,
    ):
        close(method(test @ rotation, train @ rotation), method(test, train), 1e-6)
        assert (method(test @ shear, train @ shear) - method(test, train)).abs().max() > 1e-3 * method(
            test, train
        ).abs().max()


def test_representation_based_bad_input():
    test, train = rand(3, 2), rand(4, 2)
    for call, words in (
        (lambda: dknn(test, train, 5), "k must lie between 1 and the 4"),
        (lambda: dknn(test, train, 0), "k must lie"),
        (lambda: dknn(test, train[:, :1]), "latent size"),
        (lambda: dknn(test, train, kernel="cosine"), "kernel must be"),
        (lambda: dknn(test * math.nan, train), "h_test holds 6 NaN"),
        (lambda: simplex(test, train[:, :, None]), "shape"),
        (lambda: simplex(test, train, solver="qp"), "solver must be"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# --- ranking
# --------------------------------------------------------------------------------------------------------


def test_similarity_rates_against_a_loop():
    scores = rand(20, 30)
    test_labels = torch.randint(3, (20,), generator=torch.Generator().manual_seed(0))
    train_labels = torch.randint(3, (30,), generator=torch.Generator().manual_seed(1))
    most, least = similarity_rates(scores, test_labels, train_labels, (1, 4, 30))
    for i in range(20):
        order = sorted(range(30), key=lambda n, i=i: -scores[i, n].item())
        for column, m in enumerate((1, 4, 30)):
            hits = [train_labels[n].item() == test_labels[i].item() for n in order]
            assert most[i, column].item() == pytest.approx(sum(hits[:m]) / m)
            assert least[i, column].item() == pytest.approx(sum(hits[-m:]) / m)


def test_top_and_bad_input():
    scores = torch.tensor([[3.0, -1.0, 2.0], [0.0, 0.0, 0.0]])
    proponents, opponents = top(scores, 2)
    assert proponents.tolist() == [[0, 2], [0, 1]] and opponents.tolist() == [[1, 2], [0, 1]]
    labels = torch.tensor([0, 1])
    for error, call, words in (
        (ValueError, lambda: top(scores, 4), "k must lie between 1 and the 3"),
        (ValueError, lambda: top(scores / 0, 1), "NaN or infinite"),
        (TypeError, lambda: similarity_rates(scores, None, torch.tensor([0, 1, 1])), "labelled set"),
        (
            TypeError,
            lambda: similarity_rates(scores, labels.float(), torch.tensor([0, 1, 1]), (1,)),
            "integer labels",
        ),
        (
            ValueError,
            lambda: similarity_rates(scores, labels, torch.tensor([0, -1, 1]), (1,)),
            "1 examples as unlabelled",
        ),
        (ValueError, lambda: similarity_rates(scores, labels, labels, (1,)), "must have shape"),
        (
            ValueError,
            lambda: similarity_rates(scores, labels, torch.tensor([0, 1, 1]), (1, 4)),
            "counts must lie",
        ),
    ):
        with pytest.raises(error, match=words):
            call()


# --- TracIn
# ---------------------------------------------------------------------------------------------------------


@MODELS
def test_tracin_against_autograd_one_by_one(make):
    model, x = make()
    checkpoints = [
        (copy.deepcopy(trained_a_little(model, x, seed).state_dict()), rate) for seed, rate in ((1, 0.1), (2, 0.03))
    ]
    expected = 0
    for state, rate in checkpoints:
        model.load_state_dict(state)
        rows = gradients_one_by_one(model, mse, x)
        expected = expected + rate * rows[:3] @ rows[3:].T
    trained_a_little(model, x, seed=3)  # the model's own weights play no part
    close(tracin(model, mse, checkpoints, x[:3], x[3:]), expected, 1e-5)
    close(tracin(model, mse, checkpoints, x[:3], x[3:], memory=0.01), expected, 1e-5)


@MODELS
def test_tracin_averages_fixed_draws_of_noise(make):
    model, x = make()
    state = [(model.state_dict(), 1.0)]
    rows = gradients_one_by_one(model, denoising, x, draws=(5, 6, 7))
    close(tracin(model, denoising, state, x[:3], x[3:], draws=3, seed=5), rows[:3] @ rows[3:].T, 1e-5)


def test_tracin_as_published_takes_batch_norm_over_one_example():
    model, x = convolutional()
    published = tracin(model, mse, [(model.state_dict(), 1.0)], x[:3], x[3:], as_published=True)
    untouched = copy.deepcopy(model.state_dict())
    rows = gradients_one_by_one(model.train(), mse, x)
    close(published, rows[:3] @ rows[3:].T, 1e-4)
    model.load_state_dict(untouched)
    first, second = (
        tracin(model, denoising, [(untouched, 1.0)], x[:3], x[3:], as_published=True, seed=seed) for seed in (0, 1)
    )
    again = tracin(model, denoising, [(untouched, 1.0)], x[:3], x[3:], as_published=True, seed=0)
    assert torch.equal(first, again) and not torch.allclose(first, second)


def test_tracin_works_for_other_recurrent_layers():
    torch.manual_seed(0)
    model, x = (
        Autoencoder(Gated(), nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 4)))).eval(),
        torch.rand(6, 3, 4),
    )
    rows = gradients_one_by_one(model, mse, x)
    close(tracin(model, mse, [(model.state_dict(), 1.0)], x[:2], x[2:]), rows[:2] @ rows[2:].T, 1e-5)


def test_tracin_counts_a_shared_weight_once():
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(5, 5), nn.Linear(5, 5)
    decoder.weight = encoder.weight
    model, x = Autoencoder(encoder, decoder).eval(), torch.rand(6, 5)
    rows = gradients_one_by_one(model, mse, x)
    close(tracin(model, mse, [(model.state_dict(), 1.0)], x[:2], x[2:]), rows[:2] @ rows[2:].T, 1e-5)


def test_loss_based_scores_depend_on_the_decoder():
    """LF, after Prop. A.5: a rotated latent space keeps them only if the decoder undoes the rotation."""
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(6, 3), nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6))
    rotation, undo = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    nn.init.orthogonal_(rotation.weight)
    undo.weight.data = rotation.weight.data.T.clone()
    x = torch.rand(9, 6)

    def scores(*layers):
        model = Autoencoder(encoder, nn.Sequential(*layers))
        return tracin(model, mse, [(model.state_dict(), 1.0)], x[:2], x[2:])

    close(scores(rotation, undo, decoder), scores(decoder), 1e-5)
    assert (scores(rotation, decoder) - scores(decoder)).abs().max() > 0.01 * scores(decoder).abs().max()


def test_contrastive_tracin_against_autograd_one_by_one():
    torch.manual_seed(0)
    model, x = projected(small_encoder(4), 16, 8, 5).eval(), torch.rand(14, 3, 16, 16)
    loss = contrastive(augment, x[9:])
    rows = gradients_one_by_one(model, loss, x[:9], draws=(0, 1))
    close(tracin(model, loss, [(model.state_dict(), 1.0)], x[:3], x[3:9], draws=2), rows[:3] @ rows[3:].T, 1e-4)


def test_contrastive_loss_is_cross_entropy_with_the_positive_first():
    negatives = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    loss = contrastive(lambda x: x, negatives, temperature=1.0)
    expected = math.log(1 + math.exp(-1) + math.exp(-2))  # cosines 1, 0 and −1 with x = (2, 0)
    assert loss(nn.Identity(), torch.tensor([[2.0, 0.0]])).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="temperature"):
        contrastive(lambda x: x, negatives, temperature=0)


# --- influence functions
# --------------------------------------------------------------------------------------------


def linear_problem(train_size=30):
    """A linear encoder W behind which a fixed decoder V makes a quadratic loss: everything is known in closed form."""
    torch.manual_seed(0)
    model = Autoencoder(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False)).double().eval()
    test, train = rand(5, 4, seed=1), rand(train_size, 4, seed=2)
    w, v = model.encoder.weight.detach(), model.decoder.weight.detach()

    def slopes(x):  # of the mean square over 4 entries, with respect to W row by row
        return torch.stack([torch.kron(v.T @ (v @ w @ row - row) / 2, row) for row in x])

    hessian = torch.kron(v.T @ v / 2, train.T @ train / train_size)
    return model, test, train, slopes, hessian


SOLVERS = [
    {"solver": "direct"},
    {"solver": "cg", "tolerance": 1e-10},
    {"solver": "cg", "curvature": "hessian", "tolerance": 1e-10},
    {"solver": "lissa", "scale": 2.0, "depth": 250, "samples": 1_000, "tolerance": 1e-10},
    {"solver": "lissa", "tolerance": 1e-10},
]


@pytest.mark.parametrize(
    "settings", SOLVERS, ids=lambda settings: "-".join(str(value) for value in list(settings.values())[:2])
)
@pytest.mark.parametrize("train_size", [3, 30])
def test_influence_against_the_closed_form(settings, train_size):
    """With fewer examples than parameters the direct solver works in the latent space, else in theirs."""
    model, test, train, slopes, hessian = linear_problem(train_size)
    expected = slopes(test) @ torch.linalg.solve(hessian + 0.1 * torch.eye(8), slopes(train).T) / train_size
    close(influence(model, mse, test, train, damping=0.1, **settings), expected, 1e-6)


def test_lissa_with_few_samples_comes_near():
    model, test, train, slopes, hessian = linear_problem()
    expected = slopes(test) @ torch.linalg.solve(hessian + 0.1 * torch.eye(8), slopes(train).T) / 30
    found = influence(model, mse, test, train, damping=0.1, solver="lissa", scale=10.0, depth=300, samples=20)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99


def test_published_lissa_returns_the_plain_gradient():
    """Erratum 10: scale 1,000, depth 100, one sample, damping 10⁻³ · 1,000."""
    torch.manual_seed(0)
    x = torch.rand(12, 9)
    model = trained_a_little(
        Autoencoder(nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 2)), nn.Linear(2, 9)), x
    )
    rows = gradients_one_by_one(model, mse, x)
    with pytest.warns(UserWarning, match="has not converged.*cosine with the plain gradient 0.99"):
        found = influence(model, mse, x[:2], x[2:], damping=1.0, solver="lissa", scale=1_000.0, depth=100, samples=1)
    assert torch.cosine_similarity(found, rows[:2] @ rows[2:].T).min() > 0.999
    converged = influence(model, mse, x[:2], x[2:], damping=1e-3)
    assert torch.cosine_similarity(converged, rows[:2] @ rows[2:].T).max() < 0.99


@MODELS
@pytest.mark.parametrize("draws", [1, 2])
def test_direct_agrees_with_conjugate_gradients(make, draws):
    model, x = make()
    model, x = model.double(), x.double()
    direct = influence(model, denoising, x[:2], x[2:7], damping=1e-2, draws=draws)
    close(
        influence(model, denoising, x[:2], x[2:7], damping=1e-2, draws=draws, solver="cg", tolerance=1e-8),
        direct,
        1e-5,
    )
    noiseless = influence(model, mse, x[:2], x[2:7], damping=1e-2)
    assert (noiseless - direct).abs().max() > 1e-3 * direct.abs().max()


@MODELS
def test_gauss_newton_products_agree_whether_formed_or_not(make, monkeypatch):
    model, x = make()
    model, x, found = model.double(), x.double(), []
    for held in (curvature.HELD, 0):
        monkeypatch.setattr(curvature, "HELD", held)
        with problem(model, denoising, "encoder", x[0]) as setting:
            size = sum(parameter.numel() for parameter in model.encoder.parameters())
            found.append(gauss_newton_product(setting, x[:5], 2, 3)(rand(3, size)))
    close(*found, 1e-9)


@MODELS
def test_hessian_products_against_finite_differences(make):
    """With a damping far above the curvature, (H + λI)⁻¹ g ≈ g/λ − Hg/λ², whose Hg finite differences give."""
    model, x = make()
    model, x = model.double(), x.double()
    test, train, damping, step = x[:1], x[1:6], 1e4, 1e-6
    found = influence(model, mse, test, train, damping=damping, solver="cg", curvature="hessian", tolerance=1e-14)
    slope, rows = gradients_one_by_one(model, mse, test)[0], gradients_one_by_one(model, mse, train)
    parameters = nn.utils.parameters_to_vector(model.encoder.parameters()).detach()
    moved = []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(parameters + sign * step * slope / slope.norm(), model.encoder.parameters())
        moved.append(gradients_one_by_one(model, mse, train).mean(0))
    product = (moved[0] - moved[1]) * slope.norm() / (2 * step)
    second = rows @ slope / len(train) - damping * found[0]
    close(second * damping, rows @ product / len(train), 0.02)


def test_influence_against_leave_one_out_retraining():
    """A ridge-regularised linear encoder, retrained in closed form without each example in turn."""
    model, test, train, _, _ = linear_problem(200)
    v, ridge = model.decoder.weight.detach(), 0.05

    def fit(x, size):  # stationary point of Σ‖x − VWx‖²/4 + size · ridge/2 ‖W‖², summed over x
        system = torch.kron(v.T @ v / 2, x.T @ x) + size * ridge * torch.eye(8)
        return torch.linalg.solve(system, (v.T @ x.T @ x / 2).flatten()).view(2, 4)

    def losses(w):
        return (test - test @ (v @ w).T).square().mean(1)

    model.encoder.weight.data = fit(train, 200)
    kept = [[m for m in range(200) if m != n] for n in range(200)]
    shifts = torch.stack([losses(fit(train[rows], 200)) - losses(fit(train, 200)) for rows in kept], 1)
    found = influence(model, mse, test, train, damping=ridge)
    for row, truth in zip(found, shifts, strict=True):
        assert torch.corrcoef(torch.stack([row, truth]))[0, 1] > 0.99
    assert 0.8 < (found * shifts).sum() / shifts.square().sum() < 1.1


def test_influence_says_what_it_cannot_solve():
    model, test, train, _, _ = linear_problem()
    singular = train.clone()
    singular[:, 3] = 0
    network, x = convolutional()
    gated = Autoencoder(Gated(), nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 4))))
    for call, words in (
        (lambda: influence(model, mse, test, singular, damping=0), "singular at damping=0"),
        (lambda: influence(model, mse, test, train[:3], damping=0), "singular at damping=0"),
        (
            lambda: influence(model, mse, test, singular, damping=0, solver="cg", tolerance=1e-12),
            "singular|converged",
        ),
        (
            lambda: influence(network, mse, x[:2], x[2:], damping=1e-9, solver="cg", curvature="hessian"),
            "not positive definite|converged",
        ),
        (lambda: influence(model, mse, test, train, solver="lissa", scale=0.01, depth=50), "LiSSA diverges"),
        (
            lambda: influence(model, mse, test, train, solver="lissa", scale=1e-9, depth=5_000),
            "LiSSA diverges",
        ),
        (lambda: influence(model, mse, test, train, solver="newton"), "solver must be"),
        (lambda: influence(model, mse, test, train, curvature="hessian"), "curvature must be"),
        (lambda: influence(model, mse, test, train, damping=-1), "damping"),
        (lambda: influence(gated, mse, torch.rand(2, 3, 4), torch.rand(2, 3, 4)), "GRU"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# --- weights that the loss meets outside their layer
# ----------------------------------------------------------------


class Transposed(nn.Module):
    """The decoder is the encoder's weight, transposed."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 3))

    def forward(self, x):
        return self.encoder(x) @ self.encoder[0].weight


def with_hook(model):
    model.encoder[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def normalised(model):
    nn.utils.parametrizations.weight_norm(model.encoder[0])
    return model


def hinge(model, x):
    """A penalty that is zero for some weights and not for others."""
    return mse(model, x) + sum((weight.abs() - 0.3).clamp_min(0).sum() for weight in model.encoder.parameters())


def plain():
    return Autoencoder(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)), nn.Linear(3, 6))


def twice():
    layer = nn.Linear(6, 6)
    return Autoencoder(nn.Sequential(layer, nn.Tanh(), layer), nn.Linear(6, 6))


ELSEWHERE = {
    "transposed": (Transposed, mse),
    "penalty": (plain, hinge),
    "hook": (lambda: with_hook(plain()), mse),
    "weight norm": (lambda: normalised(plain()), mse),
    "called twice": (twice, mse),
    "functional": (plain, lambda m, x: mse(m, x) + nn.functional.linear(x, m.encoder[0].weight.abs()).var()),
    "half detached": (plain, lambda m, x: mse(m, x) + (m.encoder[0](x).detach() - x @ m.encoder[0].weight).var()),
    "two views": (plain, lambda m, x: (m.encoder(x) - m.encoder(x.flip(1))).square().mean() + mse(m, x)),
}


@pytest.mark.parametrize("make, loss", ELSEWHERE.values(), ids=ELSEWHERE)
def test_tracin_wherever_the_loss_meets_a_weight(make, loss):
    torch.manual_seed(0)
    model, x = make().double().eval(), rand(9, 6)
    states = [copy.deepcopy(model.state_dict())]
    states.append({name: 3 * tensor for name, tensor in states[0].items()})
    expected = 0
    for state in states:
        model.load_state_dict(state)
        rows = gradients_one_by_one(model, loss, x)
        expected = expected + rows[:3] @ rows[3:].T
    parameters = list(model.parameters())
    close(tracin(model, loss, [(state, 1.0) for state in states], x[:3], x[3:]), expected, 1e-10)
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))


@pytest.mark.filterwarnings("ignore:The loss uses weights")
@pytest.mark.parametrize("name", ["transposed", "hook", "weight norm", "called twice", "penalty"])
@pytest.mark.parametrize("train_size", [2, 40])
def test_direct_wherever_the_loss_meets_a_weight(name, train_size):
    """Against the definition: plain gradients, and JᵀBJ from autograd's Jacobian and Hessian."""
    torch.manual_seed(0)
    make, loss = ELSEWHERE[name]
    model, test, train = make().double().eval(), rand(3, 6), rand(train_size, 6, seed=1)
    weights = dict(model.encoder.named_parameters())

    def latent(flat, x):
        parts = flat.split([w.numel() for w in weights.values()])
        state = {key: part.view_as(w) for (key, w), part in zip(weights.items(), parts, strict=True)}
        return torch.func.functional_call(model.encoder, state, (x[None],), tie_weights=False)[0]

    def behind(h, x):
        decoded = h @ model.encoder[0].weight if name == "transposed" else model.decoder(h)
        return (decoded - x).square().mean()

    flat, matrix = torch.cat([w.detach().flatten() for w in weights.values()]), 0
    for row in train:
        slopes = torch.func.jacrev(latent)(flat, row)
        matrix = matrix + slopes.T @ torch.func.hessian(behind)(latent(flat, row), row) @ slopes / train_size
    left, right = (gradients_one_by_one(model, loss, each) for each in (test, train))
    expected = left @ torch.linalg.solve(matrix + 0.1 * torch.eye(len(flat)), right.T) / train_size
    close(influence(model, loss, test, train, damping=0.1), expected, 1e-6)
    close(influence(model, loss, test, train, damping=0.1, solver="cg", tolerance=1e-12), expected, 1e-6)


def test_gauss_newton_says_what_it_leaves_out():
    model, x = Transposed().eval(), torch.rand(5, 6)
    with pytest.warns(UserWarning, match=r"outside the encoder.*encoder\.0\.weight"):
        influence(model, mse, x[:2], x[2:])


CONVOLUTIONS = {
    "strided": nn.Conv2d(2, 6, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(2, 6, (3, 2), dilation=(2, 1), bias=False),
    "grouped": nn.Conv2d(2, 6, 3, groups=2),
    "padded by name": nn.Conv2d(2, 6, 3, padding="same"),
    "padded in circles": nn.Conv2d(2, 6, 3, padding=1, padding_mode="circular"),
    "of one position": nn.Conv2d(2, 6, 8),
}


@pytest.mark.parametrize("layer", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_tracin_of_convolutions(layer):
    torch.manual_seed(0)
    encoder = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    model, x = Autoencoder(encoder, nn.Sequential(nn.Linear(3, 128), nn.Unflatten(1, (2, 8, 8)))), rand(7, 2, 8, 8)
    encoder(x.float())
    model = model.double().eval()
    rows = gradients_one_by_one(model, mse, x)
    close(tracin(model, mse, [(model.state_dict(), 1.0)], x[:3], x[3:]), rows[:3] @ rows[3:].T, 1e-10)


@pytest.mark.parametrize("method", ["tracin", "influence"])
def test_parameters_that_training_held_fixed_carry_no_influence(method):
    torch.manual_seed(0)
    model, x = plain().double().eval(), rand(9, 6)

    def scores(model):
        if method == "tracin":
            return tracin(model, mse, [(model.state_dict(), 1.0)], x[:3], x[3:])
        return influence(model, mse, x[:3], x[3:])

    everything = scores(model)
    model.encoder[0].requires_grad_(False)
    head = Autoencoder(model.encoder[2], model.decoder)
    z = model.encoder[:2](x).detach()
    alone = Autoencoder(nn.Sequential(model.encoder[:2], head.encoder), model.decoder).eval()
    found = scores(model)
    assert (found - everything).abs().max() > 1e-3 * everything.abs().max()
    if method == "tracin":
        slopes = [
            torch.autograd.grad((head(z[i : i + 1]) - x[i : i + 1]).square().mean(), list(head.encoder.parameters()))
            for i in range(9)
        ]
        rows = torch.stack([torch.cat([part.flatten() for part in each]) for each in slopes])
        close(found, rows[:3] @ rows[3:].T, 1e-10)
    else:
        close(found, influence(alone, mse, x[:3], x[3:], part="encoder.1"), 1e-10)
    model.requires_grad_(False)
    close(scores(model), everything, 1e-10)


# --- half precision, copies, refusals before the work
# -------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    model, x = convolutional()
    half, y = copy.deepcopy(model).to(dtype), x.to(dtype)
    wide, z = copy.deepcopy(half).float(), y.float()
    for inputs in (y, z):
        h = represent(half.encoder, inputs)
        assert h.dtype == torch.float32
        close(h, represent(wide.encoder, z), 0.05)
    a, b = rand(4, 20).to(dtype), rand(30, 20, seed=1).to(dtype)
    for method in (
        dknn,
        lambda a, b: dknn(a, b, 3),
        lambda a, b: dknn(a, b, kernel="rbf"),
        lambda a, b: dknn(a, b, 3, "polynomial"),
        simplex,
        lambda a, b: simplex(a, b, solver="adam", epochs=20),
    ):
        assert torch.equal(method(a, b), method(a.float(), b.float()))
        assert method(a, b.float()).dtype == torch.float32
    close(
        tracin(half, mse, [(half.state_dict(), 1.0)], y[:2], y[2:6]),
        tracin(wide, mse, [(wide.state_dict(), 1.0)], z[:2], z[2:6]),
        1e-6,
    )
    close(influence(half, mse, y[:2], y[2:6]), influence(wide, mse, z[:2], z[2:6]), 1e-5)
    assert all(parameter.dtype == dtype for parameter in half.parameters())
    scores = rand(3, 8).to(dtype)
    assert torch.equal(top(scores, 3)[0], top(scores.float(), 3)[0])
    labels = torch.arange(8) % 3
    assert torch.equal(
        similarity_rates(scores, labels[:3], labels, (2,))[0],
        similarity_rates(scores.float(), labels[:3], labels, (2,))[0],
    )


class InPlace(nn.Module):
    """An encoder that normalises its input in place and counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x.sub_(0.5).mul_(4))


def test_encoders_that_work_in_place_change_nothing():
    torch.manual_seed(0)
    model, x = Autoencoder(InPlace(), nn.Linear(3, 6)).eval(), torch.rand(8, 6)
    kept, state = x.clone(), copy.deepcopy(model.state_dict())
    represent(model.encoder, x)
    assert torch.equal(x, kept)
    model.load_state_dict(state)
    checkpoint = copy.deepcopy(state)
    rows = gradients_one_by_one(model, mse, x.clone())
    model.load_state_dict(state)
    close(tracin(model, mse, [(checkpoint, 1.0)], x[:2], x[2:]), rows[:2] @ rows[2:].T, 1e-5)
    influence(model, mse, x[:2], x[2:], damping=0.1)
    assert torch.equal(x, kept)
    for found in (checkpoint, model.state_dict()):
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_influence_refuses_before_the_work():
    seen = []

    def counted(model, x):
        seen.append(len(x))
        return mse(model, x)

    model = nn.Sequential(nn.Linear(200, 100), nn.Linear(100, 200)).eval()
    with pytest.raises(ValueError, match=r"20,000 unknowns, the smaller of 40,300 parameters and of 100 training"):
        influence(model, counted, torch.rand(2, 200), torch.rand(100, 200), part="")
    assert seen == [1]


def test_tracin_holds_no_more_gradients_than_memory_allows(monkeypatch):
    module, held = sys.modules["lfx_utils.examples.tracin"], []
    original = module.loss_gradients

    def counted(setting, examples, **options):
        held.append(len(examples))
        return original(setting, examples, **options)

    monkeypatch.setattr(module, "loss_gradients", counted)
    torch.manual_seed(0)
    model, x = plain().eval(), torch.rand(60, 6)
    state = [(model.state_dict(), 1.0)]
    full = tracin(model, mse, state, x[:25], x[25:])
    assert max(held) == 35 and len(held) == 2
    held.clear()
    # An encoder of 63 parameters, whose layers' rows take 24 numbers more.
    few = tracin(model, mse, state, x[:25], x[25:], memory=40 * 4 * 90 / 2**20)
    assert max(held) <= 20 and sum(held) > 60
    close(few, full, 1e-5)


def test_checkpoints_are_pairs():
    model, x = convolutional()
    state = model.state_dict()
    broken = {**state, "encoder.0.bias": torch.full_like(state["encoder.0.bias"], math.nan)}
    for error, checkpoints, words in (
        (TypeError, [state], r"pair \(state dict of the model, learning rate\), got OrderedDict at checkpoints\[0\]"),
        (TypeError, state, "checkpoints must be a list of pairs"),
        (TypeError, (state, 0.1), "got OrderedDict at checkpoints"),
        (TypeError, [(0.1, state)], "pair"),
        (ValueError, [(state, math.nan)], r"learning rate of checkpoints\[0\] must be a finite number"),
        (ValueError, [(state, None)], "must be a finite number"),
        (ValueError, [(state, 0.1), (broken, 0.1)], "Checkpoint 1 holds NaN or infinite values in encoder.0.bias"),
    ):
        with pytest.raises(error, match=words):
            tracin(model, mse, checkpoints, x[:2], x[2:])


@pytest.mark.parametrize("size", [3, 40])
def test_neighbours_of_near_duplicates_are_exact(size):
    """A product of matrices alone would lose these distances; clusters larger than the shortlist are found, too."""
    train = torch.randn(400, size, generator=torch.Generator().manual_seed(0)) + 3
    train[100:200] = train[0] + 1e-4 * torch.randn(100, size, generator=torch.Generator().manual_seed(1))
    train[200:300] = train[1]
    test = torch.cat([train[:20] + 1e-4, train[150:160]])
    exact = (test[:, None].double() - train[None].double()).norm(dim=2)
    expected = exact.sort(dim=1).values[:, :5]
    scores = dknn(test, train, 5)
    assert (scores > 0).sum(1).tolist() == [5] * 30
    found = (1 / scores.topk(5).values.double()).clamp_min(1e-5)
    torch.testing.assert_close(found, expected.clamp_min(1e-5), rtol=2e-3, atol=1e-6)
    assert dknn(test[1:2], train, 5).nonzero()[:, 1].tolist() == [1, 200, 201, 202, 203]
    everything = dknn(test, train)
    torch.testing.assert_close(everything.gather(1, scores.topk(5).indices), scores.topk(5).values)
    far = exact > 1
    torch.testing.assert_close(1 / everything[far].double(), exact[far], rtol=1e-5, atol=0)


def test_top_breaks_ties_by_the_lower_index():
    scores = torch.randint(4, (50, 300), generator=torch.Generator().manual_seed(0)).float()
    for k in (1, 7, 299, 300):
        assert torch.equal(top(scores, k)[0], scores.argsort(dim=1, descending=True, stable=True)[:, :k])
        assert torch.equal(top(scores, k)[1], scores.argsort(dim=1, stable=True)[:, :k])


# --- both loss-based methods
# ----------------------------------------------------------------------------------------


def test_checkpoints_of_another_architecture_are_named():
    model, x = convolutional()
    state = model.state_dict()
    other = {**state, "encoder.0.weight": torch.zeros(3, 1, 3, 3), "head.weight": torch.zeros(2)}
    del other["decoder.0.bias"]
    with pytest.raises(
        ValueError,
        match=r"Checkpoint 1 .*missing: decoder.0.bias; unexpected: head.weight.*0.weight \(3, 1, 3, 3\) instead",
    ):
        tracin(model, mse, [(state, 1.0), (other, 1.0)], x[:2], x[2:])
    with pytest.raises(ValueError, match="checkpoints is empty"):
        tracin(model, mse, [], x[:2], x[2:])


@pytest.mark.parametrize(
    "method", [lambda m, *rest, **k: tracin(m, rest[0], [(m.state_dict(), 1.0)], *rest[1:], **k), influence]
)
def test_loss_based_bad_input(method):
    model, x = convolutional()
    for call, words in (
        (
            lambda: method(model, mse, x[:2], x[2:], part="trunk"),
            "part='trunk' is no submodule.*encoder, decoder",
        ),
        (lambda: method(model, lambda m, x: (m(x) - x).square(), x[:2], x[2:]), "must return a scalar"),
        (lambda: method(model, mse, x[:0], x), "test is an empty batch"),
        (lambda: method(model, mse, x, x * math.inf), "train holds"),
        (lambda: method(Autoencoder(nn.Flatten(), model.decoder), mse, x[:2], x[2:]), "has no parameters"),
        (lambda: method(model, mse, x[:2], x[2:], draws=0), "draws"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    if method is influence:
        with pytest.raises(ValueError, match="never calls the submodule 'encoder'"):
            influence(model, lambda m, x: x.sum(), x[:2], x[2:])


@MODELS
@pytest.mark.parametrize("fails", [False, True])
def test_models_are_left_as_found(make, fails):
    model, x = make()
    model.encoder.train()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    identities = [id(parameter) for parameter in model.parameters()]
    state, fast_path = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()

    def loss(model, x):
        return denoising(model, x).view(1) if fails else denoising(model, x)

    for call in (
        lambda: tracin(model, loss, [(before, 1.0)], x[:2], x[2:4]),
        lambda: tracin(model, loss, [(before, 1.0)], x[:2], x[2:4], as_published=True),
        lambda: influence(model, loss, x[:2], x[2:4], damping=1.0),
        lambda: influence(model, loss, x[:2], x[2:4], damping=1.0, solver="cg"),
    ):
        if fails:
            with pytest.raises(ValueError, match="scalar"):
                call()
        else:
            call()
    assert [module.training for module in model.modules()] == modes
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(not module._forward_hooks and "forward" not in vars(module) for module in model.modules())
    assert [parameter.grad is None for parameter in model.parameters()] == [False] + [True] * (len(identities) - 1)
    assert torch.equal(torch.get_rng_state(), state) and torch.backends.mha.get_fastpath_enabled() == fast_path


def test_duplicates_share_their_scores():
    model, x = convolutional()
    train = torch.cat([x[3:], x[3:4]])
    h_test, h_train = represent(model.encoder, x[:3]), represent(model.encoder, train)
    for scores in (
        dknn(h_test, h_train),
        simplex(h_test, h_train),
        tracin(model, mse, [(model.state_dict(), 1.0)], x[:3], train),
        influence(model, mse, x[:3], train),
    ):
        torch.testing.assert_close(scores[:, 0], scores[:, -1], rtol=1e-3, atol=1e-5 * scores.abs().max().item())
