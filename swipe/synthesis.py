"""Synthetic swipes: seeded minimum-jerk paths through the key centres of lexicon words.

The embedded default when no corpus is at hand. Always labelled synthetic: a model trained on it
works on these curves, which real fingers only resemble, and no accuracy on it says anything
about people.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.errors import DataError
from swipe.gesture import Gesture, defect
from swipe.layout import KEY_HEIGHT, KEY_WIDTH, Layout
from swipe.lexicon import Lexicon
from swipe.sources import SYNTHETIC, Corpus

SWIPES_PER_WRITER: Final = 50
SAMPLE_MS: Final = 16.0


def synthesize(
    layout: Layout, lexicon: Lexicon, count: int, *, seed: int = 0, first_writer: int = 0
) -> Corpus:
    """The swipes of `generate` in memory.

    Raises:
        DataError: see `generate`.
    """
    swipes = tuple(generate(layout, lexicon, count, seed=seed, first_writer=first_writer))
    return Corpus(f"{SYNTHETIC} ({len(swipes):,} swipes, seed {seed})", swipes)


def generate(
    layout: Layout, lexicon: Lexicon, count: int, *, seed: int = 0, first_writer: int = 0
) -> Iterator[Gesture]:
    """Yield `count` swipes; words are drawn with probability proportional to sqrt(frequency).

    The square root keeps rare words in view; plain frequencies would make half of all swipes the
    fifty commonest words. Each synthetic writer has an own speed, overshoot and aiming error.
    Only the draws are held in memory, eight bytes a swipe.

    Args:
        layout: the keyboard to swipe on.
        lexicon: where the words come from.
        count: number of swipes, at least 1.
        seed: equal arguments give equal swipes.
        first_writer: number of the first writer, so that two calls can be disjoint by writer.

    Raises:
        DataError: `count` is not positive, or no word of the lexicon can be swiped.
    """
    if count < 1:
        raise DataError(f"{count} synthetic swipes asked for", fix="ask for at least one")
    usable = [
        i
        for i, word in enumerate(lexicon.words)
        if len(word) >= 2 and set(word) <= set(layout.letters)
    ]
    if not usable:
        raise DataError(
            f"no word of lexicon {lexicon.name} can be swiped on {layout.name}",
            fix="use a lexicon in the layout's letters",
        )
    rng = np.random.default_rng([seed, first_writer])
    weight = np.exp(0.5 * lexicon.log_prob[usable].astype(np.float64))
    draws = rng.choice(usable, size=count, p=weight / weight.sum())

    def swipes() -> Iterator[Gesture]:
        for number, index in enumerate(draws):
            writer = first_writer + number // SWIPES_PER_WRITER
            gesture = Gesture(
                id=f"synthetic-{seed}-{first_writer}-{number}",
                word=lexicon.words[int(index)],
                points=_swipe(layout.path(lexicon.words[int(index)]), rng, writer),
                writer=f"synthetic-{writer}",
                source=SYNTHETIC,
            )
            if defect(gesture, layout.letters) is None:
                yield gesture

    return swipes()


def _swipe(path: NDArray[np.float64], rng: np.random.Generator, writer: int) -> NDArray[np.float32]:
    """One swipe through ``path [L, 2]``: float32[N, 3]."""
    style = np.random.default_rng(writer)
    speed = style.uniform(0.7, 1.4)  # keyboard widths per second
    bias = style.normal(0.0, [0.12 * KEY_WIDTH, 0.08 * KEY_HEIGHT])
    aim = path + bias + rng.normal(0.0, [0.22 * KEY_WIDTH, 0.16 * KEY_HEIGHT], size=path.shape)
    distance = np.hypot(*np.diff(aim, axis=0).T) if len(aim) > 1 else np.array([0.0])
    # Fitts-like: time grows slower than distance, and even a doubled letter takes a moment.
    leg_ms = 1000.0 * (0.06 + np.sqrt(distance) * 0.28) / speed * rng.uniform(0.8, 1.25)
    knots = np.concatenate([[0.0], np.cumsum(leg_ms)])
    t = np.arange(0.0, knots[-1] + SAMPLE_MS, SAMPLE_MS)
    t = np.minimum(t + rng.uniform(0.0, 2.0, size=t.shape), knots[-1])
    leg = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(leg_ms) - 1)
    phase = (t - knots[leg]) / leg_ms[leg]
    # Minimum jerk along each leg; a moving average then rounds the corners as fingers do.
    progress = phase**3 * (10.0 - 15.0 * phase + 6.0 * phase**2)
    xy = aim[leg] + (aim[leg + 1] - aim[leg]) * progress[:, None]
    width = min(int(style.integers(1, 4)) * 2 + 1, len(xy) | 1)
    padded = np.pad(xy, ((width // 2, width // 2), (0, 0)), mode="edge")
    kernel = np.full(width, 1.0 / width)
    smooth = np.stack([np.convolve(padded[:, a], kernel, mode="valid") for a in range(2)], axis=1)
    smooth += rng.normal(0.0, 0.0015, size=smooth.shape)
    return np.column_stack([smooth, t - t[0]]).astype(np.float32)
