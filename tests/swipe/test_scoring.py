"""Scores: conventions kept apart, edits counted whole, nothing averaged over nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swipe.errors import DataError, GateError
from swipe.scoring import compare, count_edits, ranks, score_words
from swipe.statistics import Interval

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


# Intervals, strata and pairs.

TRUTHS = ["the", "letter", "on", "word"] * 10
RIGHT = [[truth, "no"] for truth in TRUTHS]
PEOPLE = [str(i // 4) for i in range(40)]


def test_a_shuffled_candidate_list_scores_lower() -> None:
    honest = score_words(TRUTHS, RIGHT, set(TRUTHS)).strict.top_k
    backwards = score_words(TRUTHS, [row[::-1] for row in RIGHT], set(TRUTHS)).strict.top_k
    moved = score_words(TRUTHS, [*RIGHT[1:], RIGHT[0]], set(TRUTHS)).strict.top_k
    assert honest["1"] == 100.0
    assert (backwards["1"], backwards["3"]) == (0.0, 100.0)
    assert moved["8"] == 0.0


def test_intervals_are_in_percent_and_of_every_set() -> None:
    half = [row if i % 8 < 4 else ["no"] for i, row in enumerate(RIGHT)]
    scores = score_words(TRUTHS, half, {"the"}, writers=PEOPLE)
    for part in (scores.strict, scores.in_vocabulary, *scores.strata.values()):
        assert part is not None
        for k in ("1", "4"):
            assert 0.0 < part.intervals[k].low < part.top_k[k] < part.intervals[k].high < 100.0


def test_without_writers_there_are_no_intervals() -> None:
    assert score_words(TRUTHS, RIGHT, set(TRUTHS)).strict.intervals == {}
    alone = score_words(TRUTHS, RIGHT, set(TRUTHS), writers=["me"] * 40)
    assert alone.strict.intervals == {}


def test_kinds_become_strata_and_the_worst_is_named() -> None:
    kinds = ["plain", "odd", "", "plain"] * 10
    missed = [row if kind != "odd" else [] for row, kind in zip(RIGHT, kinds, strict=True)]
    scores = score_words(["tap", *TRUTHS[1:]], missed, set(), kinds=kinds)
    assert (scores.strata["plain"].n, scores.strata["odd"].n) == (20, 10)
    assert scores.strata["odd"].top_k["8"] == 0.0
    assert scores.worst == "doubled letters"  # the swipes of "letter" are those of "odd"
    assert scores.to_dict()["worst_stratum"] == scores.worst


def test_as_many_writers_and_kinds_as_swipes_are_needed() -> None:
    for options in ({"writers": PEOPLE[1:]}, {"kinds": [""]}):
        with pytest.raises(DataError):
            score_words(TRUTHS, RIGHT, set(TRUTHS), **options)


def test_two_models_are_paired_swipe_by_swipe() -> None:
    first = ranks(TRUTHS, RIGHT)
    second = ranks(TRUTHS, [["no"] if i % 8 == 0 else row for i, row in enumerate(RIGHT)])
    found = compare(first, second, PEOPLE)["1"]
    assert (found.only_first, found.only_second) == (5, 0)
    assert found.p == pytest.approx(2 / 32)
    assert found.difference == pytest.approx(12.5)
    assert found.interval is not None
    assert found.interval.low < 12.5 < found.interval.high
    swapped = compare(second, first, PEOPLE)["1"]
    assert (swapped.only_first, swapped.difference, swapped.p) == (0, -12.5, found.p)


def test_a_model_against_itself_does_not_differ() -> None:
    itself = compare(ranks(TRUTHS, RIGHT), ranks(TRUTHS, RIGHT), PEOPLE)["4"]
    assert (itself.p, itself.difference) == (1.0, 0.0)
    assert itself.interval == Interval(0.0, 0.0)


def test_other_swipes_cannot_be_paired() -> None:
    with pytest.raises(GateError):
        compare(ranks(TRUTHS, RIGHT), ranks(TRUTHS[1:], RIGHT[1:]), PEOPLE)
