"""Real artefacts in the native runners give bit for bit what the Python runtimes give."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from runner_runs import execute

from android_harness.pack import Returned
from android_harness.runners.sets import RunnerSet
from exporter.formats import Inputs
from exporter.targets import find_target
from swipe.files import sha256_file

pytestmark = pytest.mark.slow

ARTEFACTS = [
    ("onnx", "onnx_fp32"),
    ("onnx", "onnx_int8"),
    ("executorch", "pte_fp32"),
    ("executorch", "pte_int8"),
]


@pytest.mark.parametrize(("engine", "fixture"), ARTEFACTS)
def test_the_same_bits_as_in_python(
    engine: str,
    fixture: str,
    request: pytest.FixtureRequest,
    native_set: RunnerSet,
    swipes: list[Inputs],
    tmp_path: Path,
) -> None:
    artefact: Path = request.getfixturevalue(fixture)
    outputs = tmp_path / "answers.pack"
    ended = execute(
        native_set, engine, tmp_path, artefact, swipes, outputs=str(outputs), timed=5, iters=30
    )
    assert ended.code == 0, ended.stderr
    record, answers = ended.record, ended.answers
    assert record is not None
    assert answers is not None
    run = find_target(engine).format().load(artefact)
    expected = [run(*call.values()) for call in swipes]
    assert len(answers.calls) == len(expected)
    for call, wanted in zip(answers.calls, expected, strict=True):
        assert isinstance(call, Returned)
        (found,) = call.arrays
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
    assert np.ptp(np.stack(expected)) > 1  # swipes differ, and so do their answers
    assert record.ok
    assert record.stage == "done"
    assert record.model_sha256 == sha256_file(artefact)
    assert record.outputs is not None
    assert record.outputs.sha256 == hashlib.sha256(outputs.read_bytes()).hexdigest()
    assert record.outputs.bytes == outputs.stat().st_size
    assert (record.outputs.calls, record.outputs.refused) == (len(swipes), 0)
    assert record.engine is not None
    assert record.engine.version == native_set.program(engine).version
    assert len(record.latency_ns) == 30
    assert min(record.latency_ns) > 1000
    assert record.telemetry_disabled
    assert record.times_ms is not None
    assert record.times_ms.first > 0
    assert record.rss_kb.start is not None
    assert record.rss_kb.peak is not None
    assert 0 < record.rss_kb.start <= record.rss_kb.peak
    assert not outputs.with_name("answers.pack.part").exists()


def test_an_altered_model_is_seen(
    native_set: RunnerSet, swipes: list[Inputs], onnx_fp32: Path, tmp_path: Path
) -> None:
    """The comparison above can fail: one weight off, and the bits differ."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(onnx_fp32)
    weight = next(w for w in model.graph.initializer if w.data_type == 1 and len(w.dims) >= 2)
    values = np.array(numpy_helper.to_array(weight))
    values.flat[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    altered = tmp_path / "altered.onnx"
    onnx.save(model, altered)
    ended = execute(
        native_set, "onnx", tmp_path, altered, swipes, outputs=str(tmp_path / "answers.pack")
    )
    assert ended.answers is not None
    run = find_target("onnx").format().load(onnx_fp32)
    same = [
        np.array_equal(given.arrays[0], run(*call.values()))
        for given, call in zip(ended.answers.calls, swipes, strict=True)
        if isinstance(given, Returned)
    ]
    assert not all(same)
