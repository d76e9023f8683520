"""Generated sign sentences: glosses are noisy movements in a few of 6516 dimensions.

Stands in for a real data set of keypoints, with what makes one hard: far more features than
degrees of freedom, sentences of varying length, movements between signs, and no alignment. Each
sentence is a function of (seed, number), so that nothing has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

DEGREES: Final = 16
"""Dimensions in which the body really moves."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is signed, and when: a gloss per sign, and the frames of each sign and each movement.

    Attributes:
        glosses: numbers of the glosses, in order.
        signs: frames of each sign.
        moves: frames of the movement before each sign.
    """

    glosses: tuple[int, ...]
    signs: tuple[int, ...]
    moves: tuple[int, ...]

    @property
    def frames(self) -> int:
        """Length of the sentence."""
        return sum(self.signs) + sum(self.moves)


@dataclass(frozen=True)
class Signer:
    """Generates sentences over `glosses` signs as ``float32[features, frames]``.

    Attributes:
        seed: of the signs and of every sentence.
        glosses: size of the vocabulary.
        features: of each frame.
        longest: most glosses of a sentence.
        noise: sigma of the noise in the moving dimensions, whose signal has sigma 1.
    """

    seed: int
    glosses: int
    features: int
    longest: int
    noise: float

    @cached_property
    def _signs(self) -> NDArray[np.float32]:
        """Begin and end of each sign, ``[glosses, 2, DEGREES]``."""
        rng = np.random.default_rng([self.seed, 0])
        return rng.standard_normal((self.glosses, 2, DEGREES), dtype=np.float32)

    @cached_property
    def _basis(self) -> NDArray[np.float32]:
        """How each feature follows the moving dimensions, ``[features, DEGREES]``."""
        rng = np.random.default_rng([self.seed, 1])
        basis = rng.standard_normal((self.features, DEGREES), dtype=np.float32)
        return basis / np.float32(np.sqrt(DEGREES))

    def sentence(self, number: int) -> Sentence:
        """What sentence `number` says; cheap, without its frames."""
        rng = np.random.default_rng([self.seed, 2, number])
        count = int(rng.integers(1, self.longest + 1))
        return Sentence(
            tuple(rng.integers(self.glosses, size=count).tolist()),
            tuple(rng.integers(6, 13, size=count).tolist()),
            tuple(rng.integers(2, 5, size=count).tolist()),
        )

    def perform(self, number: int) -> NDArray[np.float32]:
        """The frames of sentence `number`, ``float32[features, frames]``."""
        sentence = self.sentence(number)
        rng = np.random.default_rng([self.seed, 3, number])
        at, path = rng.standard_normal(DEGREES, dtype=np.float32), []
        for gloss, sign, move in zip(sentence.glosses, sentence.signs, sentence.moves, strict=True):
            begin, end = self._signs[gloss]
            path += [_line(at, begin, move), _line(begin, end, sign)]
            at = end
        moved = np.concatenate(path)
        moved += self.noise * rng.standard_normal(moved.shape, dtype=np.float32)
        return self._basis @ moved.T


def _line(begin: NDArray[np.float32], end: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    at = np.linspace(0.0, 1.0, frames, dtype=np.float32)[:, None]
    return begin + at * (end - begin)
