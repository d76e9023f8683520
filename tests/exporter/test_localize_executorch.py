"""ExecuTorch: the first bad row is the layer that was altered before lowering; honest ones pass."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("executorch")

from localize_checks import LAYER, assert_altered, assert_honest, assert_shown, cut, table_of
from lowering_jobs import swipe_job

from exporter.formats import Lowering, executorch
from exporter.localize.executorch_taps import ExecuTorchTaps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def altered(job: Lowering) -> Lowering:
    module = copy.deepcopy(job.module)
    with torch.no_grad():
        module.get_parameter(f"{LAYER}.weight").mul_(1.05)
    return replace(job, module=module)


@pytest.fixture(scope="module")
def altered_file(altered: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("executorch") / "altered.pte"
    executorch.lower(altered, path)
    return path


def test_an_altered_layer_is_found_and_cut_out(
    altered_file: Path, altered: Lowering, job: Lowering, tmp_path: Path
) -> None:
    tapped = ExecuTorchTaps(altered_file, altered, "fp32", reference=job)
    assert_altered(table_of(tapped))
    assert_shown(cut(tapped, tmp_path), tmp_path)


def test_an_honest_program_has_no_bad_row_and_a_foreign_file_only_the_last(
    altered_file: Path, job: Lowering, tmp_path: Path
) -> None:
    executorch.lower(job, tmp_path / "model.pte")
    tapped = ExecuTorchTaps(tmp_path / "model.pte", job, "fp32")
    assert_honest(table_of(tapped))
    # Same taps, but the file was lowered from other weights: only its own output can tell.
    tapped._run = executorch.load(altered_file)
    table = table_of(tapped)
    assert table.first_bad == len(table.rows) - 1
    assert table.tap_delta > 1e-4
