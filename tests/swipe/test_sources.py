"""Readers: real corpora, and rows broken in every way, each quarantined with its reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swipe.errors import DataError
from swipe.gesture import Gesture
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.sources import (
    Rejection,
    parse_how_we_swipe_log,
    parse_jsonl,
    read_corpus,
    write_jsonl,
)
from swipe.synthesis import synthesize

ROW: dict[str, Any] = {
    "id": 7,
    "session": "s",
    "word": "The",
    "canvas_width": 400,
    "canvas_height": 180,
    "data": [{"t": 1000 + 10 * i, "x": i / 10, "y": 0.5} for i in range(5)],
    "sentence": "The cat",
    "distance": 12.0,
}


def _parse(rows: Iterable[object]) -> list[Gesture | Rejection]:
    return list(parse_jsonl((json.dumps(row) for row in rows), source="test"))


def test_a_futo_row_becomes_a_gesture() -> None:
    (gesture,) = _parse([ROW])
    assert isinstance(gesture, Gesture)
    assert (gesture.id, gesture.word, gesture.writer) == ("7", "the", "s")
    assert gesture.points[:, 2].tolist() == [0, 10, 20, 30, 40]
    assert gesture.aspect == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"potentially_invalid_sentence": True}, "potentially invalid"),
        ({"distance": 1000}, "distance"),
        ({"distance": float("nan")}, "distance"),
        ({"dual_finger": 1, "data": {"L": [], "R": []}}, "two-finger"),
        ({"data": []}, "fewer than 3"),
        ({"data": [{"x": 1, "y": 2}]}, "missing field: t"),
        ({"data": [{"x": "left", "y": 2, "t": 0}]}, "malformed field"),
        ({"canvas_width": 0}, "malformed field"),
        ({"word": "42"}, "no word"),
        ({"word": "naïve"}, "no word"),
        ({"word": None}, "malformed field: word is None"),
        ({"word": True}, "malformed field: word is True"),
        ({"session": None}, "malformed field: session is None"),
        ({"session": ""}, "malformed field: session is ''"),
        ({"points": [[0, 1, 2]] * 6, "writer": None}, "malformed field: writer is None"),
        ({"points": [[0, 1]] * 6, "writer": "w"}, "not rows of x, y and time"),
        ({"points": list(range(9)), "writer": "w"}, "not rows of x, y and time"),
    ],
)
def test_each_bad_row_is_rejected_with_its_reason(change: dict[str, Any], reason: str) -> None:
    before, rejected, after = _parse([ROW, ROW | change, ROW])
    assert isinstance(before, Gesture)
    assert isinstance(after, Gesture)
    assert isinstance(rejected, Rejection)
    assert (rejected.row, rejected.id) == (2, "7")
    assert reason in rejected.reason


@pytest.mark.parametrize("field", ["word", "data", "session", "canvas_height", "id"])
def test_a_missing_field_is_named(field: str) -> None:
    (rejected,) = _parse([{k: v for k, v in ROW.items() if k != field}])
    assert isinstance(rejected, Rejection)
    assert rejected.reason == f"missing field: {field}"


@given(st.text() | st.binary().map(repr))
def test_no_line_of_text_stops_the_reader(line: str) -> None:
    for item in parse_jsonl([line], source="test"):
        assert isinstance(item, Rejection)


def test_raw_logs_agree_with_the_published_rows(shared_data: Path) -> None:
    dev = read_corpus(shared_data / "how_we_swipe" / "dev.jsonl.gz")
    logs = sorted((shared_data / "how_we_swipe" / "raw_sample").glob("*.log"))
    assert len(logs) == 3
    for log in logs:
        ours = read_corpus(log).gestures
        theirs = [g for g in dev.gestures if g.writer == log.stem]
        assert [g.word for g in ours] == [g.word for g in theirs]
        assert [g.sentence for g in ours] == [g.sentence for g in theirs]
        for a, b in zip(ours, theirs, strict=True):
            # The published rows are rounded to five decimals.
            np.testing.assert_allclose(a.points, b.points, atol=6e-6)


def test_the_real_corpus_has_no_broken_row(shared_data: Path) -> None:
    dev = read_corpus(shared_data / "how_we_swipe" / "dev.jsonl.gz")
    assert len(dev.gestures) == 8152
    assert len({g.writer for g in dev.gestures}) == 126
    assert not dev.rejected


def _log(*rows: str) -> list[Gesture | Rejection]:
    header = "sentence timestamp keyb_width keyb_height event x_pos y_pos x_r y_r angle word is_err"
    return list(parse_how_we_swipe_log([header, *rows], writer="w"))


def _event(t: int, event: str, word: str = "cat", flag: str = "0", x: str = "50") -> str:
    return f"a_cat {t} 360 223 {event} {x} 90 0 0 0 {word} {flag}"


def test_log_events_without_a_start_are_rejected() -> None:
    (rejected,) = _log(_event(1, "touchmove"), _event(2, "touchend"))
    assert isinstance(rejected, Rejection)
    assert "without its touchstart" in rejected.reason


def test_re_sent_and_flagged_gestures_are_rejected() -> None:
    swipe = [_event(1, "touchstart"), _event(9, "touchmove"), _event(20, "touchend")]
    flagged = [_event(31, "touchstart"), _event(39, "touchmove", flag="1"), _event(50, "touchend")]
    first, second, third = _log(*swipe, *swipe, *flagged)
    assert isinstance(first, Gesture)
    assert isinstance(second, Rejection)
    assert "re-sent" in second.reason
    assert isinstance(third, Rejection)
    assert "error by the collector" in third.reason


def test_short_and_malformed_log_lines_are_rejected() -> None:
    short, unfinished = _log("a b c", _event(1, "touchstart"), _event(9, "touchmove"))
    assert isinstance(short, Rejection)
    assert "3 of 12 fields" in short.reason
    assert isinstance(unfinished, Rejection)
    assert "touchend" in unfinished.reason
    (malformed,) = _log(
        _event(1, "touchstart", x="?"), _event(9, "touchmove"), _event(12, "touchend")
    )
    assert isinstance(malformed, Rejection)
    assert "malformed" in malformed.reason


@pytest.mark.parametrize("name", ["swipes.jsonl", "swipes.jsonl.gz"])
def test_our_own_jsonl_round_trips(tmp_path: Path, name: str) -> None:
    (gesture,) = _parse([ROW])
    assert isinstance(gesture, Gesture)
    assert write_jsonl([gesture, gesture], tmp_path / name) == 2
    again = read_corpus(tmp_path / name).gestures[0]
    assert (again.id, again.word, again.writer, again.source) == ("7", "the", "s", "test")
    np.testing.assert_allclose(again.points, gesture.points, atol=1e-5)


def test_quarantine_file_names_row_id_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join([json.dumps(ROW), "{broken", json.dumps(ROW | {"data": []})]))
    corpus = read_corpus(path)
    assert len(corpus.gestures) == 1
    assert "2 rows quarantined" in corpus.summary()
    corpus.write_quarantine(tmp_path / "q.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert [(r["row"], r["id"]) for r in rows] == [(2, ""), (3, "7")]
    assert "not JSON" in rows[0]["reason"]


def test_synthetic_rows_are_called_synthetic_wherever_they_come_from(tmp_path: Path) -> None:
    swipes = synthesize(load_layout("qwerty"), wordfreq_lexicon(500), 10).gestures
    write_jsonl(swipes, tmp_path / "demo.jsonl")
    corpus = read_corpus(tmp_path / "demo.jsonl")
    assert corpus.synthetic
    assert corpus.label.endswith("demo.jsonl (synthetic)")
    with pytest.raises(DataError, match=r"demo\.csv"):
        write_jsonl(swipes, tmp_path / "demo.csv")


@pytest.mark.parametrize("content", ["", "\n\n", "{}\n[1]\n"])
def test_a_file_without_a_usable_row_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="no usable swipe"):
        read_corpus(path)


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    whole = gzip.compress((json.dumps(ROW) + "\n").encode() * 500)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "plain.jsonl.gz").write_text(json.dumps(ROW))
    (tmp_path / "data.csv").write_text("a,b")
    for name in ("cut.jsonl.gz", "plain.jsonl.gz", "data.csv", "absent.jsonl"):
        with pytest.raises(DataError):
            read_corpus(tmp_path / name)
