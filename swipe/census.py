"""The numbers that tell whether a corpus is sane, in one pass and bounded memory.

A wrong layout shows as swipes that begin and end far from their keys, a wrong frame or unit as
paths of another length than the way through their keys, a lossy collector as long sampling
intervals, and a shifted key as one letter that is missed more than its neighbours.

Values are counted in fixed bins: a percentile is the middle of its bin, at most 1 % or 0.005 key
widths beside the value; the least and the greatest are exact.

What it leaves out: drawing (`swipe.picture`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.gesture import Gesture, key_distances, ordered_miss
from swipe.layout import KEY_WIDTH, Layout

MISSED: Final = 1.0
"""Key widths: a letter is missed when no touch point comes nearer to its key's centre."""
_BATCH: Final = 1024
_NEAR: Final = np.linspace(0.0, 20.0, 2001)


def _log(low: float, high: float) -> NDArray[np.float64]:
    """Edges of bins that are 2 % wide."""
    bins = round(math.log(high / low) / math.log(1.02))
    return np.asarray(np.geomspace(low, high, bins + 1), dtype=np.float64)


def _whole(most: int) -> NDArray[np.float64]:
    """Edges of one bin per whole number from 0 to `most`."""
    return np.arange(-0.5, most + 1, dtype=np.float64)


MEASURES: Final = {
    "letters per word": _whole(64),
    "duration, ms": _log(1, 60_000),
    "points": _whole(4000),
    "points per second": _log(0.1, 10_000),
    "sampling interval, ms": _log(0.1, 60_000),
    "path / way through keys": _log(0.01, 100),
    "start to first key, keys": _NEAR,
    "end to last key, keys": _NEAR,
    "worst letter miss, keys": _NEAR,
}
"""What is measured of each swipe, and the edges of its bins. The interval is the swipe's median;
the ratio has no value when all letters of the word are the same key."""


class Histogram:
    """Counts of values in fixed bins; what lies beyond counts in the outermost ones.

    Attributes:
        edges: float64[B + 1], ascending.
        counts: int64[B].
        low, high: the least and the greatest value; infinite when there is none.
    """

    def __init__(self, edges: NDArray[np.float64]) -> None:
        self.edges = edges
        self.counts = np.zeros(len(edges) - 1, dtype=np.int64)
        self.low, self.high = np.inf, -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        """Count `values`, leaving out NaN."""
        values = values[~np.isnan(values)]
        if not len(values):
            return
        bins = np.clip(
            np.searchsorted(self.edges, values, side="right") - 1, 0, len(self.counts) - 1
        )
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())

    def percentile(self, percent: float) -> float:
        """The middle of the bin that `percent` of the values reach; NaN when there is none."""
        total = int(self.counts.sum())
        if not total:
            return math.nan
        if percent in (0, 100):
            return float(self.high if percent else self.low)
        place = int(np.searchsorted(np.cumsum(self.counts), percent / 100 * total))
        middle = (self.edges[place] + self.edges[place + 1]) / 2
        return float(np.clip(middle, self.low, self.high))


class Census:
    """What was counted of the swipes that `add` was given.

    Attributes:
        swipes: how many there were.
        measures: a histogram per measure of `MEASURES`.
        letters: a histogram per letter of the layout, of how near, in key widths, the touch points
            came to its key's centre each time that a word had the letter.
        missed: int64[K], how many of these were farther than `MISSED`.
    """

    def __init__(self, layout: Layout) -> None:
        """Count on the keys of `layout`."""
        self.swipes = 0
        self.measures = {name: Histogram(edges) for name, edges in MEASURES.items()}
        self.letters = {letter: Histogram(_NEAR) for letter in layout.letters}
        self.missed = np.zeros(len(layout.letters), dtype=np.int64)
        self._layout = layout

    def add(self, gestures: Iterable[Gesture]) -> None:
        """Count `gestures`, holding a thousand of them at a time."""
        source = iter(gestures)
        while batch := list(islice(source, _BATCH)):
            self._add(batch)

    def missed_share(self) -> NDArray[np.float64]:
        """Share of missed occurrences of each letter, ``float64[K]``; NaN where there is none."""
        times = np.array([histogram.counts.sum() for histogram in self.letters.values()])
        return np.where(times > 0, self.missed / np.maximum(times, 1), np.nan)

    def _add(self, batch: list[Gesture]) -> None:
        distances = [key_distances(gesture, self._layout) for gesture in batch]
        rows = [_figures(g, d, self._layout) for g, d in zip(batch, distances, strict=True)]
        columns = np.array(rows, dtype=np.float64).T
        for histogram, column in zip(self.measures.values(), columns, strict=True):
            histogram.add(column)
        near = np.concatenate([d.min(axis=1) for d in distances])
        spelt = np.array(list("".join(gesture.word for gesture in batch)))
        for number, (letter, histogram) in enumerate(self.letters.items()):
            values = near[spelt == letter]
            histogram.add(values)
            self.missed[number] += np.count_nonzero(values > MISSED)
        self.swipes += len(batch)


def _figures(gesture: Gesture, distances: NDArray[np.float64], layout: Layout) -> tuple[float, ...]:
    """The measures of one swipe, in the order of `MEASURES`."""
    duration = gesture.duration_ms
    scale = np.array([1.0, gesture.aspect]) / KEY_WIDTH
    ideal = _length(layout.path(gesture.word) * scale)
    return (
        len(gesture.word),
        duration,
        len(gesture.points),
        1000 * len(gesture.points) / duration,
        # Repeated times are one sample, as in the features.
        float(np.median(np.diff(np.unique(gesture.points[:, 2])))),
        _length(gesture.points[:, :2] * scale) / ideal if ideal else np.nan,
        distances[0, 0],
        distances[-1, -1],
        ordered_miss(distances),
    )


def _length(points: NDArray[np.floating]) -> float:
    """Length of the way through ``points [N, 2]``."""
    return float(np.hypot(*np.diff(points, axis=0).T).sum())
