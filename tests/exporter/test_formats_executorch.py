"""ExecuTorch artefacts: right, in XNNPACK, silent about their build, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lowering_jobs import (
    METADATA,
    agnostic_job,
    expected,
    job_of,
    strokes,
    swipe_job,
    traces_of_this_machine,
)
from torch import Tensor, nn

from exporter.formats import Lowering
from exporter.formats import executorch as executorch_format
from swipe.errors import LoweringError, UsageError

pytest.importorskip("executorch")
pytestmark = pytest.mark.slow

INPUTS = strokes(8, seed=4)


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def full(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("executorch") / "model.pte"
    executorch_format.lower(job, path)
    return path


@pytest.fixture(scope="module")
def small(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("executorch") / "model-int8.pte"
    executorch_format.quantize(job, path, "int8")
    return path


def logits(path: Path) -> np.ndarray:
    run = executorch_format.load(path)
    return np.concatenate([run(row[None]) for row in INPUTS])


def test_the_float_program_agrees_with_torch(job: Lowering, full: Path) -> None:
    np.testing.assert_allclose(logits(full), expected(job, INPUTS), rtol=0, atol=1e-4)


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


def test_the_int8_program_runs_and_is_smaller(job: Lowering, full: Path, small: Path) -> None:
    facts = executorch_format.inspect(small)
    assert facts["quantized"] is True
    # Stem and head of the seven convolutions stay float.
    assert facts["quantized_layers"] == 5
    assert small.stat().st_size < 0.7 * full.stat().st_size
    wanted = expected(job, INPUTS)
    assert np.abs(logits(small) - wanted).max() < 0.25 * np.ptp(wanted)


@pytest.mark.parametrize("rung", ["fp32", "int8"])
def test_metadata_comes_back_and_nothing_else_of_the_build(
    rung: str, full: Path, small: Path
) -> None:
    path = full if rung == "fp32" else small
    assert executorch_format.metadata(path) == METADATA
    assert traces_of_this_machine(path.read_bytes()) == []


def test_two_builds_are_the_same_bytes(
    job: Lowering, full: Path, small: Path, tmp_path: Path
) -> None:
    executorch_format.lower(job, tmp_path / "again.pte")
    executorch_format.quantize(job, tmp_path / "again-int8.pte", "int8")
    assert (tmp_path / "again.pte").read_bytes() == full.read_bytes()
    assert (tmp_path / "again-int8.pte").read_bytes() == small.read_bytes()


@pytest.mark.parametrize(
    "use", [executorch_format.load, executorch_format.inspect, executorch_format.metadata]
)
def test_a_truncated_file_is_refused(use: object, full: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pte"
    broken.write_bytes(full.read_bytes()[: full.stat().st_size // 2])
    assert callable(use)
    with pytest.raises(LoweringError, match=r"broken\.pte"):
        use(broken)


def test_an_input_of_another_shape_is_refused(full: Path) -> None:
    with pytest.raises(LoweringError, match="cannot be executed"):
        executorch_format.load(full)(np.zeros((1, 2, 63), np.float32))


def test_an_unknown_rung_is_named(job: Lowering, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int4"):
        executorch_format.quantize(job, tmp_path / "model.pte", "int4")


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
    job = agnostic_job()
    full, small = tmp_path / "full.pte", tmp_path / "small.pte"
    executorch_format.lower(job, full)
    executorch_format.quantize(job, small, "int8")
    context = tuple(job.example.values())[1:]
    wanted = expected(job, INPUTS)
    for path, tolerance in ((full, 1e-4), (small, 0.25 * np.ptp(wanted[wanted > -1e3]))):
        run = executorch_format.load(path)
        outputs = np.concatenate([run(row[None], *context) for row in INPUTS])
        assert np.abs(np.maximum(outputs, -1e3) - np.maximum(wanted, -1e3)).max() < tolerance
        facts = executorch_format.inspect(path)
        assert facts["inputs"] == {"0": [1, 2, 64], "1": [1, 64, 2], "2": [1, 64]}
        assert facts["outputs"] == {"0": [1, 32, 65]}
    # Of seven convolutions and two layers that embed the keys.
    assert facts["quantized_layers"] == 5
