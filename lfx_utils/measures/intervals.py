"""95 % confidence intervals of means, over examples or trainings × examples, and of slopes on logarithmic axes."""

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


def crossed_interval(table) -> tuple[float, float, float]:
    """Mean over trainings × examples and the ends of its 95 % interval, where both are samples.

    The trainings (or encoders) saw the same examples, so that the entries are not independent. The variance of the mean
    is that of two crossed random effects: of the rows, of the columns, and of what is left of each entry.

    Args:
        table: `(R, N)`, a row for each training and a column for each example, two at least of either.

    Returns:
        `(mean, low, high)`.

    Raises:
        ValueError: fewer than two rows or columns, or values that are not finite.

    Source: Satterthwaite (1946) for the degrees of freedom.

    >>> [round(end, 3) for end in crossed_interval([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])]
    [2.0, -0.484, 4.484]
    """
    table = np.asarray(table, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"table must hold finite values in at least two rows and two columns, got {table.shape}.")
    from scipy import stats

    rows, columns = table.shape
    mean, by_row, by_column = table.mean(), table.mean(1), table.mean(0)
    rest = ((table - by_row[:, None] - by_column + mean) ** 2).sum() / ((rows - 1) * (columns - 1))
    # The rest is part of what rows and columns vary by; where that shows no more than the rest, there is no more.
    effects = [(columns * by_row.var(ddof=1), rows - 1), (rows * by_column.var(ddof=1), columns - 1)]
    effects = [(square, freedom) for square, freedom in effects if square > rest]
    parts = [*effects, ((1 - len(effects)) * rest, (rows - 1) * (columns - 1))]
    total = sum(square for square, _ in parts)
    freedom = total**2 / sum(square**2 / freedom for square, freedom in parts) if total else 1.0
    half = stats.t.ppf(0.975, freedom) * (total / table.size) ** 0.5
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
