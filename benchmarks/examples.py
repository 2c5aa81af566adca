"""Time example importance against the papers' package on LF's MNIST autoencoder, and check the scores of both.

    python -m benchmarks.examples            # about two minutes; needs `pip install lfxai` for the comparison

1,000 test × 1,000 training images (MNIST where LFX_DATA has it, else random ones), ten checkpoints, one
thread (`--threads 2` for two, on an idle machine). Ours is timed in full. The package would need hours: it is
timed on small blocks in the same run and extrapolated with T = a·n_test + b·n_train + c·n_test·n_train, where
c is what it spends on a pair (it reads both gradients from disk). Both are charged the processor's seconds,
all threads together, rather than the clock's, for the sake of busy machines. Peak memory is that of the whole
process before the package is imported.
"""

import argparse
import itertools
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from benchmarks.record import memory
from lfx_utils.datasets import load
from lfx_utils.examples import dknn, influence, represent, similarity_rates, simplex, tracin
from lfx_utils.models.autoencoders import mnist_autoencoder

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

    def recursion(samples):
        """Ours, and the package's, from the Hessian of `samples` of six images a step; six is all of them."""
        options = {"damping": 1.0, "solver": "lissa", "scale": 1_000.0, "depth": 100}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = influence(model, mse, test[:60], train[:6], **options, samples=samples)
        if samples == 1:
            return found * 6 / SIZE, influences.found
        explainer = InfluenceFunctions(model, nn.MSELoss(), next(fresh))
        steps = TensorDataset(train[:6].repeat(100, 1, 1, 1), torch.zeros(600))
        steps = DataLoader(steps, batch_size=6)
        return found, explainer.attribute_loader("cpu", loader(train, 6), loader(test, 60), steps)

    ours = tracin(model, mse, [(checkpoints[-1], 1.0)], test[:60], train[:60])
    pairs = {
        "TracIn": (ours, trace.found),
        "LiSSA as published, own draws": recursion(1),
        "LiSSA, all images a step": recursion(6),
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
    peak = memory("VmHWM") / 2**10
    theirs, distances = package(model, checkpoints, test, train, test_labels, train_labels, h_test, h_train, scores)

    print(f"\n{SIZE:,} test × {SIZE:,} training images, {CHECKPOINTS} checkpoints, {torch.get_num_threads()} threads")
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args().threads)
