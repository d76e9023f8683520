"""A file of a bundle that may not be read is named, and no bug."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter import fingerprint
from exporter.manifest import FILE, RungEntry, Verdict, load_manifest, require_unaltered
from swipe.errors import UsageError

NAME = "model.fp32.onnx"


@pytest.fixture
def _unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be opened to read; not by its mode, as root may read everything."""

    def refuse(self: Path, *options: Any, **named: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What has the files of a bundle."""
    for name in (FILE, NAME, "words.txt"):
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.usefixtures("folder", "_unreadable")
def test_a_manifest_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{FILE} cannot be read: Permission denied"):
        load_manifest(tmp_path)


@pytest.mark.usefixtures("folder", "_unreadable")
def test_an_artefact_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    verdict = Verdict(status="PASS", level="host", reasons=(), metrics=None)
    entry = RungEntry(
        rung="fp32", taken=True, verdict=verdict, file=NAME, size_bytes=2, sha256="-", facts={},
        seconds=0.0,
    )  # fmt: skip
    with pytest.raises(UsageError, match=f"{NAME} cannot be read: Permission denied"):
        require_unaltered(tmp_path, entry)


@pytest.mark.usefixtures("folder", "_unreadable")
def test_a_lexicon_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"words.txt cannot be read: Permission denied"):
        fingerprint.content(str(tmp_path / "words.txt"))
    with pytest.raises(UsageError, match=r"words.txt cannot be read: Permission denied"):
        fingerprint.checkpoint(tmp_path / "words.txt")
