"""The points view: rows as hosts fill them, real artefacts, and wrong ones that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lowered_files import lowered
from numpy.typing import NDArray
from torch import Tensor, nn

from exporter.evidence import Evidence, judge
from exporter.formats import Lowering
from exporter.parity import Status
from exporter.targets import find_target
from exporter.views import POINTS, ROWS, rows_of
from exporter.words import Words
from swipe.corpus import load_corpus
from swipe.decode import greedy
from swipe.features import feature_batch
from swipe.gesture import Gesture
from swipe.layout import load_layout
from train.checkpoint import load_checkpoint
from train.evaluate import predict

SWIPES = 120


@pytest.fixture(scope="module")
def job_and_evidence(released: Path, shared_data: Path) -> tuple[Lowering, Evidence]:
    """The released nano model for raw points, and real swipes to judge it by."""
    corpus = load_corpus(str(shared_data / "how_we_swipe/dev.jsonl.gz"), load_layout("qwerty"))
    swipes, others = corpus.gestures[:SWIPES], corpus.gestures[-64:]
    checkpoint = load_checkpoint(released)
    logits = predict(checkpoint.model(), checkpoint.contract, feature_batch(swipes))
    words = Words(
        [g.word for g in swipes],
        [g.writer for g in swipes],
        lambda rows: [[word] for word in greedy(rows)],
    )
    job = POINTS.lowering(checkpoint, rows_of(swipes[:1]), rows_of(others))
    return job, POINTS.evidence(checkpoint, rows_of(swipes), logits, words)


def _reasons(
    job: Lowering, evidence: Evidence, folder: Path, name: str = "onnx", rung: str = "fp32"
) -> tuple[str, ...]:
    """Why the artefact is refused; empty when it agrees with PyTorch."""
    target = find_target(name)
    path = lowered(job, folder, name, rung)
    limits = target.find_rung(rung).limits_within(100.0, evidence.rounding)
    verdict = judge(target.format().load(path), evidence, limits)
    return () if verdict.status is not Status.FAIL else verdict.reasons


def _reasons_against(module: nn.Module, evidence: Evidence) -> tuple[str, ...]:
    """The same for PyTorch in place of an artefact: what is wrong shows in either."""

    def run(points: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(torch.from_numpy(points)).numpy()
        return logits

    limits = find_target("onnx").find_rung("fp32").limits_within(100.0, evidence.rounding)
    return judge(run, evidence, limits).reasons


def _gesture(count: int) -> Gesture:
    t = 5000.0 + 8.0 * np.arange(count)
    xy = np.random.default_rng(0).random((count, 2))
    return Gesture("0", "word", np.column_stack([xy, t]).astype(np.float32), "w", "test")


def test_unused_rows_repeat_the_last_point_and_time_starts_at_zero() -> None:
    (rows,) = rows_of([_gesture(50)])
    assert rows.shape == (ROWS, 3)
    assert (rows[50:] == rows[49]).all()
    assert (rows[0, 2], rows[49, 2]) == (0.0, 49 * 8.0)


def test_of_too_many_points_both_ends_and_even_steps_are_kept() -> None:
    gesture = _gesture(2 * ROWS - 1)
    (rows,) = rows_of([gesture])
    np.testing.assert_array_equal(rows[:, :2], gesture.points[::2, :2])
    assert rows_of([]).shape == (0, ROWS, 3)


@pytest.mark.slow
def test_onnx_agrees_in_float_and_keeps_the_recipe_float_in_int8(
    job_and_evidence: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    job, evidence = job_and_evidence
    assert _reasons(job, evidence, tmp_path) == ()
    assert _reasons(job, evidence, tmp_path, rung="int8") == ()
    import onnx

    graph = onnx.load(tmp_path / "int8.onnx").graph
    reached = {"points"}
    for node in graph.node:
        if node.op_type == "Conv":
            break
        if reached.intersection(node.input):
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
            reached.update(node.output)
    else:
        pytest.fail("no convolution")
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)


class Fed(nn.Module):
    """The view, fed something else than its host passes."""

    def __init__(self, view: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.view, self.change = view, change

    def forward(self, points: Tensor) -> Tensor:
        logits: Tensor = self.view(self.change(points))
        return logits


SABOTAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "x and y swapped": lambda p: torch.cat([p[:, :, 1:2], p[:, :, :1], p[:, :, 2:]], dim=2),
    "seconds": lambda p: torch.cat([p[:, :, :2], p[:, :, 2:] / 1000.0], dim=2),
    "times in steps of 64 ms, as if in float16 after a minute": lambda p: torch.cat(
        [p[:, :, :2], torch.floor(p[:, :, 2:] / 64.0) * 64.0], dim=2
    ),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_graph_that_reads_points_wrongly_is_refused(
    name: str, job_and_evidence: tuple[Lowering, Evidence]
) -> None:
    job, evidence = job_and_evidence
    assert _reasons_against(job.module, evidence) == ()
    reasons = _reasons_against(Fed(job.module, SABOTAGE[name]), evidence)
    assert any("max |delta|" in reason for reason in reasons)


def test_a_graph_that_sees_zeros_as_points_fails_its_trial(
    job_and_evidence: tuple[Lowering, Evidence],
) -> None:
    """The last row is taken for the last point, which zeros do not repeat."""
    job, evidence = job_and_evidence
    (trial,) = evidence.trials
    assert trial.name == "zeros in unused rows"
    assert any((call["points"][0, -1] == 0).all() for call in trial.calls)

    def shifted(points: Tensor) -> Tensor:
        silent = (points[:, -1:, 2:] <= 0.0).to(torch.float32)
        return torch.cat([points[:, :, :1] + 0.2 * silent, points[:, :, 1:]], dim=2)

    reasons = _reasons_against(Fed(job.module, shifted), evidence)
    assert reasons
    assert all(reason.startswith("zeros in unused rows: ") for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rung"),
    [("executorch", "fp32"), ("executorch", "int8"), ("coreml", "fp32"), ("coreml", "fp16")],
)
def test_other_formats_agree(
    name: str, rung: str, job_and_evidence: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    job, evidence = job_and_evidence
    assert _reasons(job, evidence, tmp_path, name, rung) == ()
    if rung == "fp16":
        assert _types_before_the_first_layer(tmp_path / "fp16.mlpackage") == {"fp32"}


def _types_before_the_first_layer(package: Path) -> set[str]:
    """Of the floating numbers that a package computes before its first convolution."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.converters.mil.mil.types import builtin_to_string

    specification = coremltools.utils.load_spec(str(package))
    weights = package / "Data/com.apple.CoreML/weights"
    program = load(specification, specification.specificationVersion, str(weights))
    types: set[str] = set()
    for operation in program.functions["main"].operations:
        if operation.op_type == "conv":
            break
        # The cast to float16 belongs to the layer that reads it.
        if operation.op_type not in ("const", "cast"):
            types |= {builtin_to_string(value.dtype) for value in operation.outputs}
    return types - {"bool"}
