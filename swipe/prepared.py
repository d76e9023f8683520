"""A prepared corpus: a folder of Parquet shards that is read in pieces, never whole.

::

    corpus/
        part-00000.parquet ...   16 row groups of 4,096 swipes each, zstd
        quarantine.jsonl         rows that were rejected, and why
        corpus.json              `Record`; written last, so a half-written folder has none

A row holds the raw points, from which any `Gesture` comes back exactly, and two things computed
once: the trajectory (`swipe.features.trajectory`, not clipped, because augmentation moves it
first) and the letter miss on the layout that the record names. Resampling a million swipes takes
half a minute of one core in every epoch; reading what was resampled takes one second.

A part is hashed whole when it is first opened, once per process (1.5 GB/s): a flipped byte is
found before anything is parsed. Parquet's own page checksums catch what changes after that.

Letter misses are float64 and not float32 like the rest, so that the filter's verdict is the one
that `swipe.gesture.letter_miss` gives.

What it leaves out: writing (`swipe.preparation`), and the order rows are trained in
(`train.stream`).
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from swipe.contract import FEATURE_RECIPE, POINTS
from swipe.errors import DataError
from swipe.files import sha256_file
from swipe.gesture import Gesture
from swipe.layout import Layout
from swipe.paths import is_file
from swipe.sources import Corpus, summary_line

FORMAT: Final = "swipe-corpus/1"
RECORD: Final = "corpus.json"
QUARANTINE: Final = "quarantine.jsonl"
ROWS_PER_GROUP: Final = 4096
GROUPS_PER_PART: Final = 16
TRAJECTORY: Final = 2 * POINTS

_FLOAT: Final = pa.field("element", pa.float32(), nullable=False)
SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("word", pa.string(), nullable=False),
        pa.field("writer", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("aspect", pa.float64(), nullable=False),
        pa.field("points", pa.list_(_FLOAT), nullable=False),
        pa.field("trajectory", pa.list_(_FLOAT, TRAJECTORY), nullable=False),
        pa.field("letter_miss", pa.float64(), nullable=False),
    ]
)
_RAW: Final = ("id", "word", "writer", "source", "sentence", "aspect", "points")
_AGAIN: Final = "copy the folder again, or make it again with: swipe-data prepare SOURCE... FOLDER"


@dataclass(frozen=True, slots=True)
class Part:
    """One shard: its file name, number of swipes, size in bytes and SHA-256."""

    name: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """What ``corpus.json`` says.

    Attributes:
        label: what the swipes were made of; says "synthetic" when any is.
        synthetic: whether any swipe was generated.
        swipes: number of rows in all parts.
        writers: number of different writers.
        longest_word: letters of the longest word.
        rejected: number of quarantined rows by kind of reason.
        layout: name of the layout that letter misses were measured on.
        letters: its letters.
        keys: digest of its letters and key centres, see `keys_digest`.
        parts: the shards in order; all but the last hold `rows_per_group` x `groups_per_part`.
        features: name of the feature recipe of the trajectories.
        rows_per_group: swipes per row group.
        groups_per_part: row groups per shard.
        format: name and version of this folder's format.
    """

    label: str
    synthetic: bool
    swipes: int
    writers: int
    longest_word: int
    rejected: Mapping[str, int]
    layout: str
    letters: str
    keys: str
    parts: tuple[Part, ...]
    features: str = FEATURE_RECIPE
    rows_per_group: int = ROWS_PER_GROUP
    groups_per_part: int = GROUPS_PER_PART
    format: str = FORMAT

    def summary(self) -> str:
        """One line: how many swipes, writers, and rejected rows by reason."""
        return summary_line(self.label, self.swipes, self.writers, self.rejected)

    def to_json(self) -> str:
        """JSON for ``corpus.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Inverse of `to_json`.

        Raises:
            ValueError: the text is no such record, or its numbers contradict each other.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            found = fields.get("format") if isinstance(fields, dict) else None
            raise ValueError(f"its format is {found!r}, not {FORMAT!r}")
        try:
            fields["parts"] = tuple(Part(**part) for part in fields["parts"])
            record = cls(**fields)
            full = record.rows_per_group * record.groups_per_part
            *firsts, last = record.parts
            coherent = (
                all(part.rows == full for part in firsts)
                and 0 < last.rows <= full
                and record.swipes == sum(part.rows for part in record.parts)
                and all(Path(part.name).name == part.name for part in record.parts)
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a field is missing or unknown: {error}") from error
        if not coherent:
            raise ValueError("its parts and its number of swipes contradict each other")
        return record


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """The row groups of a prepared folder, numbered through from 0.

    Attributes:
        path: the folder.
        record: its ``corpus.json``.
    """

    path: Path
    record: Record
    _proven: set[int] = field(default_factory=set)

    @property
    def groups(self) -> int:
        """Number of row groups; all but the last hold ``record.rows_per_group`` swipes."""
        return -(-self.record.swipes // self.record.rows_per_group)

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """`columns` of one row group; "writer" comes back dictionary-encoded.

        Raises:
            DataError: its part is missing, damaged, altered or of another schema.
        """
        number, inside = divmod(group, self.record.groups_per_part)
        part = self.record.parts[number]
        path = self.path / part.name
        if number not in self._proven:
            self._prove(path, part)
            self._proven.add(number)
        try:
            with pq.ParquetFile(
                path, read_dictionary=["writer"], page_checksum_verification=True
            ) as file:
                # One thread: this runs beside the training step, which owns the other cores.
                return file.read_row_group(inside, columns=list(columns), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} is damaged: {error}", fix=_AGAIN) from error

    def column(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, all rows."""
        return np.concatenate([self.read(g, [name])[name].to_numpy() for g in range(self.groups)])

    def writers(self) -> tuple[list[str], NDArray[np.int32]]:
        """Names of the writers, and for each row the number of its writer among them."""
        numbers: dict[str, int] = {}
        codes = []
        for group in range(self.groups):
            writers = self.read(group, ["writer"])["writer"].combine_chunks()
            local = [numbers.setdefault(n, len(numbers)) for n in writers.dictionary.to_pylist()]
            codes.append(np.array(local, dtype=np.int32)[writers.indices.to_numpy()])
        return list(numbers), np.concatenate(codes)

    def _prove(self, path: Path, part: Part) -> None:
        try:
            if path.stat().st_size != part.size or sha256_file(path) != part.sha256:
                raise DataError(
                    f"{path} is damaged: it is not the file that {RECORD} describes", fix=_AGAIN
                )
            found = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read: {error}", fix=_AGAIN) from error
        if not found.equals(SCHEMA):
            raise DataError(f"{path} has other columns than {FORMAT}", fix=_AGAIN)


class PreparedGestures(Sequence[Gesture]):
    """Some rows of a prepared folder as gestures, read when asked for.

    One row group is held at a time, so walk through them in order. Points are float32 exactly as
    they were prepared.
    """

    def __init__(self, shards: Shards, rows: NDArray[np.int32]) -> None:
        """Take `rows` of `shards`, ascending and numbered through all parts."""
        self.shards = shards
        self.rows = rows
        self._held = -1
        self._columns: dict[str, list[Any]] = {}
        self._points = np.empty(0, dtype=np.float32)
        self._ends = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Gesture: ...
    @overload
    def __getitem__(self, index: slice) -> PreparedGestures: ...
    def __getitem__(self, index: int | slice) -> Gesture | PreparedGestures:
        if isinstance(index, slice):
            return PreparedGestures(self.shards, self.rows[index])
        group, row = divmod(int(self.rows[index]), self.shards.record.rows_per_group)
        if group != self._held:
            self._hold(group)
        first, last = self._ends[row], self._ends[row + 1]
        fields = {name: values[row] for name, values in self._columns.items()}
        # A copy: a view would keep the row group alive as long as its gesture.
        return Gesture(points=self._points[first:last].reshape(-1, 3).copy(), **fields)

    def where(self, keep: NDArray[np.bool_]) -> PreparedGestures:
        """The gestures for which ``keep [len(self)]`` is true."""
        return PreparedGestures(self.shards, self.rows[keep])

    def by_writer(self, judge: Callable[[str], bool]) -> NDArray[np.bool_]:
        """What `judge` says of each gesture's writer: ``bool[len(self)]``."""
        names, codes = self.shards.writers()
        return np.array([judge(name) for name in names])[codes[self.rows]]

    def writers(self) -> set[str]:
        """Names of the writers."""
        names, codes = self.shards.writers()
        return {names[code] for code in np.unique(codes[self.rows])}

    def letter_misses(self) -> NDArray[np.float64]:
        """`swipe.gesture.letter_miss` of each gesture on the record's layout, in key widths."""
        return self.shards.column("letter_miss")[self.rows]

    def _hold(self, group: int) -> None:
        table = self.shards.read(group, _RAW)
        points = table["points"].combine_chunks()
        self._points = points.values.to_numpy()
        self._ends = points.offsets.to_numpy()
        self._columns = {n: table[n].to_pylist() for n in _RAW if n != "points"}
        self._held = group


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCorpus(Corpus):
    """A prepared folder as a `Corpus`: its gestures are read when asked for.

    Attributes:
        record: its ``corpus.json``.
    """

    record: Record = field(kw_only=True)

    @property
    def synthetic(self) -> bool:
        """Whether any gesture was generated."""
        return self.record.synthetic

    def summary(self) -> str:
        """One line: how many swipes, writers, and rejected rows by reason."""
        return self.record.summary()


def keys_digest(layout: Layout) -> str:
    """16 hex digits of what letter misses depend on: letters and key centres."""
    text = json.dumps([layout.letters, layout.centers.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_prepared(path: Path) -> PreparedCorpus:
    """Open a prepared folder; parts are only looked at when rows are asked for.

    Raises:
        DataError: it is no complete prepared corpus, or one of another feature recipe.
    """
    file = path / RECORD
    if not is_file(file):
        raise DataError(
            f"{path} is no prepared corpus: it holds no {RECORD}",
            fix="write one with: swipe-data prepare SOURCE... FOLDER",
        )
    try:
        record = Record.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be used: {error}", fix=_AGAIN) from error
    if record.features != FEATURE_RECIPE:
        raise DataError(
            f"{path} was prepared with features {record.features!r}, this version computes "
            f"{FEATURE_RECIPE!r}",
            fix="make the folder again from its sources: swipe-data prepare SOURCE... FOLDER",
        )
    for part in record.parts:
        if not is_file(path / part.name):
            raise DataError(f"{path} is incomplete: {part.name} is missing", fix=_AGAIN)
    gestures = PreparedGestures(Shards(path, record), np.arange(record.swipes, dtype=np.int32))
    return PreparedCorpus(record.label, gestures, record=record)


def whole_groups(gestures: PreparedGestures, count: int) -> PreparedGestures:
    """At most `count` of `gestures` (at least one row group), from evenly spaced row groups."""
    size = gestures.shards.record.rows_per_group
    groups = np.unique(gestures.rows // size)
    places = np.linspace(0, len(groups) - 1, min(len(groups), max(1, count // size)))
    return gestures.where(np.isin(gestures.rows // size, groups[places.round().astype(int)]))


def prepared_rows(path: Path) -> Iterator[Gesture]:
    """The gestures of a prepared folder, one after the other: see `open_prepared`."""
    return iter(open_prepared(path).gestures)


def require_prepared_for(gestures: PreparedGestures, layout: Layout) -> None:
    """Refuse letter misses that were measured on another keyboard.

    Raises:
        DataError: the folder was prepared for another layout than `layout`.
    """
    record = gestures.shards.record
    if record.keys != keys_digest(layout):
        path = str(gestures.shards.path)
        again = shlex.join(["swipe-data", "prepare", path, "FOLDER", "--layout", layout.spec])
        raise DataError(
            f"{path} was prepared for layout {record.layout!r}, and its keys are "
            f"not those of {layout.name!r}",
            fix=f"prepare it again: {again}",
        )
