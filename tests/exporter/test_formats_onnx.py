"""ONNX artefacts: right, static, opset 14, silent about their build, and refused when damaged."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lowered_files import lowered
from lowering_jobs import (
    build_agnostic,
    job_of,
    swipe_job,
)
from torch import nn

from exporter.formats import Lowering, calls_of
from exporter.formats import onnx as onnx_format
from swipe.errors import LoweringError, MissingError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def full(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(job, tmp_path_factory.mktemp("onnx"), "onnx")


@pytest.fixture(scope="module")
def small(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(job, tmp_path_factory.mktemp("onnx"), "onnx", "int8")


def test_importing_the_formats_loads_no_heavy_library() -> None:
    program = (
        "import sys\n"
        "import exporter.formats.onnx, exporter.formats.executorch, exporter.formats.coreml\n"
        "heavy = {'torch', 'onnx', 'onnxscript', 'onnxruntime', 'executorch', 'torchao',"
        " 'coremltools'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_missing_library_names_the_extra(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingError) as caught:
        onnx_format.load(full)
    assert caught.value.fix == "pip install 'swipe-export[onnx]'"


@pytest.mark.slow
def test_the_structure_is_what_we_promise(full: Path) -> None:
    facts = onnx_format.inspect(full)
    assert facts["opset"] == 14
    assert facts["ir_version"] == 7
    assert facts["inputs"] == {"features": [1, 2, 64]}
    assert facts["outputs"] == {"logits": [1, 32, 27]}
    assert facts["quantized"] is False
    assert facts["size_bytes"] == full.stat().st_size


@pytest.mark.slow
def test_stem_and_head_of_the_int8_model_stay_float(small: Path) -> None:
    facts = onnx_format.inspect(small)
    assert facts["quantized"] is True
    assert (facts["quantized_layers"], facts["float_layers"]) == (5, 2)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"absent\.onnx"):
        onnx_format.load(tmp_path / "absent.onnx")


@pytest.mark.slow
def test_a_weight_that_is_not_finite_is_named(full: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(full)
    weight = next(t for t in model.graph.initializer if t.name == "head.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = np.inf
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "head.weight"))
    onnx.save(model, tmp_path / "infinite.onnx")
    with pytest.raises(LoweringError, match=r"head\.weight holds NaN or Inf"):
        onnx_format.inspect(tmp_path / "infinite.onnx")


@pytest.mark.slow
def test_a_failed_build_leaves_the_earlier_artefact(job: Lowering, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")
    infinite = dataclasses.replace(
        job, calibration=calls_of(np.full((2, 2, 64), np.inf, np.float32))
    )
    with pytest.raises(LoweringError, match="calibration"):
        onnx_format.quantize(infinite, path, "int8")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"earlier"


@pytest.mark.slow
def test_a_quantization_that_changes_nothing_is_an_error(tmp_path: Path) -> None:
    job = job_of(nn.ReLU())
    with pytest.raises(LoweringError, match="changed nothing"):
        onnx_format.quantize(job, tmp_path / "model.onnx", "int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_module_that_cannot_be_exported_is_a_lowering_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    job = job_of(Branching())
    with pytest.raises(LoweringError, match="torch cannot export"):
        onnx_format.lower(job, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_further_inputs_are_named_and_what_they_reach_stays_float(tmp_path: Path) -> None:
    paths = build_agnostic("onnx", tmp_path)
    small = paths["int8"]
    facts = onnx_format.inspect(small)
    assert list(facts["inputs"]) == ["features", "layout_keys", "layout_mask"]  # type: ignore[call-overload]
    assert list(facts["outputs"]) == ["log_emissions"]  # type: ignore[call-overload]
    # Both ends of the seven convolutions, and the two layers that embed the keys.
    assert (facts["quantized_layers"], facts["float_layers"]) == (5, 4)
    first = next(node for node in _nodes(small) if node.op_type == "Cos")
    assert not _quantizers_after(small, first.output[0])


def _nodes(path: Path) -> list[Any]:
    import onnx

    return list(onnx.load(path).graph.node)


def _quantizers_after(path: Path, name: str) -> set[str]:
    """Operators that round, among all that depend on the value called `name`."""
    reached, found = {name}, set()
    for node in _nodes(path):
        if reached.intersection(node.input):
            reached.update(node.output)
            found.add(node.op_type)
    return found & {"QuantizeLinear", "DequantizeLinear"}
