"""Residual transplant: a human swipe carried to another path of as many keys.

What a finger does beyond the ideal path (curvature, speed along each leg, corner cutting, missed
keys) is kept and laid along the new path, so a swipe of one word on one keyboard becomes a
plausible swipe of another word or on another keyboard. Unlike a synthetic curve it has real human
noise. Two uses: training on geometry that no corpus holds, and judging a model on keyboards that
nobody recorded.

1. Each letter gets the time at which the swipe is at it: least sum of squared distances to the
   key centres, in order.
2. The miss of a letter (swipe minus key centre at that time) goes with it. Where the path turns,
   the miss is rotated by as much as the inside of the turn is: fingers cut corners inwards.
3. Between two letters the fraction along the leg is kept, and the distance off it in key widths,
   which shrinks with a shorter leg and never grows with a longer one.

All distances are in key widths and key heights, so that the keyboard's aspect does not matter.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.compiled import compiled
from swipe.layout import KEY_HEIGHT, KEY_WIDTH

_UNIT: Final = np.array([KEY_WIDTH, KEY_HEIGHT])
_SHORT_LEG: Final = 0.5
"""Key widths; below it a leg has no direction that could be turned."""
_STRAIGHT: Final = 0.3
"""Length of the sum of the two unit vectors away from a letter; below it the path hardly turns."""


def align(
    trajectories: NDArray[np.floating], paths: NDArray[np.floating], lengths: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Index of the point at which each swipe is at each letter.

    Args:
        trajectories: ``[B, 2, T >= 1]``, letter-area frame.
        paths: key centres ``[B, L, 2]`` along each word, padded.
        lengths: ``[B]``, letters of each word, 1 to L.

    Returns:
        int64[B, L], never falling along a word; 0 in the padding.
    """
    points, keys = _in_keys(trajectories.transpose(0, 2, 1)), _in_keys(paths)
    times = np.zeros(keys.shape[:2], dtype=np.int64)
    _align(points, keys, np.asarray(lengths, dtype=np.int64), times)
    return times


def transplant(
    trajectories: NDArray[np.floating],
    old_paths: NDArray[np.floating],
    new_paths: NDArray[np.floating],
    lengths: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Swipes along `old_paths` carried to `new_paths`.

    Args:
        trajectories: ``[B, 2, T >= 1]``, letter-area frame.
        old_paths: key centres ``[B, L, 2]`` that each swipe was meant for, padded.
        new_paths: the key centres to carry it to, shaped alike.
        lengths: ``[B]``, letters of each word, 1 to L.

    Returns:
        float32[B, 2, T]; equal to `trajectories`, but for rounding, where the paths are equal.
    """
    points, old, new = (
        _in_keys(trajectories.transpose(0, 2, 1)),
        _in_keys(old_paths),
        _in_keys(new_paths),
    )
    lengths = np.asarray(lengths, dtype=np.int64)
    times = np.zeros(old.shape[:2], dtype=np.int64)
    _align(points, old, lengths, times)
    carried = np.empty_like(points)
    _carry(points, old, new, lengths, times, carried)
    return np.ascontiguousarray((carried * _UNIT).transpose(0, 2, 1), dtype=np.float32)


def _in_keys(points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.ascontiguousarray(points / _UNIT, dtype=np.float64)


@compiled()
def _align(points, keys, lengths, times):  # type: ignore[no-untyped-def]
    count = points.shape[1]
    best = np.empty((keys.shape[1], count))
    for b in range(len(points)):
        letters = lengths[b]
        for i in range(letters):
            for t in range(count):
                dx = points[b, t, 0] - keys[b, i, 0]
                dy = points[b, t, 1] - keys[b, i, 1]
                cost = dx * dx + dy * dy
                if i > 0:
                    cost += best[i - 1, t]
                # best[i, t]: letters up to i are at points up to t.
                best[i, t] = cost if t == 0 else min(cost, best[i, t - 1])
        t = count - 1
        for i in range(letters - 1, -1, -1):
            while t > 0 and best[i, t - 1] <= best[i, t]:
                t -= 1
            times[b, i] = t


@compiled()
def _carry(points, old, new, lengths, times, carried):  # type: ignore[no-untyped-def]
    count = points.shape[1]
    width = old.shape[1]
    start = np.empty((width, 2))
    for b in range(len(points)):
        letters = lengths[b]
        for i in range(letters):
            at = times[b, i]
            x = points[b, at, 0] - old[b, i, 0]
            y = points[b, at, 1] - old[b, i, 1]
            if 0 < i < letters - 1:
                ax, ay = _inside(old[b], i)
                bx, by = _inside(new[b], i)
                before, after = math.hypot(ax, ay), math.hypot(bx, by)
                if before > _STRAIGHT and after > _STRAIGHT:
                    cosine = (ax * bx + ay * by) / (before * after)
                    sine = (ax * by - ay * bx) / (before * after)
                    x, y = cosine * x - sine * y, sine * x + cosine * y
            start[i, 0] = new[b, i, 0] + x
            start[i, 1] = new[b, i, 1] + y
        first, last = times[b, 0], times[b, letters - 1]
        for t in range(first):
            for axis in range(2):
                carried[b, t, axis] = points[b, t, axis] + start[0, axis] - points[b, first, axis]
        for t in range(last, count):
            for axis in range(2):
                carried[b, t, axis] = (
                    points[b, t, axis] + start[letters - 1, axis] - points[b, last, axis]
                )
        for i in range(letters - 1):
            _carry_leg(points[b], times[b, i], times[b, i + 1], start[i], start[i + 1], carried[b])


@compiled()
def _inside(path, i):  # type: ignore[no-untyped-def]
    """Sum of the unit vectors from letter `i` to its neighbours: points into the turn."""
    x, y = 0.0, 0.0
    for j in (i - 1, i + 1):
        dx, dy = path[j, 0] - path[i, 0], path[j, 1] - path[i, 1]
        length = math.hypot(dx, dy)
        if length > 0.0:
            x += dx / length
            y += dy / length
    return x, y


@compiled()
def _carry_leg(points, begin, end, to_begin, to_end, carried):  # type: ignore[no-untyped-def]
    """Points `begin` to `end` (not included), carried so that the leg runs between the targets."""
    dx, dy = points[end, 0] - points[begin, 0], points[end, 1] - points[begin, 1]
    ex, ey = to_end[0] - to_begin[0], to_end[1] - to_begin[1]
    old_length, new_length = math.hypot(dx, dy), math.hypot(ex, ey)
    for t in range(begin, end):
        x, y = points[t, 0] - points[begin, 0], points[t, 1] - points[begin, 1]
        if old_length < _SHORT_LEG:
            share = (t - begin) / (end - begin)
            carried[t, 0] = to_begin[0] + x + share * (ex - dx)
            carried[t, 1] = to_begin[1] + y + share * (ey - dy)
            continue
        along = (x * dx + y * dy) / (old_length * old_length)
        aside = (dx * y - dy * x) / old_length * min(1.0, new_length / old_length)
        carried[t, 0] = to_begin[0] + along * ex
        carried[t, 1] = to_begin[1] + along * ey
        if new_length > 0.0:
            carried[t, 0] -= aside * ey / new_length
            carried[t, 1] += aside * ex / new_length
