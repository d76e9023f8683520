"""Data by one word on the command line: a path, or ``synthetic[:COUNT]``; and splits by writer.

Gestures of a prepared folder stay a `swipe.prepared.PreparedGestures` through load and split, so
that a million of them are never objects at once; any other corpus is a list in memory.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from swipe.errors import DataError
from swipe.files import hash_of
from swipe.gesture import Gesture
from swipe.layout import Layout
from swipe.lexicon import wordfreq_lexicon
from swipe.paths import is_folder
from swipe.prepared import RECORD, PreparedGestures, open_prepared
from swipe.sources import SYNTHETIC, Corpus, read_corpus
from swipe.synthesis import synthesize

SYNTHETIC_SWIPES: Final = 20_000
SYNTHETIC_WORDS: Final = 20_000


def load_corpus(spec: str, layout: Layout, *, seed: int = 0, first_writer: int = 0) -> Corpus:
    """The corpus that `spec` names: a file, a prepared folder, ``synthetic[:COUNT]``.

    `seed` and `first_writer` are for synthetic swipes: see `swipe.synthesis.synthesize`.

    Raises:
        DataError: the file or the count cannot be used.
    """
    _, _, count = spec.partition(":")
    if not is_synthetic(spec):
        path = Path(spec)
        return _open(path, layout) if is_folder(path) else read_corpus(path, layout.letters)
    if count and not count.isdecimal():
        raise DataError(f"{count!r} is not a number of swipes", fix="write e.g. synthetic:20000")
    swipes = int(count) if count else SYNTHETIC_SWIPES
    lexicon = wordfreq_lexicon(SYNTHETIC_WORDS)
    return synthesize(layout, lexicon, swipes, seed=seed, first_writer=first_writer)


def is_synthetic(spec: str) -> bool:
    """Whether `spec` asks for generated swipes rather than naming a file."""
    return spec.partition(":")[0] == SYNTHETIC


def corpus_digest(spec: str) -> str:
    """SHA-256 of what `spec` names: a file, or a prepared folder's record, with its parts' hashes.

    Raises:
        UsageError: it cannot be read.
    """
    path = Path(spec)
    return hash_of(path / RECORD if is_folder(path) else path)


def writer_share(writer: str, salt: str) -> float:
    """A fixed number in [0, 1) per writer and `salt`, from SHA-1; no order, no seed."""
    digest = hashlib.sha1(f"{salt}:{writer}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def split_by_writer(
    gestures: Iterable[Gesture], share: float, *, salt: str
) -> tuple[Sequence[Gesture], Sequence[Gesture]]:
    """Two sequences that have no writer in common; about `share` of the writers go to the second.

    Args:
        gestures: what to split; order is kept.
        share: fraction of writers for the second part, in (0, 1).
        salt: names the purpose, so that two splits of one corpus are independent.

    Raises:
        DataError: one side would be empty.
    """

    def held_out(writer: str) -> bool:
        return writer_share(writer, salt) < share

    first: Sequence[Gesture]
    second: Sequence[Gesture]
    if isinstance(gestures, PreparedGestures):
        chosen = gestures.by_writer(held_out)
        first, second = gestures.where(~chosen), gestures.where(chosen)
    else:
        sides: tuple[list[Gesture], list[Gesture]] = ([], [])
        for gesture in gestures:
            sides[held_out(gesture.writer)].append(gesture)
        first, second = sides
    if not first or not second:
        raise DataError(
            f"{len(first) + len(second)} swipes cannot be split by writer: too few writers",
            fix="use data of more writers, or give a separate file with --dev",
        )
    return first, second


def writers(gestures: Sequence[Gesture]) -> set[str]:
    """Who swiped `gestures`."""
    if isinstance(gestures, PreparedGestures):
        return gestures.writers()
    return {gesture.writer for gesture in gestures}


def _open(path: Path, layout: Layout) -> Corpus:
    corpus = open_prepared(path)
    if corpus.record.letters != layout.letters:
        again = shlex.join(["swipe-data", "prepare", str(path), "FOLDER", "--layout", layout.spec])
        raise DataError(
            f"{path} holds words in the letters {corpus.record.letters!r}, layout {layout.name!r} "
            f"has {layout.letters!r}",
            fix=f"prepare it again: {again}",
        )
    return corpus
