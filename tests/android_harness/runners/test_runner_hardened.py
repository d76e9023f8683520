"""Lifetime, readings and damaged packs: a runner ends in time, reads right, and never breaks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import save_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runner_builds import build_or_say
from runner_runs import invocation, start

from android_harness.pack import TYPES, pack_calls, read_answers
from android_harness.runners.record import read_record
from android_harness.runners.sets import RunnerSet
from android_harness.runners.toolchains import default_flavour
from swipe.errors import GateError

pytestmark = pytest.mark.slow

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
SYSFS = "sysfs"
REPORT = 99
"""The exit status of a program in which a sanitizer found something."""


def _types_model(path: Path) -> Path:
    """Gives back a tensor of every type, of any shape of two dimensions."""
    inputs = {name: (code, ["n", "m"]) for name, code in TYPES.items()}
    outputs = {f"{name}_out": value for name, value in inputs.items()}
    nodes = [("Identity", [name], [f"{name}_out"], {}) for name in TYPES]
    return save_graph(path, nodes, inputs, outputs)


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_until_gone(pid: int, seconds: float) -> bool:
    start_s = time.monotonic()
    while _running(pid) and time.monotonic() - start_s < seconds:
        time.sleep(0.01)
    return not _running(pid)


@pytest.fixture
def endless(native_set: RunnerSet, tmp_path: Path) -> list[str]:
    """The command line of a run that would take a minute: far longer than any wait for its end."""
    model = _types_model(tmp_path / "types.onnx")
    call = {name: np.zeros((1, 1), name) for name in TYPES}
    (tmp_path / "calls.pack").write_bytes(pack_calls([call]))
    asking = invocation(
        native_set, "onnx", tmp_path, model, timed=1, iters=1, min_secs=59.0, tether=True
    )
    return [*native_set.command("onnx"), *asking.arguments()]


def test_it_ends_when_stdin_closes(
    native_set: RunnerSet, endless: list[str], tmp_path: Path
) -> None:
    with subprocess.Popen(endless, cwd=native_set.folder, stdin=subprocess.PIPE) as process:
        time.sleep(1.0)
        assert process.poll() is None  # open, but silent: that is no end
        assert process.stdin is not None
        process.stdin.write(b"words on stdin are no end either")
        process.stdin.flush()
        time.sleep(0.2)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=30) == 4
    assert not (tmp_path / "result.json").exists()


def test_it_ends_when_the_host_is_killed(native_set: RunnerSet, endless: list[str]) -> None:
    """The host holds the other end of stdin, and dies without a word."""
    host = (
        "import json, subprocess, sys, time\n"
        "words, folder = json.loads(sys.argv[1])\n"
        "process = subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE)\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    words = json.dumps([endless, str(native_set.folder)])
    with subprocess.Popen([sys.executable, "-c", host, words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        time.sleep(0.5)
        assert _running(pid)
        process.send_signal(signal.SIGKILL)
        assert _wait_until_gone(pid, 30)


def test_without_a_tether_stdin_is_not_looked_at(
    native_set: RunnerSet, endless: list[str], tmp_path: Path
) -> None:
    words = [word for word in endless if word != "--tether"]
    words[words.index("--min-secs") + 1] = "0.0"
    done = subprocess.run(
        words, cwd=native_set.folder, stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "result.json").exists()


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> RunnerSet:
    """With sanitizers, one second to spare instead of thirty, and a /sys that tests can write."""
    folder = tmp_path_factory.mktemp("hardened")
    flags = [*SANITIZERS, "-DSPARE_SECS=1", f'-DSYSFS="{folder / SYSFS}"']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIPE_EXPORT_CACHE", str(folder))
        return build_or_say(default_flavour(), flags, ["onnx"])


def _set_sysfs(runners: RunnerSet, values: dict[str, str]) -> None:
    root = runners.folder.parents[1] / SYSFS
    shutil.rmtree(root, ignore_errors=True)
    for name, value in values.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)


def _zones(*zones: tuple[str, str]) -> dict[str, str]:
    folders = (f"class/thermal/thermal_zone{i}" for i in range(len(zones)))
    return {
        f"{folder}/{name}": value
        for folder, zone in zip(folders, zones, strict=True)
        for name, value in zip(("type", "temp"), zone, strict=True)
    }


def _speeds(cpu: int, most: str) -> dict[str, str]:
    folder = f"devices/system/cpu/cpu{cpu}/cpufreq"
    return {f"{folder}/scaling_max_freq": most, f"{folder}/scaling_cur_freq": f"{1200 + cpu}\n"}


@pytest.mark.parametrize(
    ("sysfs", "temp_mc", "khz_max"),
    [
        ({}, None, None),
        (_zones(("battery\n", "90000\n")), None, None),
        (_zones(("cpu-0-0\n", "41000\n"), ("CPUSS-1\n", "43500\n")), 43500, None),
        (_zones(("BIG\n", "50000\n"), ("battery\n", "90000\n")), 50000, None),
        (_zones(("cpu0\n", "-274000\n"), ("cpu1\n", "39000\n")), 39000, None),
        (_zones(("cpu0\n", "0\n"), ("cpu1\n", "45\n"), ("cpu2\n", "-40000\n")), None, None),
        (_zones(("cpu0\n", ""), ("cpu1\n", "no number"), ("cpu2\n", "9999999999")), None, None),
        (_speeds(0, "2400000\n"), None, 2400000),
        ({**_speeds(0, "2400000\n"), **_speeds(1, "1100000\n")}, None, 2400000),
        (_speeds(1, "1100000\n"), None, None),
    ],
)
def test_readings_of_a_block(
    hardened: RunnerSet,
    fuzzed: Path,
    sysfs: dict[str, str],
    temp_mc: int | None,
    khz_max: int | None,
) -> None:
    """The hottest CPU zone, and the limit of the CPUs that are used: here the first only."""
    _set_sysfs(hardened, sysfs)
    (fuzzed / "calls.pack").write_bytes(GOOD)
    asking = invocation(
        hardened, "onnx", fuzzed, fuzzed / "types.onnx", timed=1, iters=3, block=2, cpus="0"
    )
    ended = start(hardened, "onnx", asking.arguments(), {"ASAN_OPTIONS": "detect_leaks=0"})
    assert ended.returncode == 0, ended.stderr
    record = read_record((fuzzed / "result.json").read_text(), asking.nonce)
    assert [block.temp_mc for block in record.blocks] == [temp_mc] * 2
    assert [block.khz_max for block in record.blocks] == [khz_max] * 2
    assert [block.khz_cur for block in record.blocks] == [khz_max and 1200] * 2
    assert [block.cpu for block in record.blocks] == [0, 0]


def test_it_ends_itself_when_its_time_is_over(hardened: RunnerSet, tmp_path: Path) -> None:
    """Whatever keeps it: here a model that is a pipe into which nobody writes."""
    call = {"in": np.zeros(1, np.float32)}
    (tmp_path / "calls.pack").write_bytes(pack_calls([call]))
    os.mkfifo(tmp_path / "model")
    asking = invocation(hardened, "onnx", tmp_path, tmp_path / "model", max_secs=0.0)
    start_s = time.monotonic()
    deaf = ["/bin/sh", "-c", 'trap "" ALRM; exec "$@"', "sh"]
    words = [*deaf, *hardened.command("onnx"), *asking.arguments()]
    ended = subprocess.run(words, cwd=hardened.folder, check=False, timeout=30)
    assert ended.returncode == -signal.SIGALRM
    assert time.monotonic() - start_s > 0.9
    assert not (tmp_path / "result.json").exists()


def _good_pack() -> bytes:
    generator = np.random.default_rng(0)
    shapes = [(2, 3), (1, 1), (0, 4)]
    return pack_calls(
        [{name: generator.integers(0, 2, shape).astype(name) for name in TYPES} for shape in shapes]
    )


GOOD = _good_pack()
EDGES = [0, 1, 2, 3, 7, 64, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
OFFSETS = st.integers(0, len(GOOD) - 1)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """`GOOD` with a few fields overwritten, bytes flipped, or pieces cut out or doubled."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(OFFSETS) % len(data)
        match draw(st.sampled_from(["field", "byte", "cut", "remove", "double"])):
            case "field":
                size = draw(st.sampled_from([4, 8]))
                at -= at % 4
                value = draw(st.sampled_from(EDGES)) % 2 ** (8 * size)
                data[at : at + size] = value.to_bytes(size, "little")
            case "byte":
                data[at] ^= draw(st.integers(1, 255))
            case "cut":
                del data[max(at, 1) :]
            case "remove":
                del data[at : at + draw(st.integers(1, 64))]
            case _:
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
        if not data:
            data += b"S"
    return bytes(data)


def _is_sound(data: bytes) -> bool:
    """Whether the Python reader takes it; what it refuses, the runner must refuse."""
    try:
        answers = read_answers(data)
    except GateError:
        return False
    except (ValueError, OverflowError, MemoryError):
        return False
    return bool(answers.names and answers.calls)


@pytest.fixture(scope="module")
def fuzzed(hardened: RunnerSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model that fuzzed packs are run with."""
    folder = tmp_path_factory.mktemp("fuzz")
    _types_model(folder / "types.onnx")
    return folder


def _run_pack(hardened: RunnerSet, folder: Path, data: bytes) -> str:
    """The stage that a run with this pack ends at, none of it with a sanitizer's report."""
    (folder / "calls.pack").write_bytes(data)
    (folder / "result.json").unlink(missing_ok=True)
    asking = invocation(
        hardened, "onnx", folder, folder / "types.onnx", outputs=str(folder / "answers")
    )
    # The engine's own library keeps what it allocated until the end of the process.
    options = {
        "ASAN_OPTIONS": f"exitcode={REPORT}:detect_leaks=0",
        "UBSAN_OPTIONS": f"exitcode={REPORT}",
    }
    ended = start(hardened, "onnx", asking.arguments(), options)
    assert ended.returncode in (0, 3), ended.stderr
    record = read_record((folder / "result.json").read_text(), asking.nonce)
    assert record.ok == (ended.returncode == 0)
    return record.stage


def test_the_good_pack_runs(hardened: RunnerSet, fuzzed: Path) -> None:
    assert _is_sound(GOOD)
    assert _run_pack(hardened, fuzzed, GOOD) == "done"
    given, sent = read_answers((fuzzed / "answers").read_bytes()), read_answers(GOOD)
    assert [[array.tobytes() for array in call.arrays] for call in given.calls] == [  # type: ignore[union-attr]
        [array.tobytes() for array in call.arrays]  # type: ignore[union-attr]
        for call in sent.calls
    ]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=damaged())
def test_a_damaged_pack_is_refused(hardened: RunnerSet, fuzzed: Path, data: bytes) -> None:
    """Never a crash, never a read beyond the file; and stricter than the Python reader."""
    stage = _run_pack(hardened, fuzzed, data)
    if not _is_sound(data):
        assert stage == "pack"


@pytest.mark.parametrize("at", [8, 12])
@pytest.mark.parametrize("count", [0, 2**31, 2**32 - 1])
def test_counts_beyond_the_file(hardened: RunnerSet, fuzzed: Path, at: int, count: int) -> None:
    data = bytearray(GOOD)
    data[at : at + 4] = count.to_bytes(4, "little")
    assert _run_pack(hardened, fuzzed, bytes(data)) == "pack"


def test_sanitizers_are_at_work(hardened: RunnerSet, tmp_path: Path) -> None:
    """Without them the property above would prove little."""
    program = hardened.folder / hardened.program("onnx").file
    assert b"__asan_init" in program.read_bytes()
    assert b"__ubsan_handle" in program.read_bytes()
