"""A picture of a census: one histogram per measure, and the keyboard with what is missed on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swipe.census import MISSED, Census, Histogram
from swipe.errors import MissingError, UsageError
from swipe.files import replacing
from swipe.layout import Layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
BARS = 60
"""About as many bars as a histogram is drawn with."""


def require_drawable(path: Path) -> None:
    """Refuse, before a long count, what could not be drawn after it.

    Raises:
        UsageError: `path` is no .png.
        MissingError: matplotlib is not installed.
    """
    if path.suffix != ".png":
        raise UsageError(f"cannot draw {path.name}", fix="name a .png file")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError(
            "not installed: matplotlib", fix="pip install 'swipe-export[plots]', or drop --plot"
        )


def draw_census(census: Census, layout: Layout, title: str) -> Figure:
    """Draw `census`, counted on `layout`."""
    from matplotlib.figure import Figure

    rows = 1 - (-len(census.measures) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.6 * rows), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(rows, COLUMNS)
    for number, (name, histogram) in enumerate(census.measures.items()):
        axes = figure.add_subplot(grid[divmod(number, COLUMNS)])
        axes.set_title(name, fontsize=9)
        _draw_histogram(axes, histogram)
    _draw_keys(figure.add_subplot(grid[rows - 1, :]), census, layout)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as a .png, atomically.

    Raises:
        UsageError: the file cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_histogram(axes: Axes, histogram: Histogram) -> None:
    """All but the outermost half percents, in bars of several bins."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    if not histogram.counts.any():
        axes.set_axis_off()
        return
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    first, last = np.searchsorted(shares, [0.005, 0.995])
    together = max(1, (last - first + 1) // BARS)
    starts = np.arange(first, last + 1, together)
    heights: NDArray[np.int64] = np.add.reduceat(histogram.counts[: last + 1], starts)
    edges = histogram.edges[np.append(starts, last + 1)]
    axes.stairs(heights, edges, fill=True, color="steelblue")
    if histogram.edges[0] > 0:
        axes.set_xscale("log")
        # A few round figures: powers of ten are too few, and their minor ticks overlap.
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(histogram.percentile(50), color="firebrick", linewidth=1)
    axes.set_yticks([])


def _draw_keys(axes: Axes, census: Census, layout: Layout) -> None:
    from matplotlib.patches import Rectangle

    missed = census.missed_share()
    worst = max(float(np.nanmax(missed, initial=0.0)), 0.01)
    axes.set_title(f"nearest touch point beyond {MISSED:g} key width, % of times", fontsize=9)
    for letter, (x, y), (rx, ry), share in zip(
        layout.letters, layout.centers, layout.radii, missed, strict=True
    ):
        red = 0.0 if np.isnan(share) else share / worst
        axes.add_patch(
            Rectangle(
                (x - rx, y - ry), 2 * rx, 2 * ry,
                facecolor=(1.0, 1.0 - 0.7 * red, 1.0 - 0.7 * red), edgecolor="0.7",
            )
        )  # fmt: skip
        figure = "-" if np.isnan(share) else f"{100 * share:.1f}"
        axes.text(x, y, f"{letter}\n{figure}", ha="center", va="center", fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    axes.set_axis_off()
