"""How disentangled a representation is, measured where the data's factors are known: MIG and DCI.

The papers speak of disentanglement and vary β instead. The libraries that carry these measures bring a training
framework along (or need an old one), so that their few lines are here.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import mutual_info_score
from torch import Tensor


def mutual_information(codes: Tensor, factors: Tensor, bins: int = 20) -> np.ndarray:
    """Mutual information, in nats, of every unit (its range cut into equal bins) and every factor.

    A finite sample overstates it, by about (bins − 1)(levels − 1) / 2N.

    Args:
        codes: means µ(x) `(N, D)`.
        factors: integers `(N, K)`.
        bins: as many as Locatello et al. take.

    Returns:
        `(D, K)`; 0 for a unit that is constant.

    Raises:
        ValueError: see `mig`.
    """
    codes, factors = _arrays(codes, factors)
    binned = [np.digitize(unit, np.linspace(unit.min(), unit.max(), bins + 1)[1:-1]) for unit in codes.T]
    return np.array([[mutual_info_score(factor, unit) for factor in factors.T] for unit in binned])


def mig(codes: Tensor, factors: Tensor, bins: int = 20) -> np.ndarray:
    """Mutual information gap: how much more the best unit knows of a factor than the second best, as a share of all.

    Args:
        codes: means µ(x) `(N, D)`, D ≥ 2.
        factors: integers `(N, K)`, each with two levels at least.
        bins: of every unit's range.

    Returns:
        one gap a factor `(K,)`, from 0 to 1; MIG is their mean.

    Raises:
        ValueError: other shapes, values that are not finite, factors that are not whole or have one level only.

    Source: Chen et al. (2018), Eq. 6; binned means from Locatello et al. (2019).
    """
    second, first = np.sort(mutual_information(codes, factors, bins), axis=0)[-2:]
    entropies = [stats.entropy(np.unique(factor, return_counts=True)[1]) for factor in _arrays(codes, factors)[1].T]
    return (first - second) / np.array(entropies)


@dataclass(frozen=True)
class DCI:
    """Disentanglement (a unit tells of one factor), completeness (a factor is told by one unit), informativeness
    (share of levels told rightly), and the importance of every unit for every factor, `(D, K)`."""

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray = field(repr=False)


def dci(codes: Tensor, factors: Tensor, trees: int = 20, seed: int = 0) -> DCI:
    """Predict every factor from the units with a random forest, and see how its importances are spread.

    Args:
        codes: means µ(x) `(N, D)`, D ≥ 2; a unit that is constant has importance 0 and no part in the means.
        factors: integers `(N, K)`, K ≥ 2.
        trees: in each of the K forests.
        seed: of the forests and of the fifth of the examples that they are tested on.

    Raises:
        ValueError: see `mig`; or a single factor, or no unit that varies.

    Source: Eastwood & Williams (2018), Section 2; forests of classifiers, since sprites' shapes have no order.
    """
    codes, factors = _arrays(codes, factors)
    if factors.shape[1] < 2 or (codes == codes[0]).all() or len(codes) < 5:
        raise ValueError(
            "DCI needs two factors at least, a unit that varies and five examples, a fifth of which are the test; got "
            f"{factors.shape[1]} factors and {len(codes)} examples."
        )
    order = np.random.default_rng(seed).permutation(len(codes))
    test, train = np.split(order, [len(order) // 5])
    columns, right = [], []
    for factor in factors.T:
        # All units compete at every split: a forest that sees only some of them must at times take a wrong one.
        forest = RandomForestClassifier(trees, max_features=None, min_samples_leaf=2, random_state=seed)
        forest.fit(codes[train], factor[train])
        columns.append(forest.feature_importances_)
        right.append(forest.score(codes[test], factor[test]))
    importance = np.stack(columns, 1)
    used = importance.sum(1) > 0
    pure = 1 - stats.entropy(importance[used], axis=1) / np.log(importance.shape[1])
    complete = 1 - stats.entropy(importance, axis=0) / np.log(importance.shape[0])
    disentanglement = np.average(pure, weights=importance[used].sum(1))
    return DCI(float(disentanglement), float(complete.mean()), float(np.mean(right)), importance)


def _arrays(codes: Tensor, factors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    # NumPy has no bfloat16, and units cut into bins want more digits than half precision has.
    codes = codes.to(torch.promote_types(codes.dtype, torch.float32))
    codes, factors = (values.detach().cpu().numpy() for values in (codes, factors))
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or codes.shape[1] < 2:
        raise ValueError(f"codes must be (N, D ≥ 2) and factors (N, K), got {codes.shape} and {factors.shape}.")
    if not np.isfinite(codes).all():
        raise ValueError("codes holds NaN or infinite values.")
    if not (factors == np.floor(factors)).all():
        raise ValueError("factors must hold integers, one for each level; other numbers are no levels.")
    constant = [number for number, factor in enumerate(factors.T) if (factor == factor[0]).all()]
    if constant:
        raise ValueError(f"Every factor needs two levels at least; column {constant[0]} of factors has one.")
    return codes, factors
