"""What the formats that execute here owe of the swipe model: numbers, metadata, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lowered_files import lowered
from lowering_jobs import METADATA, expected, strokes, swipe_job, traces_of_this_machine

from exporter.formats import Lowering
from exporter.targets import Target, find_target
from swipe.errors import LoweringError, UsageError

for library in ("onnxruntime", "onnxscript", "executorch"):
    pytest.importorskip(library)
pytestmark = pytest.mark.slow

INPUTS = strokes(8, seed=4)
RUNGS = ("fp32", "int8")
each_rung = pytest.mark.parametrize("rung", RUNGS)


@pytest.fixture(scope="module", params=["onnx", "executorch"])
def target(request: pytest.FixtureRequest) -> Target:
    return find_target(request.param)


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def files(
    target: Target, job: Lowering, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp(target.name)
    return {rung: lowered(job, folder, target.name, rung) for rung in RUNGS}


@each_rung
def test_it_computes_what_torch_does(
    rung: str, target: Target, job: Lowering, files: dict[str, Path]
) -> None:
    run = target.format().load(files[rung])
    wanted = expected(job, INPUTS)
    delta = np.abs(np.concatenate([run(row[None]) for row in INPUTS]) - wanted).max()
    assert delta < {"fp32": 1e-4, "int8": 0.25 * np.ptp(wanted)}[rung]


def test_int8_is_smaller(files: dict[str, Path]) -> None:
    assert files["int8"].stat().st_size < 0.7 * files["fp32"].stat().st_size


@each_rung
def test_metadata_comes_back_and_nothing_else_of_the_build(
    rung: str, target: Target, files: dict[str, Path]
) -> None:
    assert target.format().metadata(files[rung]) == METADATA
    assert traces_of_this_machine(files[rung].read_bytes()) == []


@pytest.mark.parametrize("use", ["load", "inspect", "metadata"])
def test_a_truncated_file_is_refused(
    use: str, target: Target, files: dict[str, Path], tmp_path: Path
) -> None:
    content = files["fp32"].read_bytes()
    broken = tmp_path / f"broken{target.suffix}"
    broken.write_bytes(content[: len(content) // 2])
    open_it: Callable[[Path], object] = getattr(target.format(), use)
    with pytest.raises(LoweringError, match=rf"broken\{target.suffix}"):
        open_it(broken)


def test_an_input_of_another_shape_is_refused(target: Target, files: dict[str, Path]) -> None:
    with pytest.raises(LoweringError, match="cannot be executed"):
        target.format().load(files["fp32"])(np.zeros((1, 2, 63), np.float32))


def test_an_unknown_rung_is_named(target: Target, job: Lowering, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int4"):
        target.format().quantize(job, tmp_path / f"model{target.suffix}", "int4")
