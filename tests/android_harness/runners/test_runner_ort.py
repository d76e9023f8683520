"""Inputs and outputs of the ONNX Runtime runner: names, types, shapes, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import save_graph
from onnx import TensorProto
from runner_runs import execute, invocation, start

from android_harness.pack import TYPES, Refused, Returned, pack_calls
from android_harness.runners.record import read_record
from android_harness.runners.sets import RunnerSet

pytestmark = pytest.mark.slow

FLOAT = TensorProto.FLOAT


@pytest.fixture
def difference(tmp_path: Path) -> Path:
    """left - right, along an axis of any length."""
    inputs = {name: (FLOAT, ["n"]) for name in ("left", "right")}
    node = ("Sub", ["left", "right"], ["out"], {})
    return save_graph(tmp_path / "sub.onnx", [node], inputs, {"out": (FLOAT, ["n"])})


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_inputs_go_by_name(native_set: RunnerSet, difference: Path, tmp_path: Path) -> None:
    calls = [
        {"right": floats(1, 2, 3), "left": floats(10, 20, 30)},
        {"right": floats(0.5), "left": floats(0.25)},
    ]
    ended = execute(
        native_set, "onnx", tmp_path, difference, calls, outputs=str(tmp_path / "answers")
    )
    assert ended.answers is not None
    assert ended.answers.names == ("out",)
    first, second = ended.answers.calls
    assert isinstance(first, Returned)
    assert isinstance(second, Returned)
    assert first.arrays[0].tolist() == [9, 18, 27]
    assert second.arrays[0].tolist() == [-0.25]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"left": floats(1), "rihgt": floats(1)}, "no input 'right'"),
        ({"left": floats(1)}, "no input 'right'"),
        ({"left": floats(1), "right": floats(1), "more": floats(1)}, "takes 2 inputs"),
        ({"left": floats(1), "right": np.array([1])}, "takes float32, the pack holds int64"),
    ],
)
def test_other_inputs_are_refused(
    native_set: RunnerSet,
    difference: Path,
    tmp_path: Path,
    call: dict[str, np.ndarray],
    says: str,
) -> None:
    ended = execute(native_set, "onnx", tmp_path, difference, [call], timed=1, iters=5)
    assert ended.failed_at() == "inputs"
    assert ended.record is not None
    assert says in ended.record.error
    assert ended.record.latency_ns == ()


def test_every_type_goes_in_and_comes_out(native_set: RunnerSet, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    call = {name: generator.integers(0, 2, (2, 3)).astype(name) for name in TYPES}
    call["float32"] = floats(np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.5).reshape(2, 3)
    call["int64"] = np.array([[2**63 - 1, -(2**63), 0]])
    inputs = {name: (code, ["n", 3]) for name, code in TYPES.items()}
    outputs = {f"{name}_out": (code, ["n", 3]) for name, code in TYPES.items()}
    nodes = [("Identity", [name], [f"{name}_out"], {}) for name in TYPES]
    model = save_graph(tmp_path / "types.onnx", nodes, inputs, outputs)
    ended = execute(native_set, "onnx", tmp_path, model, [call], outputs=str(tmp_path / "answers"))
    assert ended.answers is not None
    (given,) = ended.answers.calls
    assert isinstance(given, Returned)
    for name, array in zip(TYPES, given.arrays, strict=True):
        assert array.dtype == call[name].dtype
        assert array.tobytes() == call[name].tobytes()


def test_text_is_left_out(native_set: RunnerSet, tmp_path: Path) -> None:
    nodes = [
        ("Cast", ["in"], ["text"], {"to": TensorProto.STRING}),
        ("Neg", ["in"], ["number"], {}),
    ]
    outputs = {"text": (TensorProto.STRING, [2]), "number": (FLOAT, [2])}
    model = save_graph(tmp_path / "text.onnx", nodes, {"in": (FLOAT, [2])}, outputs)
    calls = [{"in": floats(1, 2)}]
    ended = execute(native_set, "onnx", tmp_path, model, calls, outputs=str(tmp_path / "answers"))
    assert ended.answers is not None
    assert ended.answers.names == ("number",)

    only_text = save_graph(
        tmp_path / "only.onnx", nodes[:1], {"in": (FLOAT, [2])}, {"text": outputs["text"]}
    )
    ended = execute(native_set, "onnx", tmp_path, only_text, calls)
    assert ended.failed_at() == "init"


def test_a_refused_call_is_written_and_the_next_one_executed(
    native_set: RunnerSet, tmp_path: Path
) -> None:
    model = save_graph(
        tmp_path / "pairs.onnx",
        [("Reshape", ["in", "shape"], ["out"], {})],
        {"in": (FLOAT, ["n"])},
        {"out": (FLOAT, None)},
        constants={"shape": [-1, 2]},
    )
    calls = [{"in": floats(*range(n))} for n in (2, 3, 4)]
    asked = {"outputs": str(tmp_path / "answers")}
    ended = execute(native_set, "onnx", tmp_path, model, calls, **asked)
    assert ended.code == 0
    assert ended.record is not None
    assert ended.record.outputs is not None
    assert ended.record.outputs.refused == 1
    assert ended.answers is not None
    first, refused, last = ended.answers.calls
    assert isinstance(first, Returned)
    assert isinstance(refused, Refused)
    assert "Reshape" in refused.reason
    assert isinstance(last, Returned)
    assert last.arrays[0].tolist() == [[0, 1], [2, 3]]
    ended = execute(native_set, "onnx", tmp_path, model, calls, timed=2, iters=2, warmup=0)
    assert ended.failed_at() == "timing"
    assert ended.record is not None
    assert ended.record.latency_ns == ()  # the first one went well, and counts for nothing
    assert ended.record.blocks == ()
    ended = execute(native_set, "onnx", tmp_path, model, calls, timed=2, iters=2, warmup=2)
    assert ended.failed_at() == "warmup"
    ended = execute(native_set, "onnx", tmp_path, model, calls[1:], **asked)
    assert ended.failed_at() == "first"


@pytest.mark.parametrize(
    ("fields", "iters", "blocks"),
    [
        ({"iters": 25, "block": 10}, 25, [10, 10, 5]),
        ({"iters": 3, "block": 10}, 3, [3]),
        ({"iters": 4, "block": 1}, 4, [1, 1, 1, 1]),
    ],
)
def test_counts_of_timed_calls(
    native_set: RunnerSet,
    difference: Path,
    tmp_path: Path,
    fields: dict[str, int],
    iters: int,
    blocks: list[int],
) -> None:
    calls = [{"left": floats(1), "right": floats(2)}] * 2
    ended = execute(native_set, "onnx", tmp_path, difference, calls, timed=2, warmup=1, **fields)
    assert ended.record is not None
    assert len(ended.record.latency_ns) == iters
    assert [block.calls for block in ended.record.blocks] == blocks
    starts = [block.at_ms for block in ended.record.blocks]
    assert starts == sorted(starts)


def test_seconds_of_timed_calls(native_set: RunnerSet, difference: Path, tmp_path: Path) -> None:
    calls = [{"left": floats(1), "right": floats(2)}]

    def timed(**fields: float) -> tuple[int, float]:
        ended = execute(native_set, "onnx", tmp_path, difference, calls, timed=1, **fields)
        assert ended.record is not None
        assert ended.record.ok
        return len(ended.record.latency_ns), ended.record.blocks[-1].at_ms

    count, last_ms = timed(iters=1, min_secs=0.3)
    assert count > 1
    assert 200 < last_ms < 3000
    count, last_ms = timed(iters=10_000_000, max_secs=0.3)
    assert 1 <= count < 10_000_000
    assert 200 < last_ms < 3000


def test_nothing_is_timed_unless_asked(
    native_set: RunnerSet, difference: Path, tmp_path: Path
) -> None:
    calls = [{"left": floats(1), "right": floats(2)}]
    ended = execute(native_set, "onnx", tmp_path, difference, calls)
    assert ended.record is not None
    assert ended.record.ok
    assert ended.record.latency_ns == ()
    assert ended.record.blocks == ()
    assert ended.record.outputs is None
    assert ended.record.times_ms is not None


def test_threads_and_cpus(native_set: RunnerSet, difference: Path, tmp_path: Path) -> None:
    calls = [{"left": floats(1), "right": floats(2)}]
    ended = execute(native_set, "onnx", tmp_path, difference, calls, threads=2, cpus="0")
    assert ended.record is not None
    assert ended.record.threads == 2
    assert ended.record.cpus.asked == "0"
    assert ended.record.cpus.got == "0"


@pytest.mark.parametrize("cpus", ["x", "0-", "1-0", "0,,1", "-1", "0 ", "1023", "99999999999999"])
def test_cpus_that_are_none(
    native_set: RunnerSet, difference: Path, tmp_path: Path, cpus: str
) -> None:
    calls = [{"left": floats(1), "right": floats(2)}]
    ended = execute(native_set, "onnx", tmp_path, difference, calls, cpus=cpus)
    assert ended.failed_at() == "cpus"


@pytest.mark.parametrize("ep", ["xnnpack", "nnapi"])
def test_providers_that_this_library_lacks(
    native_set: RunnerSet, difference: Path, tmp_path: Path, ep: str
) -> None:
    calls = [{"left": floats(1), "right": floats(2)}]
    ended = execute(native_set, "onnx", tmp_path, difference, calls, ep=ep)
    assert ended.failed_at() == "load"
    assert ended.record is not None
    assert ep in ended.record.error.lower()


def test_any_nonce_comes_back(native_set: RunnerSet, difference: Path, tmp_path: Path) -> None:
    """Strings are escaped; bytes that are no text become the sign for that."""
    calls = [{"left": floats(1), "right": floats(2)}]
    (tmp_path / "calls.pack").write_bytes(pack_calls(calls))
    nonces = ['a"b\\c\n\t\x01', "žluťoučký 🐎 \u2028", "</script>"]
    for nonce in nonces:
        ended = execute(native_set, "onnx", tmp_path, difference, None, nonce=nonce)
        assert ended.record is not None
        assert ended.record.nonce == nonce
    words: list[str | bytes] = list(
        invocation(native_set, "onnx", tmp_path, difference).arguments()
    )
    words[words.index("--nonce") + 1] = b"a\xff\xc0\x80\xed\xa0\x80\xf5z"
    assert start(native_set, "onnx", words).returncode == 0
    read_record((tmp_path / "result.json").read_text(encoding="utf-8"), "a" + "\ufffd" * 7 + "z")
