"""Augmentation: any swipe and any range keep shape, finiteness, point order and coupling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from swipe.features import trajectory
from swipe.layout import BUILT_IN, load_layout
from train.augment import augment
from train.config import Augment

KEYS = load_layout("qwerty").centers.astype(np.float32)
NOTHING = Augment(scale=0, shear=0, translate=0, mirror=0, noise=0)

share = st.floats(0.0, 0.99)
mirrors = st.sampled_from([0.0, 0.5, 1.0])
silent = st.builds(
    Augment, scale=share, shear=share, translate=share, mirror=mirrors, noise=st.just(0.0)
)
noisy = st.builds(
    Augment,
    scale=share,
    shear=share,
    translate=share,
    mirror=mirrors,
    noise=st.floats(0.0, 0.49),
)
seeds = st.integers(0, 2**32 - 1)


def swipes(seed: int, count: int, length: int, reach: float = 1.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-reach, reach, (count, 2, length)).astype(np.float32)


@settings(deadline=None)
@given(
    config=noisy,
    seed=seeds,
    count=st.integers(0, 5),
    length=st.sampled_from([1, 2, 64, 300]),
    reach=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_shape_type_and_finiteness_are_kept(
    config: Augment, seed: int, count: int, length: int, reach: float
) -> None:
    before = swipes(seed, count, length, reach)
    untouched = before.copy()
    moved, keys = augment(before, KEYS, config, np.random.default_rng(seed))
    assert moved.shape == (count, 2, length)
    assert keys.shape == (count, len(KEYS), 2)
    assert moved.dtype == keys.dtype == np.float32
    assert np.isfinite(moved).all()
    assert np.isfinite(keys).all()
    assert keys.flags.c_contiguous
    assert np.array_equal(before, untouched)


@settings(deadline=None)
@given(config=noisy, seed=seeds, points=st.sampled_from([1, 2, 3, 300]), still=st.booleans())
def test_a_swipe_of_any_number_of_points_can_be_augmented(
    config: Augment, seed: int, points: int, still: bool
) -> None:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.uniform(0, 1, (points, 2)), np.arange(points) * 16.0])
    if still:
        rows[:, :2] = 0.5
    before = np.stack([trajectory(rows)])
    moved, keys = augment(before, KEYS, config, np.random.default_rng(seed))
    assert moved.shape == (1, 2, 64)
    assert np.isfinite(moved).all()
    assert np.isfinite(keys).all()


@settings(deadline=None)
@given(config=silent, seed=seeds, layout=st.sampled_from(BUILT_IN))
def test_a_swipe_over_the_keys_stays_over_them(config: Augment, seed: int, layout: str) -> None:
    """The map moves the swipe and the keyboard together."""
    keys = load_layout(layout).centers.astype(np.float32)
    rng = np.random.default_rng(seed)
    words = rng.integers(0, len(keys), (4, 64))
    moved, moved_keys = augment(
        np.ascontiguousarray(keys[words].transpose(0, 2, 1)), keys, config, rng
    )
    for swipe, own_keys, word in zip(moved, moved_keys, words, strict=True):
        np.testing.assert_allclose(swipe.T, own_keys[word], atol=1e-5)


@settings(deadline=None)
@given(config=silent, seed=seeds, steps=st.lists(share, min_size=3, max_size=64))
def test_points_on_a_line_stay_on_it_in_order(
    config: Augment, seed: int, steps: list[float]
) -> None:
    rng = np.random.default_rng(seed)
    start, end = rng.uniform(0, 1, (2, 2, 1))
    along = np.concatenate([[0.0], np.cumsum(steps) / max(sum(steps), 1e-3)])
    line = (start + (end - start) * along).astype(np.float32)[None]
    moved, _ = augment(line, KEYS, config, rng)
    points = moved[0].astype(np.float64)
    direction = points[:, -1] - points[:, 0]
    progress = direction @ (points - points[:, :1])
    assert (np.diff(progress) >= -1e-5).all(), "a point overtook another"
    aside = direction[0] * (points[1] - points[1, 0]) - direction[1] * (points[0] - points[0, 0])
    assert np.abs(aside).max() < 1e-5, "a point left the line"


@settings(deadline=None)
@given(seed=seeds, length=st.sampled_from([1, 2, 64, 300]))
def test_no_augmentation_is_the_identity(seed: int, length: int) -> None:
    before = swipes(seed, 3, length)
    moved, keys = augment(before, KEYS, NOTHING, np.random.default_rng(seed))
    np.testing.assert_allclose(moved, before, atol=1e-6)
    np.testing.assert_allclose(keys, np.stack([KEYS] * 3), atol=1e-6)


def test_a_mirror_turns_left_and_right_around_only() -> None:
    before = swipes(0, 3, 64)
    config = NOTHING.model_copy(update={"mirror": 1.0})
    moved, keys = augment(before, KEYS, config, np.random.default_rng(0))
    np.testing.assert_allclose(moved[:, 0], 1.0 - before[:, 0], atol=1e-6)
    np.testing.assert_allclose(moved[:, 1], before[:, 1], atol=1e-6)
    np.testing.assert_allclose(keys[0, :, 0], 1.0 - KEYS[:, 0], atol=1e-6)


def test_noise_moves_the_swipe_but_not_the_keys() -> None:
    before = swipes(0, 50, 64)
    config = NOTHING.model_copy(update={"noise": 0.01})
    moved, keys = augment(before, KEYS, config, np.random.default_rng(0))
    assert np.std(moved - before) == pytest.approx(0.01, rel=0.05)
    np.testing.assert_allclose(keys, np.broadcast_to(KEYS, keys.shape), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(0.01, 0.5), shear=st.floats(0.01, 0.5), translate=st.floats(0.01, 0.5))
def test_the_map_stays_within_its_ranges(scale: float, shear: float, translate: float) -> None:
    """Read off the images of the centre and of the two unit vectors."""
    config = NOTHING.model_copy(update={"scale": scale, "shear": shear, "translate": translate})
    probe = np.array([[[0.5, 1.5, 0.5], [0.5, 0.5, 1.5]]], dtype=np.float32)
    moved, _ = augment(np.repeat(probe, 200, axis=0), KEYS, config, np.random.default_rng(0))
    center = moved[:, :, 0]
    assert np.abs(center - 0.5).max() <= translate + 1e-5
    matrix = moved[:, :, 1:] - center[:, :, None]
    assert np.abs(matrix[:, [0, 1], [0, 1]] - 1.0).max() <= scale + 1e-5
    assert np.abs(matrix[:, [0, 1], [1, 0]]).max() <= shear + 1e-5
    assert np.abs(center - 0.5).max() > 0.5 * translate, "the range is not used"


def test_equal_generators_give_equal_maps_and_swipes_get_their_own() -> None:
    same = np.repeat(swipes(0, 1, 64), 4, axis=0)
    first, first_keys = augment(same, KEYS, Augment(), np.random.default_rng(3))
    again, again_keys = augment(same, KEYS, Augment(), np.random.default_rng(3))
    assert np.array_equal(first, again)
    assert np.array_equal(first_keys, again_keys)
    other, _ = augment(same, KEYS, Augment(), np.random.default_rng(4))
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
