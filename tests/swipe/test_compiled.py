"""Compiled functions where numba may write neither beside the source nor into the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swipe.compiled import own_folder

SOURCE = """
from swipe.compiled import compiled

@compiled()
def double(x):
    return 2 * x

@compiled(fastmath=True)
def triple(x):
    return 3 * x
"""
SHOW = "import odd; print(odd.double(3), odd.triple(3), odd.double.stats.cache_path or '-')"


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """Words of what was printed by functions of a folder that cannot be written, even by root."""
    (tmp_path / "odd.py").write_text(SOURCE)
    (tmp_path / "__pycache__").write_text("")  # a file: no folder can be made in its place
    (tmp_path / "temporary").mkdir()
    return _run(tmp_path, tmp_path / "temporary")


def _run(folder: Path, temporary: Path, **more: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name[:6] != "NUMBA_"}
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={**environment, **nowhere, "PYTHONPATH": paths, **more},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_they_are_cached_in_a_temporary_folder_of_the_user(run: list[str], tmp_path: Path) -> None:
    assert run[:2] == ["6", "9"]
    folder = tmp_path / "temporary" / f"swipe-export-numba-{os.getuid()}"
    assert Path(run[2]).parent == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.rglob("*.nbc"))) == 2


@pytest.mark.slow
def test_they_are_compiled_anew_when_that_folder_is_not_the_users_alone(
    run: list[str], tmp_path: Path
) -> None:
    """Cached code is run as it is: whoever may write it decides what this user runs."""
    folder = tmp_path / "temporary" / f"swipe-export-numba-{os.getuid()}"
    folder.chmod(0o777)
    assert _run(tmp_path, tmp_path / "temporary") == ["6", "9", "-"]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o700)
    assert _run(tmp_path, tmp_path / "temporary") == ["6", "9", "-"]


def test_another_users_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert own_folder() == tmp_path / f"swipe-export-numba-{os.getuid()}"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (tmp_path / "swipe-export-numba-12345").mkdir(mode=0o700)
    assert own_folder() is None


@pytest.mark.slow
def test_a_folder_that_the_user_names_is_kept(run: list[str], tmp_path: Path) -> None:
    named = tmp_path / "named"
    found = _run(tmp_path, tmp_path / "temporary", NUMBA_CACHE_DIR=str(named))
    assert Path(found[2]).parent == named
