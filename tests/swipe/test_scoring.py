"""Scores: conventions kept apart, edits counted whole, nothing averaged over nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swipe.errors import DataError
from swipe.scoring import count_edits, score_words

TEXT = st.text("abc", max_size=6)


def test_out_of_vocabulary_is_a_miss_in_strict_and_absent_in_vocabulary() -> None:
    truths = ["the", "zorp", "letter", "on"]
    candidates = [["the"], ["zip", "top"], ["later", "litter", "letter"], []]
    scores = score_words(truths, candidates, {"the", "letter", "on"})
    assert (scores.strict.n, scores.strict.top_k) == (
        4,
        {"1": 25.0, "3": 50.0, "4": 50.0, "8": 50.0},
    )
    assert scores.in_vocabulary is not None
    assert scores.in_vocabulary.n == 3
    assert scores.in_vocabulary.top_k["1"] == pytest.approx(100 / 3)
    assert scores.strata["3 letters or fewer"].n == 2
    assert scores.strata["4 letters or more"].n == 2
    assert scores.strata["doubled letters"].n == 1


def test_a_stratum_without_swipes_is_absent_not_zero() -> None:
    scores = score_words(["cat"], [["cat"]], set())
    assert scores.in_vocabulary is None
    assert set(scores.strata) == {"3 letters or fewer"}


@pytest.mark.parametrize(("truths", "candidates"), [([], []), (["a"], []), (["a"], [["a"], []])])
def test_zero_or_unpaired_samples_are_refused(
    truths: list[str], candidates: list[list[str]]
) -> None:
    with pytest.raises(DataError):
        score_words(truths, candidates, set())


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("cat", "cat", (0, 0, 0)),
        ("cat", "cut", (1, 0, 0)),
        ("cart", "cat", (0, 1, 0)),
        ("cat", "cart", (0, 0, 1)),
        ("cat", "", (0, 3, 0)),
        ("hello", "jelo", (1, 1, 0)),
    ],
)
def test_edits_are_told_apart(
    reference: str, hypothesis: str, expected: tuple[int, int, int]
) -> None:
    edits = count_edits([reference], [hypothesis])
    assert (edits.substitutions, edits.deletions, edits.insertions) == expected
    assert edits.cer == pytest.approx(100 * sum(expected) / len(reference))


@given(st.text("abc", min_size=1, max_size=6), TEXT)
def test_edits_balance_the_lengths(reference: str, hypothesis: str) -> None:
    edits = count_edits([reference], [hypothesis])
    assert edits.insertions - edits.deletions == len(hypothesis) - len(reference)
    total = edits.substitutions + edits.deletions + edits.insertions
    assert (total == 0) == (reference == hypothesis)
    assert total <= max(len(reference), len(hypothesis))


def test_deletions_do_not_vanish_with_a_short_hypothesis() -> None:
    assert count_edits(["abcdefgh"], ["a"]).cer == pytest.approx(87.5)


def test_edits_of_nothing_are_refused() -> None:
    for references, hypotheses in (([], []), ([""], ["a"]), (["a"], [])):
        with pytest.raises(DataError):
            count_edits(references, hypotheses)
