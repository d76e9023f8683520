"""What a device answered is judged as strictly as what this machine answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from android_harness.artefacts import Artefact, open_bundle
from android_harness.pack import Answers, Refused, Returned
from android_harness.parity import compare_places, judge_answers, replay, wanted_calls
from exporter.formats import Inputs
from exporter.parity import Level, Status
from swipe.errors import LoweringError

pytestmark = pytest.mark.slow

Call = Returned | Refused


@pytest.fixture(scope="module")
def artefact(published: Path) -> Artefact:
    """The released nano model as float ONNX."""
    return open_bundle(published, None, lambda line: None).artefacts[0]


@pytest.fixture(scope="module")
def calls(artefact: Artefact) -> list[Inputs]:
    """What a device is asked."""
    return wanted_calls(artefact.evidence)


@pytest.fixture(scope="module")
def answers(artefact: Artefact, calls: list[Inputs]) -> list[Call]:
    """What an honest device says."""
    runner = artefact.target.format().load(artefact.path)
    return [Returned((runner(*call.values()),)) for call in calls]


def _pack(answers: Sequence[Call]) -> Answers:
    return Answers(("logits",), tuple(answers))


def test_an_honest_device_passes_and_is_the_same_as_here(
    artefact: Artefact, calls: list[Inputs], answers: list[Call]
) -> None:
    replayed = replay(calls, _pack(answers), artefact)
    verdict = judge_answers(replayed, artefact, Level.DEVICE)
    assert (verdict.status, verdict.level) == (Status.PASS, Level.DEVICE)
    difference, edits = compare_places(replayed, artefact)
    assert (difference.identical, difference.max_abs_delta, difference.words) == (1.0, 0.0, 1.0)
    assert difference.edits is not None
    assert difference.edits.cer == 0
    assert edits is not None
    assert edits.cer == 0


def test_a_file_that_was_replaced_meanwhile_is_not_taken_for_the_one_that_was_measured(
    artefact: Artefact, calls: list[Inputs], answers: list[Call], tmp_path: Path
) -> None:
    """As by an export into the same bundle while a phone computes."""
    newer = tmp_path / artefact.path.name
    newer.write_bytes(artefact.path.read_bytes() + b"\n")
    replayed = replay(calls, _pack(answers), artefact)
    for path in (newer, tmp_path / "gone.onnx"):
        with pytest.raises(LoweringError, match="was replaced while it was measured"):
            compare_places(replayed, replace(artefact, path=path))


def test_rounding_otherwise_is_reported_and_passes(
    artefact: Artefact, calls: list[Inputs], answers: list[Call]
) -> None:
    nudged = [
        Returned((answer.arrays[0] + np.float32(1e-5),))
        for answer in answers
        if isinstance(answer, Returned)
    ]
    replayed = replay(calls, _pack(nudged), artefact)
    assert judge_answers(replayed, artefact, Level.DEVICE).status is Status.PASS
    difference, _ = compare_places(replayed, artefact)
    assert difference.identical < 0.5
    assert 0 < difference.max_abs_delta < 2e-5


def _nan(answers: list[Call]) -> list[Call]:
    first = answers[0]
    assert isinstance(first, Returned)
    damaged = first.arrays[0].copy()
    damaged.flat[5] = np.nan
    return [Returned((damaged,)), *answers[1:]]


def _refusing(answers: list[Call]) -> list[Call]:
    return [*answers[:3], Refused("no memory"), *answers[4:]]


def _swapped(answers: list[Call]) -> list[Call]:
    return [*answers[1:], answers[0]]


def _misshapen(answers: list[Call]) -> list[Call]:
    first = answers[0]
    assert isinstance(first, Returned)
    return [Returned((first.arrays[0][:, :-1],)), *answers[1:]]


def _silent(answers: list[Call]) -> list[Call]:
    return [
        Returned((np.zeros_like(answer.arrays[0]),))
        for answer in answers
        if isinstance(answer, Returned)
    ]


@pytest.mark.parametrize(
    ("sabotage", "reason"),
    [
        (_nan, "NaN or Inf"),
        (_refusing, "no memory"),
        (_swapped, "max |delta|"),
        (_misshapen, "shape"),
        (_silent, "max |delta|"),
    ],
    ids=["nan", "refused", "swapped", "misshapen", "zeros"],
)
def test_a_device_that_answers_otherwise_fails(
    artefact: Artefact,
    calls: list[Inputs],
    answers: list[Call],
    sabotage: Callable[[list[Call]], list[Call]],
    reason: str,
) -> None:
    replayed = replay(calls, _pack(sabotage(list(answers))), artefact)
    verdict = judge_answers(replayed, artefact, Level.DEVICE)
    assert verdict.status is Status.FAIL
    assert reason in verdict.reasons[0]


def test_missing_answers_are_no_answers(
    artefact: Artefact, calls: list[Inputs], answers: list[Call]
) -> None:
    with pytest.raises(LoweringError, match="answers to"):
        replay(calls, _pack(answers[:-1]), artefact)
