"""Calibration and verification never share a writer."""

from __future__ import annotations

import pytest

from exporter.samples import Samples, choose_samples, require_disjoint
from swipe.errors import DataError, GateError
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.synthesis import synthesize

QWERTY = load_layout("qwerty")
RECORD = {
    "train": "synthetic:600",
    "dev": "",
    "dev_share": 0.3,
    "layout": "qwerty",
    "seed": 0,
    "synthetic": True,
}


def _writers(samples: Samples) -> tuple[set[str], set[str]]:
    return (
        {g.writer for g in samples.calibration},
        {g.writer for g in samples.verification},
    )


def test_the_runs_own_data_is_split_as_training_split_it() -> None:
    samples = choose_samples(None, RECORD, QWERTY, 100)
    calibration, verification = _writers(samples)
    assert not calibration & verification
    assert "synthetic" in samples.label


def test_given_data_is_split_by_writer() -> None:
    calibration, verification = _writers(choose_samples("synthetic:600", {}, QWERTY, 100))
    assert calibration
    assert verification
    assert not calibration & verification


@pytest.mark.slow
def test_absent_training_data_is_replaced_by_synthetic_and_said_so() -> None:
    gone = {**RECORD, "train": "gone.jsonl.gz", "synthetic": False}
    samples = choose_samples(None, gone, QWERTY, 50)
    assert "synthetic" in samples.label
    assert "'gone.jsonl.gz' is not on this machine" in samples.label


def test_a_record_without_data_is_refused() -> None:
    with pytest.raises(DataError, match="does not record its data"):
        choose_samples(None, {}, QWERTY, 50)


def test_a_writer_on_both_sides_is_refused() -> None:
    swipes = list(synthesize(QWERTY, wordfreq_lexicon(500), 20).gestures)
    with pytest.raises(GateError, match="1 writers are among"):
        require_disjoint(swipes[:10], swipes[10:])
    with pytest.raises(GateError, match="0 verification"):
        require_disjoint(swipes, [])
