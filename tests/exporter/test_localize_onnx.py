"""ONNX: the first bad row is the layer whose initializer was altered; what is honest passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lowered_files import lowered

pytest.importorskip("onnx")

import onnx
from localize_checks import (
    CALLS,
    LAYER,
    NODE,
    assert_altered,
    assert_honest,
    assert_shown,
    cut,
    first_bad,
    show,
    table_of,
)  # fmt: skip
from lowering_jobs import swipe_job

from exporter.formats import Lowering
from exporter.formats import onnx as onnx_format
from exporter.localize.minimise import minimise
from exporter.localize.onnx_taps import OnnxTaps
from exporter.localize.reference import Reference
from exporter.localize.taps import Tapped
from swipe.errors import GateError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def built(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(job, tmp_path_factory.mktemp("onnx"), "onnx")


def altered(built: Path, change: Any, name: str = f"{LAYER}.weight") -> Path:
    model = onnx.load(built)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    values = change(onnx.numpy_helper.to_array(weight).copy())
    weight.CopyFrom(onnx.numpy_helper.from_array(values, name))
    path = built.with_name("altered.onnx")
    onnx.save(model, path)
    return path


def tapped_of(path: Path, job: Lowering) -> Tapped:
    return OnnxTaps(path, job)


def test_an_honest_artefact_has_no_bad_row(built: Path, job: Lowering) -> None:
    table = table_of(tapped_of(built, job))
    assert_honest(table)
    assert len(table.rows) == 37


def test_a_scaled_weight_is_found_and_cut_out(built: Path, job: Lowering, tmp_path: Path) -> None:
    tapped = tapped_of(altered(built, lambda w: w * 1.05), job)
    assert_altered(table_of(tapped))
    assert_shown(cut(tapped, tmp_path), tmp_path)


def test_nan_is_located(built: Path, job: Lowering, tmp_path: Path) -> None:
    def one_nan(weight: Any) -> Any:
        weight.flat[7] = np.nan
        return weight

    tapped = tapped_of(altered(built, one_nan), job)
    table = table_of(tapped)
    assert first_bad(table) == (LAYER, NODE)
    assert table.rows[table.first_bad or 0].to_dict()["broken"] > 0
    cut(tapped, tmp_path)
    assert show(tmp_path).returncode == 1


def test_a_loss_that_gathers_is_cut_further_up(built: Path, job: Lowering, tmp_path: Path) -> None:
    """Every block loses a little; no operator alone is below the floor, several are."""
    tapped = tapped_of(altered(built, lambda w: w * 1.05), job)
    table = table_of(tapped)
    late = next(row for row in table.rows if row.node == "relu_5")
    assert late.total is not None
    only_late = replace(
        table,
        floor_db=late.total.sqnr_db + 3.0,
        rows=tuple(row for row in table.rows if row.node in ("relu_2", "add_2", "relu_5")),
    )
    piece = minimise(tapped, Reference(tapped.program), only_late, CALLS, tmp_path)
    assert piece.tensor == "add_2"
    assert set(piece.starts) > {"relu_2"}


def test_nothing_bad_is_nothing_to_cut(built: Path, job: Lowering, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="nothing to minimise"):
        cut(tapped_of(built, job), tmp_path)


def test_no_sample_compares_nothing(built: Path, job: Lowering) -> None:
    with pytest.raises(GateError, match="no sample"):
        table_of(tapped_of(built, job), calls=[])


def test_int8_is_seen_after_rounding_and_a_bad_scale_is_found(
    built: Path, job: Lowering, tmp_path: Path
) -> None:
    onnx_format.quantize(job, tmp_path / "model.int8.onnx", "int8")
    table = table_of(tapped_of(tmp_path / "model.int8.onnx", job), "int8")
    assert table.first_bad is None
    operators = {row.node: row.operator for row in table.rows}
    assert operators[NODE] == "Conv+int8"
    broken = altered(tmp_path / "model.int8.onnx", lambda scale: scale * 0.25, f"{NODE}_scale")
    tapped = tapped_of(broken, job)
    assert first_bad(table_of(tapped, "int8")) == (LAYER, NODE)
    piece = cut(tapped, tmp_path / "piece", "int8")
    assert piece.starts == ("relu_2",)
    assert show(tmp_path / "piece").returncode == 1
