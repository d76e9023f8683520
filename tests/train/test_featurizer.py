"""The feature recipe in the graph against its numpy definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from swipe.corpus import load_corpus
from swipe.features import feature_batch, features
from swipe.layout import load_layout
from train.models.featurizer import Featurizer, _intervals

ROWS = 320
LARGEST_DELTA = 1e-5
FEATURIZER = Featurizer().eval()

coordinates = st.floats(-0.5, 1.5, width=32)
steps_ms = st.sampled_from([0, 0, 1, 2, 7, 8, 8.5, 16, 17, 40, 250, 3000])


@st.composite
def swipes(draw: st.DrawFn) -> NDArray[np.float32]:
    """``float32[N, 3]`` with times that repeat, crawl and jump, and end before a minute is over."""
    count = draw(st.integers(1, 40))
    steps = draw(st.lists(steps_ms, min_size=count, max_size=count))
    t = np.minimum(np.cumsum(steps) - steps[0], 60_000.0)
    xy = draw(st.lists(coordinates, min_size=2 * count, max_size=2 * count))
    return np.column_stack([np.reshape(xy, (count, 2)), t]).astype(np.float32)


def _filled(points: NDArray[np.float32], rest: str = "last") -> NDArray[np.float32]:
    row = points[-1:] if rest == "last" else np.zeros((1, 3), np.float32)
    return np.concatenate([points, np.repeat(row, ROWS - len(points), axis=0)])


def _in_graph(points: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        given: NDArray[np.float32] = FEATURIZER(torch.from_numpy(points[None]))[0].numpy()
    return given


def _delta(points: NDArray[np.float32], rest: str = "last") -> float:
    return float(np.abs(_in_graph(_filled(points, rest)) - features(points)).max())


@settings(max_examples=150, deadline=None)
@given(swipes(), st.sampled_from(["last", "zeros"]))
def test_any_swipe_becomes_the_same_features(points: NDArray[np.float32], rest: str) -> None:
    assert _delta(points, rest) <= LARGEST_DELTA


def _swipe(t: NDArray[np.float64], seed: int = 0) -> NDArray[np.float32]:
    xy = np.random.default_rng(seed).random((len(t), 2))
    return np.column_stack([xy, t]).astype(np.float32)


DEGENERATE = {
    "one point": np.zeros(1),
    "two points": np.array([0.0, 90.0]),
    "two points at once": np.zeros(2),
    "300 points": np.arange(300) * 8.0,
    "all at once": np.zeros(50),
    "one repeated time": np.array([0.0, 10.0, 10.0, 10.0, 20.0, 35.0]),
    "every row used": np.arange(ROWS) * 7.0,
    "a minute": np.linspace(0, 60_000, 300).round(),
    "a burst after a long rest": np.concatenate([[0.0], 59_000.0 + np.arange(40)]),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("rest", ["last", "zeros"])
def test_degenerate_swipes_become_the_same_features(name: str, rest: str) -> None:
    assert _delta(_swipe(DEGENERATE[name]), rest) <= LARGEST_DELTA


def test_beyond_the_minute_that_readers_accept_features_are_less_exact() -> None:
    ten_minutes = _swipe(np.linspace(0, 600_000, 300).round())
    assert LARGEST_DELTA < _delta(ten_minutes) <= 1e-4


def test_a_point_whose_time_goes_back_is_dropped() -> None:
    """The one difference to the definition, which would sort it; touch events never go back."""
    points = _swipe(np.array([0.0, 60.0, 30.0, 120.0]))
    given = _in_graph(_filled(points))
    kept = features(np.delete(points, 2, axis=0))
    assert np.abs(given - kept).max() <= LARGEST_DELTA
    assert np.abs(given - features(points)).max() > 0.01


def test_every_whole_millisecond_has_as_many_grid_intervals_as_in_float64() -> None:
    durations = np.arange(60_001)
    expected = [max(1, round(t / 16.667)) for t in durations.tolist()]
    given = _intervals(torch.tensor(durations, dtype=torch.float32))
    assert given.tolist() == expected


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("seconds", lambda p: p * np.float32([1, 1, 1e-3])),
        ("x and y swapped", lambda p: p[:, [1, 0, 2]]),
        ("no times", lambda p: p * np.float32([1, 1, 0])),
    ],
)
def test_what_is_fed_wrongly_gives_other_features(name: str, change: object) -> None:
    """The comparison above can fail."""
    points = _swipe(np.cumsum(np.random.default_rng(1).integers(5, 40, 60)).astype(np.float64))
    assert callable(change)
    wrong = _in_graph(_filled(change(points)))
    assert np.abs(wrong - features(points)).max() > 0.1, name


@pytest.mark.slow
def test_every_real_swipe_becomes_the_same_features(shared_data: Path) -> None:
    corpus = load_corpus(str(shared_data / "how_we_swipe/dev.jsonl.gz"), load_layout("qwerty"))
    by_length = sorted(corpus.gestures, key=lambda gesture: len(gesture.points))
    largest = 0.0
    for start in range(0, len(by_length), 64):
        batch = by_length[start : start + 64]
        rows = max(2, len(batch[-1].points))
        points = np.stack([np.pad(g.points, ((0, rows - len(g.points)), (0, 0))) for g in batch])
        with torch.inference_mode():
            given = FEATURIZER(torch.from_numpy(points)).numpy()
        largest = max(largest, float(np.abs(given - feature_batch(batch)).max()))
    assert len(by_length) == 8152
    assert largest <= LARGEST_DELTA
