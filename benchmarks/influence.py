"""Influence functions against pyDVL and kronfluence, and all of them against the exact solution.

    python -m benchmarks.influence           # some minutes of one core; pip install pyDVL==0.10.0 kronfluence==1.0.1

First a logistic regression on scikit-learn's digits, 650 parameters, 500 training and 100 test images, whose Hessian is
known in closed form. Then the encoder of LF's MNIST autoencoder, 43,000 parameters, on the same digits at 28×28, where
the Gauss–Newton matrix can still be solved exactly, and the Kronecker-factored approximations are held against that.
"""

import argparse
import copy
import logging
import tempfile
import warnings

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.record import keep, race
from lfx_utils.examples import influence, tracin
from lfx_utils.models.autoencoders import mnist_autoencoder

DAMPING = 1e-2


def digits() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(pixels / 16).float()[order], torch.tensor(labels)[order]


def distance(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference, relative to that of the exact scores; peers may return them transposed."""
    found = (found if found.shape == exact.shape else found.T).double()
    return float(f"{((found - exact).norm() / exact.norm()).item():.1e}")


def correlation(found: Tensor, exact: Tensor) -> float:
    found = found if found.shape == exact.shape else found.T
    return round(torch.corrcoef(torch.stack([found.flatten().double(), exact.flatten().double()]))[0, 1].item(), 4)


def regression(only: str, train: int = 500, tests: int = 100) -> None:
    x, y = digits()
    x, x_test, y, y_test = x[:train], x[train : train + tests], y[:train], y[train : train + tests]
    rows = [functional.pad(part.double(), (0, 1), value=1.0) for part in (x, x_test)]
    weight = torch.zeros(10, 65, dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=300, line_search_fn="strong_wolfe")

    def fit():
        optimiser.zero_grad()
        loss = functional.cross_entropy(rows[0] @ weight.T, y) + DAMPING / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(fit)
    weight = weight.detach()
    shares = (rows[0] @ weight.T).softmax(1)
    bend = torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]
    hessian = torch.einsum("nij,na,nb->iajb", bend, rows[0], rows[0]).reshape(650, 650) / train
    slopes = [
        (((part @ weight.T).softmax(1) - functional.one_hot(label, 10))[:, :, None] * part[:, None, :]).flatten(1)
        for part, label in zip(rows, (y, y_test), strict=True)
    ]
    exact = slopes[1] @ torch.linalg.solve(hessian + DAMPING * torch.eye(650), slopes[0].T) / train

    model = nn.Sequential(nn.Linear(64, 10)).eval()
    with torch.no_grad():
        model[0].weight.copy_(weight[:, :64])
        model[0].bias.copy_(weight[:, 64])
    ours_train, ours_test = (torch.cat([a, b[:, None].float()], 1) for a, b in ((x, y), (x_test, y_test)))

    def loss(model, batch):
        return functional.cross_entropy(model(batch[:, :64]), batch[:, 64].long())

    def ours(**options):
        return lambda: influence(model, loss, ours_test, ours_train, part="", damping=DAMPING, **options)

    def theirs(name, **options):
        def run():
            import pydvl.influence.torch as pydvl
            from pydvl.influence.base_influence_function_model import InfluenceMode

            # EK-FAC is told no loss: it takes the Fisher matrix of a classifier.
            losses = () if name == "EkfacInfluence" else (functional.cross_entropy,)
            made = getattr(pydvl, name)(copy.deepcopy(model), *losses, **options)
            made = made.fit(DataLoader(TensorDataset(x, y), batch_size=train))
            return made.influences(x_test, y_test, x, y, mode=InfluenceMode.Up).detach() / train

        return run

    for kind, repeats, contenders in (
        ("exact", 4, {"ours": ours(), "pyDVL Direct": theirs("DirectInfluence", regularization=DAMPING)}),
        (
            "conjugate gradients",
            4,
            {
                "ours, Gauss–Newton": ours(solver="cg"),
                "ours, Hessian": ours(solver="cg", curvature="hessian"),
                "pyDVL CG": theirs("CgInfluence", regularization=DAMPING, rtol=1e-5, solve_simultaneously=True),
            },
        ),
        (
            "LiSSA",
            1,
            {
                "ours": ours(solver="lissa"),
                "pyDVL LiSSA": theirs("LissaInfluence", regularization=DAMPING, maxiter=1_000, scale=2.0),
            },
        ),
        (
            "EK-FAC",
            2,
            {
                "ours": ours(solver="ekfac"),
                "pyDVL EK-FAC": theirs("EkfacInfluence", hessian_regularization=DAMPING, update_diagonal=True),
            },
        ),
    ):
        if only not in kind:
            continue
        job = f"influence, {kind}: 650 parameters, {train} × {tests}"
        print(job)
        seconds, found = race(contenders, repeats)
        error = {name: distance(scores, exact) for name, scores in found.items()}
        print("  relative error", error)
        keep(job, seconds, packages=("pydvl",), **{"relative error": error})


def autoencoder(train: int = 200, tests: int = 40, damping: float = 1e-3) -> None:
    torch.manual_seed(0)
    x = functional.interpolate(digits()[0].view(-1, 1, 8, 8), 28, mode="bilinear")
    x, x_test = x[:train], x[train : train + tests]
    model = mnist_autoencoder()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(30):
        for rows in torch.randperm(train).split(50):
            optimiser.zero_grad()
            (model(x[rows]) - x[rows]).square().mean().backward()
            optimiser.step()
    model.eval()

    def loss(model, batch):
        return (model(batch) - batch).square().mean()

    contenders = {
        "ours, EK-FAC": lambda: influence(model, loss, x_test, x, damping=damping, solver="ekfac"),
        "ours, exact": lambda: influence(model, loss, x_test, x, damping=damping),
        "kronfluence EK-FAC": lambda: kronfluence(model, x, x_test, damping),
        "plain gradients": lambda: tracin(model, loss, [(model.state_dict(), 1.0)], x_test, x),
    }
    job = f"influence on a convolutional encoder: 43,000 parameters, {train} × {tests}"
    print(job)
    seconds, found = race(contenders, 1)
    agreement = {name: correlation(scores, found["ours, exact"]) for name, scores in found.items()}
    print("  correlation with the exact scores", agreement)
    keep(job, seconds, packages=("kronfluence",), **{"correlation with the exact scores": agreement})


def kronfluence(model: nn.Module, x: Tensor, x_test: Tensor, damping: float) -> Tensor:
    """EK-FAC with the true Fisher matrix of the mean squared error, of the encoder's layers."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from kronfluence.utils.dataset import DataLoaderKwargs

    names = [name for name, layer in model.encoder.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]

    class Reconstruction(Task):
        def compute_train_loss(self, batch, model, sample=False):
            output = model(batch[0])
            target = batch[0]
            if sample:  # 2/784 is the curvature in an output of the mean over 784
                target = (output + torch.randn_like(output) * (784 / 2) ** 0.5).detach()
            return (output - target).square().mean((1, 2, 3)).sum()

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self):
            return [f"encoder.{name}" for name in names]

    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_model(copy.deepcopy(model), Reconstruction())
        analyzer = Analyzer(
            "bench",
            prepared,
            Reconstruction(),
            cpu=True,
            output_dir=folder,
            disable_tqdm=True,
            log_level=logging.ERROR,
            disable_model_save=True,
        )
        analyzer.set_dataloader_kwargs(DataLoaderKwargs(num_workers=0, pin_memory=False))
        analyzer.fit_all_factors(
            "f", TensorDataset(x), per_device_batch_size=100, factor_args=FactorArguments(strategy="ekfac")
        )
        analyzer.compute_pairwise_scores(
            "s",
            "f",
            TensorDataset(x_test),
            TensorDataset(x),
            per_device_query_batch_size=len(x_test),
            per_device_train_batch_size=100,
            score_args=ScoreArguments(damping_factor=damping),
        )
        return analyzer.load_pairwise_scores("s")["all_modules"] / len(x)


def main(only: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    regression(only)
    if only in "EK-FAC":
        autoencoder()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="exact, conjugate gradients, LiSSA or EK-FAC")
    main(parser.parse_args().only)
