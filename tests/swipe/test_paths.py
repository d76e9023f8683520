"""Paths that the operating system will not speak of: every reader ends with a mend, none in a bug.

Root may enter every folder, so that a refusal is played where the system gives its answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from swipe.corpus import load_corpus
from swipe.errors import DataError, UsageError
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.paths import is_file, is_folder
from swipe.preparation import read_sources
from swipe.prepared import open_prepared
from swipe.presets import load_preset
from swipe.sources import read_rows

READERS: list[Callable[[Path], object]] = [
    is_file,
    is_folder,
    read_rows,
    open_prepared,
    load_preset,
    lambda path: list(read_sources([path])),
    lambda path: load_corpus(str(path), load_layout("qwerty")),
    lambda path: load_lexicon(str(path)),
    lambda path: load_layout(str(path)),
]
NAMES = [
    "is_file", "is_folder", "rows", "prepared", "preset", "sources", "corpus", "lexicon", "layout",
]  # fmt: skip


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may be seen, but not entered."""
    folder = tmp_path / "closed"
    folder.mkdir()
    stat = os.stat

    def guarded(path: object, *arguments: object, **options: object) -> object:
        if isinstance(path, Path) and folder in path.parents:
            raise PermissionError(13, os.strerror(13), str(path))
        return stat(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "stat", guarded)
    return folder


@pytest.mark.parametrize("read", READERS, ids=NAMES)
def test_a_path_in_a_folder_that_may_not_be_entered_is_refused(
    closed: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises(
        DataError, match=r"closed.* cannot be looked at: Permission denied"
    ) as found:
        read(closed / "swipes.jsonl")
    assert found.value.fix == "check the permissions of the folders it lies in"


@pytest.mark.parametrize("read", READERS, ids=NAMES)
def test_a_name_too_long_for_a_file_is_refused(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises(UsageError, match="cannot be looked at: File name too long") as found:
        read(tmp_path / ("n" * 300 + ".jsonl"))
    assert found.value.fix == "check the path: one of its names is too long to be a file's"


def test_what_is_there_and_what_is_not_is_answered(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("-")
    (tmp_path / "link").symlink_to("file")
    names = ("file", "link", ".", "absent", "file/below")
    assert [is_file(tmp_path / name) for name in names] == [True, True, False, False, False]
    assert [is_folder(tmp_path / name) for name in names] == [False, False, True, False, False]
