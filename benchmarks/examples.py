"""Time example importance against the papers' package on LF's MNIST autoencoder, and check the scores of both.

    python -m benchmarks.examples            # about two minutes; needs `pip install lfxai` for the comparison
    python -m benchmarks.examples --loo      # instead: influence functions against retraining

1,000 test × 1,000 training images (MNIST where LFX_DATA has it, else random ones), ten checkpoints, one
thread (`--threads 2` for two, on an idle machine). Ours is timed in full. The package would need hours: it is
timed on small blocks in the same run and extrapolated with T = a·n_test + b·n_train + c·n_test·n_train, where
c is what it spends on a pair (it reads both gradients from disk). Both are charged the processor's seconds,
all threads together, rather than the clock's, for the sake of busy machines. Peak memory is that of the whole
process before the package is imported.
"""

import argparse
import itertools
import resource
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lfx_utils.datasets import load
from lfx_utils.examples import dknn, influence, represent, similarity_rates, simplex, tracin
from lfx_utils.models.autoencoders import Autoencoder, mnist_autoencoder

SIZE, CHECKPOINTS = 1_000, 10
COUNTS = (1, 2, 5, 10, 20, 30, 40, 50)
TARGETS = {"TracIn": 500, "influence": 100, "SimplEx": 10, "similarity rates": 5}


def mse(model, x):
    return (model(x) - x).square().mean()


def images():
    """Two batches of 1,000 images and their labels."""
    data = load("mnist", train=SIZE, test=SIZE)
    if min(len(data.train), len(data.test)) == SIZE:
        print(data.provenance)
        return data.test, data.train, data.test_labels, data.train_labels
    print("Random images, since there are fewer than 1,000 real ones.")
    return (
        torch.rand(SIZE, 1, 28, 28),
        torch.rand(SIZE, 1, 28, 28),
        torch.randint(10, (SIZE,)),
        torch.randint(10, (SIZE,)),
    )


def trained(x):
    """The denoising autoencoder after a short training, and ten checkpoints on the way."""
    model, checkpoints = mnist_autoencoder(), []
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    for _ in range(CHECKPOINTS):
        for rows in torch.randperm(SIZE).split(50):
            optimiser.zero_grad()
            (model(x[rows] + torch.randn_like(x[rows]) / 3**0.5) - x[rows]).square().mean().backward()
            optimiser.step()
        checkpoints.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return model.eval(), checkpoints


def timed(name, function, repeats=2):
    """A function's result and its least seconds of the processor."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    print(f"{name:26} {min(seconds):8.3f} s", flush=True)
    return result, min(seconds)


def extrapolated(measure, blocks):
    """Seconds for 1,000 × 1,000 from those of three blocks (n_test, n_train)."""
    seconds = [measure(*block) for block in blocks]
    terms = np.linalg.solve([[n, m, n * m] for n, m in blocks], seconds)
    return float(np.maximum(terms, 0) @ [SIZE, SIZE, SIZE**2])


def loader(x, count=None, **options):
    return DataLoader(TensorDataset(x[:count], torch.zeros(len(x[:count]))), batch_size=1, **options)


def package(model, checkpoints, test, train, test_labels, train_labels, h_test, h_train, scores):
    """Seconds that the package needs, extrapolated, and how far its scores on a block lie from ours."""
    try:
        from lfxai.explanations.examples import InfluenceFunctions, NearestNeighbours, SimplEx, TracIn
        from lfxai.utils.metrics import similarity_rates as their_rates
    except ImportError as error:
        print(f"No comparison: the papers' package cannot be imported ({error}); pip install lfxai==0.1.1.")
        return {}, {}
    seconds, folder = {}, Path(tempfile.mkdtemp())
    torch.save(checkpoints[-1], folder / "checkpoint.pt")
    model.checkpoints_files = [folder / "checkpoint.pt"]
    fresh = (folder / str(number) for number in itertools.count())

    def trace(n, m):
        explainer = TracIn(model, nn.MSELoss(), next(fresh))
        start = time.process_time()
        trace.found = explainer.attribute_loader("cpu", loader(train, m), loader(test, n))
        return time.process_time() - start

    def influences(n, m):
        explainer = InfluenceFunctions(model, nn.MSELoss(), next(fresh))
        draws = loader(train, sampler=RandomSampler(train, replacement=True, num_samples=200))
        start = time.process_time()
        influences.found = explainer.attribute_loader("cpu", loader(train, m), loader(test, n), draws)
        # The package divides by the number of training examples it was given.
        influences.found *= m / SIZE
        return time.process_time() - start

    trace(2, 2)
    seconds["TracIn"] = CHECKPOINTS * extrapolated(trace, [(60, 2), (2, 60), (60, 60)])
    seconds["influence"] = extrapolated(influences, [(600, 6), (600, 1), (60, 6)])
    theirs, seconds["SimplEx"] = timed(
        "lfxai SimplEx, 50 tests", lambda: SimplEx.compute_weights(h_test[:50], h_train), 1
    )
    seconds["SimplEx"] *= SIZE / 50
    rates, seconds["similarity rates"] = timed(
        "lfxai similarity rates",
        lambda: their_rates(scores["TracIn"], train_labels, test_labels, list(COUNTS)),
    )
    neighbours = NearestNeighbours(model).attribute_loader("cpu", loader(train), loader(test))

    ours = tracin(model, mse, [(checkpoints[-1], 1.0)], test[:60], train[:60])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lissa = influence(
            model, mse, test[:60], train[:6], damping=1.0, solver="lissa", scale=1_000.0, depth=100, samples=1
        )
    lissa *= 6 / SIZE
    pairs = {
        "TracIn": (ours, trace.found),
        "influence, LiSSA as published": (lissa, influences.found),
        "SimplEx, Adam as published": (simplex(h_test[:50], h_train, solver="adam"), theirs),
        "DKNN, squared": (dknn(h_test, h_train).square(), neighbours),
        "similarity rates": tuple(
            torch.tensor(each)
            for each in zip(
                *((a.mean(0).tolist(), b) for a, b in zip(scores["rates"], rates, strict=True)), strict=True
            )
        ),
    }
    return seconds, {name: ((a - b).norm() / b.norm()).item() for name, (a, b) in pairs.items()}


def main(threads):
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    test, train, test_labels, train_labels = images()
    model, checkpoints = trained(train)
    h_test, h_train = represent(model.encoder, test), represent(model.encoder, train)
    pairs = [(state, 1e-3) for state in checkpoints]
    scores, seconds = {}, {}
    scores["TracIn"], seconds["TracIn"] = timed("TracIn", lambda: tracin(model, mse, pairs, test, train))
    scores["influence"], seconds["influence"] = timed("influence", lambda: influence(model, mse, test, train))
    scores["SimplEx"], seconds["SimplEx"] = timed("SimplEx", lambda: simplex(h_test, h_train))
    scores["DKNN"], seconds["DKNN"] = timed("DKNN", lambda: dknn(h_test, h_train))
    scores["rates"], seconds["similarity rates"] = timed(
        "similarity rates", lambda: similarity_rates(scores["TracIn"], test_labels, train_labels, COUNTS)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    theirs, distances = package(
        model, checkpoints, test, train, test_labels, train_labels, h_test, h_train, scores
    )

    print(
        f"\n{SIZE:,} test × {SIZE:,} training images, {CHECKPOINTS} checkpoints, {torch.get_num_threads()} threads"
    )
    for name, ours in seconds.items():
        row = f"{name:18} {ours:8.3f} s"
        if name in theirs:
            how = "timed" if name == "similarity rates" else "extrapolated"
            row += f"   lfxai {theirs[name]:9.2f} s ({how})   {theirs[name] / ours:7.0f} × (target {TARGETS[name]})"
        print(row)
    print(f"peak memory        {peak:8.2f} GiB (target below 2)")
    for name, distance in distances.items():
        print(f"relative distance of the scores, {name:30} {distance:.1e}")
    adam = simplex(h_test[:50], h_train, solver="adam")
    for name, weights in (("convex", scores["SimplEx"][:50]), ("Adam", adam)):
        error = (h_test[:50] - weights @ h_train).square().sum(1).mean()
        print(
            f"SimplEx, {name:6} mean squared residual {error:.2e}, largest weight × n_train {SIZE * weights.max():.1f}"
        )


def leave_one_out():
    """Removal of each of 60 digits from the training of a small tanh autoencoder's encoder, against the estimates."""
    torch.manual_seed(0)
    data = load("digits", train=60, test=20)
    train, test = (nn.functional.avg_pool2d(x, 4).flatten(1).double() for x in (data.train, data.test))
    size, ridge = train.shape[1], 1e-3
    encoder = nn.Sequential(nn.Linear(size, 6), nn.Tanh(), nn.Linear(6, 3))
    model = Autoencoder(encoder, nn.Sequential(nn.Linear(3, size), nn.Sigmoid())).double()

    def fit(rows, parameters):
        optimiser = torch.optim.LBFGS(
            parameters,
            max_iter=3_000,
            tolerance_grad=1e-9,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def objective():
            optimiser.zero_grad()
            total = (model(train[rows]) - train[rows]).square().mean(1).sum() / len(train)
            total = total + ridge / 2 * sum(parameter.square().sum() for parameter in parameters)
            total.backward()
            return total

        optimiser.step(objective)
        return (model(test) - test).square().mean(1).detach()

    everyone = list(range(len(train)))
    fit(everyone, list(model.parameters()))
    weights = list(encoder.parameters())
    before = fit(everyone, weights)
    start = [weight.detach().clone() for weight in weights]
    shifts = []
    for left_out in everyone:
        for weight, value in zip(weights, start, strict=True):
            weight.data.copy_(value)
        shifts.append(fit([row for row in everyone if row != left_out], weights) - before)
    for weight, value in zip(weights, start, strict=True):
        weight.data.copy_(value)
    truth = torch.stack(shifts, 1)
    estimates = {
        "TracIn, last checkpoint": lambda: tracin(model, mse, [(model.state_dict(), 1.0)], test, train)
    }
    for curvature in ("gauss-newton", "hessian"):
        settings = {"solver": "cg", "curvature": curvature, "damping": ridge, "tolerance": 1e-8}
        estimates[f"influence, {curvature}"] = lambda settings=settings: influence(
            model, mse, test, train, **settings
        )
    for name, estimate in estimates.items():
        try:
            correlation = torch.corrcoef(torch.stack([estimate().flatten(), truth.flatten()]))[0, 1]
            print(f"{name:28} correlation with leave-one-out retraining {correlation:.3f}")
        except ValueError as error:
            print(f"{name:28} {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--loo", action="store_true", help="compare influence functions with retraining instead"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    leave_one_out() if options.loo else main(options.threads)
