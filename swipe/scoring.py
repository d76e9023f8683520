"""Decoded words against the truth: top-k with intervals over writers, CER with its parts, strata.

Three conventions are kept apart because they differ by points: *strict* counts an
out-of-vocabulary word as a miss, *in-vocabulary* leaves such swipes out, and the strata are strict.
(The third line, over a lexicon extended by the truths, is strict again: `train.evaluate`.)
Nothing is averaged over nothing: an empty set is an error, an empty stratum is absent.

What it leaves out: how intervals and tests are computed (`swipe.statistics`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swipe.errors import DataError, GateError
from swipe.statistics import Interval, mcnemar, writer_intervals

KS: Final = (1, 3, 4, 8)
INTERVAL_KS: Final = (1, 4)
SHORT_WORD: Final = 3

_STRATA: Final[dict[str, Callable[[str], bool]]] = {
    f"{SHORT_WORD} letters or fewer": lambda word: len(word) <= SHORT_WORD,
    f"{SHORT_WORD + 1} letters or more": lambda word: len(word) > SHORT_WORD,
    "doubled letters": lambda word: any(a == b for a, b in itertools.pairwise(word)),
}


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
        intervals: 95 % intervals of some of them, in percent; none of fewer than two writers.
    """

    n: int
    top_k: dict[str, float]
    intervals: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class WordScores:
    """All figures of one decoder on one set of swipes."""

    strict: Accuracy
    in_vocabulary: Accuracy | None
    strata: dict[str, Accuracy]
    edits: Edits

    @property
    def worst(self) -> str:
        """The stratum with the lowest top-1; of equals the first."""
        return min(self.strata, key=lambda name: self.strata[name].top_k["1"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "worst_stratum": self.worst, "cer": self.edits.cer}


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models on the same swipes: McNemar's test of one top-k, first against second.

    Attributes:
        only_first: swipes that only the first model has right (b).
        only_second: swipes that only the second model has right (c).
        p: two-sided exact p of no difference.
        difference: first minus second, in points.
        interval: 95 % interval of the difference over writers; None of fewer than two.
    """

    only_first: int
    only_second: int
    p: float
    difference: float
    interval: Interval | None


def score_words(
    truths: Sequence[str],
    candidates: Sequence[Sequence[str]],
    lexicon: Container[str],
    *,
    writers: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> WordScores:
    """Score ranked `candidates` (best first, possibly none) for each of `truths`.

    Args:
        truths: the intended words.
        candidates: a list per swipe.
        lexicon: the words that count as in vocabulary.
        writers: who made each swipe; None for no intervals.
        kinds: a stratum that each swipe belongs to, empty for none.

    Raises:
        DataError: there are no swipes, or not one candidate list, writer and kind per swipe.
    """
    counts = {len(column) for column in (truths, candidates, writers, kinds) if column is not None}
    if not truths or len(counts) > 1:
        raise DataError(
            f"{len(truths)} words and {len(candidates)} candidate lists",
            fix="score at least one swipe, with one list, writer and kind each",
        )
    strata = members_of_strata(truths)
    for kind in sorted(set(kinds or ()) - {""}):
        strata[kind] = np.array([other == kind for other in kinds or ()])
    known = np.array([truth in lexicon for truth in truths])
    everyone = np.ones(len(truths), dtype=bool)
    members = [everyone, known, *strata.values()]
    strict, in_vocabulary, *rest = _accuracies(ranks(truths, candidates), members, writers)
    if strict is None:
        raise AssertionError("a set that is not empty has figures")
    return WordScores(
        strict=strict,
        in_vocabulary=in_vocabulary,
        strata={name: part for name, part in zip(strata, rest, strict=True) if part is not None},
        edits=count_edits(truths, [row[0] if row else "" for row in candidates]),
    )


def members_of_strata(truths: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Which of the words belong to each kind of word, by its name; kinds without any left out."""
    strata = {
        name: np.array([belongs(truth) for truth in truths]) for name, belongs in _STRATA.items()
    }
    return {name: members for name, members in strata.items() if members.any()}


def ranks(truths: Sequence[str], candidates: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Position of the truth among the candidates, or a number beyond every k: int64[N]."""
    absent = max(KS)
    return np.array(
        [
            list(row).index(truth) if truth in row else absent
            for truth, row in zip(truths, candidates, strict=True)
        ]
    )


def compare(
    first: NDArray[np.int64], second: NDArray[np.int64], writers: Sequence[str]
) -> dict[str, Paired]:
    """McNemar's test between two models' `ranks` on the same swipes, by k as text.

    Raises:
        GateError: the ranks are not of the same swipes.
    """
    if not len(first) == len(second) == len(writers):
        raise GateError(
            f"{len(first)} swipes of one model and {len(second)} of the other cannot be paired",
            fix="evaluate both on the same swipes",
        )
    found = {}
    for k in INTERVAL_KS:
        gain = (first < k).astype(np.int64) - (second < k)
        only_first, only_second = int((gain > 0).sum()), int((gain < 0).sum())
        everyone = np.ones((len(gain), 1), dtype=bool)
        (interval,) = writer_intervals(gain[:, None], everyone, writers)
        found[str(k)] = Paired(
            only_first=only_first,
            only_second=only_second,
            p=mcnemar(only_first, only_second),
            difference=100.0 * float(gain.mean()),
            interval=interval.scaled(100.0) if interval else None,
        )
    return found


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


def _accuracies(
    found: NDArray[np.int64], members: Sequence[NDArray[np.bool_]], writers: Sequence[str] | None
) -> list[Accuracy | None]:
    """Figures of each set of `members` (bool[N]); None of an empty one."""
    columns = np.repeat(np.stack(members, axis=1), len(INTERVAL_KS), axis=1)
    hits = np.tile(found[:, None] < np.array(INTERVAL_KS), len(members)).astype(np.int64)
    intervals: list[Interval | None] = [None] * columns.shape[1]
    if writers is not None:
        intervals = writer_intervals(hits, columns, writers)
    accuracies: list[Accuracy | None] = []
    for number, belongs in enumerate(members):
        own = intervals[number * len(INTERVAL_KS) :]
        known = {
            str(k): interval.scaled(100.0)
            for k, interval in zip(INTERVAL_KS, own, strict=False)
            if interval is not None
        }
        part = found[belongs]
        top_k = {str(k): 100.0 * float((part < k).mean()) for k in KS} if part.size else {}
        accuracies.append(Accuracy(part.size, top_k, known) if part.size else None)
    return accuracies


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
