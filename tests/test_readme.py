"""The README's commands are real: targets exist, and the tour runs as it is written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from train.assemble import load_factory

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(kind: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


def test_every_make_target_exists() -> None:
    targets = {line.split()[1] for line in _blocks("console") if line.startswith("make ")}
    assert {"run", "test", "train"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_help_lists_every_target() -> None:
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for target in ("setup", "run", "train", "export", "bench", "test", "lint", "clean", "help"):
        assert f"make {target} " in listed


@pytest.mark.slow
def test_the_tour_runs_as_written(tmp_path: Path) -> None:
    commands = _blocks("console tour")
    assert len(commands) >= 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_named_files_exist() -> None:
    for name in re.findall(r"`((?:docs|swipe|models)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name


def test_named_factories_exist() -> None:
    documents = README + (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\bexamples\.\w+\.exportable:\w+", documents))
    assert len(names) >= 4
    for name in names:
        assert callable(load_factory(name)), name
