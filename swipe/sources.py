"""Corpora -> Gestures: FUTO rows, raw How We Swipe logs, and our own jsonl.

Every reader yields a `Gesture` or a `Rejection` per row, never raises for one bad row, and never
repairs one. Rejections go to a quarantine file with row number, id and reason. Readers are
generators, so that a corpus can be converted without being held in memory.

What it leaves out: downloading (`swipe.fetch`), prepared folders (`swipe.prepared`), and the
training-only filter (`gesture.letter_miss`).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from swipe.paths import is_file

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
        reason: why it was rejected; what precedes a colon is its kind.
        file: the file the row is in.
    """

    row: int
    id: str
    reason: str
    file: str = ""

    @property
    def kind(self) -> str:
        """The reason without the row's own details, to be counted by."""
        return self.reason.split(":")[0]


class Seen:
    """The swipes met so far by (source, writer, id), over several files.

    The writer counts, since exports of one file per person tend to number from 1 in each.

    Kept as digests of eight bytes: about 100 MB for a million swipes, and a chance of 3e-8 that
    one of them is taken for another.
    """

    def __init__(self) -> None:
        self._digests: set[int] = set()

    def repeated(self, gesture: Gesture) -> str | None:
        """Note `gesture`; why it is rejected when it was met before, else None."""
        name = f"{gesture.source}\0{gesture.writer}\0{gesture.id}".encode()
        digest = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
        if digest in self._digests:
            return "repeated: a swipe of this source, writer and id came before"
        self._digests.add(digest)
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Gestures that passed validation, and the rows that did not.

    Attributes:
        label: what to call the data on screen and in reports; says "synthetic" when it is.
        gestures: the valid gestures in file order; read when asked for, in a prepared corpus.
        rejected: the quarantined rows; none in a prepared corpus, whose folder lists them.
    """

    label: str
    gestures: Sequence[Gesture]
    rejected: tuple[Rejection, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether any gesture was generated."""
        return any(gesture.source == SYNTHETIC for gesture in self.gestures)

    def summary(self) -> str:
        """One line: how many swipes, writers, and rejected rows by reason."""
        writers = len({g.writer for g in self.gestures})
        kinds = Counter(r.kind for r in self.rejected)
        return summary_line(self.label, len(self.gestures), writers, kinds)

    def write_quarantine(self, path: Path) -> None:
        """Write one JSON object per rejected row, atomically; an empty file when there is none."""
        write_text_atomic(path, "".join(json.dumps(asdict(r)) + "\n" for r in self.rejected))


def summary_line(label: str, swipes: int, writers: int, rejected: Mapping[str, int]) -> str:
    """What is said of a corpus: `rejected` counts the quarantined rows by kind of reason."""
    line = f"{label}: {swipes:,} swipes of {writers:,} writers"
    if not rejected:
        return line
    detail = ", ".join(f"{count} {kind}" for kind, count in Counter(rejected).most_common())
    return f"{line}; {sum(rejected.values()):,} rows quarantined ({detail})"


def no_usable_swipe(label: str, rejected: int, first: str) -> DataError:
    """The error of a corpus whose every row was rejected, the first one for the reason `first`."""
    detail = f"; the first reason is: {first}" if first else ""
    return DataError(
        f"{label} holds no usable swipe ({rejected} rows rejected{detail})",
        fix="check that the file has one JSON object per line with 'word' and 'data'",
    )


def read_corpus(path: Path, letters: str = ALPHABET) -> Corpus:
    """Read one corpus file into memory; see `read_rows`.

    Raises:
        DataError: no such file, unknown suffix, damaged archive, or not one usable row.
    """
    gestures: list[Gesture] = []
    rejected: list[Rejection] = []
    for item in read_rows(path, letters):
        if isinstance(item, Gesture):
            gestures.append(item)
        else:
            rejected.append(item)
    if not gestures:
        raise no_usable_swipe(str(path), len(rejected), rejected[0].reason if rejected else "")
    corpus = Corpus("/".join(path.parts[-2:]), tuple(gestures), tuple(rejected))
    return replace(corpus, label=f"{corpus.label} ({SYNTHETIC})") if corpus.synthetic else corpus


def read_rows(
    path: Path, letters: str = ALPHABET, seen: Seen | None = None
) -> Iterator[Gesture | Rejection]:
    """The rows of one corpus file, in order, choosing the reader by suffix and content.

    ``.log`` is a raw How We Swipe log; ``.jsonl`` and ``.jsonl.gz`` hold FUTO rows or our own.

    Args:
        path: the file.
        letters: the letters a word may have.
        seen: what was met in other files; a swipe met before is rejected. None: not looked at.

    Raises:
        DataError: no such file, unknown suffix, or (while reading) a damaged archive.
    """
    if not is_file(path):
        raise DataError(f"no data file {path}", fix="check the path, or use synthetic[:COUNT]")
    if path.name.endswith(".log"):
        items = parse_how_we_swipe_log(_lines(path), writer=path.stem, letters=letters, seen=seen)
    else:
        _require_jsonl(path)
        source = path.parent.name or path.stem
        items = parse_jsonl(_lines(path), source=source, letters=letters, seen=seen)
    return (i if isinstance(i, Gesture) else replace(i, file=str(path)) for i in items)


def parse_jsonl(
    lines: Iterable[str], *, source: str, letters: str = ALPHABET, seen: Seen | None = None
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
        reason = gesture if isinstance(gesture, str) else _refusal(gesture, letters, seen)
        if reason is not None:
            yield Rejection(number, identifier, reason)
        elif isinstance(gesture, Gesture):
            yield gesture


def parse_how_we_swipe_log(
    lines: Iterable[str], *, writer: str, letters: str = ALPHABET, seen: Seen | None = None
) -> Iterator[Gesture | Rejection]:
    """Raw log of one writer: space-separated touch events, a header line first.

    Events before a touchstart, re-sent gestures (same start time and word) and gestures with the
    collector's error flag are rejected; field 11 is the gesture's own flag, later fields belong
    to other attempts.
    """
    sent: set[tuple[str, str]] = set()

    def gesture_of(events: list[list[str]], start: int) -> Gesture | Rejection:
        found = _log_gesture(events, start, writer, sent)
        if isinstance(found, Rejection):
            return found
        reason = _refusal(found, letters, seen)
        return found if reason is None else Rejection(start, found.id, reason)

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
                yield gesture_of(events, start)
            start, events = number, [fields]
        elif events:
            events.append(fields)
            if fields[4] == "touchend":
                yield gesture_of(events, start)
                events = []
        elif fields[4] == "touchend":
            yield Rejection(number, writer, "gesture without its touchstart")
    if events:
        yield gesture_of(events, start)


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


def _refusal(gesture: Gesture, letters: str, seen: Seen | None) -> str | None:
    reason = defect(gesture, letters)
    if reason is None:
        try:
            (gesture.id + gesture.writer + gesture.source + gesture.sentence).encode()
        except UnicodeEncodeError:  # JSON can spell halves of characters; no file can hold them
            return "text that is not Unicode"
    return seen.repeated(gesture) if reason is None and seen is not None else reason


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
        id=_name(row, "id"),
        word=swiped_letters(_word(row)),
        points=_points([(p["x"], p["y"], p["t"] - origin) for p in data]),
        writer=_name(row, "session"),
        source=source,
        sentence=str(row.get("sentence", "")),
        aspect=float(row["canvas_height"]) / float(row["canvas_width"]),
    )


def _own_row(row: dict[str, Any], source: str) -> Gesture:
    return Gesture(
        id=_name(row, "id"),
        word=_word(row),
        points=_points(row["points"]),
        writer=_name(row, "writer"),
        source=str(row.get("source", source)),
        sentence=str(row.get("sentence", "")),
        aspect=float(row.get("aspect", 0.45)),
    )


def _word(row: Mapping[str, Any]) -> str:
    """The word; null is not the word "none"."""
    word = row["word"]
    if not isinstance(word, str):
        raise TypeError(f"word is {word!r}")
    return word


def _name(row: Mapping[str, Any], field: str) -> str:
    """An id or a writer; null would make one person of all who have no name."""
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise TypeError(f"{field} is {value!r}")
    return str(value)


def _points(rows: Any) -> NDArray[np.float32]:
    values = np.array(rows, dtype=np.float64) if len(rows) else np.empty((0, 3))
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError("points are not rows of x, y and time")
    # A number beyond float32 becomes Inf here, and is rejected as such by `defect`.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _log_gesture(
    events: list[list[str]], start: int, writer: str, sent: set[tuple[str, str]]
) -> Gesture | Rejection:
    first, last = events[0], events[-1]
    word, identifier = first[10].lower(), f"{writer}:{first[1]}"
    if (first[1], word) in sent:
        return Rejection(start, identifier, "re-sent gesture")
    sent.add((first[1], word))
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
    return Gesture(
        id=identifier,
        word=word,
        points=_points(np.stack([x, y, t], axis=1)),
        writer=writer,
        source="how_we_swipe",
        sentence=first[0].replace("_", " "),
        aspect=float(height[0] / width[0]),
    )
