"""Downloads: the file arrives exactly, over any number of cuts, or an error says what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from file_server import FileServer, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swipe.download
from swipe.download import ATTEMPTS, Stated, download, forget
from swipe.errors import DataError, GateError, SwipeError, UsageError

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(200_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swipe.download, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"file": CONTENT}) as served:
        yield served


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def get(server: FileServer, part: Path) -> tuple[Stated, str]:
    return download(f"{server.address}/file", part, lambda done, total: None)


def stopped(server: FileServer, part: Path, after: int) -> None:
    """Leave what a kill after so many bytes leaves."""
    server.cuts = [after] + [0] * ATTEMPTS
    with pytest.raises(DataError, match="cannot be fetched to its end") as caught:
        get(server, part)
    assert "goes on where this ended" in caught.value.fix
    assert part.read_bytes() == CONTENT[:after]
    server.cuts, server.asked = [], []


def test_a_file_arrives_exactly_and_progress_is_told(server: FileServer, part: Path) -> None:
    told: list[tuple[int, int | None]] = []
    stated, digest = download(
        f"{server.address}/file", part, lambda done, total: told.append((done, total))
    )
    assert part.read_bytes() == CONTENT
    assert (digest, stated.size, stated.sha256) == (DIGEST, len(CONTENT), "")
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_cut_connection_is_gone_on_with_at_once(server: FileServer, part: Path) -> None:
    server.cuts = [100_000, 50_000]
    get(server, part)
    assert part.read_bytes() == CONTENT
    assert server.asked == [("file", None), ("file", "bytes=100000-"), ("file", "bytes=150000-")]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 400_000), max_size=ATTEMPTS - 1), ranges=st.booleans())
def test_any_cuts_end_in_the_same_bytes(
    server: FileServer, part: Path, cuts: list[int], ranges: bool
) -> None:
    forget(part)
    server.cuts, server.ranges = list(cuts), ranges
    assert get(server, part)[1] == DIGEST
    assert part.read_bytes() == CONTENT


def test_another_call_goes_on_where_the_first_was_stopped(server: FileServer, part: Path) -> None:
    stopped(server, part, 123_456)
    get(server, part)
    assert server.asked == [("file", "bytes=123456-")]
    assert part.read_bytes() == CONTENT


def test_a_complete_part_is_not_asked_for_again(server: FileServer, part: Path) -> None:
    get(server, part)
    server.asked = []
    assert get(server, part)[1] == DIGEST
    assert not server.asked


def test_a_file_that_changed_meanwhile_comes_whole(server: FileServer, part: Path) -> None:
    stopped(server, part, 123_456)
    server.files["file"] = OTHER
    get(server, part)
    assert part.read_bytes() == OTHER


def test_a_server_without_ranges_sends_it_whole(server: FileServer, part: Path) -> None:
    stopped(server, part, 123_456)
    server.ranges = False
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_without_a_validator_nothing_is_gone_on_with(server: FileServer, part: Path) -> None:
    server.etag, server.cuts = False, [123_456]
    get(server, part)
    assert server.asked == [("file", None), ("file", None)]
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["", "[]", '{"url": "elsewhere"}', "absent"])
def test_a_part_of_unknown_origin_is_begun_anew(server: FileServer, part: Path, note: str) -> None:
    part.write_bytes(OTHER)
    if note != "absent":
        part.with_name("file.part.json").write_text(note)
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_a_part_of_another_address_is_begun_anew(server: FileServer, part: Path) -> None:
    get(server, part)
    server.files["other"] = CONTENT[::-1]
    download(f"{server.address}/other", part, lambda done, total: None)
    assert part.read_bytes() == CONTENT[::-1]


def test_a_range_that_begins_elsewhere_is_not_believed(server: FileServer, part: Path) -> None:
    stopped(server, part, 100_000)
    server.early = 50_000
    get(server, part)
    assert server.asked == [("file", "bytes=100000-"), ("file", None)]
    assert part.read_bytes() == CONTENT


def test_errors_that_pass_are_waited_for(server: FileServer, part: Path) -> None:
    server.statuses = [503, 429, 500]
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_a_digest_that_a_redirect_states_is_compared(server: FileServer, part: Path) -> None:
    server.stated = {"file": DIGEST}
    assert get(server, part)[0].sha256 == DIGEST
    forget(part)
    server.stated = {"file": "0" * 64}
    with pytest.raises(GateError, match="damaged") as caught:
        get(server, part)
    assert DIGEST in str(caught.value)
    assert not list(part.parent.iterdir()), "a damaged part must not be gone on with"


def test_a_flipped_byte_in_a_part_is_found(server: FileServer, part: Path) -> None:
    server.stated = {"file": DIGEST}
    stopped(server, part, 100_000)
    part.write_bytes(b"x" * 100_000)
    with pytest.raises(GateError, match="damaged"):
        get(server, part)
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_too_little_room_is_told_before_anything_comes(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(server, part, 100_000)
    usage = SimpleNamespace(free=199_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match="MB free"):
        get(server, part)
    assert part.read_bytes() == CONTENT[:100_000]
    usage.free = 200_000
    get(server, part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("broken", "error", "says"),
    [
        ({"statuses": [404]}, DataError, "answers 404"),
        ({"statuses": [403]}, DataError, "answers 403"),
        ({"statuses": [503] * ATTEMPTS}, DataError, "answers 503"),
        ({"cuts": [100, *[0] * ATTEMPTS]}, DataError, "after 100 of 300,000 bytes"),
        ({"headers": {"Content-Type": "text/html"}}, DataError, "web page"),
        ({"headers": {"Content-Length": None}}, DataError, "how long"),
    ],
)
def test_what_a_server_does_wrong_is_told_with_its_mend(
    server: FileServer,
    part: Path,
    broken: dict[str, object],
    error: type[SwipeError],
    says: str,
) -> None:
    for name, value in broken.items():
        setattr(server, name, value)
    with pytest.raises(error, match=says) as caught:
        get(server, part)
    assert caught.value.fix


def test_being_offline_is_told_at_once(part: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}/file"
        with pytest.raises(DataError, match=r"cannot reach 127\.0\.0\.1") as caught:
            download(url, part, lambda done, total: None)
    assert "--mirror" in caught.value.fix


def test_only_web_addresses_are_read(part: Path) -> None:
    with pytest.raises(UsageError, match="no web address"):
        download("file:///etc/passwd", part, lambda done, total: None)


def test_what_is_remembered_is_readable(server: FileServer, part: Path) -> None:
    stopped(server, part, 1000)
    note = json.loads(part.with_name("file.part.json").read_text())
    assert note["url"] == f"{server.address}/file"
    assert note["size"] == len(CONTENT)
