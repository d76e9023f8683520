"""Writing prepared folders: every swipe comes back exactly, or nothing is written at all."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from watched_swipes import WatchedSwipes

from swipe.contract import ALPHABET
from swipe.errors import DataError, UsageError
from swipe.features import trajectory
from swipe.files import sha256_file
from swipe.gesture import Gesture, letter_miss
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.preparation import prepare_folder, prepare_jsonl, read_sources
from swipe.prepared import QUARANTINE, RECORD, Record, open_prepared
from swipe.sources import Rejection, read_corpus, write_jsonl
from swipe.synthesis import generate, synthesize

LAYOUT = load_layout("qwerty")
SWIPES = synthesize(LAYOUT, wordfreq_lexicon(500), 100).gestures

TEXT = st.text(max_size=12)
TIMES = hnp.arrays(np.float32, st.integers(3, 30), elements=st.floats(0, 5e4, width=32))
SHAPES = st.tuples(TIMES, st.integers(0, 2**32 - 1))


@st.composite
def gestures(draw: st.DrawFn) -> Gesture:
    times, seed = draw(SHAPES)
    xy = np.random.default_rng(seed).normal(0.5, 2.0, (len(times), 2))
    return Gesture(
        id=draw(TEXT),
        word=draw(st.text(ALPHABET, min_size=2, max_size=16)),
        points=np.column_stack([xy, times]).astype(np.float32),
        writer=draw(TEXT),
        source=draw(TEXT),
        sentence=draw(TEXT),
        aspect=draw(st.floats(1e-3, 10)),
    )


def prepare(
    rows: Iterator[Gesture | Rejection] | list[Gesture], out: Path, per_group: int = 8
) -> Record:
    return prepare_folder(
        rows, out, LAYOUT, label="test", rows_per_group=per_group, groups_per_part=3
    )


def same(one: Gesture, other: Gesture) -> bool:
    names = ("id", "word", "writer", "source", "sentence", "aspect")
    return (
        all(getattr(one, n) == getattr(other, n) for n in names)
        and one.points.dtype == other.points.dtype == np.float32
        and one.points.shape == other.points.shape
        and one.points.tobytes() == other.points.tobytes()
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(gestures(), min_size=1, max_size=40))
def test_gestures_come_back_exactly(written: list[Gesture]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(written, Path(folder) / "out", per_group=3)
        corpus = open_prepared(Path(folder) / "out")
        assert len(corpus.gestures) == len(written)
        for one, other in zip(corpus.gestures, written, strict=True):
            assert same(one, other), other
        table = corpus.gestures.shards.read(0, ["trajectory", "letter_miss"])
        for row, gesture in zip(table.to_pylist(), written, strict=False):
            cached = np.array(row["trajectory"], dtype=np.float32).reshape(2, 64)
            assert cached.tobytes() == trajectory(gesture.points).tobytes()
            assert row["letter_miss"] == letter_miss(gesture, LAYOUT)


def test_the_record_says_what_is_there(tmp_path: Path) -> None:
    record = prepare(list(SWIPES), tmp_path / "out")
    assert record == open_prepared(tmp_path / "out").record
    assert [part.rows for part in record.parts] == [24, 24, 24, 24, 4]
    names = {part.name for part in record.parts}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names | {RECORD, QUARANTINE}
    for part in record.parts:
        path = tmp_path / "out" / part.name
        assert (path.stat().st_size, sha256_file(path)) == (part.size, part.sha256)
    assert (record.swipes, record.writers, record.synthetic) == (100, 2, True)
    assert record.label == "test (synthetic)"
    assert record.longest_word == max(len(g.word) for g in SWIPES)
    assert record.layout == "qwerty"


def test_equal_swipes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare(list(SWIPES), tmp_path / name)
    assert sha256_file(tmp_path / "one") == sha256_file(tmp_path / "two")


@pytest.mark.parametrize("out", ["out", "out.jsonl"])
def test_repeated_swipes_are_quarantined_within_and_across_files(tmp_path: Path, out: str) -> None:
    write_jsonl([*SWIPES[:10], SWIPES[3]], tmp_path / "a.jsonl")
    write_jsonl(SWIPES[8:20], tmp_path / "b.jsonl.gz")
    (tmp_path / "c.jsonl").write_text('{"broken\n')
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl")]
    rows = read_sources(paths)
    if out == "out":
        record = prepare(rows, tmp_path / out)
        assert record.rejected == {"repeated": 3, "not JSON": 1}
        assert "4 rows quarantined" in record.summary()
        kept = open_prepared(tmp_path / out).gestures
        quarantine = tmp_path / out / QUARANTINE
    else:
        quarantine = tmp_path / "rejected.jsonl"
        prepare_jsonl(rows, tmp_path / out, quarantine, label="test")
        kept = read_corpus(tmp_path / out).gestures
    assert [g.id for g in kept] == [g.id for g in SWIPES[:20]]
    found = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [(Path(r["file"]).name, r["row"]) for r in found] == [
        ("a.jsonl", 11), ("b.jsonl.gz", 1), ("b.jsonl.gz", 2), ("c.jsonl", 1),
    ]  # fmt: skip
    assert "came before" in found[0]["reason"]


@pytest.mark.parametrize("field", ["source", "writer"])
def test_equal_ids_of_different_sources_or_writers_are_different_swipes(
    tmp_path: Path, field: str
) -> None:
    row = {"id": "1", "word": "the", "writer": "w", "points": [[0, 0, 0], [1, 1, 9], [0, 1, 20]]}
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | {field: name}))
    rows = read_sources([tmp_path / "one.jsonl", tmp_path / "two.jsonl"])
    assert prepare(rows, tmp_path / "out").swipes == 2


def test_a_prepared_folder_is_a_source_like_any_other(tmp_path: Path) -> None:
    prepare(list(SWIPES[:40]), tmp_path / "first")
    record = prepare(read_sources([tmp_path / "first", tmp_path / "first"]), tmp_path / "again")
    assert (record.swipes, record.rejected) == (40, {"repeated": 40})
    again = open_prepared(tmp_path / "again").gestures
    assert all(same(a, b) for a, b in zip(again, SWIPES[:40], strict=True))


def test_half_a_character_is_quarantined(tmp_path: Path) -> None:
    row = {"id": "1", "word": "the", "writer": "w", "points": [[0, 0, 0], [1, 1, 9], [0, 1, 20]]}
    lines = [json.dumps(row), json.dumps(row | {"id": "2", "sentence": "\ud800"})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    record = prepare(read_sources([tmp_path / "a.jsonl"]), tmp_path / "out")
    assert (record.swipes, record.rejected) == (1, {"text that is not Unicode": 1})


def test_swipes_are_let_go_when_they_are_written(tmp_path: Path) -> None:
    """Memory does not depend on the corpus: only few row groups are alive at any time."""
    watched = WatchedSwipes()
    assert prepare(watched.rows(600), tmp_path / "out", per_group=20).swipes == 600
    assert 20 <= watched.most <= 45, "two row groups and a few"


def test_a_generated_corpus_is_the_one_in_memory() -> None:
    again = list(generate(LAYOUT, wordfreq_lexicon(500), 100))
    assert all(same(a, b) for a, b in zip(again, SWIPES, strict=True))


# Failures: nothing is left, and what was there stays.


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    prepare(list(SWIPES[:10]), tmp_path / "place" / "out")
    return tmp_path / "place" / "out"


def stopped_by(error: BaseException) -> Iterator[Gesture]:
    yield from SWIPES[:60]
    raise error


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (stopped_by(KeyboardInterrupt()), KeyboardInterrupt),
        (stopped_by(OSError(28, "No space left on device")), UsageError),
        (iter([Rejection(1, "", "no word")]), DataError),
        (iter([]), DataError),
    ],
    ids=["interrupt", "full", "none usable", "no row"],
)
def test_a_failure_leaves_the_earlier_folder_and_nothing_else(
    earlier: Path, rows: Iterator[Gesture], expected: type[BaseException]
) -> None:
    before = sha256_file(earlier)
    with pytest.raises(expected) as caught:
        prepare(rows, earlier)
    if isinstance(caught.value, UsageError):
        assert caught.value.fix
    assert sha256_file(earlier) == before
    assert [p.name for p in earlier.parent.iterdir()] == ["out"]


def test_a_source_that_ends_early_leaves_the_earlier_folder(earlier: Path, tmp_path: Path) -> None:
    write_jsonl(SWIPES, tmp_path / "whole.jsonl.gz")
    whole = (tmp_path / "whole.jsonl.gz").read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    before = sha256_file(earlier)
    with pytest.raises(DataError, match="cannot be read to its end"):
        prepare(read_sources([tmp_path / "cut.jsonl.gz"]), earlier)
    assert sha256_file(earlier) == before
    assert [p.name for p in earlier.parent.iterdir()] == ["out"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_text("meow")
    with pytest.raises(UsageError, match="is not a prepared corpus"):
        prepare(list(SWIPES), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["cat.jpg"]
    (tmp_path / "corpus.json").write_text('{"language": "nl", "texts": 12}')
    with pytest.raises(UsageError, match="is not a prepared corpus"):
        prepare(list(SWIPES), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"cat.jpg", "corpus.json"}


# The command.


def command(cwd: Path, *arguments: str, limit: int = 0) -> subprocess.CompletedProcess[str]:
    """``swipe-data`` in a process of its own, which may write files of `limit` bytes at most."""
    code = "import sys; from swipe.cli import main; "
    if limit:
        code += f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    return subprocess.run(
        [sys.executable, "-c", code + "main()", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_full_disk_is_one_line_and_leaves_the_earlier_folder(earlier: Path) -> None:
    write_jsonl(SWIPES, earlier.parent / "swipes.jsonl.gz")
    before = sha256_file(earlier)
    done = command(earlier.parent, "prepare", "swipes.jsonl.gz", "out", limit=20_000)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot write out" in done.stderr
    assert "enough free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert sha256_file(earlier) == before
    assert {p.name for p in earlier.parent.iterdir()} == {"out", "swipes.jsonl.gz"}
    assert command(earlier.parent, "prepare", "swipes.jsonl.gz", "out").returncode == 0
    assert sha256_file(earlier) != before


def test_several_sources_become_one_corpus(tmp_path: Path) -> None:
    write_jsonl(SWIPES[:60], tmp_path / "a.jsonl")
    write_jsonl(SWIPES[50:], tmp_path / "b.jsonl.gz")
    for out in ("both", "both.jsonl.gz"):
        done = command(tmp_path, "prepare", "a.jsonl", "b.jsonl.gz", out)
        assert done.returncode == 0, done.stderr
        assert "a.jsonl and 1 more (synthetic): 100 swipes of 2 writers" in done.stdout
        assert "10 rows quarantined (10 repeated)" in done.stdout
        assert f"next: swipe-train fit --data {out}" in done.stdout
    with gzip.open(tmp_path / "both.jsonl.gz", "rt") as lines:
        assert sum(1 for _ in lines) == 100
    assert (tmp_path / "both.jsonl.gz.quarantine.jsonl").read_text().count("\n") == 10
    stats = command(tmp_path, "stats", "both")
    assert stats.returncode == 0, stats.stderr
    assert "100 swipes of 2 writers" in stats.stdout
    assert "worst letter miss" in stats.stdout


def test_what_is_not_named_is_asked_for(tmp_path: Path) -> None:
    done = command(tmp_path, "prepare", "out")
    assert done.returncode == 2
    assert "only out was named" in done.stderr
    assert not list(tmp_path.iterdir())


def test_synthetic_swipes_are_the_same_in_a_folder_and_a_file(tmp_path: Path) -> None:
    for out in ("swipes", "swipes.jsonl"):
        done = command(
            tmp_path, "synth", out, "--count", "50", "--seed", "3", "--lexicon", "wordfreq:500"
        )
        assert done.returncode == 0, done.stderr
        assert "50 synthetic swipes written" in done.stdout
    folder = open_prepared(tmp_path / "swipes")
    file = read_corpus(tmp_path / "swipes.jsonl")
    assert folder.synthetic
    assert "synthetic" in folder.label
    for one, other in zip(folder.gestures, file.gestures, strict=True):
        assert (one.id, one.word) == (other.id, other.word)
        np.testing.assert_allclose(one.points, other.points, atol=6e-6)


@pytest.mark.slow
def test_an_interrupt_of_the_command_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "swipe.cli", "synth", "out", "--count", "1000000"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(place.glob(".out-*/part-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(place.glob(".out-*/part-*")), "it never began to write"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not list(place.iterdir())
