"""Lexicon: the words a swipe may mean, and how frequent they are.

Sources: PyPI's ``wordfreq`` (the embedded default) and AOSP ``.combined(.gz)`` word lists, or a
plain text file. Frequencies become natural-log probabilities normalised over the kept words, so
decoder presets mean the same for every source.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.contract import ALPHABET
from swipe.errors import DataError, MissingError
from swipe.gesture import swiped_letters
from swipe.paths import is_file
from swipe.trie import Endings, Trie, build_trie, find_endings

WORDFREQ: Final = "wordfreq"
WORDFREQ_WORDS: Final = 100_000
AOSP_STEP: Final = math.log(1.15)
"""AOSP's f (0 to 255) is logarithmic: one step more is 1.15 times as frequent."""

_COMBINED_ENTRY: Final = re.compile(r"^ word=([^,]+),.*?\bf=(\d+)")


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words and their unigram probabilities.

    Attributes:
        name: what to call it on screen and in reports.
        words: distinct words of the alphabet a-z, sorted.
        log_prob: float32[len(words)], natural logarithm, normalised over `words`.
    """

    name: str
    words: tuple[str, ...]
    log_prob: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._index

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over words and probabilities: results are comparable when it is equal."""
        digest = hashlib.sha256("\n".join(self.words).encode())
        digest.update(self.log_prob.tobytes())
        return digest.hexdigest()

    @cached_property
    def trie(self) -> Trie:
        """The flat trie of all words."""
        return build_trie(self.words)

    @cached_property
    def endings(self) -> Endings:
        """The lengths and probabilities of the words at or below each node."""
        return find_endings(self.trie, self.log_prob)

    def extended(self, words: Iterable[str]) -> Lexicon:
        """A lexicon that also holds `words`, each as rare as the rarest present one.

        Raises:
            DataError: an added word has letters outside a-z.
        """
        added = sorted(set(words) - self._index.keys())
        for word in added:
            if not word or not set(word) <= set(ALPHABET):
                raise DataError(f"{word!r} cannot be swiped", fix="add words of a-z only")
        floor = float(self.log_prob.min())
        entries = dict(zip(self.words, self.log_prob.tolist(), strict=True))
        entries.update(dict.fromkeys(added, floor))
        return _lexicon(f"{self.name}+{len(added)}", entries)


def load_lexicon(spec: str) -> Lexicon:
    """The lexicon that `spec` names: ``wordfreq[:COUNT]`` or a file.

    Files: AOSP ``.combined`` or ``.combined.gz``, or ``.txt`` with one word a line, optionally
    followed by white space and a count.

    Raises:
        DataError: no such file, a damaged one, or one with no words.
        MissingError: wordfreq is not installed.
    """
    kind, _, count = spec.partition(":")
    if kind == WORDFREQ:
        if count and not count.isdecimal():
            raise DataError(f"{count!r} is not a number of words", fix="write e.g. wordfreq:300000")
        return wordfreq_lexicon(int(count) if count else WORDFREQ_WORDS)
    path = Path(spec)
    if not is_file(path):
        raise DataError(
            f"no lexicon {spec}",
            fix="give the path of a .combined(.gz) or .txt word list, or wordfreq[:COUNT]",
        )
    if path.name.endswith((".combined", ".combined.gz")):
        return read_combined(path)
    if path.suffix == ".txt":
        return _read_text(path)
    raise DataError(
        f"cannot tell what kind of lexicon {path.name} is",
        fix="use .combined, .combined.gz or .txt",
    )


def wordfreq_lexicon(count: int = WORDFREQ_WORDS, language: str = "en") -> Lexicon:
    """The `count` most frequent words that wordfreq knows, those of a-z only.

    Raises:
        MissingError: wordfreq is not installed.
        DataError: `count` is not positive.
    """
    if count < 1:
        raise DataError(f"{count} words asked for", fix="ask for at least one")
    try:
        import wordfreq
    except ImportError as error:
        raise MissingError(
            f"wordfreq cannot be imported: {error}", fix="pip install wordfreq"
        ) from error
    entries: dict[str, float] = {}
    for word in wordfreq.top_n_list(language, count):
        key = swiped_letters(word)
        if key:
            frequency = math.log(10.0) * wordfreq.zipf_frequency(word, language)
            entries[key] = max(entries.get(key, -math.inf), frequency)
    return _lexicon(f"{WORDFREQ}:{count}", entries)


def read_combined(path: Path) -> Lexicon:
    """An AOSP LatinIME word list; probability is proportional to 1.15 ** f.

    Words are lower-cased, apostrophes and hyphens (which are not swiped over) are dropped, and
    entries with any other letter outside a-z are left out. Of entries that become the same word
    the most frequent counts.

    Raises:
        DataError: the file is damaged or holds no words.
    """
    entries: dict[str, float] = {}
    for line in _read_lines(path):
        entry = _COMBINED_ENTRY.match(line)
        key = swiped_letters(entry[1]) if entry else ""
        if entry and key:
            entries[key] = max(entries.get(key, -math.inf), int(entry[2]) * AOSP_STEP)
    return _lexicon(path.name, entries)


def _read_text(path: Path) -> Lexicon:
    entries: dict[str, float] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        fields = line.split()
        key = swiped_letters(fields[0]) if fields else ""
        if not key:
            continue
        try:
            count = float(fields[1]) if len(fields) > 1 else 1.0
        except ValueError:
            count = math.nan
        if not 0 < count < math.inf:
            raise DataError(
                f"{path} line {number}: {fields[1]!r} is not a positive count",
                fix="write 'word' or 'word count' on each line",
            )
        entries[key] = max(entries.get(key, -math.inf), math.log(count))
    return _lexicon(path.name, entries)


def _read_lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        # Windows' editors begin a text with a byte order mark, which would hide its first word.
        return data.decode("utf-8-sig").splitlines()
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="fetch the file again") from error


def _lexicon(name: str, entries: Mapping[str, float]) -> Lexicon:
    if not entries:
        raise DataError(
            f"lexicon {name} holds no words", fix="use a word list with words of the letters a-z"
        )
    words = tuple(sorted(entries))
    log_weight = np.array([entries[word] for word in words], dtype=np.float64)
    log_weight -= log_weight.max()
    log_prob = log_weight - math.log(float(np.exp(log_weight).sum()))
    return Lexicon(name, words, log_prob.astype(np.float32))
