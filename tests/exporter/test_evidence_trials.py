"""An artefact is judged beside its samples too: at the ends of its axes, with padding, beyond."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from brought_models import (
    AXIS,
    sequences,
)
from numpy.typing import NDArray

from exporter.adapter import Exportable
from exporter.evidence import judge
from exporter.parity import Limits, Status
from exporter.proof import (
    evidence_of,
    references,
    run,
)
from swipe.errors import LoweringError

LIMITS = Limits(max_abs_delta=1e-4, frame_agreement=0.999, accuracy_drop=0.1)


def _runner(given: Exportable) -> Any:
    """An artefact that does what the network does, and refuses what is beyond its axis."""

    def answer(features: NDArray[Any], frames: NDArray[Any]) -> NDArray[np.float32]:
        if features.shape[2] > AXIS.most:
            raise LoweringError("too long", fix="-")
        return run(given.module, {"features": features, "frames": frames}, "x")[None]

    return answer


def test_an_artefact_that_does_what_the_network_does_passes() -> None:
    given = sequences()
    evidence = evidence_of(given, references(given), 0.0)
    assert judge(_runner(given), evidence, LIMITS).status is Status.PASS


def _sabotaged(given: Exportable, how: str) -> Any:
    sound = _runner(given)

    def answer(features: NDArray[Any], frames: NDArray[Any]) -> NDArray[np.float32]:
        if how == "leaks" and frames[0] < features.shape[2]:
            frames = np.array([features.shape[2]])
        if how == "fixed" and features.shape[2] == AXIS.most:
            features = features * 1.5
        if how == "unbounded":
            return run(given.module, {"features": features, "frames": frames}, "x")[None]
        output: NDArray[np.float32] = sound(features, frames)
        if how == "short":
            return output[:, :-1]
        if how == "nan":
            output[:, frames[0] :] = np.nan
        return output

    return answer


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("leaks", "padding told by frames: "),
        ("fixed", "T = 24: max |delta|"),
        ("unbounded", "T = 25: accepted, and should have been refused"),
    ],
)
def test_an_artefact_that_is_wrong_beside_the_samples_fails(how: str, says: str) -> None:
    given = sequences()
    verdict = judge(_sabotaged(given, how), evidence_of(given, references(given), 0.0), LIMITS)
    assert verdict.status is Status.FAIL
    assert verdict.metrics is not None
    assert any(reason.startswith(says) for reason in verdict.reasons)


@pytest.mark.parametrize(("how", "says"), [("short", "output of shape"), ("nan", "NaN or Inf")])
def test_an_artefact_whose_output_is_unusable_is_refused(how: str, says: str) -> None:
    given = sequences()
    evidence = evidence_of(given, references(given), 0.0)
    with pytest.raises(LoweringError, match=says):
        judge(_sabotaged(given, how), evidence, LIMITS)
