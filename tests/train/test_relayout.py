"""Other keyboards in training: the swipe goes where its keyboard goes, and nowhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from swipe.layout import BUILT_IN, load_layout
from train.config import Augment
from train.relayout import relayout
from train.stream import Rows

KEYS = load_layout("qwerty").centers.astype(np.float32)
seeds = st.integers(0, 2**32 - 1)


def exact_rows(seed: int, count: int = 40, letters: int = 4) -> Rows:
    """Swipes that rest on each key of a word for 16 points."""
    targets = np.random.default_rng(seed).integers(0, 26, (count, letters))
    paths = KEYS[np.repeat(targets, 64 // letters, axis=1)].transpose(0, 2, 1)
    lengths = np.full(count, letters)
    return Rows(np.ascontiguousarray(paths), targets, lengths, [str(i) for i in range(count)])


def shares(**given: float) -> Augment:
    return Augment(**{"layouts": 0.0, "rows": 0.0, **given})


@settings(deadline=None)
@given(seed=seeds, layouts=st.sampled_from([0.0, 0.5, 1.0]), rows=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_swipe_over_its_keys_stays_over_them(seed: int, layouts: float, rows: float) -> None:
    before = exact_rows(seed)
    untouched = before.trajectories.copy()
    rng = np.random.default_rng(seed)
    after, keyboards = relayout(before, KEYS, shares(layouts=layouts, rows=rows), rng)
    own = keyboards[np.arange(40)[:, None], np.repeat(after.targets, 16, axis=1)]
    np.testing.assert_allclose(after.trajectories, own.transpose(0, 2, 1), atol=1e-5)
    assert np.array_equal(before.trajectories, untouched)
    assert after.ids == before.ids
    assert after.trajectories.dtype == keyboards.dtype == np.float32


def test_without_shares_nothing_moves() -> None:
    before = exact_rows(0)
    after, keyboards = relayout(before, KEYS, shares(), np.random.default_rng(0))
    assert np.array_equal(after.trajectories, before.trajectories)
    assert np.array_equal(keyboards, np.repeat(KEYS[None], 40, axis=0))


def test_shuffled_keyboards_have_the_same_places_and_are_none_that_is_built_in() -> None:
    _, keyboards = relayout(exact_rows(0), KEYS, shares(layouts=1.0), np.random.default_rng(0))
    built_in = [load_layout(name).centers for name in BUILT_IN]
    places = sorted(map(tuple, KEYS.tolist()))
    for keyboard in keyboards:
        assert sorted(map(tuple, keyboard.tolist())) == places
        assert not any(np.allclose(keyboard, known) for known in built_in)
    assert len({keyboard.tobytes() for keyboard in keyboards}) == len(keyboards)


def test_the_shares_are_those_asked_for() -> None:
    rows = exact_rows(0, count=4000)
    config = shares(layouts=0.3, rows=0.2)
    _, keyboards = relayout(rows, KEYS, config, np.random.default_rng(0))
    height = keyboards[:, :, 1].max(axis=1) - keyboards[:, :, 1].min(axis=1)
    lower = height < 0.6
    assert abs(lower.mean() - 0.2) < 0.02
    shuffled = np.any(keyboards[:, :, 0] != KEYS[:, 0], axis=1)
    assert abs(shuffled.mean() - 0.3) < 0.02
    bottom = keyboards[lower, :, 1].max(axis=1)
    assert set(np.round(bottom, 3)) == {0.625, 0.875}, "the letters lie on the upper or lower rows"
