"""What a device answered, judged by the same code and limits as on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from android_harness.artefacts import Artefact, verdict_on
from android_harness.pack import Answers, Refused
from android_harness.results import Difference
from exporter.evidence import Evidence, run_all
from exporter.formats import Inputs, Runner
from exporter.formats.axes import require_bounds
from exporter.parity import Answers as Judged
from exporter.parity import Kind, Level, Verdict
from exporter.parity.outputs import Agreement, Decisions, Outputs, differences
from swipe.errors import LoweringError
from swipe.files import sha256_file
from swipe.scoring import Edits, count_edits


def wanted_calls(evidence: Evidence) -> list[Inputs]:
    """Every call that `judge` will ask for: the samples first, then trials and refusals."""
    trials = [call for trial in evidence.trials for call in trial.calls]
    return [*evidence.calls, *trials, *(refusal.call for refusal in evidence.refusals)]


def replay(calls: Sequence[Inputs], answers: Answers, artefact: Artefact) -> Runner:
    """A runner that gives what the device answered to `calls`, and refuses what it refused.

    Raises:
        LoweringError: there are not as many answers as calls.
    """
    if len(answers.calls) != len(calls):
        raise LoweringError(
            f"{len(answers.calls)} answers to {len(calls)} calls", fix="measure again"
        )
    recorded = {
        _key(tuple(call.values())): answer
        for call, answer in zip(calls, answers.calls, strict=True)
    }
    names = tuple(calls[0])
    form = artefact.target
    # ONNX knows no bounds: every host has to check them, and so do we on this machine.
    bounds = form.format().metadata(artefact.path) if form.name == "onnx" else {}

    def run(*inputs: NDArray[Any]) -> NDArray[np.float32]:
        require_bounds(bounds, dict(zip(names, inputs, strict=True)), artefact.path.name)
        answer = recorded[_key(inputs)]
        if isinstance(answer, Refused):
            raise LoweringError(
                f"{artefact.name} refused a call on the device: {answer.reason}",
                fix="export again; see what the call has that others have not",
            )
        return np.asarray(answer.arrays[-1], dtype=np.float32)

    return run


def judge_answers(runner: Runner, artefact: Artefact, level: Level) -> Verdict:
    """The verdict on what `runner` replays, executed at `level`."""
    return verdict_on(runner, artefact.evidence, artefact.limits, level)


def compare_places(runner: Runner, artefact: Artefact) -> tuple[Difference, Edits | None]:
    """Against the Python runtime on this machine, and the letters of words against PyTorch's.

    Raises:
        LoweringError: one of the two gives outputs that cannot be compared, which a verdict says;
            or the file here is another one by now, as after an export into the same bundle.
    """
    if sha256_file(artefact.path) != artefact.entry.sha256:
        raise LoweringError(
            f"{artefact.path.name} was replaced while it was measured", fix="measure again"
        )
    evidence = artefact.evidence
    there = _outputs(runner, evidence)
    here = _outputs(artefact.target.format().load(artefact.path), evidence)
    found, host = evidence.answer(there), evidence.answer(here)
    agreement = None
    if evidence.reading.kind is not Kind.VALUES:
        pair = Decisions.of(here), Decisions.of(there)
        agreement = Agreement.between(*pair, evidence.reading.blank).frames
    equal = [np.array_equal(a, b) for a, b in zip(here, there, strict=True)]
    words = _firsts(host), _firsts(found)
    difference = Difference(
        max_abs_delta=float(differences(here, there).max()),
        identical=float(np.mean(equal)),
        decisions=agreement,
        words=_equal_share(*words),
        edits=_edits(*words),
    )
    return difference, _edits(_firsts(evidence.reference), words[1])


def _outputs(runner: Runner, evidence: Evidence) -> Outputs:
    return run_all(runner, evidence.calls, evidence.reference.outputs, evidence.real)


def _firsts(answers: Judged) -> list[str] | None:
    if answers.words is None:
        return None
    return [row[0] if row else "" for row in answers.words]


def _equal_share(first: list[str] | None, second: list[str] | None) -> float | None:
    if first is None or second is None:
        return None
    return float(np.mean([a == b for a, b in zip(first, second, strict=True)]))


def _edits(first: list[str] | None, second: list[str] | None) -> Edits | None:
    return None if first is None or second is None else count_edits(first, second)


def _key(inputs: Sequence[NDArray[Any]]) -> tuple[tuple[tuple[int, ...], str, bytes], ...]:
    return tuple((value.shape, value.dtype.str, value.tobytes()) for value in inputs)
