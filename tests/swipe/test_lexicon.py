"""Lexicons: sources, the flat trie, and every way a word list can be unusable."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swipe.errors import DataError, MissingError
from swipe.gesture import swiped_letters
from swipe.lexicon import Lexicon, load_lexicon, read_combined, wordfreq_lexicon

WORDS = st.sets(st.text("abcdeyz", min_size=1, max_size=9), min_size=1, max_size=60)


def _lexicon(words: set[str]) -> Lexicon:
    ordered = tuple(sorted(words))
    return Lexicon("test", ordered, np.full(len(ordered), -1.0, dtype=np.float32))


def _walk(lexicon: Lexicon, prefix: str) -> int:
    """Node of `prefix`, or -1, by the documented rule."""
    trie, node = lexicon.trie, 0
    for letter in prefix:
        c = ord(letter) - ord("a")
        mask = int(trie.child_mask[node])
        if not mask >> c & 1:
            return -1
        node = int(trie.first_child[node]) + (mask & ((1 << c) - 1)).bit_count()
    return node


@given(WORDS)
def test_the_trie_holds_exactly_the_words(words: set[str]) -> None:
    lexicon = _lexicon(words)
    trie = lexicon.trie
    for index, word in enumerate(lexicon.words):
        node = _walk(lexicon, word)
        assert trie.word[node] == index
        assert trie.depth[node] == len(word)
        assert trie.letter[node] == ord(word[-1]) - ord("a")
    prefixes = {word[:k] for word in words for k in range(len(word) + 1)}
    assert len(trie.word) == len(prefixes)
    assert (trie.word >= 0).sum() == len(words)
    assert all(_walk(lexicon, p + "x") == -1 for p in prefixes)


@given(WORDS, st.integers(0, 10_000))
def test_endings_are_the_words_below_each_node(words: set[str], seed: int) -> None:
    ordered = tuple(sorted(words))
    log_prob = np.random.default_rng(seed).normal(size=len(ordered)).astype(np.float32)
    lexicon = Lexicon("test", ordered, log_prob)
    endings = lexicon.endings
    for prefix in {word[:k] for word in words for k in range(len(word) + 1)}:
        expected: dict[tuple[int, int], float] = {}
        for word, value in zip(ordered, log_prob.tolist(), strict=True):
            if word.startswith(prefix):
                doubled = sum(word[i] == word[i - 1] for i in range(max(len(prefix), 1), len(word)))
                key = len(word), doubled
                expected[key] = max(value, expected.get(key, value))
        node = _walk(lexicon, prefix)
        rows = slice(endings.start[node], endings.start[node + 1])
        columns = (endings.length, endings.doubles, endings.log_prob)
        found = zip(*(column[rows].tolist() for column in columns), strict=True)
        assert {(n, d): value for n, d, value in found} == expected
    assert endings.start[-1] == len(endings.length)


def test_aosp_words_are_all_there(shared_data: Path) -> None:
    lexicon = load_lexicon(str(shared_data / "lexicon" / "en_wordlist.combined.gz"))
    assert len(lexicon) == 146_697
    assert np.exp(lexicon.log_prob.astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-4)
    the = lexicon.log_prob[lexicon.words.index("the")]
    assert the == lexicon.log_prob.max()
    assert "cant" in lexicon
    assert "can't" not in lexicon
    assert all(lexicon.trie.word[_walk(lexicon, w)] >= 0 for w in lexicon.words[::997])


def test_combined_entries_of_one_word_keep_the_most_frequent(tmp_path: Path) -> None:
    path = tmp_path / "x.combined"
    path.write_text(
        "dictionary=main:en,locale=en\n"
        " word=Its,f=100,flags=\n"
        " word=it's,f=120,flags=\n"
        "  shortcut=its,f=whitelist\n"
        " word=naïve,f=90,flags=\n"
        " word=cat,f=110,flags=,originalFreq=7\n"
    )
    lexicon = read_combined(path)
    assert lexicon.words == ("cat", "its")
    assert lexicon.log_prob[1] - lexicon.log_prob[0] == pytest.approx(10 * np.log(1.15), rel=1e-5)


def test_wordfreq_is_ordered_by_frequency() -> None:
    lexicon = wordfreq_lexicon(2000)
    by_word = dict(zip(lexicon.words, lexicon.log_prob.tolist(), strict=True))
    assert by_word["the"] > by_word["because"] > by_word["wonderful"]
    assert load_lexicon("wordfreq:2000").sha256 == lexicon.sha256


def test_wordfreq_absent_is_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wordfreq", None)
    with pytest.raises(MissingError, match="wordfreq"):
        wordfreq_lexicon(10)


def test_text_lists_may_carry_counts(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("cat 30\ndog\n\n42 7\nCat 60\n")
    lexicon = load_lexicon(str(path))
    assert lexicon.words == ("cat", "dog")
    assert np.exp(lexicon.log_prob).tolist() == pytest.approx([60 / 61, 1 / 61], rel=1e-5)


def test_a_byte_order_mark_does_not_hide_the_first_word(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(b"\xef\xbb\xbfthe 100\nof 50\n")
    assert load_lexicon(str(tmp_path / "words.txt")).words == ("of", "the")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.txt", b""),
        ("digits.txt", b"1\n2\n"),
        ("count.txt", b"cat many\n"),
        ("count.txt", b"cat -3\n"),
        ("count.txt", b"cat nan\n"),
        ("latin.txt", b"caf\xe9\n"),
        ("header.combined", b"dictionary=main:en\n"),
        ("cut.combined.gz", gzip.compress(b" word=cat,f=3\n" * 99, mtime=0)[:40]),
        ("plain.combined.gz", b" word=cat,f=3\n"),
        ("words.csv", b"cat,3\n"),
    ],
)
def test_unusable_lists_are_data_errors(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError):
        load_lexicon(str(tmp_path / name))


@pytest.mark.parametrize("spec", ["absent.txt", "wordfreq:many", "wordfreq:0", "wordfreq:-3"])
def test_unusable_names_are_data_errors(spec: str) -> None:
    with pytest.raises(DataError):
        load_lexicon(spec)


def test_extended_adds_words_as_rare_as_the_rarest() -> None:
    lexicon = wordfreq_lexicon(500)
    more = lexicon.extended(["zqzq", "the"])
    assert len(more) == len(lexicon) + 1
    assert "zqzq" in more
    assert more.log_prob[more.words.index("zqzq")] == more.log_prob.min()
    assert more.sha256 != lexicon.sha256
    with pytest.raises(DataError, match="can't"):
        lexicon.extended(["can't"])


@pytest.mark.parametrize(
    ("word", "letters"),
    [
        ("It's", "its"),
        ("It’s", "its"),
        ("check-in", "checkin"),
        ("naïve", ""),
        ("", ""),
        ("-", ""),
        ("B2B", ""),
    ],
)
def test_swiped_letters(word: str, letters: str) -> None:
    assert swiped_letters(word) == letters
