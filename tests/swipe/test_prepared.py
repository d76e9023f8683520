"""Reading prepared folders: in pieces, as the same swipes as a file, and never when damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swipe.corpus import load_corpus, split_by_writer, writers
from swipe.errors import DataError
from swipe.gesture import Gesture, letter_miss
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.preparation import prepare_folder
from swipe.prepared import (
    RECORD,
    SCHEMA,
    PreparedGestures,
    open_prepared,
    require_prepared_for,
    whole_groups,
)
from swipe.synthesis import synthesize

LAYOUT = load_layout("qwerty")
SWIPES = synthesize(LAYOUT, wordfreq_lexicon(500), 500).gestures


def prepare(gestures: tuple[Gesture, ...] | list[Gesture], out: Path) -> Path:
    prepare_folder(gestures, out, LAYOUT, label="test", rows_per_group=32, groups_per_part=4)
    return out


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 swipes of 10 writers in 16 row groups and 4 parts."""
    return prepare(SWIPES, tmp_path_factory.mktemp("prepared") / "corpus")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "corpus"))


@pytest.fixture
def gestures(pristine: Path) -> PreparedGestures:
    found = open_prepared(pristine).gestures
    assert isinstance(found, PreparedGestures)
    return found


def read_all(folder: Path) -> list[Gesture]:
    return list(open_prepared(folder).gestures)


def ids(gestures: Any) -> list[str]:
    return [gesture.id for gesture in gestures]


# Gestures.


def test_gestures_are_a_sequence(gestures: PreparedGestures) -> None:
    assert len(gestures) == 500
    assert ids(gestures) == ids(SWIPES)
    for index in (0, 31, 32, 127, 128, 499, -1, -500):
        assert gestures[index].id == SWIPES[index].id
        assert gestures[index].points.tobytes() == SWIPES[index].points.tobytes()
    assert ids(gestures[30:300:7]) == ids(SWIPES[30:300:7])
    for index in (500, -501):
        with pytest.raises(IndexError):
            gestures[index]


def test_a_gesture_does_not_keep_its_row_group_alive(gestures: PreparedGestures) -> None:
    points = gestures[0].points
    while points.base is not None:
        points = points.base
    assert points.size <= SWIPES[0].points.size


def test_walking_in_order_reads_each_row_group_once(
    pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = open_prepared(pristine)
    read, kind = [], type(corpus.gestures.shards)
    original = kind.read
    monkeypatch.setattr(
        kind, "read", lambda self, group, c: read.append(group) or original(self, group, c)
    )
    assert len(list(corpus.gestures)) == 500
    assert read == list(range(16))


def test_a_selection_is_a_sequence_too(gestures: PreparedGestures) -> None:
    odd = gestures.where(np.arange(500) % 2 == 1)
    assert ids(odd) == ids(SWIPES[1::2])
    assert ids(odd.where(np.arange(250) < 40)) == ids(SWIPES[1:80:2])
    assert not gestures.where(np.zeros(500, dtype=bool))


def test_columns_are_what_the_gestures_give(gestures: PreparedGestures) -> None:
    part = gestures[17:400]
    expected = [letter_miss(g, LAYOUT) for g in SWIPES[17:400]]
    assert part.letter_misses().tolist() == expected
    assert writers(part) == {g.writer for g in SWIPES[17:400]}
    assert writers(gestures[:20]) == {"synthetic-0"}
    judged = part.by_writer(lambda writer: writer.endswith(("3", "7")))
    assert judged.tolist() == [g.writer.endswith(("3", "7")) for g in SWIPES[17:400]]


@pytest.mark.parametrize("salt", ["dev", "calibration"])
def test_the_split_is_the_one_of_gestures_in_memory(gestures: PreparedGestures, salt: str) -> None:
    first, second = split_by_writer(gestures, 0.4, salt=salt)
    expected = split_by_writer(SWIPES, 0.4, salt=salt)
    assert (ids(first), ids(second)) == (ids(expected[0]), ids(expected[1]))
    assert isinstance(second, PreparedGestures), "a split must not read a million swipes"
    assert not writers(first) & writers(second)
    with pytest.raises(DataError, match="too few writers"):
        split_by_writer(gestures[:30], 0.4, salt=salt)


def test_a_folder_is_a_corpus_like_a_file(pristine: Path) -> None:
    corpus = load_corpus(str(pristine), LAYOUT)
    assert corpus.synthetic
    assert corpus.label == "test (synthetic)"
    assert corpus.summary() == "test (synthetic): 500 swipes of 10 writers"
    assert not corpus.rejected
    assert ids(corpus.gestures) == ids(SWIPES)


def test_whole_groups_are_spread_over_the_corpus(gestures: PreparedGestures) -> None:
    chosen = whole_groups(gestures, 100)
    assert [row // 32 for row in chosen.rows[::32]] == [0, 8, 15]
    assert len(chosen) == 32 + 32 + 20
    assert len(whole_groups(gestures, 1)) == 32
    assert len(whole_groups(gestures, 10**6)) == 500


# Damage.


def cut(folder: Path) -> None:
    part = folder / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-100])


def lose(folder: Path) -> None:
    (folder / "part-00001.parquet").unlink()


def flip(folder: Path) -> None:
    part = folder / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def exchange(folder: Path) -> None:
    shutil.copyfile(folder / "part-00000.parquet", folder / "part-00001.parquet")


def replace_by_a_stranger(folder: Path) -> None:
    """A sound file of other columns, and a record that says that it belongs."""
    from swipe.files import sha256_file

    part = folder / "part-00001.parquet"
    pq.write_table(pa.table({"id": [str(i) for i in range(128)]}), part)
    record = json.loads((folder / RECORD).read_text())
    record["parts"][1] |= {"size": part.stat().st_size, "sha256": sha256_file(part)}
    (folder / RECORD).write_text(json.dumps(record))


def edit(**changes: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        record = json.loads((folder / RECORD).read_text())
        (folder / RECORD).write_text(json.dumps(record | changes))

    return apply


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "part-00002.parquet is damaged"),
        (lose, "part-00001.parquet is missing"),
        (flip, "part-00001.parquet is damaged"),
        (exchange, "part-00001.parquet is damaged"),
        (replace_by_a_stranger, "other columns"),
        (lambda folder: (folder / RECORD).unlink(), "no prepared corpus"),
        (lambda folder: (folder / RECORD).write_text("{"), "cannot be used"),
        (lambda folder: (folder / RECORD).write_text("[]"), "cannot be used"),
        (lambda folder: (folder / RECORD).write_bytes(b"\xff"), "cannot be used"),
        (edit(format="swipe-corpus/2"), "'swipe-corpus/2'"),
        (edit(features="strided/1"), "'strided/1'"),
        (edit(swipes=501), "contradict"),
        (edit(rows_per_group=16), "contradict"),
        (edit(parts=[]), "cannot be used"),
        (edit(parts=[{"name": "part-00000.parquet"}]), "missing or unknown"),
        (edit(surprise=1), "missing or unknown"),
        (edit(letters="abc"), "abc"),
    ],
)
def test_a_damaged_folder_is_refused(
    folder: Path, damage: Callable[[Path], object], says: str
) -> None:
    assert len(read_all(folder)) == 500
    damage(folder)
    with pytest.raises(DataError, match=says) as caught:
        list(load_corpus(str(folder), LAYOUT).gestures)
    assert "swipe-data prepare" in caught.value.fix


def test_a_part_outside_the_folder_is_never_read(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / "part-00000.parquet").rename(folder.parent / "elsewhere.parquet")
    record["parts"][0]["name"] = "../elsewhere.parquet"
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(DataError, match="contradict"):
        read_all(folder)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_no_flipped_byte_goes_unnoticed(folder: Path, place: float, change: int) -> None:
    part = folder / "part-00001.parquet"
    original = part.read_bytes()
    data = bytearray(original)
    data[int(place * len(data))] ^= change
    part.write_bytes(data)
    try:
        with pytest.raises(DataError, match="part-00001"):
            read_all(folder)
    finally:
        part.write_bytes(original)


@pytest.mark.parametrize("column", ["points", "trajectory", "letter_miss", "word"])
def test_pages_that_change_after_the_part_was_proven_are_noticed(folder: Path, column: str) -> None:
    """The hash is taken once; from then on Parquet's page checksums must see it."""
    shards = open_prepared(folder).gestures.shards  # type: ignore[attr-defined]
    before = shards.read(0, [column])
    path = folder / "part-00000.parquet"
    meta = pq.ParquetFile(path).metadata.row_group(0)
    number = [name.split(".")[0] for name in names_of(meta)].index(column)
    chunk = meta.column(number)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    middle = start + chunk.total_compressed_size // 2
    data = bytearray(path.read_bytes())
    data[middle] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        shards.read(0, [column])
    data[middle] ^= 1
    path.write_bytes(data)
    assert shards.read(0, [column]).equals(before)


def names_of(row_group: Any) -> list[str]:
    return [row_group.column(i).path_in_schema for i in range(row_group.num_columns)]


def test_the_columns_are_the_documented_ones(pristine: Path) -> None:
    found = pq.read_schema(pristine / "part-00000.parquet")
    assert found.equals(SCHEMA)
    assert found.field("trajectory").type == pa.list_(
        pa.field("element", pa.float32(), nullable=False), 128
    )


def test_letter_misses_of_another_keyboard_are_refused(gestures: PreparedGestures) -> None:
    require_prepared_for(gestures, LAYOUT)
    with pytest.raises(DataError, match="'qwerty'") as caught:
        require_prepared_for(gestures, load_layout("dvorak"))
    assert "--layout dvorak" in caught.value.fix


def test_a_layout_that_only_shares_the_name_is_another_keyboard(gestures: PreparedGestures) -> None:
    moved = load_layout("azerty")
    impostor = type(moved)("qwerty", moved.letters, moved.centers, moved.radii)
    with pytest.raises(DataError, match="its keys are not those"):
        require_prepared_for(gestures, impostor)
