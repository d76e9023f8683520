"""A worker that dies is its format's failure: named, explained, and no loss to the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from exporter.bundle import Request, _build_all, export
from exporter.manifest import SwipeSource, load_manifest, require_unaltered
from exporter.origins.requests import SwipeRequest
from exporter.policy import Policy
from exporter.targets import find_target
from exporter.worker import CAUSES, Job, Workers, died, run_worker
from swipe.errors import GateError, LoweringError

DEATHS = {
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV": "import ctypes; ctypes.string_at(0)",
    "SIGABRT": "import os; os.abort()",
}


def _sabotage(monkeypatch: pytest.MonkeyPatch, folder: Path, target: str, code: str) -> None:
    """Let every worker that builds `target` run `code` before anything else."""
    folder.mkdir(exist_ok=True)
    with (folder / "sitecustomize.py").open("a") as module:
        module.write(
            "import sys\n"
            f"if 'exporter.worker' in sys.orig_argv and sys.orig_argv[-1] == {target!r}:\n"
            f"    {code}\n"
        )
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{path}")


def _job(folder: Path) -> Job:
    source = SwipeSource(
        weights_sha256="-", parameters=1, samples="none", calibration_samples=0,
        calibration_sha256="-",
        verification_samples=0, verification_sha256="-", reference_rounding=0.0,
        checkpoint_step=1, contract_id="-", contract={}, trained_on={}, lexicon="wordfreq",
        lexicon_sha256="-", decoder={},
    )  # fmt: skip
    return Job(folder=str(folder), views=("baked",), policy=Policy(), source=source)


@pytest.mark.parametrize("name", DEATHS)
def test_a_signal_is_named_with_its_usual_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _sabotage(monkeypatch, tmp_path / "site", "onnx", DEATHS[name])
    with pytest.raises(LoweringError) as caught:
        run_worker(tmp_path, _job(tmp_path), "onnx", lambda line: None)
    cause, fix = CAUSES[signal.Signals[name]]
    assert f"onnx: the worker was ended by {name} ({cause})" in str(caught.value)
    assert caught.value.fix == fix
    assert caught.value.exit_code == 3


def test_an_ordinary_end_without_a_result_shows_the_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os; os.write(2, b'torn wheel\\n'); os._exit(7)"
    _sabotage(monkeypatch, tmp_path / "site", "onnx", code)
    said: list[str] = []
    with pytest.raises(LoweringError, match="ended with code 7"):
        run_worker(tmp_path, _job(tmp_path), "onnx", said.append)
    assert said == ["onnx: torn wheel"]


def test_an_interrupt_ends_every_worker_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, time; from pathlib import Path; "
        f"Path({str(tmp_path)!r}, sys.orig_argv[-1]).write_text(str(os.getpid())); time.sleep(60)"
    )
    for name in ("onnx", "coreml"):
        _sabotage(monkeypatch, tmp_path / "site", name, code)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pids: list[int] = []

    def interrupt() -> None:
        files = [tmp_path / name for name in ("onnx", "coreml")]
        while not all(file.is_file() and file.read_text() for file in files):
            time.sleep(0.05)
        pids.extend(int(file.read_text()) for file in files)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    targets = tuple(map(find_target, ("onnx", "coreml")))
    left_out: dict[str, dict[str, str]] = {"onnx": {}, "coreml": {}}
    started = time.monotonic()
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _build_all(scratch, _job(tmp_path), targets, left_out, said.append)
    thread.join()
    assert time.monotonic() - started < 30
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert said == [], "an interrupt is no format's failure"
    workers = Workers()
    workers.end()
    with pytest.raises(CancelledError):
        run_worker(scratch, _job(tmp_path), "onnx", said.append, workers)


def test_every_signal_gets_an_error() -> None:
    for number in range(1, 65):
        error = died("onnx", -number)
        assert isinstance(error, GateError)
        assert error.fix
    assert "SIGKILL" in str(died("onnx", -9))


def _request(checkpoint: Path, folder: Path, *formats: str) -> Request:
    return Request(
        targets=tuple(map(find_target, formats)),
        model=SwipeRequest(checkpoint, ("baked",), "synthetic:600", "wordfreq:5000", 100),
        out=folder / "bundle",
        policy=Policy(quantize=False),
        cache=folder / "cache",
    )


@pytest.mark.slow
def test_a_crash_costs_the_others_nothing_and_a_repeated_export_needs_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: Path
) -> None:
    with monkeypatch.context() as sabotaged:
        _sabotage(sabotaged, tmp_path / "site", "coreml", DEATHS["SIGSEGV"])
        said: list[str] = []
        with pytest.raises(LoweringError, match="coreml: the worker was ended by SIGSEGV"):
            export(_request(released, tmp_path, "onnx", "coreml"), said.append)
    assert "nothing is published; onnx will come from the cache next time" in said
    assert not (tmp_path / "bundle").exists()

    # A bit of the artefact flips in the whole ladder's entry; the rung's own is sound.
    cached = sorted((tmp_path / "cache").rglob("model.fp32.onnx"), key=lambda p: p.stat().st_mtime)
    assert len(cached) == 2
    data = bytearray(cached[-1].read_bytes())
    data[len(data) // 2] ^= 1
    cached[-1].write_bytes(data)
    said = []
    manifest = export(_request(released, tmp_path, "onnx"), said.append)
    assert any("damaged entry is dropped" in line for line in said)
    assert "onnx baked fp32: PASS (from the cache)" in said
    require_unaltered(tmp_path / "bundle", manifest.formats[0].taken)

    code = (
        "import sys; from pathlib import Path; from exporter import cli\n"
        "from swipe.errors import ExitCode\n"
        "status = cli.app(args=sys.argv[1:], standalone_mode=False)\n"
        "heavy = [m for m in ('torch', 'onnx', 'numba', 'wordfreq') if m in sys.modules]\n"
        "print('LOADED', status, heavy)"
    )
    arguments = [
        "onnx", "--no-quantize", "--view", "baked", "--checkpoint", released,
        "--data", "synthetic:600", "--lexicon", "wordfreq:5000", "--samples", "100",
        "--out", tmp_path / "bundle",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "SWIPE_EXPORT_CACHE": str(tmp_path / "cache")},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "LOADED 0 []"
    again = load_manifest(tmp_path / "bundle")
    assert again.formats == manifest.formats
