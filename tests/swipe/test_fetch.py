"""Fetching corpora: what arrives is kept verified, and training goes on from it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serving
from test_preparation import command

import swipe.fetch
from swipe.errors import GateError, UsageError
from swipe.fetch import CORPORA, Fetched, PublicFile, fetch, files_of
from swipe.prepared import open_prepared
from swipe.sources import read_corpus

ARCHIVE = PublicFile("swipelogs.zip", "http://home.invalid/x4yjn/")
ROWS = PublicFile("swipe-2/swipe2.jsonl", "http://home.invalid/swipe2.jsonl")
LOG = "sentence timestamp keyb_width keyb_height event x_pos y_pos x_r y_r angle word is_err\n"
SECRET = '{"age": 33, "gender": "x"}'


def zipped(members: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return packed.getvalue()


SOUND = zipped(
    {
        "swipelogs/": "",
        "swipelogs/a.log": LOG,
        "swipelogs/a.json": SECRET,
        "swipelogs/b.log": LOG + "x\n",
        "__MACOSX/swipelogs/._a.log": "noise",
    }
)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"swipelogs.zip": SOUND, "swipe-2/swipe2.jsonl": b'{"id": 1}\n' * 50}) as served:
        yield served


def get(server: FileServer, file: PublicFile, out: Path) -> tuple[Path, Fetched, bool]:
    return fetch(file, out, lambda done, total: None, server.address)


def test_the_catalogue_names_files_that_cannot_leave_their_folder() -> None:
    for corpus in CORPORA.values():
        for files in corpus.configs.values():
            for file in files:
                assert file.url.startswith("https://")
                assert ".." not in Path(file.path).parts
    assert [f.path for f in files_of("futo", "swipe-3")] == ["swipe-3/swipe3.jsonl"]
    with pytest.raises(UsageError, match="no public corpus 'fotu'"):
        files_of("fotu", "default")
    with pytest.raises(UsageError, match="no configuration 'swipe-9'"):
        files_of("futo", "swipe-9")


def test_only_logs_are_kept_of_an_archive(server: FileServer, tmp_path: Path) -> None:
    target, fetched, new = get(server, ARCHIVE, tmp_path)
    assert new
    assert (target, fetched.verified) == (tmp_path / "logs", "CRC-32 of the archive")
    assert {p.name for p in tmp_path.rglob("*")} == {"logs", "a.log", "b.log", "fetched.json"}
    assert (target / "a.log").read_text() == LOG


@pytest.mark.parametrize("file", [ARCHIVE, ROWS], ids=["archive", "rows"])
def test_a_second_fetch_verifies_and_asks_for_nothing(
    server: FileServer, tmp_path: Path, file: PublicFile
) -> None:
    first = get(server, file, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    server.asked = []
    second = get(server, file, tmp_path)
    assert second == (*first[:2], False)
    assert not server.asked
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("file", [ARCHIVE, ROWS], ids=["archive", "rows"])
@pytest.mark.parametrize("damage", ["altered", "removed", "record"])
def test_a_second_fetch_refuses_what_was_altered(
    server: FileServer, tmp_path: Path, file: PublicFile, damage: str
) -> None:
    target, fetched, _ = get(server, file, tmp_path)
    name = next(iter(fetched.files))
    kept = target / name if target.is_dir() else target
    if damage == "record":
        next(tmp_path.rglob("*fetched.json")).write_text("{")
        error: type[Exception] = UsageError
    elif damage == "removed" and target.is_dir():
        kept.unlink()
        error = GateError
    else:
        kept.write_bytes(kept.read_bytes()[:-1] + b"?")
        error = GateError
    with pytest.raises(error) as caught:
        get(server, file, tmp_path)
    assert "away" in caught.value.fix  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", [ARCHIVE, ROWS], ids=["archive", "rows"])
def test_what_lies_in_the_way_is_left_as_it_is(
    server: FileServer, tmp_path: Path, file: PublicFile
) -> None:
    mine = tmp_path / ("logs/mine.log" if file is ARCHIVE else file.path)
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UsageError, match="nothing says that it was fetched"):
        get(server, file, tmp_path)
    assert mine.read_text() == "mine"
    assert not server.asked


def test_a_stated_digest_is_recorded(server: FileServer, tmp_path: Path) -> None:
    server.stated = {ROWS.path: "0" * 64}
    with pytest.raises(GateError, match="damaged"):
        get(server, ROWS, tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    server.stated = {ROWS.path: hashlib.sha256(server.files[ROWS.path]).hexdigest()}
    target, fetched, _ = get(server, ROWS, tmp_path)
    assert fetched.verified == "SHA-256 stated by the server"
    assert fetched.files == {"swipe2.jsonl": server.stated[ROWS.path]}
    record = target.with_name("swipe2.jsonl.fetched.json")
    assert json.loads(record.read_text())["url"] == f"{server.address}/{ROWS.path}"


@pytest.mark.parametrize("name", ["../a.log", "x/../../a.log", "/etc/a.log", "x\\..\\a.log"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(
    server: FileServer, tmp_path: Path, name: str
) -> None:
    server.files["swipelogs.zip"] = zipped({"swipelogs/b.log": LOG, name: "evil"})
    with pytest.raises(GateError, match="leads out"):
        get(server, ARCHIVE, tmp_path / "place")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    "content",
    [b"", b"not a zip", SOUND[: len(SOUND) // 2], flipped(SOUND, SOUND.index(b"a.log") + 10),
     zipped({"one/a.log": LOG, "two/a.log": LOG}), zipped({"swipelogs/a.json": SECRET})],
    ids=["empty", "text", "half", "flipped", "twice", "no log"],
)  # fmt: skip
def test_an_unsound_archive_leaves_nothing(
    server: FileServer, tmp_path: Path, content: bytes
) -> None:
    server.files["swipelogs.zip"] = content
    with pytest.raises(GateError, match="no sound archive"):
        get(server, ARCHIVE, tmp_path)
    assert not list(tmp_path.iterdir())
    server.files["swipelogs.zip"] = SOUND
    assert get(server, ARCHIVE, tmp_path)[2]


def test_a_zip_bomb_is_refused(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swipe.fetch, "MAX_UNPACKED", 10)
    with pytest.raises(GateError, match="larger than 10 bytes"):
        get(server, ARCHIVE, tmp_path)
    assert not list(tmp_path.iterdir())


# The command.


@pytest.mark.slow
def test_fetched_logs_are_prepared_like_the_logs_themselves(
    server: FileServer, tmp_path: Path, shared_data: Path
) -> None:
    """The whole way from the archive to a corpus that is trained from, on real logs."""
    raw = sorted((shared_data / "how_we_swipe" / "raw_sample").glob("*.log"))
    assert len(raw) == 3
    members = {f"swipelogs/{log.name}": log.read_text() for log in raw}
    people = {f"swipelogs/{log.stem}.json": SECRET for log in raw}
    server.files["swipelogs.zip"] = zipped(people | members)
    server.cuts = [len(server.files["swipelogs.zip"]) // 2]
    done = command(tmp_path, "fetch", "how-we-swipe", "--mirror", server.address)
    assert done.returncode == 0, done.stderr
    assert "next: swipe-data prepare how_we_swipe/logs swipes" in done.stdout
    assert len(server.asked) == 2, "it was cut once"
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file() and p.name != "fetched.json"} == {
        ".log"
    }, "details of people were kept"
    for sources, out in ((["how_we_swipe/logs"], "swipes"), ([str(p) for p in raw], "direct")):
        prepared = command(tmp_path, "prepare", *sources, out)
        assert prepared.returncode == 0, prepared.stderr
    ours, theirs = (open_prepared(tmp_path / name).gestures for name in ("swipes", "direct"))
    assert [g.id for g in ours] == [g.id for g in theirs]
    assert len(ours) == sum(len(read_corpus(log).gestures) for log in raw)
    assert {g.writer for g in ours} == {log.stem for log in raw}


def test_fetched_rows_are_prepared(server: FileServer, tmp_path: Path, shared_data: Path) -> None:
    row = json.loads((shared_data / "futo" / "sample_row.jsonl").read_text())
    row = json.dumps(row | {"potentially_invalid_sentence": False}).encode()
    server.files = {f"{part}.jsonl": row for part in ("train", "dev", "test")}
    done = command(tmp_path, "fetch", "futo", "--out", "corpus", "--mirror", server.address)
    assert done.returncode == 0, done.stderr
    assert [path for path, _ in server.asked] == ["train.jsonl", "dev.jsonl", "test.jsonl"]
    assert "next: swipe-data prepare corpus/train.jsonl swipes" in done.stdout
    assert command(tmp_path, "prepare", "corpus/train.jsonl", "swipes").returncode == 0
    assert [g.word for g in open_prepared(tmp_path / "swipes").gestures] == ["the"]
    again = command(tmp_path, "fetch", "futo", "--out", "corpus", "--mirror", server.address)
    assert again.stdout.count("as it was fetched") == 3
    assert len(server.asked) == 3


def test_a_full_disk_is_one_line_and_is_gone_on_from(server: FileServer, tmp_path: Path) -> None:
    server.files[ROWS.path] = b"x" * 100_000
    arguments = ("fetch", "futo", "--config", "swipe-2", "--mirror", server.address)
    done = command(tmp_path, *arguments, limit=40_000)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot write" in done.stderr
    assert "enough free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "futo" / ROWS.path).exists()
    assert command(tmp_path, *arguments).returncode == 0
    assert server.asked[-1][1] == "bytes=40000-"
    assert (tmp_path / "futo" / ROWS.path).read_bytes() == server.files[ROWS.path]


def test_a_refused_connection_is_one_line(tmp_path: Path) -> None:
    with serving({}) as gone:
        address = gone.address
    done = command(tmp_path, "fetch", "how-we-swipe", "--mirror", address)
    assert done.returncode == 2
    assert "cannot reach 127.0.0.1" in done.stderr
    assert "fix:" in done.stderr


def test_an_interrupt_keeps_what_came(server: FileServer, tmp_path: Path) -> None:
    server.files[ROWS.path] = b"x" * 100_000
    arguments = ["fetch", "futo", "--config", "swipe-2", "--mirror", server.address]
    code = (
        "import os, signal, swipe.download as d\n"
        "d.time.sleep = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
        "from swipe.cli import main; main()"
    )
    server.cuts = [30_000]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert command(tmp_path, *arguments).returncode == 0
    assert [asked for _, asked in server.asked] == [None, "bytes=30000-"]
