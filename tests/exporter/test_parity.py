"""Parity fails closed: every kind of bad answer is refused, and metrics repair nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.parity import (
    Answers,
    Level,
    Limits,
    Status,
    compare,
    disagreements,
    measure,
    unverified,
)

WORDS = ["the", "cat", "sat", "on"]
LIMITS = Limits(max_abs_delta=1e-4, frame_agreement=0.999, accuracy_drop=0.1)


def _answers(seed: int = 0, words: list[str] | None = None) -> Answers:
    logits = np.random.default_rng(seed).normal(size=(4, 32, 27)).astype(np.float32)
    return Answers(logits, [[word, "other"] for word in words or WORDS])


def test_an_equal_answer_passes() -> None:
    verdict = compare(_answers(), _answers(), WORDS, LIMITS)
    assert (verdict.status, verdict.level, verdict.reasons) == (Status.PASS, Level.HOST, ())
    assert verdict.metrics is not None
    assert verdict.metrics.frame_agreement == 1.0
    assert verdict.metrics.accuracy_drop == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_one_value_that_is_not_finite_fails(bad: float, side: str) -> None:
    answers = {"reference": _answers(), "candidate": _answers()}
    answers[side].logits[3, 31, 26] = bad
    verdict = compare(answers["reference"], answers["candidate"], WORDS, LIMITS)
    assert verdict.status is Status.FAIL
    assert verdict.metrics is None
    assert "1 of 3456 outputs" in verdict.reasons[0]


def test_zero_samples_fail() -> None:
    empty = Answers(np.empty((0, 32, 27), dtype=np.float32), [])
    assert compare(empty, empty, [], LIMITS).reasons == ("no sample was compared",)


def test_a_missing_output_fails() -> None:
    short = Answers(_answers().logits, _answers().words[:3])
    assert "missing" in compare(_answers(), short, WORDS, LIMITS).reasons[0]


@pytest.mark.parametrize("shape", [(4, 31, 27), (4, 32, 26), (4, 27, 32), (4, 864)])
def test_another_shape_fails(shape: tuple[int, ...]) -> None:
    other = replace(_answers(), logits=np.zeros(shape, dtype=np.float32))
    verdict = compare(_answers(), other, WORDS, LIMITS)
    assert verdict.status is Status.FAIL
    assert "output shape" in verdict.reasons[0]


def test_each_limit_is_named_when_missed() -> None:
    wrong = Answers(-_answers().logits, [["dog"]] * 4)
    reasons = compare(_answers(), wrong, WORDS, LIMITS).reasons
    assert len(reasons) == 3
    assert "max |delta logit|" in reasons[0]
    assert "per-frame agreement" in reasons[1]
    assert "falls 100.00 points" in reasons[2]


def test_a_swipe_without_candidates_is_a_miss_not_an_error() -> None:
    mute = Answers(_answers().logits, [[], *_answers().words[1:]])
    metrics = measure(_answers(), mute, WORDS)
    assert metrics.top1 == 75.0
    assert metrics.word_agreement == 0.75


def test_the_callers_arrays_are_left_alone() -> None:
    reference, candidate = _answers(), _answers(1)
    before = reference.logits.copy(), candidate.logits.copy()
    measure(reference, candidate, WORDS)
    np.testing.assert_array_equal(reference.logits, before[0])
    np.testing.assert_array_equal(candidate.logits, before[1])


@given(st.permutations(range(4)))
def test_metrics_do_not_depend_on_the_order_of_swipes(order: list[int]) -> None:
    reference, candidate = _answers(), _answers(1, ["the", "dog", "sat", "in"])

    def ordered(answers: Answers) -> Answers:
        return Answers(answers.logits[order], [answers.words[i] for i in order])

    whole = measure(reference, candidate, WORDS)
    again = measure(ordered(reference), ordered(candidate), [WORDS[i] for i in order])
    assert whole.mean_abs_delta == pytest.approx(again.mean_abs_delta, rel=1e-12)
    assert replace(whole, mean_abs_delta=0) == replace(again, mean_abs_delta=0)


def test_limits_allow_for_pytorchs_own_rounding_and_nothing_else() -> None:
    assert LIMITS.allowing(0.0) == LIMITS
    assert LIMITS.allowing(float("nan")) == LIMITS
    assert LIMITS.allowing(1e-3).max_abs_delta == pytest.approx(1e-2)
    assert replace(LIMITS.allowing(1e-3), max_abs_delta=1e-4) == LIMITS
    quantized = replace(LIMITS, max_abs_delta=None)
    assert quantized.allowing(1e-3) == quantized


@pytest.mark.parametrize(
    ("masked", "differs"), [(-1e4 + 0.5, False), (-2e3, False), (-500.0, True), (0.5, True)]
)
def test_masked_classes_have_to_be_impossible_and_no_more(masked: float, differs: bool) -> None:
    reference, candidate = _answers().logits, _answers().logits
    reference[:, :, 3], candidate[:, :, 3] = -1e4, masked
    reasons = disagreements(reference, candidate, LIMITS)
    assert any("max |delta logit|" in reason for reason in reasons) is differs


def test_outputs_are_compared_without_words() -> None:
    logits = _answers().logits
    assert disagreements(logits, logits.copy(), LIMITS) == ()
    assert len(disagreements(logits, -logits, LIMITS)) == 2
    assert "NaN or Inf" in disagreements(logits, logits * np.inf, LIMITS)[0]
    assert "output shape" in disagreements(logits, logits[:, :, :26], LIMITS)[0]


def test_a_verdict_fails_with_what_is_added_to_it() -> None:
    passed = compare(_answers(), _answers(), WORDS, LIMITS)
    assert passed.failing(()) == passed
    failed = passed.failing(["dvorak: no"])
    assert (failed.status, failed.reasons) == (Status.FAIL, ("dvorak: no",))


def test_unverified_is_not_a_pass() -> None:
    verdict = unverified("executes on macOS only")
    assert verdict.status is Status.UNVERIFIED
    assert verdict.level is Level.STRUCTURAL
    assert verdict.reasons
