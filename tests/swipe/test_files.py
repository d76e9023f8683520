"""Files and folders replaced whole: after a failure the earlier one is there, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from swipe.errors import UsageError
from swipe.files import replacing, replacing_folder, require_writable, write_text_atomic


def _publish(out: Path, text: str) -> None:
    with replacing_folder(out, ours=_is_thing, kind="thing") as folder:
        (folder / "mark").write_text(text)


def _is_thing(folder: Path) -> bool:
    return (folder / "mark").is_file() and "mine" not in (folder / "mark").read_text()


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
        with replacing_folder(out, ours=_is_thing, kind="thing") as folder:
            (folder / "mark").write_text("half")
            raise error

    with pytest.raises(expected):
        fail_halfway()
    assert (out / "mark").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_the_block_could_not_read_is_not_called_unwritable(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(PermissionError),
        replacing_folder(out, ours=_is_thing, kind="thing"),
    ):
        raise PermissionError(13, "Permission denied", str(tmp_path / "words.txt"))
    assert not list(tmp_path.iterdir())


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
    (tmp_path / "photos" / "mark").write_text("mine")
    with pytest.raises(UsageError, match="is not a thing"):
        _publish(tmp_path / "photos", "one")
    assert (tmp_path / "photos" / "mark").read_text() == "mine"
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


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing yet"])
def test_a_link_stays_one_and_what_it_names_is_replaced(tmp_path: Path, there: bool) -> None:
    (tmp_path / "big").mkdir()
    target, link = tmp_path / "big" / "out.jsonl", tmp_path / "out.jsonl"
    if there:
        target.write_text("old")
    link.symlink_to("big/out.jsonl")
    require_writable(link)
    write_text_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [p.name for p in target.parent.iterdir()] == ["out.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big", "out.jsonl"]


@pytest.mark.parametrize("linked", [False, True], ids=["named", "linked"])
def test_a_pipe_is_written_into_and_stays_one(tmp_path: Path, linked: bool) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        require_writable(link if linked else pipe)
        write_text_atomic(link if linked else pipe, "figures")
        assert stat.S_ISFIFO(pipe.lstat().st_mode)
        assert link.is_symlink()
        assert os.read(reader, 100) == b"figures"
    finally:
        os.close(reader)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_pipe_gets_nothing_of_what_could_not_be_made(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)

    def fail_halfway() -> None:
        with replacing(pipe) as temporary:
            temporary.write_text("half")
            raise KeyError

    try:
        with pytest.raises(KeyError):
            fail_halfway()
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)
    finally:
        os.close(reader)


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    began = []
    with pytest.raises(UsageError, match="cannot write"), replacing(tmp_path) as temporary:
        began.append(temporary)
    assert not began
    assert not list(tmp_path.iterdir())
