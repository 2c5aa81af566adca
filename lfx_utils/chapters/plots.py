"""One style, and one function a kind of figure or table; captions and alt text stand in the notebook's cells."""

import html

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from torch import Tensor

# Okabe and Ito's colours, in an order whose greys differ too; line styles and markers tell curves apart without colour,
# and beyond eight curves, where colours come again, a marker meets another line style.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X"
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 1, 2)))


def style() -> None:
    """Set the book's Matplotlib style: white cards that stand on light and dark pages alike."""
    plt.rcParams.update(
        {
            "figure.dpi": 130,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.prop_cycle": plt.cycler(color=COLOURS),
            "font.size": 9,
            "axes.titlesize": 10,
            "legend.frameon": False,
            "image.cmap": "gray",
        }
    )


def table(frame: pd.DataFrame, caption: str, number: str = "{:.3g}", *, index: bool = True) -> Styler:
    """Show a table under its caption, its numbers printed alike and a missing one as a dash; text as it is."""
    styler = frame.style.format(lambda cell: number.format(cell) if isinstance(cell, float) else cell, na_rep="–")
    styler = styler.set_caption(caption).set_table_attributes('class="dataframe"')
    return styler if index else styler.hide(axis="index")


def claims(summary: pd.DataFrame) -> HTML:
    """Show a chapter's claims, one card each, so that a phone can show them too: statement, published, ours, verdict.

    More than fifty, such as a large table's, are folded under a line that counts the verdicts.

    Args:
        summary: from `lfx_utils.chapters.ledger.summary`.
    """
    cards = []
    for row in summary.to_dict("records"):
        cell = {name: html.escape(str(value)) for name, value in row.items()}
        numbers = (
            "" if row["verdict"] == "drawn" else f"published: <b>{cell['published']}</b> · ours: <b>{cell['ours']}</b>"
        )
        where = f" · {cell['data']}" if row["data"] else ""
        scale = f"<br>in a larger run: <b>{cell['larger run']}</b>" if isinstance(row.get("larger run"), str) else ""
        cards.append(
            f'<div class="lfx-claim" style="border-left:3px solid #888;margin:.6em 0;padding:.1em .8em">'
            f"<b>{cell['verdict']}</b> <code>{cell['claim']}</code><br>"
            f"{cell['statement']}<br>{numbers}{where}{scale}</div>"
        )
    if len(cards) <= 50:
        return HTML("".join(cards))
    counts = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdict"].value_counts().items())
    return HTML(f"<details><summary>{len(cards)} claims: {counts}</summary>{''.join(cards)}</details>")


def curves(x, series: dict[str, tuple], *, xlabel: str, ylabel: str, title: str = "", log: str = "", ax=None) -> Figure:
    """Draw lines with shaded intervals.

    Args:
        x: positions, length n.
        series: label to `(mean, low, high)`, each of length n; low and high may be None.
        xlabel, ylabel: with units.
        log: "", "x", "y" or "xy".
        ax: axes to draw into; a new figure without it.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 3.4))
    for i, (label, (mean, low, high)) in enumerate(series.items()):
        turn, i = divmod(i, len(COLOURS))
        line = LINES[(i + turn) % len(LINES)]
        ax.plot(x, mean, color=COLOURS[i], marker=MARKERS[i], linestyle=line, markersize=4, label=label)
        if low is not None:
            ax.fill_between(x, low, high, color=COLOURS[i], alpha=0.18, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if "x" in log:
        ax.set_xscale("log")
    if "y" in log:
        ax.set_yscale("log")
    ax.legend()
    return ax.figure


def gallery(rows: dict[str, Tensor], titles=None, *, size: float = 1.0, diverging: tuple[str, ...] = ()) -> Figure:
    """Show images in a grid: one labelled row each, one column an example.

    Args:
        rows: label to images `(n, C, H, W)`; one channel is drawn in grey, three as colour, four with opacity.
        titles: a heading for each column.
        size: side of a picture in inches.
        diverging: labels of rows that hold attributions; each picture is drawn on its own symmetric scale, summed over
            channels, blue for negative and red for positive shares.

    Raises:
        ValueError: a row without images, or with images that can be drawn neither in grey nor in colour.
    """
    for label, images in rows.items():
        shape = (len(images), *images[0].shape) if len(images) else ()
        if len(shape) != 4 or (label not in diverging and shape[1] not in (1, 3, 4)):
            raise ValueError(f"rows[{label!r}] must be images (n, C, H, W) with 1, 3 or 4 channels, got {shape}.")
    columns = min(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(size * columns + 0.9, size * len(rows) + 0.25), squeeze=False
    )
    for (label, images), row in zip(rows.items(), axes):
        for image, ax in zip(images, row):
            picture = image.detach().cpu().numpy()
            if label in diverging:
                picture = picture.sum(0)
                bound = np.abs(picture).max() or 1.0
                ax.imshow(picture, cmap="RdBu_r", vmin=-bound, vmax=bound)
            elif len(picture) > 1:
                ax.imshow(picture.transpose(1, 2, 0).clip(0, 1))
            else:
                ax.imshow(picture[0], vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, heading in zip(axes[0], titles or []):
        ax.set_title(heading)
    return figure


def heartbeats(sequences: Tensor, attribution: Tensor, titles, *, ylabel: str = "voltage (z-score)") -> Figure:
    """Draw heartbeats with each time step coloured by its attribution.

    Args:
        sequences: `(n, T, 1)`.
        attribution: `(n, T, 1)`; each beat has its own symmetric scale.
        titles: one heading a beat.
    """
    figure, axes = plt.subplots(1, len(sequences), figsize=(2.3 * len(sequences), 2.0), sharey=True, squeeze=False)
    for beat, scores, heading, ax in zip(sequences, attribution, titles, axes[0]):
        beat, scores = beat[:, 0].cpu().numpy(), scores[:, 0].detach().cpu().numpy()
        bound = np.abs(scores).max() or 1.0
        ax.plot(beat, color="0.6", linewidth=1)
        ax.scatter(np.arange(len(beat)), beat, c=scores, cmap="coolwarm", vmin=-bound, vmax=bound, s=10, zorder=2)
        ax.set(xlabel="time step", title=heading)
    axes[0, 0].set_ylabel(ylabel)
    return figure


def comparison(labels, published, ours, low, high, *, xlabel: str, published_spread=None) -> Figure:
    """Draw published numbers (open diamonds) beside ours (filled dots with 95 % intervals), one line each.

    Args:
        labels: names, from top to bottom.
        published, ours, low, high: numbers, one a label; NaN where there is none.
        published_spread: the papers' ±, if any.
    """
    y = np.arange(len(labels))[::-1]
    figure, ax = plt.subplots(figsize=(5.2, 0.32 * len(labels) + 0.9))
    ours, low, high = (np.asarray(v, dtype=float) for v in (ours, low, high))
    ax.errorbar(ours, y - 0.12, xerr=[ours - low, high - ours], fmt="o", color=COLOURS[0], label="ours", capsize=2)
    ax.errorbar(
        published, y + 0.12, xerr=published_spread, fmt="D", color=COLOURS[1], mfc="white", label="published", capsize=2
    )
    ax.set_yticks(y, labels)
    ax.set_xlabel(xlabel)
    ax.legend()
    return figure
