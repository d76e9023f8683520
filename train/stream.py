"""Which training rows come when: an order that is a function of (seed, epoch), read in windows.

A permutation of a whole corpus that lies on disk would fetch every row alone. So an epoch permutes
the row groups (4,096 swipes lying together), cuts that sequence into windows of 16 groups, and
permutes the rows of each window: 65,536 swipes of 16 distant places are mixed at a time. One
window is resident (about 40 MB) while a thread reads the next, however large the corpus is.

Nothing is remembered between calls that could change an answer: any range of any epoch can be
asked for, in any order, after any resume, and gives the rows it always gives. Only the time
differs, since windows are read ahead in the order of training.

Gestures in memory are one row group and therefore one window: the same code, and a permutation
of the whole.

What it leaves out: several corpora at once (`train.mix`), augmentation and batches of tensors
(`train.swipe_task`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from swipe.contract import POINTS
from swipe.features import trajectories
from swipe.gesture import Gesture
from swipe.prepared import PreparedGestures, Shards

WINDOW: Final = 16
"""Row groups that are mixed with each other."""

# What a seed is for; 1 is augmentation and 2 the held-out sample.
_GROUPS, _ROWS = 3, 4


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some training rows.

    Attributes:
        trajectories: float32[B, 2, 64], not clipped.
        targets: class indices int64[B, L] (uint8 while they wait in a window), padded with 0 to
            the longest word of the whole corpus, so that every batch has one shape.
        lengths: int64[B], letters of each word.
        ids: identifiers of the swipes.
    """

    trajectories: NDArray[np.float32]
    targets: NDArray[np.int64] | NDArray[np.uint8]
    lengths: NDArray[np.int64]
    ids: list[str]

    def take(self, index: NDArray[np.int64]) -> Rows:
        """Copies of the rows at ``index [B]``, in that order."""
        return Rows(
            self.trajectories[index],
            self.targets[index].astype(np.int64),
            self.lengths[index],
            [self.ids[i] for i in index],
        )


_NOTHING: Final = Rows(
    np.empty((0, 2, POINTS), np.float32), np.empty((0, 0), np.uint8), np.empty(0, np.int64), []
)


class RowGroups(Protocol):
    """Where training rows come from: groups that are read whole."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of rows of each group, every one above 0."""
        ...

    @property
    def width(self) -> int:
        """Columns of the targets: letters of the corpus's longest word."""
        ...

    def load(self, groups: Sequence[int]) -> Rows:
        """The rows of `groups`, one group after the other.

        Raises:
            DataError: they cannot be read.
        """
        ...


class MemoryGroups:
    """Gestures in memory: one group."""

    def __init__(self, gestures: Sequence[Gesture], letters: str) -> None:
        words = [gesture.word for gesture in gestures]
        targets, lengths = encode(words, letters, max(map(len, words)))
        ids = [gesture.id for gesture in gestures]
        self._rows = Rows(trajectories(gestures), targets, lengths, ids)

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.array([len(self._rows.ids)])

    @property
    def width(self) -> int:
        return int(self._rows.targets.shape[1])

    def load(self, groups: Sequence[int]) -> Rows:
        return self._rows


class PreparedGroups:
    """The chosen rows of a prepared folder, by its row groups; groups without any are left out."""

    def __init__(self, gestures: PreparedGestures, letters: str) -> None:
        self._shards: Shards = gestures.shards
        self._letters = letters
        size = self._shards.record.rows_per_group
        edges = np.searchsorted(gestures.rows, np.arange(self._shards.groups + 1) * size)
        self._used = np.flatnonzero(np.diff(edges))
        self._chosen = [gestures.rows[edges[g] : edges[g + 1]] - g * size for g in self._used]

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.array([len(rows) for rows in self._chosen], dtype=np.int64)

    @property
    def width(self) -> int:
        return self._shards.record.longest_word

    def load(self, groups: Sequence[int]) -> Rows:
        count = sum(len(self._chosen[group]) for group in groups)
        paths = np.empty((count, 2, POINTS), dtype=np.float32)
        words: list[str] = []
        ids: list[str] = []
        for group in groups:
            chosen = self._chosen[group]
            table = self._shards.read(int(self._used[group]), ("id", "word", "trajectory"))
            flat = table["trajectory"].combine_chunks().values.to_numpy()
            paths[len(ids) : len(ids) + len(chosen)] = flat.reshape(-1, 2, POINTS)[chosen]
            words += table["word"].take(chosen).to_pylist()
            ids += table["id"].take(chosen).to_pylist()
        targets, lengths = encode(words, self._letters, self.width)
        return Rows(paths, targets, lengths, ids)


def row_groups(gestures: Sequence[Gesture], letters: str) -> RowGroups:
    """Row groups of `gestures`, read from disk when they are of a prepared folder."""
    if isinstance(gestures, PreparedGestures):
        return PreparedGroups(gestures, letters)
    return MemoryGroups(gestures, letters)


class TrainingRows:
    """Training rows in the order of (seed, epoch); see the module's text."""

    def __init__(self, groups: RowGroups, seed: int, window: int = WINDOW) -> None:
        """Draw from `groups`, `window` of them at a time."""
        self._groups = groups
        self._seed = seed
        self._counts = groups.counts
        self._window = window
        self._windows = -(-len(self._counts) // window)
        self._resident: tuple[int, int] | None = None
        self._content = _NOTHING
        self._drawn = np.empty(0, dtype=np.int64)
        self._ahead: tuple[tuple[int, int], Future[Rows]] | None = None
        self._reader: ThreadPoolExecutor | None = None
        self._order = lru_cache(maxsize=2)(self._order_of)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of `epoch`; they may lie in several windows.

        Raises:
            DataError: the corpus cannot be read.
            IndexError: the range is empty or beyond the epoch's end.
        """
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of {len(self)}")
        _, edges = self._order(epoch)
        first = int(np.searchsorted(edges, start, side="right")) - 1
        parts = []
        while start < stop:
            end = min(stop, int(edges[first + 1]))
            self._enter((epoch, first))
            # Nothing else may name the window's content, or three windows would be held at once.
            parts.append(self._content.take(self._drawn[start - edges[first] : end - edges[first]]))
            start, first = end, first + 1
        return parts[0] if len(parts) == 1 else joined(parts)

    def _order_of(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Groups of `epoch` in order, and where each window starts (and the last ends)."""
        groups = np.random.default_rng([self._seed, _GROUPS, epoch]).permutation(len(self._counts))
        sizes = np.add.reduceat(self._counts[groups], np.arange(0, len(groups), self._window))
        return groups, np.concatenate([[0], np.cumsum(sizes)])

    def _enter(self, window: tuple[int, int]) -> None:
        """Make (epoch, number) the resident window, and start reading the one after it."""
        if self._resident == window:
            return
        self._resident = None  # an interrupt from here on must not leave content of another window
        # What could not be read ahead is read again when it is asked for again.
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == window:
            self._content = ahead[1].result()
        else:
            ahead = None
            self._content = self._load(window)
        self._resident = window
        rng = np.random.default_rng([self._seed, _ROWS, *window])
        self._drawn = rng.permutation(len(self._content.ids))
        self._read_ahead(window)

    def _load(self, window: tuple[int, int]) -> Rows:
        epoch, number = window
        groups, _ = self._order(epoch)
        first = number * self._window
        return self._groups.load(groups[first : first + self._window].tolist())

    def _read_ahead(self, window: tuple[int, int]) -> None:
        epoch, number = window
        after = (epoch, number + 1) if number + 1 < self._windows else (epoch + 1, 0)
        if self._windows > 1:
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
            self._ahead = after, self._reader.submit(self._load, after)


def encode(
    words: Sequence[str], letters: str, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Words -> (class indices uint8[B, width] padded with 0, lengths int64[B]).

    Args:
        words: spelt in `letters`, none longer than `width`.
        letters: in class order, ASCII.
        width: columns of the result.

    Raises:
        ValueError: a word is longer, or has another letter.
    """
    unknown = len(letters)
    classes = np.full(128, unknown, dtype=np.uint8)
    classes[np.frombuffer(letters.encode("ascii"), dtype=np.uint8)] = np.arange(unknown)
    lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    targets = np.zeros((len(words), width), dtype=np.uint8)
    spelt = np.frombuffer("".join(words).encode("ascii"), dtype=np.uint8)
    indices = classes[spelt]
    if (indices == unknown).any():
        raise ValueError(f"a word has another letter than {letters}")
    targets[np.arange(width) < lengths[:, None]] = indices
    return targets, lengths


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of `parts`, one part after the other; their targets have one width."""
    return Rows(
        np.concatenate([part.trajectories for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        [identifier for part in parts for identifier in part.ids],
    )
