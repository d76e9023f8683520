"""Residual transplant: what is kept, what moves, and that a foreign path is really another one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from swipe.layout import KEY_HEIGHT, KEY_WIDTH, load_layout
from swipe.transplant import align, transplant

QWERTY = load_layout("qwerty")
DVORAK = load_layout("dvorak")
UNIT = np.array([KEY_WIDTH, KEY_HEIGHT])
words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)
seeds = st.integers(0, 2**32 - 1)


def swipe(word: str, rng: np.random.Generator, points: int = 64, wobble: float = 0.1) -> NDArray:
    """float64[1, 2, points]: straight legs through the keys of `word`, off by `wobble` keys."""
    path = QWERTY.path(word)
    at = np.linspace(0, len(path) - 1, points)
    legs = np.stack([np.interp(at, np.arange(len(path)), path[:, axis]) for axis in range(2)])
    return (legs + rng.normal(0, wobble, legs.shape) * UNIT[:, None])[None]


@settings(deadline=None)
@given(word=words, seed=seeds)
def test_a_swipe_carried_to_its_own_path_stays_as_it_is(word: str, seed: int) -> None:
    before = swipe(word, np.random.default_rng(seed))
    path = QWERTY.path(word)[None]
    after = transplant(before, path, path, np.array([len(word)]))
    np.testing.assert_allclose(after, before, atol=1e-5)


@settings(deadline=None)
@given(word=words, seed=seeds, shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_a_moved_keyboard_moves_the_swipe_alike(
    word: str, seed: int, shift: tuple[float, float]
) -> None:
    before = swipe(word, np.random.default_rng(seed))
    path = QWERTY.path(word)[None]
    after = transplant(before, path, path + np.array(shift), np.array([len(word)]))
    np.testing.assert_allclose(after, before + np.array(shift)[None, :, None], atol=1e-5)


@settings(deadline=None)
@given(word=words, seed=seeds)
def test_a_carried_swipe_misses_its_letters_by_as_much_as_before(word: str, seed: int) -> None:
    before = swipe(word, np.random.default_rng(seed))
    old, new = QWERTY.path(word)[None], DVORAK.path(word)[None]
    length = np.array([len(word)])
    after = transplant(before, old, new, length)
    at = align(before, old, length)[0]

    def misses(trajectories: NDArray, path: NDArray) -> NDArray:
        return np.hypot(*((trajectories[0].T[at] - path[0]) / UNIT).T)

    assert np.isfinite(after).all()
    # A letter that shares its point with the one before has no point of its own to keep.
    own = np.append(np.diff(at) > 0, True)
    np.testing.assert_allclose(misses(after, new)[own], misses(before, old)[own], atol=1e-4)


def test_an_exact_swipe_becomes_the_exact_swipe_of_the_other_keyboard() -> None:
    rng = np.random.default_rng(0)
    carried = transplant(
        swipe("quick", rng, points=65, wobble=0),
        QWERTY.path("quick")[None],
        DVORAK.path("quick")[None],
        np.array([5]),
    )
    at = np.linspace(0, 4, 65)
    path = DVORAK.path("quick")
    expected = [np.interp(at, np.arange(5), path[:, axis]) for axis in range(2)]
    np.testing.assert_allclose(carried[0], expected, atol=1e-5)


def test_a_cut_corner_is_still_cut_on_the_inside() -> None:
    """q -> x -> p goes down and up again; on the mirrored path the inside is below."""
    old = np.array([[[0.0, 0.0], [0.5, 1.0], [1.0, 0.0]]])
    new = old * [1.0, -1.0]
    inside = np.array([0.5, 0.8])
    first, second = np.linspace(old[0, 0], inside, 32), np.linspace(inside, old[0, 2], 32)
    carried = transplant(np.concatenate([first, second]).T[None], old, new, np.array([3]))
    assert carried[0, 1].min() == pytest.approx(-0.8, abs=0.02)


@settings(deadline=None)
@given(word=words, seed=seeds)
def test_letters_are_found_in_order_and_none_is_nearer_in_another(word: str, seed: int) -> None:
    trajectory = swipe(word, np.random.default_rng(seed), points=9, wobble=1.0)
    path = QWERTY.path(word)[None]
    at = align(trajectory, path, np.array([len(word)]))[0]
    assert (np.diff(at) >= 0).all()
    distance = (((trajectory[0].T[:, None] - path[0]) / UNIT) ** 2).sum(axis=-1)
    # By brute force: the least sum over all orders, letter by letter.
    least = distance[:, 0]
    for letter in range(1, len(word)):
        least = distance[:, letter] + np.minimum.accumulate(least)
    assert distance[at, np.arange(len(word))].sum() == pytest.approx(least.min())


def test_padding_and_neighbours_change_nothing() -> None:
    rng = np.random.default_rng(1)
    pair = np.concatenate([swipe("on", rng), swipe("layout", rng)])
    old, new = np.zeros((2, 6, 2)), np.full((2, 6, 2), 9.0)
    for row, word in enumerate(("on", "layout")):
        old[row, : len(word)], new[row, : len(word)] = QWERTY.path(word), DVORAK.path(word)
    together = transplant(pair, old, new, np.array([2, 6]))
    alone = transplant(pair[:1], old[:1, :2], new[:1, :2], np.array([2]))
    assert np.array_equal(together[0], alone[0])
