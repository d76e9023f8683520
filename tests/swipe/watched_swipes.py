"""Swipes whose lives are counted, for proofs that memory does not grow with a corpus."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from swipe.gesture import Gesture
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.synthesis import generate


class WatchedSwipes:
    """Generated swipes.

    Attributes:
        alive: how many are, whose points are still in memory.
        most: were at any time.
    """

    def __init__(self) -> None:
        self.alive = self.most = 0

    def rows(self, count: int) -> Iterator[Gesture]:
        for gesture in generate(load_layout("qwerty"), wordfreq_lexicon(500), count):
            weakref.finalize(gesture.points, self._let_go)
            self.alive += 1
            self.most = max(self.most, self.alive)
            yield gesture

    def _let_go(self) -> None:
        self.alive -= 1
