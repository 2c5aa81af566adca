"""95 % confidence intervals of means and of slopes on logarithmic axes."""

import numpy as np


def mean_interval(values) -> tuple[float, float, float]:
    """Mean of independent values and the ends of its 95 % Student-t confidence interval.

    Args:
        values: at least two numbers, one for each example, seed or run.

    Returns:
        `(mean, low, high)`.

    Raises:
        ValueError: fewer than two values, or values that are not finite.

    >>> [round(end, 3) for end in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    values = np.asarray(values, dtype=float).ravel()
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"An interval needs at least two finite values, got {values[:5]}.")
    from scipy import stats  # slow to import, and most users draw no interval

    mean = values.mean()
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(mean), float(mean - half), float(mean + half)


def slope_interval(x, y) -> tuple[float, float, float]:
    """Slope of the least-squares line through (log x, log y), with the ends of its 95 % confidence interval.

    Raises:
        ValueError: fewer than three points, or values that are not positive.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 3 or len(x) != len(y) or (x <= 0).any() or (y <= 0).any():
        raise ValueError("A slope on logarithmic axes needs at least three pairs of positive values.")
    from scipy import stats

    fit = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, len(x) - 2) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)
