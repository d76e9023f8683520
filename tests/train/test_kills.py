"""Power cuts and full disks: no moment of a run leaves a broken file, and none changes its result.

The kills are SIGKILL, at random moments of the training itself; see `kill_harness`.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kill_harness import STEPS

from train.inspection.kinds import inspect_file
from train.sealed import digest, read_sealed

pytestmark = pytest.mark.slow

HARNESS = Path(__file__).with_name("kill_harness.py")
KILLS = 40
SETTINGS = [
    "--data", "synthetic:600", "--steps", "60", "--set", "data.dev_share=0.3",
    "--set", "evaluation.times=30", "--set", "evaluation.swipes=20",
    "--set", "evaluation.lexicon=wordfreq:2000", "--set", "evaluation.beam_width=8",
    "--set", "optimizer.batch_size=32", "--set", "model.channels=16",
    "--set", "record.every=1", "--set", "record.tensorboard=false",
]  # fmt: skip
FIT = [sys.executable, "-m", "train.cli", "fit"]


def _killed(out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, HARNESS, out, str(KILLS), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _values(path: Path) -> str:
    """Hash of the tensors of a sealed file."""
    return digest("", read_sealed(path, fix="-")[1])


def _assert_sound(folder: Path) -> None:
    """Every published file proves itself, and no temporary one is left."""
    files = sorted(folder.glob("*.safetensors"))
    assert {"best.safetensors", "last.safetensors", "state.safetensors"} <= {f.name for f in files}
    for file in files:
        assert inspect_file(file).valid, inspect_file(file)
    assert not list(folder.glob(".*"))


def test_a_run_killed_again_and_again_ends_as_if_it_never_was(tmp_path: Path) -> None:
    seen = _killed(tmp_path)
    assert seen["damaged"] == []
    assert seen["failed"] == []
    assert seen["kills"] == KILLS >= 20
    assert seen["while_writing"] >= 3, "the kills missed the moments that matter"
    assert 0 < seen["steps_left"] < STEPS, "nothing was resumed"
    for name in ("best", "last", "state"):
        whole, killed = (tmp_path / run / f"{name}.safetensors" for run in ("whole", "killed"))
        assert _values(whole) == _values(killed), name
    record, tensors = read_sealed(tmp_path / "killed" / "state.safetensors", fix="-")
    assert record["step"] == STEPS
    assert any(name.startswith("optimizer.") for name in tensors)


def test_the_same_kills_find_a_writer_that_is_not_atomic(tmp_path: Path) -> None:
    """Otherwise the test above proves nothing."""
    seen = _killed(tmp_path, "--in-place")
    assert seen["damaged"], "a torn checkpoint went unnoticed"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `SETTINGS`, on a disk with room for it."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run([*FIT, *SETTINGS, "--out", "run"], cwd=folder, check=True, capture_output=True)
    return folder / "run"


def _assert_resumed_equals(whole: Path, folder: Path) -> None:
    command = [*FIT, "--resume", "--out", str(folder)]
    subprocess.run(command, cwd=folder.parent, check=True, capture_output=True)
    for name in ("last", "state"):
        assert _values(whole / f"{name}.safetensors") == _values(folder / f"{name}.safetensors")


def _until(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux to limit a running run")
@pytest.mark.parametrize("full", ["best.safetensors", "state.safetensors", "metrics.jsonl"])
def test_a_file_that_may_grow_no_further_ends_the_run_cleanly(
    tmp_path: Path, whole: Path, full: str
) -> None:
    """A limit between the sizes of the files chooses which one is the first to fail."""
    folder = tmp_path / "run"
    sizes = {p.name: p.stat().st_size for p in whole.glob("*.safetensors")}
    assert sizes["last.safetensors"] * 2 < sizes["state.safetensors"]
    with subprocess.Popen(
        [*FIT, *SETTINGS, "--out", folder], cwd=tmp_path, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        _until(folder / "state.safetensors")
        limit = {
            "best.safetensors": sizes["best.safetensors"] - 1,
            "state.safetensors": sizes["state.safetensors"] * 2 // 3,
            "metrics.jsonl": (folder / "metrics.jsonl").stat().st_size,
        }[full]
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 2, said
    # The smallest limit stops every checkpoint, and a busy machine decides which one comes first.
    every = ("best.safetensors", "last.safetensors", "state.safetensors")
    alike = every if full == "best.safetensors" else (full,)
    assert any(f"cannot write {folder / name}: File too large" in said for name in alike), said
    assert [line.split(":")[0].strip() for line in said.splitlines()] == ["error", "fix"]
    _assert_sound(folder)
    _assert_resumed_equals(whole, folder)


ON_A_SMALL_DISK = """
import os, subprocess, sys, shutil
from pathlib import Path
disk, saved, *command = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320m", "none", disk], check=True)
run = Path(disk, "run")
fit = subprocess.Popen([*command, "--out", str(run)])
while not (run / "state.safetensors").exists() and fit.poll() is None:
    pass
with open(Path(disk, "filler"), "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(1 << 20))
    except OSError:
        pass
code = fit.wait()
shutil.copytree(run, saved)
sys.exit(code)
"""


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_full_disk_ends_the_run_cleanly(tmp_path: Path, whole: Path) -> None:
    """A file system of 320 MB, in a name space of its own, filled up while the run is under way."""
    if not _may_mount():
        pytest.skip("this machine lets nobody mount a file system of their own")
    disk, saved = tmp_path / "disk", tmp_path / "saved"
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", ON_A_SMALL_DISK, disk, saved, *FIT, *SETTINGS],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "fix"]
    _assert_sound(saved)
    _assert_resumed_equals(whole, saved)
