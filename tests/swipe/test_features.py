"""Features: the recipe of the contract, and bounds that no degenerate swipe breaks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swipe.contract import POINTS
from swipe.errors import NonFiniteError
from swipe.features import features, trajectory


def _by_the_contract(points: np.ndarray) -> np.ndarray:
    """The recipe again, point by point and without numpy's interpolation."""
    seen: dict[float, tuple[float, float]] = {}
    for x, y, t in sorted(points.tolist(), key=lambda p: p[2]):
        seen.setdefault(t, (x, y))
    times = sorted(seen)
    duration = times[-1] - times[0]
    n = max(2, round(duration / 16.667) + 1)

    def at(t: float) -> np.ndarray:
        for left, right in itertools.pairwise(times):
            if left <= t <= right:
                share = (t - left) / (right - left)
                return (1 - share) * np.array(seen[left]) + share * np.array(seen[right])
        return np.array(seen[times[-1]])

    grid = [at(times[0] + duration * k / (n - 1)) for k in range(n)]
    rows = []
    for k in range(64):
        index = k * (n - 1) / 63
        low = min(int(index), n - 2)
        rows.append((1 - (index - low)) * grid[low] + (index - low) * grid[low + 1])
    return np.clip(np.array(rows).T, 0, 1)


@pytest.mark.parametrize("count", [2, 3, 17, 64, 300])
def test_features_equal_the_contract_written_out(count: int) -> None:
    rng = np.random.default_rng(count)
    points = np.column_stack(
        [rng.uniform(-0.2, 1.2, (count, 2)), np.cumsum(rng.integers(1, 40, count))]
    )
    np.testing.assert_allclose(features(points), _by_the_contract(points), atol=1e-5)


def test_strided_selection_would_be_a_skew() -> None:
    """The known wrong step 3 (ceil stride) differs visibly from the recipe."""
    t = np.arange(0, 2000, 16.667)
    points = np.column_stack([np.sin(t / 300) / 2 + 0.5, np.cos(t / 200) / 2 + 0.5, t])
    stride = -(-len(t) // 64)
    strided = np.resize(points[::stride, :2].T, (2, 64))
    assert np.abs(features(points) - strided).max() > 0.1


def test_time_order_and_repeats_do_not_matter() -> None:
    points = np.array([[0.1, 0.2, 0], [0.5, 0.6, 30], [0.9, 0.8, 90.0]])
    shuffled = points[[2, 0, 1, 1]]
    np.testing.assert_array_equal(features(points), features(shuffled))


def test_shifting_time_changes_nothing() -> None:
    points = np.array([[0.1, 0.2, 0], [0.5, 0.6, 30], [0.9, 0.8, 90.0]])
    np.testing.assert_array_equal(features(points), features(points + np.array([0, 0, 5000])))


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 300), st.just(3)),
        elements=st.floats(-1e3, 1e3, allow_nan=False),
    )
)
def test_features_are_bounded_for_any_finite_swipe(points: np.ndarray) -> None:
    result = features(points)
    assert result.shape == (2, POINTS)
    assert result.dtype == np.float32
    assert ((result >= 0) & (result <= 1)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_point_that_is_not_finite_is_refused(bad: float) -> None:
    points = np.array([[0.1, 0.2, 0], [0.5, bad, 30], [0.9, 0.8, 90.0]])
    with pytest.raises(NonFiniteError):
        trajectory(points)
