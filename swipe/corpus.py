"""Data by one word on the command line: a path, or ``synthetic[:COUNT]``; and splits by writer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from swipe.errors import DataError
from swipe.gesture import Gesture
from swipe.layout import Layout
from swipe.lexicon import wordfreq_lexicon
from swipe.sources import SYNTHETIC, Corpus, read_corpus
from swipe.synthesis import synthesize

SYNTHETIC_SWIPES: Final = 20_000
SYNTHETIC_WORDS: Final = 20_000


def load_corpus(spec: str, layout: Layout, *, seed: int = 0, first_writer: int = 0) -> Corpus:
    """The corpus that `spec` names: a file path, ``synthetic`` or ``synthetic:COUNT``.

    `seed` and `first_writer` are for synthetic swipes: see `swipe.synthesis.synthesize`.

    Raises:
        DataError: the file or the count cannot be used.
    """
    _, _, count = spec.partition(":")
    if not is_synthetic(spec):
        return read_corpus(Path(spec), layout.letters)
    if count and not count.isdecimal():
        raise DataError(f"{count!r} is not a number of swipes", fix="write e.g. synthetic:20000")
    swipes = int(count) if count else SYNTHETIC_SWIPES
    lexicon = wordfreq_lexicon(SYNTHETIC_WORDS)
    return synthesize(layout, lexicon, swipes, seed=seed, first_writer=first_writer)


def is_synthetic(spec: str) -> bool:
    """Whether `spec` asks for generated swipes rather than naming a file."""
    return spec.partition(":")[0] == SYNTHETIC


def writer_share(writer: str, salt: str) -> float:
    """A fixed number in [0, 1) per writer and `salt`, from SHA-1; no order, no seed."""
    digest = hashlib.sha1(f"{salt}:{writer}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def split_by_writer(
    gestures: Iterable[Gesture], share: float, *, salt: str
) -> tuple[list[Gesture], list[Gesture]]:
    """Two lists that have no writer in common; about `share` of the writers go to the second.

    Args:
        gestures: what to split; order is kept.
        share: fraction of writers for the second list, in (0, 1).
        salt: names the purpose, so that two splits of one corpus are independent.

    Raises:
        DataError: one side would be empty.
    """
    first: list[Gesture] = []
    second: list[Gesture] = []
    for gesture in gestures:
        (second if writer_share(gesture.writer, salt) < share else first).append(gesture)
    if not first or not second:
        raise DataError(
            f"{len(first) + len(second)} swipes cannot be split by writer: too few writers",
            fix="use data of more writers, or give a separate file with --dev",
        )
    return first, second
