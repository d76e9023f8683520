"""Whatever goes wrong, a runner says at which stage, and leaves nothing that looks sound."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from runner_runs import Ended, execute, invocation, start

from android_harness.pack import pack_calls
from android_harness.runners.record import read_record
from android_harness.runners.sets import ENGINES, RunnerSet
from exporter.formats import Inputs
from swipe.errors import GateError

pytestmark = pytest.mark.slow


@pytest.fixture
def model(request: pytest.FixtureRequest, engine: str) -> Path:
    """Nano for the engine of the case."""
    path: Path = request.getfixturevalue({"onnx": "onnx_fp32", "executorch": "pte_fp32"}[engine])
    return path


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Both engines."""
    return str(request.param)


@pytest.fixture
def run(
    native_set: RunnerSet, engine: str, model: Path, swipes: list[Inputs], tmp_path: Path
) -> Any:
    """A run that is sound but for what the case changes."""
    (tmp_path / "calls.pack").write_bytes(pack_calls(swipes[:4]))

    def run_it(artefact: Path = model, **asked: Any) -> Ended:
        fields = {"timed": 2, "iters": 3, **asked}
        return execute(native_set, engine, tmp_path, artefact, None, **fields)

    return run_it


def test_a_sound_run_is_ok(run: Any) -> None:
    assert run().code == 0


def test_a_missing_model(run: Any, tmp_path: Path) -> None:
    ended = run(tmp_path / "gone")
    assert ended.failed_at() == "model"
    assert "No such file" in ended.record.error
    assert ended.record.model_sha256 is None


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_a_model_that_was_cut(run: Any, model: Path, tmp_path: Path, kept: float) -> None:
    content = model.read_bytes()
    size = int(len(content) * kept) if isinstance(kept, float) else kept
    cut = tmp_path / f"cut{model.suffix}"
    cut.write_bytes(content[:size])
    ended = run(cut)
    assert ended.failed_at() in ("load", "init")
    assert ended.record.model_sha256 == hashlib.sha256(content[:size]).hexdigest()


def test_a_model_that_is_something_else(run: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"this is no model at all " * 100)
    assert run(other).failed_at() == "load"


@pytest.mark.parametrize("kept", [0, 7, 8, 20, -1, -9])
def test_a_pack_that_was_cut(run: Any, tmp_path: Path, kept: int) -> None:
    pack = tmp_path / "calls.pack"
    pack.write_bytes(pack.read_bytes()[:kept])
    ended = run()
    assert ended.failed_at() == "pack"
    assert ended.record.times_ms is None


def test_a_missing_pack(run: Any, tmp_path: Path) -> None:
    assert run(pack=str(tmp_path / "gone")).failed_at() == "pack"
    assert run(pack=str(tmp_path)).failed_at() == "pack"
    os.mkfifo(tmp_path / "pipe")
    assert run(pack=str(tmp_path / "pipe")).failed_at() == "pack"


def test_fewer_calls_than_timed(run: Any) -> None:
    ended = run(timed=5)
    assert ended.failed_at() == "pack"
    assert "4 calls" in ended.record.error


def test_outputs_that_cannot_be_written(run: Any, tmp_path: Path) -> None:
    ended = run(outputs=str(tmp_path / "gone" / "answers"))
    assert ended.failed_at() == "outputs"
    assert ended.record.outputs is None
    assert ended.record.latency_ns == ()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk(run: Any, tmp_path: Path) -> None:
    (tmp_path / "answers.part").symlink_to("/dev/full")
    ended = run(outputs=str(tmp_path / "answers"))
    assert ended.failed_at() == "outputs"
    assert "No space left" in ended.record.error
    assert not (tmp_path / "answers").exists()
    (tmp_path / "result.json.part").symlink_to("/dev/full")
    (tmp_path / "result.json").unlink()
    ended = run()
    assert ended.code == 3
    assert ended.record is None
    assert "No space left" in ended.stderr


def test_a_result_that_cannot_be_written(run: Any, tmp_path: Path) -> None:
    ended = run(result=str(tmp_path / "gone" / "result.json"))
    assert ended.code == 3
    assert ended.record is None
    assert "cannot write" in ended.stderr


def test_the_result_of_an_earlier_run_is_not_taken_for_this_one(run: Any, tmp_path: Path) -> None:
    assert run().code == 0
    with pytest.raises(GateError, match="of another run"):
        read_record((tmp_path / "result.json").read_text(), "another nonce")


@pytest.mark.parametrize(
    "library", ["/gone/libonnxruntime.so", "libm.so.6", "/etc/hostname", "libnosuchthing.so"]
)
def test_a_library_that_is_not_there(
    native_set: RunnerSet, onnx_fp32: Path, swipes: list[Inputs], tmp_path: Path, library: str
) -> None:
    ended = execute(native_set, "onnx", tmp_path, onnx_fp32, swipes[:1], library=library)
    assert ended.failed_at() == "dlopen"
    assert ended.record is not None
    assert ended.record.engine is None


USAGE = [
    (["--nosuch", "1"], "unknown option"),
    (["--nosuch"], "unknown option"),
    (["word"], "unknown option"),
    (["--iters", "3", "--iters", "3"], "repeated option"),
    (["--tether", "--tether"], "repeated option"),
    (["--iters"], "needs a value"),
    (["--iters", "3"], "--iters needs --timed"),
    (["--iters", "-1"], "whole number"),
    (["--iters", " 1"], "whole number"),
    (["--iters", "1x"], "whole number"),
    (["--iters", ""], "whole number"),
    (["--iters", "99999999999999999999"], "whole number"),
    (["--timed", "4294967297"], "whole number"),
    (["--block", "0"], "whole number"),
    (["--threads", "0"], "whole number"),
    (["--max-secs", "nan"], "seconds"),
    (["--max-secs", "inf"], "seconds"),
    (["--max-secs", "-1"], "seconds"),
    (["--max-secs", "1e9"], "seconds"),
    (["--min-secs", "61"], "more than --max-secs"),
    (["--outputs", ""], "is empty"),
    (["--ep", "cuda"], "no such provider"),
    (["--ep", ""], "is empty"),
]


@pytest.mark.parametrize(("words", "says"), USAGE)
def test_usage_errors(
    native_set: RunnerSet, tmp_path: Path, engine: str, words: list[str], says: str
) -> None:
    asking = invocation(native_set, engine, tmp_path, tmp_path / "model")
    required = ["model", "pack", "result", "nonce", *(["lib"] if asking.library else [])]
    given = asking.arguments()
    base = [word for name in required for word in given[given.index(f"--{name}") :][:2]]
    ended = start(native_set, engine, [*base, *words])
    assert ended.returncode == 2
    assert says in ended.stderr
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("name", ["--model", "--pack", "--result", "--nonce"])
def test_required_options(native_set: RunnerSet, tmp_path: Path, engine: str, name: str) -> None:
    words = invocation(native_set, engine, tmp_path, tmp_path / "model").arguments()
    at = words.index(name)
    ended = start(native_set, engine, words[:at] + words[at + 2 :])
    assert ended.returncode == 2
    assert f"missing option: {name}" in ended.stderr


def test_lib_is_for_the_engine_that_is_opened(native_set: RunnerSet, tmp_path: Path) -> None:
    asking = invocation(native_set, "executorch", tmp_path, tmp_path / "model", library="x.so")
    ended = start(native_set, "executorch", asking.arguments())
    assert ended.returncode == 2
    assert "not taken" in ended.stderr
    asking = invocation(native_set, "onnx", tmp_path, tmp_path / "model", library=None)
    ended = start(native_set, "onnx", asking.arguments())
    assert ended.returncode == 2
    assert "--lib is missing" in ended.stderr


def test_hashes_of_all_lengths(native_set: RunnerSet, tmp_path: Path, swipes: list[Inputs]) -> None:
    """SHA-256 around the ends of its blocks; the library is missing, so nothing else runs."""
    (tmp_path / "calls.pack").write_bytes(pack_calls(swipes[:1]))
    for size in (1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 16384, 100_003):
        content = bytes(i * 7 % 251 for i in range(size))
        (tmp_path / "model").write_bytes(content)
        ended = execute(
            native_set, "onnx", tmp_path, tmp_path / "model", None, library="/gone/library.so"
        )
        assert ended.failed_at() == "dlopen"
        assert ended.record is not None
        assert ended.record.model_sha256 == hashlib.sha256(content).hexdigest()
