"""Outputs as numbers and as decisions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.parity import Kind, Limits, Reading, disagreements
from exporter.parity.outputs import MARGIN, Agreement, Decisions

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
