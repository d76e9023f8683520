"""Core ML: the first bad row is the layer whose stored weight was altered; honest ones pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lowered_files import lowered

pytest.importorskip("coremltools")

from localize_checks import LAYER, assert_altered, assert_honest, assert_shown, cut, table_of
from lowering_jobs import swipe_job

from exporter.formats import Lowering
from exporter.localize.coreml_taps import CoreMlTaps
from exporter.localize.taps import Tapped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def built(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(job, tmp_path_factory.mktemp("coreml"), "coreml")


def tapped_of(path: Path, job: Lowering) -> Tapped:
    return CoreMlTaps(path, job)


def test_an_honest_package_has_no_bad_row(built: Path, job: Lowering) -> None:
    assert_honest(table_of(tapped_of(built, job)))


def test_a_scaled_weight_is_found_and_cut_out(built: Path, job: Lowering, tmp_path: Path) -> None:
    package = tmp_path / "altered.mlpackage"
    shutil.copytree(built, package)
    file = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weight = job.module.get_parameter(f"{LAYER}.weight").detach().numpy()
    content = file.read_bytes()
    assert content.count(weight.tobytes()) == 1
    file.write_bytes(content.replace(weight.tobytes(), (weight * np.float32(1.05)).tobytes()))
    tapped = tapped_of(package, job)
    assert_altered(table_of(tapped))
    assert_shown(cut(tapped, tmp_path / "piece"), tmp_path / "piece")
