"""The vision and the EEG model go through every format's own lowering, and mean the same after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from examples.eeg.model import build as build_eeg
from examples.eeg.task import EegTask
from examples.vision.model import build as build_vision
from examples.vision.task import VisionTask
from exporter.formats import Lowering, calls_of, coreml, executorch, onnx

Example = Callable[[], Lowering]


def vision() -> Lowering:
    torch.manual_seed(0)
    samples = VisionTask(0, 4, samples=4, held_out=1).batch(0).tensors["images"].numpy()
    return _job(build_vision(), samples, "vision")


def eeg() -> Lowering:
    torch.manual_seed(0)
    samples = EegTask(0, 4, recordings=4, held_out=1).batch(0).tensors["signals"].numpy()
    return _job(build_eeg(), samples, "eeg")


def _job(module: nn.Module, samples: NDArray[np.float32], name: str) -> Lowering:
    calls = calls_of(samples, name="x")
    return Lowering(module.eval(), calls[0], calls, {"name": name})


EXAMPLES = pytest.mark.parametrize("example", [vision, eeg])


def expected(job: Lowering) -> NDArray[np.float32]:
    with torch.no_grad():
        rows = [job.module(torch.from_numpy(call["x"])).numpy() for call in job.calibration]
    return np.concatenate(rows)


@EXAMPLES
def test_nothing_in_the_exported_program_is_fused_or_depends_on_the_data(example: Example) -> None:
    job = example()
    program = torch.export.export(job.module, (torch.from_numpy(job.example["x"]),), strict=False)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not {name for name in called if "scaled_dot_product" in name or "item" in name}
    assert {"aten.matmul.default", "aten.softmax.int"} <= called


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [onnx, executorch, coreml], ids=["onnx", "executorch", "coreml"])
@EXAMPLES
def test_an_artefact_computes_what_the_model_does(
    tmp_path: Path, example: Example, fmt: ModuleType
) -> None:
    job = example()
    path = tmp_path / f"artefact{'.mlpackage' if fmt is coreml else ''}"
    fmt.lower(job, path)
    assert fmt.metadata(path)["name"] == job.metadata["name"]
    assert fmt.inspect(path)
    run = fmt.load(path)
    answers = np.concatenate([run(call["x"]) for call in job.calibration])
    assert np.abs(answers - expected(job)).max() < 1e-4
