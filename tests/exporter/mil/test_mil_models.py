"""Whole models: what is released, in both views and on every rung, and sequences of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lowered_files import lowered
from numpy.typing import NDArray

pytest.importorskip("coremltools")

import coremltools

from examples.sign_ctc.model import build
from exporter.formats import Lowering
from exporter.formats import coreml as coreml_format
from exporter.formats.build import quiet
from exporter.mil import Interpreter
from exporter.views import AGNOSTIC, BAKED, View
from swipe.errors import LoweringError
from train.checkpoint import load_checkpoint
from train.models.transformer import CtcTransformer, Encoder

MODELS = Path(__file__).resolve().parents[3] / "models"
LIMITS = {"fp32": 1e-4, "fp16": 0.25}
"""Of max |delta| over the swipes below; what int8 may cost is judged in words, elsewhere."""

pytestmark = pytest.mark.slow


def swipes(count: int) -> NDArray[np.float32]:
    """Seeded paths over the letter area, ``float32[count, 2, 64]``."""
    generator = np.random.default_rng(5)
    ends, at = generator.uniform(0.05, 0.95, (count, 2, 6)), np.linspace(0, 1, 64)
    paths = [[np.interp(at, np.linspace(0, 1, 6), axis) for axis in path] for path in ends]
    return np.asarray(paths, dtype=np.float32)


def answers(package: Path, job: Lowering) -> NDArray[np.float32]:
    run = coreml_format.load_reference(package)
    outputs = [run(*call.values()) for call in job.calibration]
    # As in `exporter.views`: neighbouring floats are 1e-3 apart at the score of an empty slot.
    return np.maximum(np.concatenate(outputs), -1e3)


def expected(job: Lowering) -> NDArray[np.float32]:
    with torch.inference_mode():
        rows = [job.module(*map(torch.from_numpy, call.values())) for call in job.calibration]
    return np.maximum(torch.cat(rows).numpy(), -1e3)


@pytest.mark.parametrize("view", [BAKED, AGNOSTIC], ids=lambda view: view.name)
@pytest.mark.parametrize("size", ["base", "nano"])
def test_a_released_model_means_the_same_in_its_package(
    size: str, view: View, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(MODELS / f"{size}.safetensors")
    features = swipes(8)
    job = view.lowering(checkpoint, features[:1], features)
    wanted, deltas = expected(job), {}
    for rung in ("fp32", "fp16", "int8"):
        package = lowered(job, tmp_path, "coreml", rung)
        deltas[rung] = float(np.abs(answers(package, job) - wanted).max())
    assert all(deltas[rung] <= limit for rung, limit in LIMITS.items()), deltas
    # Rounding shows: an interpreter that computed everything in float32 would pass the limits.
    assert deltas["fp32"] < deltas["fp16"] < deltas["int8"]


def test_a_trace_ends_in_the_output_and_names_every_value(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(MODELS / "nano.safetensors")
    job = BAKED.lowering(checkpoint, swipes(1), swipes(1))
    coreml_format.lower(job, tmp_path / "nano.mlpackage")
    interpreter = Interpreter.open(tmp_path / "nano.mlpackage")
    steps = list(interpreter.trace(job.example))
    assert steps[-1].name == "logits"
    np.testing.assert_array_equal(steps[-1].values, interpreter.run(job.example)["logits"])
    assert len({step.name for step in steps}) == len(steps)
    facts = coreml_format.inspect(tmp_path / "nano.mlpackage")
    assert isinstance(facts["operators"], dict)
    assert len(steps) == sum(facts["operators"].values())
    assert interpreter.operators == {"const", *facts["operators"]}


def test_a_weight_that_is_nan_comes_out_as_nan(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Conv1d(2, 3, 3).eval()
    assert module.bias is not None
    with torch.no_grad():
        module.bias[1] = torch.nan
    with quiet():
        model = coremltools.convert(
            torch.export.export(module, (torch.zeros(1, 2, 8),)).run_decompositions({}),
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS17,
            compute_precision=coremltools.precision.FLOAT32,
            inputs=[coremltools.TensorType("x", shape=(1, 2, 8), dtype=np.float32)],
            outputs=[coremltools.TensorType("y", dtype=np.float32)],
            skip_model_load=True,
        )
        model.save(str(tmp_path / "nan.mlpackage"))
    inputs = {"x": np.ones((1, 2, 8), dtype=np.float32)}
    outputs = Interpreter.open(tmp_path / "nan.mlpackage").run(inputs)["y"]
    assert np.isnan(outputs[:, 1]).all()
    assert np.isfinite(outputs[:, [0, 2]]).all()


def transformer() -> torch.nn.Module:
    return CtcTransformer(6, 9, Encoder(16, 2, 2, 32))


def sign_network() -> torch.nn.Module:
    """Strided and transposed convolutions, pooling and both directions of an LSTM."""
    return build(9, 6, width=8, hidden=6)


@pytest.mark.parametrize("make", [transformer, sign_network])
@pytest.mark.parametrize(("precision", "limit"), [("FLOAT32", 1e-5), ("FLOAT16", 1e-2)])
def test_sequences_may_be_as_long_as_declared_and_no_longer(
    make: object, precision: str, limit: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = transformer().eval() if make is transformer else sign_network().eval()
    example = torch.randn(1, 6, 20), torch.tensor([16], dtype=torch.int32)
    with quiet(), torch.no_grad():
        frames = coremltools.RangeDim(8, 40, 20)
        model = coremltools.convert(
            torch.jit.trace(module, example, check_trace=False),
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS17,
            compute_precision=getattr(coremltools.precision, precision),
            inputs=[
                coremltools.TensorType("features", shape=(1, 6, frames), dtype=np.float32),
                coremltools.TensorType("lengths", shape=(1,), dtype=np.int32),
            ],
            outputs=[coremltools.TensorType("logits", dtype=np.float32)],
            skip_model_load=True,
        )
        model.save(str(tmp_path / "sequence.mlpackage"))
    interpreter = Interpreter.open(tmp_path / "sequence.mlpackage")
    assert [str(feature) for feature in interpreter.inputs] == ["fp32[1, 6, 8..40]", "int32[1]"]
    for count in (8, 21, 40):
        features, lengths = torch.randn(1, 6, count), torch.tensor([count - 3], dtype=torch.int32)
        with torch.no_grad():
            wanted = module(features, lengths).numpy()[:, : count - 3]
        inputs = {"features": features.numpy(), "lengths": lengths.numpy()}
        given = interpreter.run(inputs)["logits"][:, : count - 3]
        assert np.abs(given - wanted).max() <= limit
    for count in (7, 41):
        inputs["features"] = np.zeros((1, 6, count), dtype=np.float32)
        with pytest.raises(LoweringError, match=rf"8\.\.40\] as features and got .*{count}\]"):
            interpreter.run(inputs)
