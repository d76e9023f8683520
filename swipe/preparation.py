"""Writing prepared corpora: a stream of rows in, a complete folder out or none.

Swipes pass through in row groups of 4,096, so memory does not depend on the corpus, apart from the
digests that repeated swipes and writers are known by (`swipe.sources.Seen`). The folder is
built beside its place and moved there when ``corpus.json`` is in it: an interrupt, a full disk or
a damaged source leaves what was there before.

Trajectories are stored with their bytes split into streams (equal bytes of neighbouring values lie
together), which packs them a tenth smaller and reads no slower; raw points of real fingers pack
better plain, because their times repeat.

What it leaves out: reading (`swipe.prepared`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swipe.contract import ALPHABET
from swipe.features import trajectories
from swipe.files import replacing, replacing_folder, sha256_file, write_text_atomic
from swipe.gesture import Gesture, defect, letter_miss
from swipe.layout import Layout
from swipe.paths import is_file, is_folder
from swipe.prepared import (
    FORMAT,
    GROUPS_PER_PART,
    QUARANTINE,
    RECORD,
    ROWS_PER_GROUP,
    SCHEMA,
    Part,
    Record,
    keys_digest,
    prepared_rows,
)
from swipe.sources import (
    SYNTHETIC,
    Rejection,
    Seen,
    no_usable_swipe,
    read_rows,
    summary_line,
    write_jsonl,
)


def read_sources(paths: Iterable[Path], letters: str = ALPHABET) -> Iterator[Gesture | Rejection]:
    """The rows of several corpora, one after the other; a repeated (source, id) is rejected.

    Args:
        paths: corpus files (see `swipe.sources.read_rows`), prepared folders, and folders of raw
            How We Swipe logs.
        letters: the letters a word may have.

    Raises:
        DataError: while reading, when a source cannot be used.
    """
    seen = Seen()
    for path in chain.from_iterable(map(_logs_or_itself, paths)):
        if is_folder(path):
            for number, gesture in enumerate(prepared_rows(path), start=1):
                reason = defect(gesture, letters) or seen.repeated(gesture)
                yield (
                    gesture if reason is None else Rejection(number, gesture.id, reason, str(path))
                )
        else:
            yield from read_rows(path, letters, seen)


def _is_prepared(folder: Path) -> bool:
    """Whether `folder` was written here, by any version: others have a corpus.json too."""
    try:
        return FORMAT.rpartition("/")[0].encode() in (folder / RECORD).read_bytes()
    except OSError:
        return False


def _logs_or_itself(path: Path) -> list[Path]:
    """The logs of a folder that is not prepared and holds some, by name; else the path itself."""
    prepared = is_file(path / RECORD) or not is_folder(path)
    return [path] if prepared else sorted(path.glob("*.log")) or [path]


def label_of(paths: Iterable[Path]) -> str:
    """What to call the swipes of several sources."""
    first, *others = ("/".join(path.parts[-2:]) for path in paths)
    return f"{first} and {len(others)} more" if others else first


class Intake:
    """The gestures among some rows; counts them, and writes the rejections to a quarantine.

    Attributes:
        swipes: gestures that have passed so far.
        synthetic: whether one of them was generated.
        longest_word: letters of their longest word.
        rejected: number of rejections by kind of reason.
    """

    def __init__(self, label: str, rows: Iterable[Gesture | Rejection], quarantine: TextIO) -> None:
        self.swipes = 0
        self.synthetic = False
        self.longest_word = 0
        self.rejected: Counter[str] = Counter()
        self._label = label
        self._rows = rows
        self._quarantine = quarantine
        self._writers: set[int] = set()

    def __iter__(self) -> Iterator[Gesture]:
        first = ""
        for row in self._rows:
            if isinstance(row, Rejection):
                first = first or row.reason
                self.rejected[row.kind] += 1
                self._quarantine.write(json.dumps(asdict(row)) + "\n")
                continue
            self.swipes += 1
            self.synthetic |= row.source == SYNTHETIC
            self.longest_word = max(self.longest_word, len(row.word))
            self._writers.add(hash(row.writer))
            yield row
        if not self.swipes:
            raise no_usable_swipe(self._label, self.rejected.total(), first)

    @property
    def writers(self) -> int:
        """Number of different writers."""
        return len(self._writers)

    @property
    def label(self) -> str:
        """The label, which says "synthetic" when a swipe is."""
        told = SYNTHETIC in self._label or not self.synthetic
        return self._label if told else f"{self._label} ({SYNTHETIC})"

    def summary(self) -> str:
        """One line: how many swipes, writers, and rejected rows by reason."""
        return summary_line(self.label, self.swipes, self.writers, self.rejected)


def prepare_jsonl(
    rows: Iterable[Gesture | Rejection], out: Path, quarantine: Path, *, label: str
) -> Intake:
    """Write `rows` as our own jsonl, and the rejected ones to `quarantine`; returns the counts.

    Raises:
        DataError: not one row is usable; nothing is written.
        UsageError: a file cannot be written.
    """
    with replacing(quarantine) as temporary, temporary.open("w", encoding="utf-8") as stream:
        intake = Intake(label, rows, stream)
        write_jsonl(intake, out)
    return intake


def prepare_folder(
    rows: Iterable[Gesture | Rejection],
    out: Path,
    layout: Layout,
    *,
    label: str,
    rows_per_group: int = ROWS_PER_GROUP,
    groups_per_part: int = GROUPS_PER_PART,
) -> Record:
    """Write `rows` as a prepared corpus that replaces the one at `out`.

    Args:
        rows: gestures and rejections; drawn once, never held.
        out: the folder.
        layout: the keyboard that letter misses are measured on.
        label: what to call the swipes.
        rows_per_group: swipes that are read together.
        groups_per_part: row groups of one file.

    Raises:
        DataError: not one row is usable, or a source cannot be read to its end.
        UsageError: `out` is something else, or cannot be written.
    """
    with replacing_folder(out, ours=_is_prepared, kind="prepared corpus") as folder:
        with (folder / QUARANTINE).open("w", encoding="utf-8") as quarantine:
            intake = Intake(label, rows, quarantine)
            gestures = iter(intake)
            groups = iter(lambda: list(islice(gestures, rows_per_group)), [])
            tables = (_table(group, layout) for group in groups)
            parts = tuple(_write_parts(folder, tables, groups_per_part))
        record = Record(
            label=intake.label,
            synthetic=intake.synthetic,
            swipes=intake.swipes,
            writers=intake.writers,
            longest_word=intake.longest_word,
            rejected=dict(intake.rejected),
            layout=layout.name,
            letters=layout.letters,
            keys=keys_digest(layout),
            parts=parts,
            rows_per_group=rows_per_group,
            groups_per_part=groups_per_part,
        )
        write_text_atomic(folder / RECORD, record.to_json())
    return record


def _write_parts(folder: Path, groups: Iterator[pa.Table], per_part: int) -> Iterator[Part]:
    """Write each table as a row group, `per_part` of them to a file."""
    for number, first in enumerate(groups):
        path, rows = folder / f"part-{number:05d}.parquet", 0
        with pq.ParquetWriter(
            path,
            SCHEMA,
            compression="zstd",
            compression_level=3,
            use_dictionary=["word", "writer", "source", "sentence"],
            use_byte_stream_split=["trajectory.list.element"],
            write_page_checksum=True,
        ) as writer:
            for group in chain([first], islice(groups, per_part - 1)):
                writer.write_table(group, row_group_size=len(group))
                rows += len(group)
        yield Part(path.name, rows, path.stat().st_size, sha256_file(path))


def _table(gestures: list[Gesture], layout: Layout) -> pa.Table:
    ends = np.cumsum([0, *(gesture.points.size for gesture in gestures)], dtype=np.int32)
    points = np.concatenate([gesture.points.ravel() for gesture in gestures])
    values = pa.array(trajectories(gestures).ravel())
    columns = {
        name: pa.array([getattr(gesture, name) for gesture in gestures], SCHEMA.field(name).type)
        for name in ("id", "word", "writer", "source", "sentence", "aspect")
    }
    columns["points"] = pa.ListArray.from_arrays(
        pa.array(ends), pa.array(points), type=SCHEMA.field("points").type
    )
    columns["trajectory"] = pa.FixedSizeListArray.from_arrays(
        values, type=SCHEMA.field("trajectory").type
    )
    misses = [letter_miss(gesture, layout) for gesture in gestures]
    columns["letter_miss"] = pa.array(misses, pa.float64())
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
