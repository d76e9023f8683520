"""Outputs as numbers and as decisions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.parity import Kind, Limits, Reading, disagreements
from exporter.parity.outputs import MARGIN, Agreement, Decisions, misses

CTC = Reading(Kind.CTC, 26)
LIMITS = Limits(max_abs_delta=1e-4, frame_agreement=0.999, accuracy_drop=0.1)
ROWS = np.random.default_rng(0).normal(size=(4, 32, 27)).astype(np.float32)


def _reasons(candidate: NDArray[np.float32], reading: Reading = CTC) -> tuple[str, ...]:
    return disagreements(list(ROWS), list(candidate), reading, LIMITS)


@pytest.mark.parametrize(
    ("masked", "differs"), [(-1e4 + 0.5, False), (-2e3, False), (-500.0, True), (0.5, True)]
)
def test_masked_classes_have_to_be_impossible_and_no_more(masked: float, differs: bool) -> None:
    reference, candidate = ROWS.copy(), ROWS.copy()
    reference[:, :, 3], candidate[:, :, 3] = -1e4, masked
    reasons = disagreements(list(reference), list(candidate), CTC, LIMITS)
    assert any("max |delta|" in reason for reason in reasons) is differs


def test_outputs_are_compared_without_words() -> None:
    assert _reasons(ROWS.copy()) == ()
    assert len(_reasons(-ROWS)) == 2
    assert "NaN or Inf" in _reasons(ROWS * np.inf)[0]
    assert "output shape" in _reasons(ROWS[:, :, :26])[0]
    assert "missing" in _reasons(ROWS[:3])[0]


def test_values_are_compared_as_numbers_only() -> None:
    assert len(_reasons(-ROWS, Reading(Kind.VALUES))) == 1


def test_sequences_of_different_lengths_are_compared_frame_by_frame() -> None:
    rows = [ROWS[0, :5], ROWS[1, :31], ROWS[2, :1]]
    assert disagreements(rows, [row.copy() for row in rows], CTC, LIMITS) == ()
    decisions = Decisions.of(rows)
    assert decisions.lengths.tolist() == [5, 31, 1]
    alone = [Decisions.of([row]).strings(26)[0] for row in rows]
    assert decisions.strings(26) == alone


def test_a_close_call_may_fall_either_way_and_a_sure_one_may_not() -> None:
    reference = np.zeros((1, 10, 3), dtype=np.float32)
    reference[0, :, 0] = 0.1
    reference[0, 0, 0] = 2 * MARGIN
    close, sure = reference.copy(), reference.copy()
    close[0, 5, 1] = 1.0
    sure[0, 0, 1] = 4 * MARGIN
    wanted = Decisions.of(list(reference))
    agreements = [Agreement.between(wanted, Decisions.of(list(c)), 2) for c in (close, sure)]
    assert [agreement.frames for agreement in agreements] == [0.9, 0.9]
    assert [agreement.decisive for agreement in agreements] == [1.0, 0.0]


def test_a_decision_leads_by_the_distance_to_the_next_best() -> None:
    """Log-probabilities are negative, so a sum or another class would be told from it."""
    frames = np.array([[-1, -3, -9, -0.5], [-9, -9, -4, -4], [5, 1, 9, 2]], dtype=np.float32)
    assert Decisions.of([frames]).lead.tolist() == [0.5, 0.0, 4.0]


def test_a_lead_of_the_margin_is_sure() -> None:
    reference = np.zeros((1, 2, 3), dtype=np.float32)
    reference[0, :, 0] = [MARGIN, np.nextafter(np.float32(MARGIN), np.float32(0))]
    for frame, decisive in ((0, 0.0), (1, 1.0)):
        candidate = reference.copy()
        candidate[0, frame, 1] = 4 * MARGIN
        pair = Decisions.of(list(reference)), Decisions.of(list(candidate))
        assert Agreement.between(*pair, 2).decisive == decisive


@pytest.mark.parametrize(
    ("best", "letters"),
    [([0, 0, 0, 2, 0, 1], [0, 0, 1]), ([1, 0, 0, 1], [1, 0, 1]), ([2, 2], []), ([0, 2, 2], [0])],
)
def test_greedy_strings_merge_repeats_that_no_blank_parts(
    best: list[int], letters: list[int]
) -> None:
    rows = [np.eye(3, dtype=np.float32)[best], np.eye(3, dtype=np.float32)[[0]]]
    first, second = Decisions.of(rows).strings(2)
    assert [ord(letter) - ord("!") for letter in first] == letters
    assert second == "!"


def test_outputs_without_a_number_are_compared_with_nothing() -> None:
    empty = [np.zeros((0, 27), dtype=np.float32)] * 4
    for reading in (CTC, Reading(Kind.VALUES)):
        (reason,) = disagreements(empty, empty, reading, LIMITS)
        assert reason == "0 of 0 outputs of PyTorch are NaN or Inf"


def test_a_figure_at_its_limit_is_within_it_and_a_little_more_is_not() -> None:
    limits = Limits(0.5, 0.75, 0.1, decisive_agreement=0.25, blank_drift=0.125)
    assert not list(misses(0.5, Agreement(0.75, 0.25, 0.125), limits))
    assert not list(misses(0.5, Agreement(0.75, 0.25, -0.125), limits))
    for delta, agreement, named in (
        (0.51, Agreement(1, 1, 0), "max |delta|"),
        (0.0, Agreement(0.74, 1, 0), "per-frame agreement"),
        (0.0, Agreement(1, 0.24, 0), "agreement where PyTorch is sure"),
        (0.0, Agreement(1, 1, 0.13), "share of blank frames changes by +13.00%"),
        (0.0, Agreement(1, 1, -0.13), "share of blank frames changes by -13.00%"),
    ):
        (reason,) = misses(delta, agreement, limits)
        assert reason.startswith(named)


@pytest.mark.parametrize("figure", ["max_abs_delta", "frames", "decisive", "blank_drift"])
def test_a_figure_that_is_no_number_is_beyond_every_limit(figure: str) -> None:
    sound = {"frames": 1.0, "decisive": 1.0, "blank_drift": 0.0}
    delta = np.nan if figure == "max_abs_delta" else 0.0
    shares = {name: np.nan if name == figure else value for name, value in sound.items()}
    assert len(list(misses(delta, Agreement(**shares), LIMITS))) == 1


def test_a_blank_that_creeps_in_is_a_drift() -> None:
    reference = np.zeros((1, 10, 3), dtype=np.float32)
    reference[0, :, 0] = 1
    candidate = reference.copy()
    candidate[0, :2, 2] = 3
    agreement = Agreement.between(Decisions.of(list(reference)), Decisions.of(list(candidate)), 2)
    assert agreement.blank_drift == pytest.approx(0.2)
    limits = Limits(None, 0.0, 0.1, blank_drift=0.1)
    (reason,) = disagreements(list(reference), list(candidate), Reading(Kind.CTC, 2), limits)
    assert reason.startswith("share of blank frames changes by +20.00%")


def test_blank_frames_do_not_hide_a_silent_artefact() -> None:
    """26 of 32 frames are blank on both sides; the six that matter all differ."""
    reference = np.zeros((1, 32, 27), dtype=np.float32)
    reference[0, :, 26] = 5
    silent = reference.copy()
    reference[0, :6, 3] = 9
    wanted, given = Decisions.of(list(reference)), Decisions.of(list(silent))
    assert Agreement.between(wanted, given, 26).frames == 0.0
