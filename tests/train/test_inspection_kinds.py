"""Kinds that other packages offer: found by entry point, never passed over in silence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from swipe.errors import GateError, MissingError, UsageError
from train.cli import app
from train.inspection.kinds import CHECKPOINT, find_checkpoints, inspect_file, known_kinds

PLUGIN = """
from swipe.errors import MissingError
from train.inspection.kinds import Kind
from train.inspection.verdict import Inspection

def judge(path, stats):
    text = path.read_text()
    if text == "needs":
        raise MissingError("tensorbook is not installed", fix="pip install tensorbook")
    return Inspection(str(path), () if text == "good" else ("it is " + text,))

BOOK = Kind(".book", lambda path: path.suffix == ".book", judge)
NOT_A_KIND = 3
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with entry points on the path, as pip would, and none beside it."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "bookplugin.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])

    def install(name: str, **points: str) -> None:
        folder = site / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{key} = {value}\n" for key, value in points.items())
        (folder / "entry_points.txt").write_text(f"[swipe_export.inspectors]\n{lines}")
        known_kinds.cache_clear()

    install("swipe_export")  # hides what this environment has installed
    yield install
    known_kinds.cache_clear()
    sys.modules.pop("bookplugin", None)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "w.safetensors")
    (folder / "a.book").write_text("good")
    return folder


def test_a_kind_of_another_package_is_found_and_used(install: Install, files: Path) -> None:
    assert known_kinds() == (CHECKPOINT,)
    assert [p.name for p in find_checkpoints(files)] == ["w.safetensors"]
    with pytest.raises(UsageError, match="no checkpoint"):
        inspect_file(files / "a.book")
    install("books", book="bookplugin:BOOK")
    assert [p.name for p in find_checkpoints(files)] == ["a.book", "w.safetensors"]
    assert inspect_file(files / "a.book").valid
    (files / "a.book").write_text("torn")
    assert inspect_file(files / "a.book").reasons == ("it is torn",)


@pytest.mark.parametrize(
    ("value", "says"),
    [("absent:BOOK", "No module named 'absent'"), ("bookplugin:NOT_A_KIND", "is no Kind")],
)
def test_a_package_that_does_not_load_is_named(
    install: Install, files: Path, value: str, says: str
) -> None:
    """Without its kind, its files would go unchecked and nobody would know."""
    install("books", book=value)
    with pytest.raises(MissingError, match=says) as caught:
        inspect_file(files / "w.safetensors")
    assert "book (books)" in str(caught.value)


def test_two_packages_for_one_kind_are_refused(install: Install, files: Path) -> None:
    install("books", book="bookplugin:BOOK")
    install("more_books", book="bookplugin:BOOK")
    with pytest.raises(UsageError, match="both offer to inspect book"):
        find_checkpoints(files)


def test_the_exit_code_says_what_is_wrong_worst_first(install: Install, files: Path) -> None:
    install("books", book="bookplugin:BOOK")
    check = ["check", "--all", str(files)]
    runner = CliRunner()
    assert runner.invoke(app, check).exit_code == 0

    (files / "b.book").write_text("needs")
    done = runner.invoke(app, check)
    assert isinstance(done.exception, MissingError)
    assert done.exception.exit_code == 5
    assert done.exception.fix == "pip install tensorbook"
    assert "UNCHECKED" in done.stdout
    assert "unchecked: tensorbook is not installed" in done.stdout

    (files / "c.book").write_text("torn")
    done = runner.invoke(app, [*check, "--json"])
    assert isinstance(done.exception, GateError)
    verdicts = {Path(row["path"]).name: row["verdict"] for row in json.loads(done.stdout)}
    assert verdicts == {
        "a.book": "VALID", "b.book": "UNCHECKED", "c.book": "INVALID", "w.safetensors": "VALID",
    }  # fmt: skip


def test_what_cannot_be_read_alone_is_a_usage_error(
    install: Install, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    done = CliRunner().invoke(app, ["check", str(files / "w.safetensors")])
    assert isinstance(done.exception, UsageError)
    assert "1 of 1 could not be checked" in str(done.exception)


def test_a_file_named_twice_is_checked_once(install: Install, files: Path) -> None:
    path = str(files / "w.safetensors")
    done = CliRunner().invoke(app, ["check", path, path, "--all", str(files)])
    assert done.stdout.count("VALID") == 1


def test_a_plain_folder_is_pointed_to_all(install: Install, files: Path) -> None:
    with pytest.raises(UsageError, match="is a folder") as caught:
        inspect_file(files)
    assert "--all" in caught.value.fix
