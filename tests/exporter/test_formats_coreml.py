"""Core ML artefacts: their structure and their numbers, on any machine; Core ML's, on a Mac."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from lowered_files import lowered
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
from torch.nn import functional as F

from exporter.formats import Lowering
from exporter.formats import coreml as coreml_format
from exporter.formats.build import staged
from swipe.errors import LoweringError, UsageError
from swipe.files import size_bytes

pytest.importorskip("coremltools")

INPUTS = strokes(8, seed=4)
PACKAGES = ("fp32", "fp16", "int8")
on_a_mac = platform.system() == "Darwin"


@pytest.fixture(scope="module")
def job() -> Lowering:
    return swipe_job()


@pytest.fixture(scope="module")
def packages(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(job, tmp_path_factory.mktemp("coreml"))


def build(job: Lowering, folder: Path) -> dict[str, Path]:
    return {rung: lowered(job, folder, "coreml", rung) for rung in PACKAGES}


def content(package: Path) -> dict[str, bytes]:
    files = (file for file in package.rglob("*") if file.is_file())
    return {str(file.relative_to(package)): file.read_bytes() for file in files}


def operators(facts: dict[str, object]) -> dict[str, int]:
    counts = facts["operators"]
    assert isinstance(counts, dict)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("rung", PACKAGES)
def test_the_structure_is_what_we_promise(rung: str, packages: dict[str, Path]) -> None:
    facts = coreml_format.inspect(packages[rung])
    assert facts["type"] == "mlProgram"
    assert facts["specification_version"] == 8
    assert facts["inputs"] == {"features": [1, 2, 64]}
    assert facts["outputs"] == {"logits": [1, 32, 27]}
    assert operators(facts)["conv"] == 7
    assert facts["quantized"] is (rung == "int8")
    assert bool(facts["float16_operators"]) is (rung != "fp32")


@pytest.mark.slow
def test_features_are_computed_in_float32_in_every_package(packages: dict[str, Path]) -> None:
    facts = coreml_format.inspect(packages["fp16"])
    # Seven convolutions, six relus, two residual additions, the transpose and the entering cast.
    assert facts["float16_operators"] == 17


@pytest.mark.slow
def test_int8_is_smaller_than_fp16_is_smaller_than_fp32(packages: dict[str, Path]) -> None:
    int8, fp16, fp32 = (size_bytes(packages[rung]) for rung in ("int8", "fp16", "fp32"))
    assert int8 < 0.8 * fp16
    assert fp16 < 0.8 * fp32


@pytest.mark.slow
@pytest.mark.parametrize("rung", PACKAGES)
def test_metadata_comes_back_and_nothing_else_of_the_build(
    rung: str, packages: dict[str, Path]
) -> None:
    assert coreml_format.metadata(packages[rung]) == METADATA
    for data in content(packages[rung]).values():
        assert traces_of_this_machine(data) == []
        assert b"conversion_date" not in data


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.mlmodel", "weight.bin", "Manifest.json"])
def test_a_truncated_file_is_refused(file: str, packages: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mlpackage"
    for name, data in content(packages["fp32"]).items():
        target = broken / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data[: len(data) // 2] if target.name == file else data)
    with pytest.raises(LoweringError, match=r"broken\.mlpackage"):
        coreml_format.inspect(broken)


def test_what_executes_a_package_is_said() -> None:
    assert coreml_format.runtime() == ("Core ML" if on_a_mac else "reference interpreter")


@pytest.mark.slow
def test_the_float_package_agrees_with_torch(job: Lowering, packages: dict[str, Path]) -> None:
    run = coreml_format.load(packages["fp32"])
    logits = np.concatenate([run(row[None]) for row in INPUTS])
    np.testing.assert_allclose(logits, expected(job, INPUTS), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not on_a_mac, reason="Core ML executes only on macOS")
@pytest.mark.parametrize(("rung", "limit"), [("fp32", 1e-4), ("fp16", 0.1), ("int8", 0.1)])
def test_core_ml_agrees_with_the_reference_interpreter(
    rung: str, limit: float, packages: dict[str, Path]
) -> None:
    runs = coreml_format.load_core_ml, coreml_format.load_reference
    real, reference = (
        np.concatenate([run(row[None]) for row in INPUTS])
        for run in (load(packages[rung]) for load in runs)
    )
    assert np.abs(real - reference).max() <= limit


@pytest.mark.slow
def test_the_reference_refuses_a_wrong_number_of_inputs(packages: dict[str, Path]) -> None:
    run = coreml_format.load_reference(packages["fp32"])
    with pytest.raises(LoweringError, match="takes 1 inputs and got 2"):
        run(INPUTS[:1], INPUTS[:1])


def test_an_unknown_rung_is_named(job: Lowering, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int4"):
        coreml_format.quantize(job, tmp_path / "model.mlpackage", "int4")


class Attention(nn.Module):
    """Self-attention that may not look at the last 14 points."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        allowed = (torch.arange(64) < 50).expand(1, 64, 64)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=allowed)


class Reciprocal(nn.Module):
    """A convolution and 1 / x."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(1.0 / x)
        return y


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "named"), [(Attention(), "attention mask"), (Reciprocal(), "1/x")]
)
def test_what_coremltools_converts_wrongly_is_refused(
    module: nn.Module, named: str, tmp_path: Path
) -> None:
    job = job_of(module)
    with pytest.raises(LoweringError, match=named):
        coreml_format.lower(job, tmp_path / "model.mlpackage")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_quantization_that_changes_nothing_is_an_error(tmp_path: Path) -> None:
    job = job_of(nn.Conv1d(2, 2, 3))
    with pytest.raises(LoweringError, match="changed nothing"):
        coreml_format.quantize(job, tmp_path / "model.mlpackage", "int8")


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    package = tmp_path / "model.mlpackage"
    package.mkdir()
    (package / "old").write_text("old")

    def fail_half_way() -> None:
        with staged(package) as new:
            new.mkdir()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert [file.name for file in package.iterdir()] == ["old"]

    with staged(package) as new:
        new.mkdir()
        (new / "new").write_text("new")
    assert [file.name for file in package.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [package]


@pytest.fixture(scope="module")
def agnostic_packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(agnostic_job(), tmp_path_factory.mktemp("agnostic"))


@pytest.mark.slow
@pytest.mark.parametrize("rung", PACKAGES)
def test_what_further_inputs_reach_stays_float32(
    rung: str, agnostic_packages: dict[str, Path], packages: dict[str, Path]
) -> None:
    facts = coreml_format.inspect(agnostic_packages[rung])
    assert facts["inputs"] == {
        "features": [1, 2, 64], "layout_keys": [1, 64, 2], "layout_mask": [1, 64],
    }  # fmt: skip
    assert facts["outputs"] == {"log_emissions": [1, 32, 65]}
    assert operators(facts)["linear"] == 2
    plain = coreml_format.inspect(packages[rung])
    assert facts["quantized_layers"] == plain["quantized_layers"]
    half, plain_half = facts["float16_operators"], plain["float16_operators"]
    assert isinstance(half, int)
    assert isinstance(plain_half, int)
    # The two slices that part the queries from the blank; nothing after them.
    assert half - plain_half == (0 if rung == "fp32" else 2)


@pytest.mark.slow
def test_the_float_package_for_any_keyboard_agrees_with_torch(
    agnostic_packages: dict[str, Path],
) -> None:
    job = agnostic_job()
    run = coreml_format.load(agnostic_packages["fp32"])
    outputs = np.concatenate([run(row[None], *list(job.example.values())[1:]) for row in INPUTS])
    wanted = expected(job, INPUTS)
    assert np.abs(np.maximum(outputs, -1e3) - np.maximum(wanted, -1e3)).max() < 1e-4
