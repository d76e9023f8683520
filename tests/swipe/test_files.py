"""Folders that are replaced whole: after any failure the earlier one is there, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swipe.errors import UsageError
from swipe.files import replacing_folder, require_writable


def _publish(out: Path, text: str) -> None:
    with replacing_folder(out, marker="mark", kind="thing") as folder:
        (folder / "mark").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    _publish(out, "one")
    (out / "stale").write_text("")
    _publish(out, "two")
    assert [p.name for p in out.iterdir()] == ["mark"]
    assert (out / "mark").read_text() == "two"
    assert [p.name for p in out.parent.iterdir()] == ["out"], "something was left beside it"
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left"), ValueError])
def test_a_failure_leaves_the_earlier_folder(
    tmp_path: Path, error: BaseException | type[BaseException]
) -> None:
    out = tmp_path / "out"
    _publish(out, "one")
    expected = UsageError if isinstance(error, OSError) else error

    def fail_halfway() -> None:
        with replacing_folder(out, marker="mark", kind="thing") as folder:
            (folder / "mark").write_text("half")
            raise error

    with pytest.raises(expected):
        fail_halfway()
    assert (out / "mark").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_earlier_folder_is_put_back_when_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _publish(out, "one")
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(UsageError, match="Input/output error"):
        _publish(out, "two")
    assert (out / "mark").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_strangers_folder_or_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    (tmp_path / "file").write_text("text")
    for name in ("photos", "file"):
        with pytest.raises(UsageError, match="is not a thing"):
            _publish(tmp_path / name, "one")
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "meow"
    assert (tmp_path / "file").read_text() == "text"
    (tmp_path / "empty").mkdir()
    _publish(tmp_path / "empty", "one")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_cannot_be_written_later_is_known_now(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "deep" / "out"):
        with pytest.raises(UsageError, match="cannot write"):
            require_writable(path)
    require_writable(tmp_path / "deep" / "out")
    assert not list((tmp_path / "deep").iterdir()), "it is only looked at"
