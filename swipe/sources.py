"""Corpora -> Gestures: FUTO rows, raw How We Swipe logs, and our own jsonl.

Every reader yields a `Gesture` or a `Rejection` per row, never raises for one bad row, and never
repairs one. Rejections go to a quarantine file with row number, id and reason.

What it leaves out: downloading, Parquet, and the training-only filter (`gesture.letter_miss`).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swipe.contract import ALPHABET
from swipe.errors import DataError
from swipe.files import replacing, write_text_atomic
from swipe.gesture import Gesture, defect, swiped_letters

FUTO_MAX_DISTANCE: Final = 1000.0
"""FUTO's own path-distance score; rows at or above it are noise by the corpus's documentation."""

SYNTHETIC: Final = "synthetic"
"""Source of generated swipes; where it occurs, the corpus's label says so."""

LOG_FIELDS: Final = 12
LETTER_ROWS_SHARE: Final = 3.0 / 3.7
"""Share of How We Swipe's keyboard height that the three letter rows take."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was not used, and why.

    Attributes:
        row: 1-based line number in the file.
        id: the row's identifier, empty when it has none.
        reason: why it was rejected.
    """

    row: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Gestures that passed validation, and the rows that did not.

    Attributes:
        label: what to call the data on screen and in reports; says "synthetic" when it is.
        gestures: the valid gestures in file order.
        rejected: the quarantined rows.
    """

    label: str
    gestures: tuple[Gesture, ...]
    rejected: tuple[Rejection, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether any gesture was generated."""
        return any(gesture.source == SYNTHETIC for gesture in self.gestures)

    def summary(self) -> str:
        """One line: how many swipes, writers, and rejected rows by reason."""
        writers = len({g.writer for g in self.gestures})
        line = f"{self.label}: {len(self.gestures):,} swipes of {writers:,} writers"
        if not self.rejected:
            return line
        reasons = Counter(r.reason.split(":")[0] for r in self.rejected).most_common()
        detail = ", ".join(f"{count} {reason}" for reason, count in reasons)
        return f"{line}; {len(self.rejected):,} rows quarantined ({detail})"

    def write_quarantine(self, path: Path) -> None:
        """Write one JSON object per rejected row, atomically; an empty file when there is none."""
        write_text_atomic(path, "".join(json.dumps(asdict(r)) + "\n" for r in self.rejected))


def read_corpus(path: Path, letters: str = ALPHABET) -> Corpus:
    """Read one corpus file, choosing the reader by suffix and content.

    ``.log`` is a raw How We Swipe log; ``.jsonl`` and ``.jsonl.gz`` hold FUTO rows or our own.

    Raises:
        DataError: no such file, unknown suffix, damaged archive, or not one usable row.
    """
    if not path.is_file():
        raise DataError(f"no data file {path}", fix="check the path, or use synthetic[:COUNT]")
    if path.name.endswith(".log"):
        items = parse_how_we_swipe_log(_lines(path), writer=path.stem, letters=letters)
    else:
        _require_jsonl(path)
        items = parse_jsonl(_lines(path), source=path.parent.name or path.stem, letters=letters)
    gestures: list[Gesture] = []
    rejected: list[Rejection] = []
    for item in items:
        if isinstance(item, Gesture):
            gestures.append(item)
        else:
            rejected.append(item)
    if not gestures:
        detail = f"; the first reason is: {rejected[0].reason}" if rejected else ""
        raise DataError(
            f"{path} holds no usable swipe ({len(rejected)} rows rejected{detail})",
            fix="check that the file has one JSON object per line with 'word' and 'data'",
        )
    corpus = Corpus("/".join(path.parts[-2:]), tuple(gestures), tuple(rejected))
    return replace(corpus, label=f"{corpus.label} ({SYNTHETIC})") if corpus.synthetic else corpus


def parse_jsonl(
    lines: Iterable[str], *, source: str, letters: str = ALPHABET
) -> Iterator[Gesture | Rejection]:
    """FUTO rows (``data`` of x, y, epoch ms) and our own rows (``points``), told apart per row."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError("the row is not a JSON object")
        except (TypeError, ValueError) as error:
            yield Rejection(number, "", f"not JSON: {error}")
            continue
        identifier = str(row.get("id", ""))
        parse: Callable[[dict[str, Any], str], Gesture | str] = (
            _own_row if "points" in row else _futo_row
        )
        try:
            gesture = parse(row, source)
        except KeyError as error:
            yield Rejection(number, identifier, f"missing field: {error.args[0]}")
            continue
        except (TypeError, ValueError, ArithmeticError) as error:
            yield Rejection(number, identifier, f"malformed field: {error}")
            continue
        reason = gesture if isinstance(gesture, str) else defect(gesture, letters)
        if reason is not None:
            yield Rejection(number, identifier, reason)
        elif isinstance(gesture, Gesture):
            yield gesture


def parse_how_we_swipe_log(
    lines: Iterable[str], *, writer: str, letters: str = ALPHABET
) -> Iterator[Gesture | Rejection]:
    """Raw log of one writer: space-separated touch events, a header line first.

    Events before a touchstart, re-sent gestures (same start time and word) and gestures with the
    collector's error flag are rejected; field 11 is the gesture's own flag, later fields belong
    to other attempts.
    """
    seen: set[tuple[str, str]] = set()
    start, events = 0, list[list[str]]()
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if number == 1 or not fields:
            continue
        if len(fields) < LOG_FIELDS:
            yield Rejection(number, writer, f"malformed line: {len(fields)} of 12 fields")
            continue
        if fields[4] == "touchstart":
            if events:
                yield _log_gesture(events, start, writer, seen, letters)
            start, events = number, [fields]
        elif events:
            events.append(fields)
            if fields[4] == "touchend":
                yield _log_gesture(events, start, writer, seen, letters)
                events = []
        elif fields[4] == "touchend":
            yield Rejection(number, writer, "gesture without its touchstart")
    if events:
        yield _log_gesture(events, start, writer, seen, letters)


def write_jsonl(gestures: Iterable[Gesture], path: Path) -> int:
    """Write gestures as our own jsonl (gzip when the name ends in .gz); returns the count."""
    _require_jsonl(path)
    count = 0
    with replacing(path) as temporary, temporary.open("wb") as raw, ExitStack() as stack:
        stream: Any = raw
        if path.name.endswith(".gz"):
            # mtime 0: equal gestures give equal bytes.
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
            stream = stack.enter_context(packed)
        for gesture in gestures:
            row = {
                "id": gesture.id,
                "word": gesture.word,
                "writer": gesture.writer,
                "source": gesture.source,
                "sentence": gesture.sentence,
                "aspect": gesture.aspect,
                "points": [[round(float(v), 5) for v in point] for point in gesture.points],
            }
            stream.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
            count += 1
    return count


def _require_jsonl(path: Path) -> None:
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(
            f"cannot tell what kind of data {path.name} holds",
            fix="use .jsonl or .jsonl.gz (FUTO rows or our own), or .log (raw How We Swipe)",
        )


def _lines(path: Path) -> Iterator[str]:
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path, "rt", encoding="utf-8") as stream:
                yield from stream
        else:
            with path.open(encoding="utf-8") as stream:
                yield from stream
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"{path} cannot be read to its end: {error}", fix="fetch or copy the file again"
        ) from error


def _futo_row(row: dict[str, Any], source: str) -> Gesture | str:
    if row.get("potentially_invalid_sentence") is True:
        return "marked potentially invalid by the corpus"
    if not (float(row.get("distance", 0.0)) < FUTO_MAX_DISTANCE):
        return f"distance of {FUTO_MAX_DISTANCE:g} or more"
    if row.get("dual_finger", 0) != 0:
        return "two-finger swipe"
    data = row["data"]
    origin = data[0]["t"] if data else 0
    return Gesture(
        id=str(row["id"]),
        word=swiped_letters(str(row["word"])),
        points=_points([(p["x"], p["y"], p["t"] - origin) for p in data]),
        writer=str(row["session"]),
        source=source,
        sentence=str(row.get("sentence", "")),
        aspect=float(row["canvas_height"]) / float(row["canvas_width"]),
    )


def _own_row(row: dict[str, Any], source: str) -> Gesture:
    return Gesture(
        id=str(row["id"]),
        word=str(row["word"]),
        points=_points(row["points"]),
        writer=str(row["writer"]),
        source=str(row.get("source", source)),
        sentence=str(row.get("sentence", "")),
        aspect=float(row.get("aspect", 0.45)),
    )


def _points(rows: Any) -> NDArray[np.float32]:
    values = np.array(rows, dtype=np.float64) if len(rows) else np.empty((0, 3))
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError("points are not rows of x, y and time")
    # A number beyond float32 becomes Inf here, and is rejected as such by `defect`.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _log_gesture(
    events: list[list[str]], start: int, writer: str, seen: set[tuple[str, str]], letters: str
) -> Gesture | Rejection:
    first, last = events[0], events[-1]
    word, identifier = first[10].lower(), f"{writer}:{first[1]}"
    if (first[1], word) in seen:
        return Rejection(start, identifier, "re-sent gesture")
    seen.add((first[1], word))
    if last[4] != "touchend":
        return Rejection(start, identifier, "gesture without its touchend")
    if any(event[11] != "0" for event in events):
        return Rejection(start, identifier, "flagged as an error by the collector")
    try:
        width = np.array([float(e[2]) for e in events])
        height = np.array([float(e[3]) for e in events]) * LETTER_ROWS_SHARE
        t = np.array([int(e[1]) for e in events]) - int(first[1])
        x = np.array([float(e[5]) for e in events]) / width
        y = np.array([float(e[6]) for e in events]) / height
    except ValueError as error:
        return Rejection(start, identifier, f"malformed field: {error}")
    gesture = Gesture(
        id=identifier,
        word=word,
        points=_points(np.stack([x, y, t], axis=1)),
        writer=writer,
        source="how_we_swipe",
        sentence=first[0].replace("_", " "),
        aspect=float(height[0] / width[0]),
    )
    reason = defect(gesture, letters)
    return gesture if reason is None else Rejection(start, identifier, reason)
