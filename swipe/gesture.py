"""Gesture: one swipe over the keyboard, with the word it was meant to write.

`defect` says in one word why a gesture cannot be used; readers turn that into a quarantine row.
Coordinates are letter-area units and may leave [0, 1]; times are milliseconds from the first point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.contract import ALPHABET, FRAMES, frames_needed
from swipe.layout import KEY_WIDTH, Layout

MIN_POINTS: Final = 3
MAX_DURATION_MS: Final = 60_000.0
"""The longest of 69,264 volunteered swipes took 42 s; beyond a minute it is a clock error."""
MAX_ASPECT: Final = 10.0
MAX_COORDINATE: Final = 10.0
"""No finger is ten keyboards away: such a row is a unit error."""


_NOT_SWIPED: Final = str.maketrans("", "", "'’-")


@dataclass(frozen=True, slots=True, eq=False)
class Gesture:
    """One swipe.

    Attributes:
        id: identifier within its corpus.
        word: the intended word, lower case.
        points: float32[N, 3] of (x, y, t_ms) in the order of the events.
        writer: who swiped; splits never separate a writer's gestures.
        source: corpus name; "synthetic" marks generated swipes.
        sentence: the prompt it belongs to, empty when unknown.
        aspect: height / width of the letter area in pixels.
    """

    id: str
    word: str
    points: NDArray[np.float32]
    writer: str
    source: str
    sentence: str = ""
    aspect: float = 0.45

    @property
    def duration_ms(self) -> float:
        """Time between the earliest and the latest point."""
        t = self.points[:, 2]
        return float(t.max() - t.min())


def defect(gesture: Gesture, letters: str, frames: int = FRAMES) -> str | None:
    """Why `gesture` cannot be trained on or scored, or None when it can.

    Args:
        gesture: the gesture to judge.
        letters: the letters a word may have.
        frames: CTC frames available.
    """
    points = gesture.points
    if not gesture.word:
        return "no word"
    if not set(gesture.word) <= set(letters):
        return f"letters outside the alphabet: {''.join(sorted(set(gesture.word) - set(letters)))}"
    if len(gesture.word) < 2:
        return "one-letter word: a tap, not a swipe"
    if points.ndim != 2 or points.shape[1] != 3:
        return f"points of shape {points.shape}, expected [N, 3]"
    if len(points) < MIN_POINTS:
        return f"fewer than {MIN_POINTS} points"
    if not np.isfinite(points).all():
        return "a coordinate or time is not finite"
    if not (np.abs(points[:, :2]).max() <= MAX_COORDINATE):
        return f"a coordinate beyond {MAX_COORDINATE:g} keyboard widths"
    if not (gesture.duration_ms > 0):
        return "all points at the same time"
    if not (gesture.duration_ms <= MAX_DURATION_MS):
        return "lasts longer than a minute"
    if not (0 < gesture.aspect <= MAX_ASPECT):
        return f"a letter area {gesture.aspect:g} times as high as wide"
    if frames_needed(gesture.word) > frames:
        return f"infeasible for CTC: needs {frames_needed(gesture.word)} of {frames} frames"
    return None


def swiped_letters(word: str) -> str:
    """What a finger passes over to write `word`; empty when a-z cannot spell it."""
    letters = word.lower().translate(_NOT_SWIPED)
    return letters if letters and set(letters) <= set(ALPHABET) else ""


def key_distances(gesture: Gesture, layout: Layout) -> NDArray[np.float64]:
    """From each letter's key centre to each touch point, in key widths: ``float64[L, N]``."""
    scale = np.array([1.0, gesture.aspect]) / KEY_WIDTH
    offsets = (layout.path(gesture.word)[:, None, :] - gesture.points[None, :, :2]) * scale
    distances: NDArray[np.float64] = np.sqrt((offsets**2).sum(axis=2))
    return distances


def letter_miss(gesture: Gesture, layout: Layout) -> float:
    """How far the swipe misses some letter of its word, in key widths.

    The letters are assigned to touch points in order, each point at or after the one before, so
    that the largest distance is least. About 5.5 % of volunteered swipes miss by more than 1.5 and
    are mostly garbage: a filter for training, never for evaluation.
    """
    return ordered_miss(key_distances(gesture, layout))


def ordered_miss(distances: NDArray[np.float64]) -> float:
    """`letter_miss` of the swipe whose `key_distances` these are."""
    reached = np.minimum.accumulate(distances[0])
    for letter in distances[1:]:
        reached = np.minimum.accumulate(np.maximum(reached, letter))
    return float(reached[-1])
