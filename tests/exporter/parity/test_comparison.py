"""Parity fails closed: every kind of bad answer is refused, and metrics repair nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exporter.parity import (
    Answers,
    Kind,
    Level,
    Limits,
    Population,
    Reading,
    Status,
    Verdict,
    compare,
    measure,
    unverified,
)

TRUTHS = ["the", "cat", "sat", "on"]
POPULATION = Population(["ann", "ann", "bob", "eve"])
CTC = Reading(Kind.CTC, 26)
LIMITS = Limits(
    max_abs_delta=1e-4,
    frame_agreement=0.999,
    accuracy_drop=0.1,
    decisive_agreement=1.0,
    blank_drift=0.01,
)


def _answers(seed: int = 0, words: list[str] | None = None) -> Answers:
    logits = np.random.default_rng(seed).normal(size=(4, 32, 27)).astype(np.float32)
    said = words or TRUTHS
    right = np.array([a == b for a, b in zip(said, TRUTHS, strict=True)], dtype=float)
    return Answers(list(logits), [[word, "other"] for word in said], {"top1": right})


def _compare(reference: Answers, candidate: Answers, limits: Limits = LIMITS) -> Verdict:
    return compare(reference, candidate, POPULATION, CTC, limits)


def test_an_equal_answer_passes() -> None:
    verdict = _compare(_answers(), _answers())
    assert (verdict.status, verdict.level, verdict.reasons) == (Status.PASS, Level.HOST, ())
    assert verdict.metrics is not None
    assert verdict.metrics["agreement"] == {"frames": 1.0, "decisive": 1.0, "blank_drift": 0.0}
    assert verdict.metrics["greedy_agreement"] == verdict.metrics["word_agreement"] == 1.0
    assert verdict.metrics["cost"]["drop"] == 0.0


def test_values_that_nobody_scores_are_not_passed_where_a_loss_has_to_be_bounded() -> None:
    """Neither decisions nor a score tell what int8 made of them."""
    values, sound = Reading(Kind.VALUES), replace(LIMITS, max_abs_delta=None)
    wanted, given = (replace(_answers(seed), words=None, scores={}) for seed in (0, 1))
    for limits, status in (
        (replace(sound, bounded=True), Status.UNVERIFIED),
        (replace(LIMITS, bounded=True), Status.FAIL),
        (sound, Status.PASS),
    ):
        verdict = compare(wanted, given, POPULATION, values, limits)
        assert verdict.status is status
        assert limits.bounded == any("no metric scores" in reason for reason in verdict.reasons)
    scored = compare(_answers(), _answers(), POPULATION, values, replace(sound, bounded=True))
    assert not any("no metric scores" in reason for reason in scored.reasons)


@pytest.mark.parametrize(
    ("samples", "least", "told"),
    [
        (29, 0.9, "decisions on 29 samples may agree by chance; 30 would tell"),
        (30, 0.9, None),
        (299, 0.99, "decisions on 299 samples may agree by chance; 300 would tell"),
        (300, 0.99, None),
        (1000, 1.0, "decisions on 1,000 samples may agree by chance"),
    ],
)
def test_equal_decisions_that_nobody_scores_prove_nothing_where_they_are_few(
    samples: int, least: float, told: str | None
) -> None:
    """One sample that is still read alike was a PASS for int8."""
    logits = list(np.random.default_rng(0).normal(size=(samples, 3)).astype(np.float32))
    limits = replace(LIMITS, frame_agreement=least, bounded=True)
    population, classes = Population([str(n) for n in range(samples)]), Reading(Kind.CLASSES)
    verdict = compare(Answers(logits), Answers(logits), population, classes, limits)
    assert verdict.status is (Status.UNVERIFIED if told else Status.PASS)
    assert verdict.reasons == ((told,) if told else ())
    unbounded = replace(limits, bounded=False)
    assert compare(Answers(logits), Answers(logits), population, classes, unbounded).status is (
        Status.PASS
    )


@pytest.mark.parametrize(
    ("samples", "lost", "status"),
    [(600, 0, Status.PASS), (598, 0, Status.UNVERIFIED), (600, 6, Status.FAIL)],
)
def test_a_bounded_loss_passes_only_where_samples_rule_more_out(
    samples: int, lost: int, status: Status
) -> None:
    rows = [np.arange(3, dtype=np.float32)] * samples
    right, given = np.ones(samples), np.ones(samples)
    given[:lost] = 0
    wanted, said = (Answers(rows, scores={"top1": scores}) for scores in (right, given))
    population = Population([str(number) for number in range(samples)])
    for bounded in (True, False):
        limits = replace(LIMITS, accuracy_drop=0.5, bounded=bounded)
        verdict = compare(wanted, said, population, Reading(Kind.CLASSES), limits)
        assert verdict.status is (Status.PASS if not bounded and not lost else status)
        assert bool(verdict.reasons) == (verdict.status is not Status.PASS)


@pytest.mark.parametrize("level", Level)
def test_a_verdict_has_the_level_at_which_the_artefact_was_executed(level: Level) -> None:
    for candidate in (_answers(), _answers(1), Answers([])):
        assert compare(_answers(), candidate, POPULATION, CTC, LIMITS, level).level is level


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_one_value_that_is_not_finite_fails(bad: float, side: str) -> None:
    answers = {"reference": _answers(), "candidate": _answers()}
    answers[side].outputs[3][31, 26] = bad
    verdict = _compare(answers["reference"], answers["candidate"])
    assert verdict.status is Status.FAIL
    assert verdict.metrics is None
    assert "1 of 3456 outputs" in verdict.reasons[0]


def test_zero_samples_fail() -> None:
    empty = Answers([], [], {"top1": np.empty(0)})
    verdict = compare(empty, empty, Population([]), CTC, LIMITS)
    assert (verdict.status, verdict.reasons) == (Status.FAIL, ("no sample was compared",))


@pytest.mark.parametrize(
    "short",
    [
        replace(_answers(), outputs=_answers().outputs[:3]),
        replace(_answers(), words=TRUTHS[:3]),
        replace(_answers(), words=None),
        replace(_answers(), scores={"top1": np.ones(3)}),
        replace(_answers(), scores={}),
        replace(_answers(), scores={"top4": np.ones(4)}),
    ],
)
def test_what_is_missing_fails(short: Answers) -> None:
    for pair in ((_answers(), short), (short, _answers())):
        verdict = _compare(*pair)
        assert (verdict.status, verdict.metrics) == (Status.FAIL, None)


def test_what_is_missing_on_both_sides_fails_too() -> None:
    short = replace(_answers(), outputs=_answers().outputs[:3])
    assert "some are missing" in _compare(short, short).reasons[0]
    few = Population(POPULATION.writers[:3])
    for answers in (_answers(), replace(_answers(), words=None, scores={})):
        verdict = compare(answers, answers, few, CTC, LIMITS)
        assert (verdict.status, verdict.metrics) == (Status.FAIL, None)
        assert "some are missing" in verdict.reasons[0]


@pytest.mark.parametrize("score", [np.nan, -0.5, 1.5])
def test_a_score_that_is_no_share_fails(score: float) -> None:
    odd = replace(_answers(), scores={"top1": np.array([1, 1, 1, score])})
    assert _compare(_answers(), odd).reasons == ("a score is not in [0, 1]",)


@pytest.mark.parametrize("shape", [(31, 27), (32, 26), (27, 32), (864,)])
def test_another_shape_of_one_output_fails(shape: tuple[int, ...]) -> None:
    outputs = [*_answers().outputs[:3], np.zeros(shape, dtype=np.float32)]
    verdict = _compare(_answers(), replace(_answers(), outputs=outputs))
    assert verdict.status is Status.FAIL
    assert "output shape" in verdict.reasons[0]
    assert "of sample 3" in verdict.reasons[0]


def test_each_limit_is_named_when_missed() -> None:
    right = replace(_answers(), outputs=[5 * row for row in _answers().outputs])
    outputs = [np.roll(-row, 1, axis=1) for row in right.outputs]
    for row in outputs:
        row[:16, 26] = 99
    wrong = Answers(outputs, [["dog"]] * 4, {"top1": np.zeros(4)})
    reasons = _compare(right, wrong).reasons
    assert [reason.split(" ")[0:2] for reason in reasons] == [
        ["max", "|delta|"],
        ["per-frame", "agreement"],
        ["agreement", "where"],
        ["share", "of"],
        ["accuracy", "falls"],
    ]


def test_a_model_that_says_only_blank_is_compared_with_nothing() -> None:
    outputs = [np.eye(27, dtype=np.float32)[[26] * 32]] * 4
    mute = replace(_answers(), outputs=outputs)
    assert "nothing but blank" in _compare(mute, mute).reasons[0]


def test_a_model_that_spells_in_one_frame_only_can_be_compared() -> None:
    outputs = [np.eye(27, dtype=np.float32)[[26] * 32] for _ in range(4)]
    outputs[1][7, 3] = 2
    spare = replace(_answers(), outputs=outputs)
    assert _compare(spare, spare).status is Status.PASS


def test_blank_is_a_class_like_others_where_outputs_are_no_ctc() -> None:
    outputs = [np.eye(27, dtype=np.float32)[[26] * 32]] * 4
    same = replace(_answers(), outputs=outputs)
    verdict = compare(same, same, POPULATION, Reading(Kind.CLASSES), LIMITS)
    assert verdict.status is Status.PASS
    assert verdict.metrics is not None
    assert verdict.metrics["greedy_agreement"] is verdict.metrics["greedy_edits"] is None


def test_scores_are_means_in_percent_of_each_side() -> None:
    metrics = measure(_answers(), _answers(0, ["the", "dog", "sat", "on"]), POPULATION, CTC)
    assert metrics.scores == {"top1": 75.0}
    assert metrics.reference_scores == {"top1": 100.0}


def test_words_agree_by_their_first_candidates() -> None:
    def saying(*candidates: str) -> Answers:
        return replace(_answers(), words=[list(candidates)] * 4)

    first = saying("the", "then", "than")
    assert measure(first, saying("the", "than", "toe"), POPULATION, CTC).word_agreement == 1.0
    assert measure(first, saying("toe", "then", "than"), POPULATION, CTC).word_agreement == 0.0


def test_greedy_strings_are_compared_with_every_kind_of_edit() -> None:
    def spelled(*words: str) -> Answers:
        rows = np.zeros((len(words), 32, 27), dtype=np.float32)
        rows[:, :, 26] = 5
        for row, word in zip(rows, words, strict=True):
            for at, letter in enumerate(word):
                row[3 * at + 1, ord(letter) - 97] = 9
        return replace(_answers(), outputs=list(rows))

    metrics = measure(
        spelled("the", "cat", "sat", "on"), spelled("the", "cut", "st", "onn"), POPULATION, CTC
    )
    edits = metrics.greedy_edits
    assert edits is not None
    assert (edits.substitutions, edits.deletions, edits.insertions, edits.letters) == (1, 1, 1, 11)
    assert metrics.greedy_agreement == 0.25


def test_a_sample_without_candidates_is_another_answer_not_an_error() -> None:
    assert _answers().words is not None
    mute = replace(_answers(), words=[[], *list(_answers().words or ())[1:]])
    assert measure(_answers(), mute, POPULATION, CTC).word_agreement == 0.75


def test_the_callers_arrays_are_left_alone() -> None:
    reference, candidate = _answers(), _answers(1)
    before = [[row.copy() for row in a.outputs] for a in (reference, candidate)]
    measure(reference, candidate, POPULATION, CTC)
    for answers, rows in zip((reference, candidate), before, strict=True):
        np.testing.assert_array_equal(np.stack(answers.outputs), np.stack(rows))


@given(st.permutations(range(4)))
def test_metrics_do_not_depend_on_the_order_of_samples(order: list[int]) -> None:
    reference, candidate = _answers(), _answers(1, ["the", "dog", "sat", "in"])

    def ordered(answers: Answers) -> Answers:
        return Answers(
            [answers.outputs[i] for i in order],
            [list(answers.words or ())[i] for i in order],
            {name: score[order] for name, score in answers.scores.items()},
        )

    whole = measure(reference, candidate, POPULATION, CTC)
    writers = [POPULATION.writers[i] for i in order]
    again = measure(ordered(reference), ordered(candidate), Population(writers), CTC)
    assert whole.mean_abs_delta == pytest.approx(again.mean_abs_delta, rel=1e-12)
    assert replace(whole, mean_abs_delta=0) == replace(again, mean_abs_delta=0)


@given(st.sampled_from([(4, 32), (8, 16), (1, 128), (128, 1), (2, 64)]), st.integers(0, 99))
def test_figures_do_not_depend_on_the_shape_that_frames_come_in(
    shape: tuple[int, int], seed: int
) -> None:
    """4 samples of 32 frames, or the same frames as any other number of samples."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(128, 27)).astype(np.float32)
    others = frames + rng.normal(size=frames.shape).astype(np.float32)

    def shaped(values: NDArray[np.float32], by: tuple[int, int]) -> Answers:
        return Answers(list(values.reshape(*by, 27)))

    reading = Reading(Kind.CTC, 26)
    first, second = (
        measure(shaped(frames, by), shaped(others, by), Population(["x"] * by[0]), reading)
        for by in ((4, 32), shape)
    )
    assert first.agreement == second.agreement
    assert (first.max_abs_delta, first.mean_abs_delta) == (
        second.max_abs_delta, second.mean_abs_delta,
    )  # fmt: skip


def test_one_wrong_frame_among_thousands_that_agree_is_not_averaged_away() -> None:
    """No metric flattens frames and classes: garbage with one right maximum scores one frame."""
    reference = _answers()
    outputs = [row.copy() for row in reference.outputs]
    outputs[2][5] = np.roll(outputs[2][5], 1)
    verdict = _compare(reference, replace(reference, outputs=outputs))
    assert verdict.status is Status.FAIL


def test_one_number_that_is_off_is_not_averaged_away() -> None:
    reference = _answers()
    outputs = [row.copy() for row in reference.outputs]
    outputs[2][5, 3] += 0.001
    verdict = _compare(reference, replace(reference, outputs=outputs))
    assert verdict.status is Status.FAIL
    assert verdict.metrics is not None
    assert verdict.metrics["max_abs_delta"] == pytest.approx(0.001, rel=1e-3)
    assert verdict.metrics["mean_abs_delta"] == pytest.approx(0.001 / 3456, rel=1e-3)


def test_values_have_numbers_and_no_decisions() -> None:
    values = Answers([np.arange(3, dtype=np.float32)] * 4)
    reading = Reading(Kind.VALUES)
    verdict = compare(values, values, POPULATION, reading, LIMITS)
    assert verdict.status is Status.PASS
    assert verdict.metrics is not None
    assert verdict.metrics["agreement"] is None
    assert verdict.metrics["cost"] is None
    off = Answers([row + 1e-3 for row in values.outputs])
    assert compare(values, off, POPULATION, reading, LIMITS).status is Status.FAIL


def test_limits_allow_for_pytorchs_own_rounding_and_nothing_else() -> None:
    assert LIMITS.allowing(0.0) == LIMITS
    assert LIMITS.allowing(float("nan")) == LIMITS
    assert LIMITS.allowing(1e-3).max_abs_delta == pytest.approx(1e-2)
    assert replace(LIMITS.allowing(1e-3), max_abs_delta=1e-4) == LIMITS
    quantized = replace(LIMITS, max_abs_delta=None)
    assert quantized.allowing(1e-3) == quantized


def test_a_verdict_fails_with_what_is_added_to_it() -> None:
    passed = _compare(_answers(), _answers())
    assert passed.failing(()) == passed
    failed = passed.failing(["dvorak: no"])
    assert (failed.status, failed.reasons) == (Status.FAIL, ("dvorak: no",))


def test_unverified_is_not_a_pass() -> None:
    verdict = unverified("executes on macOS only")
    assert verdict.status is Status.UNVERIFIED
    assert verdict.level is Level.STRUCTURAL
    assert verdict.reasons
