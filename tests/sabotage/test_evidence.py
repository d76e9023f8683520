"""Evidence that would flatter: calibration among the verification samples, axes that are fixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artefact_surgery import ready_target
from torch import Tensor, nn

from exporter.adapter import Axis, Exportable, Inputs, Kind, Reading
from exporter.formats import Lowering
from exporter.ladder import climb
from exporter.policy import Policy
from exporter.proof import evidence_of, references
from exporter.samples import Samples
from exporter.subject import Subject
from exporter.targets import find_target
from swipe.errors import GateError
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.synthesis import synthesize

AXIS, EXAMPLE = Axis("T", 4, 24), 10


class Spread(nn.Module):
    """Class scores ``[1, T, 3]`` of ``[1, T, 5]``, frame by frame."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.head(features)
        return scores


def _call(seed: int, frames: int = EXAMPLE) -> Inputs:
    generator = np.random.default_rng(seed)
    return {"features": generator.standard_normal((1, frames, 5)).astype(np.float32)}


def _spread(**changes: Any) -> Exportable:
    """All samples have the example's length: nothing but the sweep tries another."""
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "module": Spread().eval(),
        "example": _call(0),
        "calibration": [_call(1)],
        "verification": [_call(seed) for seed in range(2, 12)],
        "reading": Reading(Kind.CLASSES),
        "axes": {"features": {1: AXIS}},
    }
    return Exportable(**(fields | changes))


def test_swipes_of_a_writer_who_calibrated_are_refused() -> None:
    swipes = synthesize(load_layout("qwerty"), wordfreq_lexicon(200), 6, seed=5).gestures
    leaked = replace(swipes[3], writer=swipes[0].writer)
    with pytest.raises(GateError, match="1 writers are among the calibration"):
        Samples([swipes[0]], [leaked], "synthetic")


def test_a_sample_that_calibrated_is_refused_for_any_model() -> None:
    with pytest.raises(GateError, match="1 verification samples are calibration samples too"):
        _spread(calibration=[_call(1), _call(5)])


@pytest.mark.slow
def test_an_axis_that_is_fixed_inside_the_file_is_refused_by_the_sweep(tmp_path: Path) -> None:
    """Declared, static nowhere in the signature, and right about every sample."""
    onnx = pytest.importorskip("onnx")
    given = _spread()
    job = Lowering(given.module, given.example, [], {}, "output", dynamic=given.dynamic)
    outputs = references(given)
    subject = Subject("own", "model", job, evidence_of(given, outputs, 0.0))

    def climbed(path: Path, folder: Path) -> None:
        folder.mkdir()
        target = ready_target("onnx", {"fp32": path})
        climb(target, subject, folder, Policy(quantize=False), lambda line: None)

    honest = tmp_path / "honest.onnx"
    find_target("onnx").format().lower(job, honest)
    climbed(honest, tmp_path / "taken")

    model = onnx.load(honest)
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["fixed" if name == "features" else name for name in node.input]
    shape = onnx.numpy_helper.from_array(np.array([1, EXAMPLE, 5], np.int64), "fixed_shape")
    graph.initializer.append(shape)
    reshape = onnx.helper.make_node("Reshape", ["features", "fixed_shape"], ["fixed"], name="fixed")
    graph.node.insert(0, reshape)
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    with pytest.raises(GateError, match="onnx own fp32 was refused") as caught:
        climbed(broken, tmp_path / "refused")
    assert "cannot be executed" in str(caught.value)
    assert not list((tmp_path / "refused").iterdir())
