"""Nothing that we start lets ONNX Runtime write a device id, or keep a thread for telemetry.

Official builds do both when their library is loaded, unless ORT_DISABLE_TELEMETRY is set by then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from runner_runs import invocation

from android_harness.pack import pack_calls
from android_harness.runners.sets import RunnerSet
from exporter.formats import Inputs

pytestmark = pytest.mark.slow

VARIABLE = "ORT_DISABLE_TELEMETRY"
AUTOMATION = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "TRAVIS", "JENKINS_URL", "GITLAB_CI", "BUILD_ID")
"""Where these are set the library keeps quiet by itself, and there would be nothing to see."""

LOADS = """
import os, sys, time
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
time.sleep(0.3)
print(len(os.listdir("/proc/self/task")))
"""
AS_A_SCRIPT = f"""
import sys
from swipe.console import make_app, run
app = make_app("a console script of ours")
@app.command(no_args_is_help=False)
def load(model: str) -> None:
    exec({LOADS!r}, {{}})
run(app)
"""


def _home(folder: Path) -> dict[str, str]:
    """A user's environment, whose home is `folder`, empty, and that reaches no other machine."""
    folder.mkdir()
    names = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    away = {VARIABLE, *AUTOMATION}
    kept = {name: value for name, value in os.environ.items() if name not in away}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    return {**kept, **nowhere, **dict.fromkeys(names, str(folder))}


def _python(code: str, model: Path, env: Mapping[str, str]) -> int:
    """How many threads a process has in which ONNX Runtime was loaded."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return int(done.stdout)


def _written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_our_scripts_keep_the_library_quiet(onnx_fp32: Path, tmp_path: Path) -> None:
    """And the first half proves that there is something to keep quiet."""
    talking, quiet = tmp_path / "talking", tmp_path / "quiet"
    threads = _python(LOADS, onnx_fp32, _home(talking))
    assert "deviceid" in _written(talking)
    assert _python(AS_A_SCRIPT, onnx_fp32, _home(quiet)) < threads
    assert _written(quiet) == []


OURS = [entry for entry in entry_points(group="console_scripts") if entry.name.startswith("swipe-")]


@pytest.mark.parametrize("script", OURS, ids=[entry.name for entry in OURS])
def test_every_script_is_started_that_way(script: object, tmp_path: Path) -> None:
    """The variable is set by the time a command runs; workers inherit it."""
    module, _, function = str(script.value).partition(":")  # type: ignore[attr-defined]
    code = (
        "import atexit, os, sys\n"
        f"atexit.register(lambda: print('at the end:', os.environ.get('{VARIABLE}')))\n"
        f"from {module} import {function}\n"
        "loaded = 'onnxruntime' in sys.modules\n"
        "print('loaded before:', loaded)\n"
        f"{function}()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env=_home(tmp_path / "home"),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "loaded before: False" in done.stdout
    assert "at the end: 1" in done.stdout


def test_there_are_four_scripts() -> None:
    assert {entry.name for entry in OURS} == {
        "swipe-data",
        "swipe-train",
        "swipe-export",
        "swipe-bench",
    }


def test_the_runner_keeps_the_library_quiet(
    native_set: RunnerSet, onnx_fp32: Path, swipes: list[Inputs], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (tmp_path / "calls.pack").write_bytes(pack_calls(swipes[:1]))
    asking = invocation(
        native_set, "onnx", tmp_path, onnx_fp32, timed=1, iters=1, min_secs=1.0, threads=1
    )
    words = [*native_set.command("onnx"), *asking.arguments()]
    with subprocess.Popen(words, cwd=native_set.folder, env=_home(home)) as process:
        facts = Path(f"/proc/{process.pid}")
        deadline_s = time.monotonic() + 20
        while "libonnxruntime" not in (facts / "maps").read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        time.sleep(0.3)  # time for a thread to be born; the run takes a second at least
        assert process.poll() is None
        assert len(list((facts / "task").iterdir())) == 1
        assert process.wait(timeout=60) == 0
    assert _written(home) == []
