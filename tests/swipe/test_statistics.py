"""Intervals resample writers, and McNemar's p is the sum it stands for."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swipe.errors import DataError
from swipe.statistics import Interval, mcnemar, writer_intervals

WRITERS = st.lists(
    st.lists(st.booleans(), min_size=1, max_size=12), min_size=2, max_size=15
)  # each writer's swipes, right or wrong


def interval(hits: list[int], writers: list[str], **options: int) -> Interval | None:
    values = np.array(hits)[:, None]
    (found,) = writer_intervals(values, np.ones_like(values, dtype=bool), writers, **options)
    return found


@given(WRITERS)
def test_an_interval_contains_its_figure(swipes: list[list[bool]]) -> None:
    hits = [int(hit) for row in swipes for hit in row]
    found = interval(hits, [str(w) for w, row in enumerate(swipes) for _ in row], resamples=400)
    assert found is not None
    assert 0.0 <= found.low <= np.mean(hits) <= found.high <= 1.0


@given(WRITERS)
def test_columns_share_their_resamples(swipes: list[list[bool]]) -> None:
    """Equal columns have equal intervals, beside others as alone."""
    hits = np.array([int(hit) for row in swipes for hit in row])
    writers = [str(w) for w, row in enumerate(swipes) for _ in row]
    three = np.stack([hits, 1 - hits, hits], axis=1)
    first, _, last = writer_intervals(three, np.ones_like(three, dtype=bool), writers, resamples=50)
    assert first == last == interval(list(hits), writers, resamples=50)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    hits, writers = list(rng.integers(0, 2, 300)), [str(w) for w in rng.integers(0, 40, 300)]
    assert interval(hits, writers) == interval(hits, writers)
    assert interval(hits, writers) != interval(hits, writers, seed=1)


def test_a_duplicated_writer_is_seen() -> None:
    """Swipes copied to the same writers tell nothing new; to new writers they would."""
    rng = np.random.default_rng(0)
    writers = [str(w) for w in range(30) for _ in range(10)]
    hits = [int(rng.random() < 0.1 + 0.027 * int(w)) for w in writers]
    honest, copied = interval(hits, writers), interval(hits * 4, writers * 4)
    renamed = interval(hits * 4, [f"{w}/{copy}" for copy in range(4) for w in writers])
    assert honest is not None
    assert copied is not None
    assert renamed is not None
    assert copied == honest
    assert renamed.high - renamed.low < 0.7 * (honest.high - honest.low)


def test_writers_that_differ_widen_the_interval() -> None:
    """Taking swipes for independent would be five times too sure here."""
    hits = [1] * 500 + [0] * 500
    by_writer = interval(hits, [str(i // 50) for i in range(1000)])
    by_swipe = interval(hits, [str(i) for i in range(1000)])
    assert by_writer is not None
    assert by_swipe is not None
    assert by_writer.high - by_writer.low > 5 * (by_swipe.high - by_swipe.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    writers = [str(w) for w in range(60) for _ in range(5)]
    covered = 0
    for _ in range(200):
        skill = np.repeat(rng.beta(8, 2, 60), 5)
        found = interval(list((rng.random(300) < skill).astype(int)), writers, resamples=300)
        assert found is not None
        covered += found.low <= 0.8 <= found.high
    assert 0.88 * 200 <= covered <= 0.995 * 200


def test_one_writer_has_no_interval() -> None:
    assert interval([0, 1, 1], ["a", "a", "a"]) is None


def test_a_stratum_of_one_writer_or_none_has_no_interval() -> None:
    values = np.ones((3, 3), dtype=np.int64)
    members = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]], dtype=bool)
    all_of_them, one, nobody = writer_intervals(values, members, ["a", "b", "c"])
    assert all_of_them == Interval(1.0, 1.0)
    assert one is None
    assert nobody is None


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_as_many_writers_as_swipes_are_needed(rows: int) -> None:
    values = np.ones((3, 1), dtype=np.int64)
    with pytest.raises(DataError):
        writer_intervals(values, values > 0, ["a"] * rows)


def test_two_thousand_resamples_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    values, writers = rng.integers(0, 2, (8000, 14)), [str(w) for w in rng.integers(0, 126, 8000)]
    started = time.process_time()
    writer_intervals(values, rng.random(values.shape) < 0.5, writers)
    assert time.process_time() - started < 1.0


def test_many_writers_are_resampled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    hits, writers = list(rng.integers(0, 2, 300)), [str(w) for w in rng.integers(0, 40, 300)]
    whole = interval(hits, writers)
    monkeypatch.setattr("swipe.statistics._CELLS", 700)
    assert interval(hits, writers) == whole


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_sum_and_symmetric(b: int, c: int) -> None:
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2 ** (b + c)))
    assert mcnemar(b, c) == pytest.approx(float(exact), rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_of_no_disagreement_is_one_and_of_very_many_is_finite() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert 0.0 < mcnemar(50_000, 51_000) < 0.01
    assert mcnemar(0, 100_000) == 0.0


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(DataError):
        mcnemar(-1, 3)
