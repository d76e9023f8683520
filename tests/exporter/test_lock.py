"""Two exports into one folder: the second is told, and a killed one leaves no lock behind."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.bundle import Request, export
from exporter.lock import held
from exporter.origins.requests import SwipeRequest
from exporter.targets import find_target
from swipe.errors import UsageError

HOLD = (
    "import sys, time; from pathlib import Path; from exporter.lock import held\n"
    "with held(Path(sys.argv[1]), 'bundle'): print('held', flush=True); time.sleep(60)"
)


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with (
        subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(UsageError, match=rf"another process \({other.pid}\) is writing"),
            held(out, "bundle"),
        ):
            pytest.fail("two held it")
        with held(tmp_path / "another", "bundle"):
            pass
        other.kill()
    with held(out, "bundle"):
        assert (tmp_path / ".bundle.lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_holder_removes_meanwhile_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a third process makes the file anew, locks it, and two of them write."""
    real = fcntl.flock
    locked: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not locked:
            (tmp_path / ".bundle.lock").unlink()
        locked.append(descriptor)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with held(tmp_path / "bundle", "bundle"):
        assert (tmp_path / ".bundle.lock").is_file()
    assert len(locked) == 2


def test_it_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), held(tmp_path / "bundle", "bundle"):
        raise KeyError
    with held(tmp_path / "bundle", "bundle"):
        pass


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match="cannot write"),
        held(tmp_path / "file" / "bundle", "bundle"),
    ):
        pytest.fail("held a file in a file")


def test_the_root_of_the_disk_is_no_place_for_a_bundle() -> None:
    with (
        pytest.raises(UsageError, match="/ is no place for a bundle"),
        held(Path("/"), "bundle"),
    ):
        pytest.fail("held the root")


def test_an_export_holds_its_bundle(tmp_path: Path, released: Path) -> None:
    request = Request((find_target("onnx"),), SwipeRequest(released), tmp_path / "bundle")
    with (
        held(tmp_path / "bundle", "bundle"),
        pytest.raises(UsageError, match="is writing the bundle"),
    ):
        export(request, lambda line: None)
