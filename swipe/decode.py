"""Logits -> words: greedy decoding and the search over a trie (`swipe.beam`).

Doubled letters also accept their collapsed form: fingers do not pause on the second ``l`` of
"hello", at a price, or "off" would win over "of".

Score of a word of L letters: ``ctc / L**gamma + lam * log p(word) + beta * L``, where ``ctc`` is
the log of its probability over all alignments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swipe.beam import search
from swipe.contract import ALPHABET
from swipe.errors import DataError, GateError, NonFiniteError
from swipe.lexicon import Lexicon
from swipe.presets import DEFAULT_PRESET, DecoderPreset


@dataclass(frozen=True, slots=True)
class Candidate:
    """A decoded word and its score; higher is better, scores of different swipes don't compare."""

    word: str
    score: float


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def tempered(log_probs: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    """``log_probs / temperature``, normalised again over the last axis."""
    return log_probs if temperature == 1.0 else log_softmax(log_probs / temperature)


def greedy(logits: NDArray[np.floating], letters: str = ALPHABET) -> list[str]:
    """Best class per frame, repeats merged, blanks dropped: ``[B, T, K + 1]`` -> B strings."""
    require_sound(logits, letters)
    blank = len(letters)
    words = []
    for best in np.asarray(logits).argmax(axis=-1):
        previous = np.concatenate([[blank], best[:-1]])
        words.append("".join(letters[c] for c in best[(best != previous) & (best != blank)]))
    return words


class BeamDecoder:
    """Search over one lexicon and personal words.

    Decoding changes nothing in it: threads may share it, while no words are added or removed.
    """

    def __init__(self, lexicon: Lexicon, preset: DecoderPreset = DEFAULT_PRESET) -> None:
        self.lexicon = lexicon
        self.preset = preset
        self._searches = [_Search(lexicon, preset)]
        self._personal: dict[str, float] = {}

    @property
    def personal(self) -> Mapping[str, float]:
        """Personal words and their probabilities."""
        return dict(self._personal)

    def add_words(self, words: Mapping[str, float]) -> None:
        """Decode `words` too, or with another probability than before.

        They stand in a trie of their own, beside the lexicon's, which stays as it is. A word that
        the lexicon holds too counts with the higher of both probabilities.

        Args:
            words: probability of each, on the scale of the lexicon's: 1e-4 is a common word.

        Raises:
            DataError: a word has letters outside a-z, or a probability is not in (0, 1].
        """
        for word, probability in words.items():
            if not word or not set(word) <= set(ALPHABET) or not 0.0 < probability <= 1.0:
                raise DataError(
                    f"{word!r} with probability {probability} cannot be decoded",
                    fix="add words of a-z, with probabilities above 0 and up to 1",
                )
        self._set_personal(self._personal | dict(words))

    def remove_words(self, words: Iterable[str]) -> None:
        """Forget personal words; those of the lexicon stay.

        Raises:
            DataError: one is no personal word; none is forgotten.
        """
        gone = set(words)
        unknown = sorted(gone - self._personal.keys())
        if unknown:
            raise DataError(f"{unknown[0]!r} is no personal word", fix="remove what was added")
        self._set_personal({w: p for w, p in self._personal.items() if w not in gone})

    def _set_personal(self, words: dict[str, float]) -> None:
        self._personal = words
        del self._searches[1:]
        if words:
            ordered = tuple(sorted(words))
            log_prob = np.log(np.array([words[word] for word in ordered]))
            lexicon = Lexicon("personal", ordered, log_prob.astype(np.float32))
            self._searches.append(_Search(lexicon, self.preset))

    def decode(self, log_probs: NDArray[np.floating], n: int = 8) -> list[Candidate]:
        """The `n` best words of one swipe.

        Args:
            log_probs: ``[T >= 1, K + 1]``, log-softmax of the logits, blank last.
            n: how many candidates at most.

        Raises:
            NonFiniteError: a value is NaN or infinite.
            GateError: the shape does not fit the alphabet.
        """
        require_sound(log_probs[None])
        log_probs = tempered(log_probs, self.preset.temperature)
        best: dict[str, float] = {}
        for one in self._searches:
            for word, score in one.run(log_probs, n):
                best[word] = max(score, best.get(word, -math.inf))
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))
        return [Candidate(word, score) for word, score in ranked[:n]]

    def decode_batch(self, logits: NDArray[np.floating], n: int = 8) -> list[list[Candidate]]:
        """`decode` of each swipe of raw ``logits [B, T, K + 1]``."""
        require_sound(logits)
        return [self.decode(row, n) for row in log_softmax(logits)]

    def decode_words(self, logits: NDArray[np.floating], n: int = 8) -> list[list[str]]:
        """`decode_batch` without the scores: candidates per swipe, best first."""
        return [[candidate.word for candidate in row] for row in self.decode_batch(logits, n)]


class _Search:
    """One trie made ready for `swipe.beam.search`."""

    def __init__(self, lexicon: Lexicon, preset: DecoderPreset) -> None:
        trie, endings = lexicon.trie, lexicon.endings
        self._words = lexicon.words
        self._preset = preset
        length_bits = int(trie.depth[-1]).bit_length()
        code = (endings.doubles.astype(np.int32) << length_bits) + endings.length
        bonus = preset.lam * endings.log_prob.astype(np.float64) + preset.beta * endings.length
        self._trie = (
            trie.first_child, trie.child_mask, trie.letter, trie.depth, trie.word, endings.start,
            code, bonus, length_bits, int(endings.doubles.max()),
        )  # fmt: skip

    def run(self, log_probs: NDArray[np.floating], n: int) -> list[tuple[str, float]]:
        """The `n >= 1` best words and their scores, best first."""
        values = np.asarray(log_probs, dtype=np.float64)
        top = values.max(axis=1, keepdims=True)
        preset = self._preset
        words, scores = search(
            np.exp(values - top), float(top.sum()), *self._trie, preset.beam_width * len(values),
            math.exp(-preset.floor), preset.gamma, math.exp(-preset.double_penalty),
            min(n, len(self._words)),
        )  # fmt: skip
        return [(self._words[word], score) for word, score in zip(words, scores, strict=True)]


def require_sound(logits: NDArray[np.floating], letters: str = ALPHABET) -> None:
    """Refuse ``logits [B, T, K + 1]`` that cannot be decoded.

    Raises:
        NonFiniteError: a value is NaN or infinite.
        GateError: the shape does not fit the alphabet.
    """
    if logits.ndim != 3 or logits.shape[1] < 1 or logits.shape[2] != len(letters) + 1:
        raise GateError(
            f"logits of shape {logits.shape}, expected [B, T >= 1, {len(letters) + 1}]",
            fix="use the model and the alphabet of one contract",
        )
    if not np.isfinite(logits).all():
        bad = int(logits.size - np.isfinite(logits).sum())
        raise NonFiniteError(
            f"{bad} of {logits.size} logits are NaN or Inf", fix="check the model that gave them"
        )
