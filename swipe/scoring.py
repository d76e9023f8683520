"""Decoded words against the truth: top-k, CER with its parts, strata.

Three conventions are kept apart because they differ by points: *strict* counts an
out-of-vocabulary word as a miss, *in-vocabulary* leaves such swipes out, and the strata are strict.
Nothing is averaged over nothing: an empty set is an error, an empty stratum is absent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swipe.errors import DataError

KS: Final = (1, 3, 4, 8)
SHORT_WORD: Final = 3


@dataclass(frozen=True, slots=True)
class Edits:
    """Letter edits that turn hypotheses into references, and the references' letters."""

    substitutions: int
    deletions: int
    insertions: int
    letters: int

    @property
    def cer(self) -> float:
        """Character error rate, in percent."""
        return 100.0 * (self.substitutions + self.deletions + self.insertions) / self.letters


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-k of one set of swipes.

    Attributes:
        n: number of swipes.
        top_k: percent of swipes whose word is among the first k candidates, by k as text.
    """

    n: int
    top_k: dict[str, float]


@dataclass(frozen=True, slots=True)
class WordScores:
    """All figures of one decoder on one set of swipes."""

    strict: Accuracy
    in_vocabulary: Accuracy | None
    strata: dict[str, Accuracy]
    edits: Edits

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "cer": self.edits.cer}


def score_words(
    truths: Sequence[str], candidates: Sequence[Sequence[str]], lexicon: Container[str]
) -> WordScores:
    """Score ranked `candidates` (best first, possibly none) for each of `truths`.

    Raises:
        DataError: there are no swipes, or not one candidate list per swipe.
    """
    if not truths or len(truths) != len(candidates):
        raise DataError(
            f"{len(truths)} words and {len(candidates)} candidate lists",
            fix="score at least one swipe, with one list each",
        )
    strata: dict[str, Callable[[str], bool]] = {
        f"{SHORT_WORD} letters or fewer": lambda word: len(word) <= SHORT_WORD,
        f"{SHORT_WORD + 1} letters or more": lambda word: len(word) > SHORT_WORD,
        "doubled letters": lambda word: any(a == b for a, b in itertools.pairwise(word)),
    }
    ranks = _ranks(truths, candidates)
    known = np.array([truth in lexicon for truth in truths])
    by_stratum = {
        name: ranks[np.array([belongs(truth) for truth in truths])]
        for name, belongs in strata.items()
    }
    best = [row[0] if row else "" for row in candidates]
    return WordScores(
        strict=_accuracy(ranks),
        in_vocabulary=_accuracy(ranks[known]) if known.any() else None,
        strata={name: _accuracy(part) for name, part in by_stratum.items() if part.size},
        edits=count_edits(truths, best),
    )


def count_edits(references: Sequence[str], hypotheses: Sequence[str]) -> Edits:
    """Edits of least total cost over all pairs; a reference is never cut to its hypothesis.

    Raises:
        DataError: the references have no letters, or the lengths differ.
    """
    letters = sum(len(reference) for reference in references)
    if not letters or len(references) != len(hypotheses):
        raise DataError(
            f"{len(references)} references with {letters} letters, {len(hypotheses)} hypotheses",
            fix="give one hypothesis per reference, and at least one letter",
        )
    pairs = zip(references, hypotheses, strict=True)
    totals = np.array([_edits(reference, hypothesis) for reference, hypothesis in pairs])
    substitutions, deletions, insertions = totals.sum(axis=0).tolist()
    return Edits(substitutions, deletions, insertions, letters)


def _ranks(truths: Sequence[str], candidates: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Position of the truth among the candidates, or a number beyond every k."""
    absent = max(KS)
    return np.array(
        [
            list(row).index(truth) if truth in row else absent
            for truth, row in zip(truths, candidates, strict=True)
        ]
    )


def _accuracy(ranks: NDArray[np.int64]) -> Accuracy:
    return Accuracy(len(ranks), {str(k): 100.0 * float((ranks < k).mean()) for k in KS})


def _edits(reference: str, hypothesis: str) -> tuple[int, int, int]:
    """(substitutions, deletions, insertions) of one least-cost alignment."""
    # Each cell: (cost, substitutions, deletions, insertions); tuples compare by cost first.
    row = [(j, 0, 0, j) for j in range(len(hypothesis) + 1)]
    for i, letter in enumerate(reference, start=1):
        above, row = row, [(i, 0, i, 0)]
        for j, other in enumerate(hypothesis, start=1):
            cost, s, d, k = above[j - 1]
            step = int(letter != other)
            match = (cost + step, s + step, d, k)
            cost, s, d, k = above[j]
            deletion = (cost + 1, s, d + 1, k)
            cost, s, d, k = row[j - 1]
            insertion = (cost + 1, s, d, k + 1)
            row.append(min(match, deletion, insertion))
    return row[-1][1:]
