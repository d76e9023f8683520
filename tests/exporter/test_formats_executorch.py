"""ExecuTorch artefacts: right, in XNNPACK, silent about their build, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lowered_files import lowered
from lowering_jobs import (
    build_agnostic,
    expected,
    job_of,
    strokes,
    swipe_job,
)
from torch import Tensor, nn

from exporter.formats import Lowering
from exporter.formats import executorch as executorch_format
from swipe.errors import LoweringError

pytest.importorskip("executorch")
pytestmark = pytest.mark.slow

INPUTS = strokes(8, seed=4)


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def full(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(job, tmp_path_factory.mktemp("executorch"), "executorch")


@pytest.fixture(scope="module")
def small(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(job, tmp_path_factory.mktemp("executorch"), "executorch", "int8")


def logits(path: Path) -> np.ndarray:
    run = executorch_format.load(path)
    return np.concatenate([run(row[None]) for row in INPUTS])


def test_results_of_two_runners_are_their_own(full: Path) -> None:
    first, second = executorch_format.load(full), executorch_format.load(full)
    kept = first(INPUTS[:1])
    copy = kept.copy()
    second(INPUTS[1:2])
    first(INPUTS[1:2])
    np.testing.assert_array_equal(kept, copy)


def test_the_structure_is_what_we_promise(full: Path) -> None:
    facts = executorch_format.inspect(full)
    assert facts["methods"] == ["forward", "get_metadata"]
    assert facts["inputs"] == {"0": [1, 2, 64]}
    assert facts["outputs"] == {"0": [1, 32, 27]}
    assert facts["quantized"] is False
    delegates, delegated = facts["delegates"], facts["delegated_operators"]
    assert isinstance(delegates, dict)
    assert isinstance(delegated, dict)
    assert set(delegates) == {"XnnpackBackend"}
    assert delegated["XNNConv2d"] == 7


def test_stem_and_head_of_the_int8_program_stay_float(small: Path) -> None:
    facts = executorch_format.inspect(small)
    assert facts["quantized"] is True
    assert (facts["quantized_layers"], facts["float_layers"]) == (5, 2)


def test_a_quantization_that_changes_nothing_is_an_error(tmp_path: Path) -> None:
    job = job_of(nn.ReLU())
    path = tmp_path / "model.pte"
    path.write_bytes(b"earlier")
    with pytest.raises(LoweringError, match="changed nothing"):
        executorch_format.quantize(job, path, "int8")
    assert path.read_bytes() == b"earlier"


class Cumulative(nn.Module):
    """An operator that XNNPACK does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(2)


def test_a_program_without_xnnpack_is_refused(tmp_path: Path) -> None:
    job = job_of(Cumulative())
    path = tmp_path / "model.pte"
    with pytest.raises(LoweringError, match="delegated to XNNPACK"):
        executorch_format.lower(job, path)
    assert list(tmp_path.iterdir()) == []


def test_further_inputs_come_in_order_and_what_they_reach_stays_float(tmp_path: Path) -> None:
    paths = build_agnostic("executorch", tmp_path)
    facts = executorch_format.inspect(paths["int8"])
    assert list(facts["inputs"]) == ["0", "1", "2"]  # type: ignore[call-overload]
    # Of seven convolutions and two layers that embed the keys.
    assert (facts["quantized_layers"], facts["float_layers"]) == (5, 4)


def test_a_float_layer_right_before_a_quantized_one_runs(tmp_path: Path) -> None:
    """ExecuTorch takes a convolution that only a quantize reads for a quantized one."""
    torch.manual_seed(0)
    convolutions = [nn.Conv1d(2, 16, 3), *(nn.Conv1d(16, 16, 3) for _ in range(3))]
    job = job_of(nn.Sequential(*convolutions), float_layers=frozenset({"1"}))
    path = tmp_path / "model.pte"
    assert executorch_format.layers(job, "int8") == ("2",)
    executorch_format.quantize(job, path, "int8")
    assert executorch_format.inspect(path)["quantized_layers"] == 1
    wanted = expected(job, INPUTS)
    assert np.abs(logits(path) - wanted).max() < 0.05 * np.ptp(wanted)


def test_dynamic_int8_without_linear_layers_is_an_error(job: Lowering, tmp_path: Path) -> None:
    assert executorch_format.layers(job, "int8-dynamic") == ()
    with pytest.raises(LoweringError, match="int8-dynamic quantization changed nothing"):
        executorch_format.quantize(job, tmp_path / "model.pte", "int8-dynamic")
    assert list(tmp_path.iterdir()) == []
