"""Swipes answered in words: what was meant, what is decoded, whether that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.parity import Answers, Population
from exporter.parity.outputs import Outputs
from swipe.scoring import members_of_strata, ranks

Decode = Callable[[NDArray[np.float32]], list[list[str]]]
"""Logits ``[N, T, K + 1]`` -> candidates per swipe, best first."""

SCORES: Final = {"top1": 1, "top4": 4}


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """The words of the verification swipes, and the decoder that every implementation gets.

    Attributes:
        truths: the words that were meant.
        writers: who made each swipe.
        decode: from logits to candidates.
    """

    truths: Sequence[str]
    writers: Sequence[str]
    decode: Decode

    @property
    def population(self) -> Population:
        """Writers and strata of the swipes."""
        return Population(self.writers, members_of_strata(self.truths))

    def answer(self, logits: Outputs) -> Answers:
        """Decoded words and whether they are right, of ``logits [T, K + 1]`` per swipe."""
        candidates = self.decode(np.stack(logits))
        places = ranks(self.truths, candidates)
        scores = {name: (places < k).astype(np.float64) for name, k in SCORES.items()}
        return Answers(logits, candidates, scores)
