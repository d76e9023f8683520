"""The flat trie of a lexicon, and what each of its nodes can still become.

Everything is a numpy array in breadth-first order, so that compiled searches can walk it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Trie:
    """Flat prefix tree in breadth-first order; node 0 is the root.

    Children of a node are contiguous and sorted by letter: the child by class ``c`` is
    ``first_child + popcount(child_mask & ((1 << c) - 1))`` when bit ``c`` of the mask is set.

    Attributes:
        first_child: int32[N], index of the first child.
        child_mask: uint32[N], bit c set when there is a child by class c.
        letter: int8[N], class of the edge into the node; -1 at the root.
        depth: int16[N], letters from the root.
        word: int32[N], index of the word that ends here, or -1.
        parent: int32[N], -1 at the root.
    """

    first_child: NDArray[np.int32]
    child_mask: NDArray[np.uint32]
    letter: NDArray[np.int8]
    depth: NDArray[np.int16]
    word: NDArray[np.int32]
    parent: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Endings:
    """What each node can still become: its words by length and doubled letters to come.

    The entries of node ``i`` are ``start[i] : start[i + 1]``.

    Attributes:
        start: int32[N + 1].
        length: int16[E], letters of the word.
        doubles: int16[E], letters below the node that repeat the letter before them.
        log_prob: float32[E], of the most frequent word with this length and these doubles.
    """

    start: NDArray[np.int32]
    length: NDArray[np.int16]
    doubles: NDArray[np.int16]
    log_prob: NDArray[np.float32]


def build_trie(words: tuple[str, ...]) -> Trie:
    """The trie of distinct, sorted words of a-z."""
    # Level by level; all rows of one level at once.
    lengths = np.array([len(word) for word in words])
    longest = int(lengths.max())
    cells = np.zeros((len(words), longest), dtype=np.uint8)
    filled = np.arange(longest) < lengths[:, None]
    cells[filled] = np.frombuffer("".join(words).encode("ascii"), dtype=np.uint8)
    # A row starts a new node at depth d + 1 when it differs from the row above in [0, d].
    fresh = np.ones_like(filled)
    fresh[1:] = np.logical_or.accumulate(cells[1:] != cells[:-1], axis=1)

    parents, letters, depths, ends = [np.array([-1])], [np.array([-1])], [np.zeros(1, int)], []
    node_of_row = np.zeros(len(words), dtype=np.int64)
    offset = 1
    for d in range(longest):
        rows = np.flatnonzero(filled[:, d])
        starts = fresh[rows, d]
        first_rows = rows[starts]
        parents.append(node_of_row[first_rows])
        letters.append(cells[first_rows, d].astype(np.int64) - ord("a"))
        depths.append(np.full(len(first_rows), d + 1))
        node_of_row[rows] = offset + np.cumsum(starts) - 1
        offset += len(first_rows)
        ends.append(rows[lengths[rows] == d + 1])
    parent, letter = np.concatenate(parents), np.concatenate(letters)

    word = np.full(offset, -1, dtype=np.int32)
    ended = np.concatenate(ends)
    word[node_of_row[ended]] = ended
    mask = np.zeros(offset, dtype=np.uint32)
    np.add.at(mask, parent[1:], np.left_shift(np.uint32(1), letter[1:].astype(np.uint32)))
    first_child = np.zeros(offset, dtype=np.int32)
    children = np.arange(offset - 1, 0, -1)  # reversed, so that the first child is written last
    first_child[parent[children]] = children
    depth = np.concatenate(depths).astype(np.int16)
    return Trie(first_child, mask, letter.astype(np.int8), depth, word, parent.astype(np.int32))


def find_endings(trie: Trie, log_prob: NDArray[np.float32]) -> Endings:
    """The endings of every node of `trie`, whose words have ``log_prob [words]``."""
    ends = np.flatnonzero(trie.word >= 0)
    node, length = ends, trie.depth[ends].astype(np.int64)
    score = log_prob[trie.word[ends]]
    doubles = np.zeros_like(length)
    most = int(length.max()) + 1
    keys, scores = [], []
    while len(node):
        keys.append((node * most + length) * most + doubles)
        scores.append(score)
        parent = trie.parent[node]
        doubles = doubles + (trie.letter[node] == trie.letter[parent])
        above = parent >= 0
        node, length = parent[above].astype(np.int64), length[above]
        doubles, score = doubles[above], score[above]
    key, value = np.concatenate(keys), np.concatenate(scores)
    order = np.lexsort((-value, key))
    key, value = key[order], value[order]
    best = np.append(True, key[1:] != key[:-1])
    key, value = key[best], value[best]
    owner, rest = np.divmod(key, most * most)
    start = np.searchsorted(owner, np.arange(len(trie.word) + 1)).astype(np.int32)
    length, doubles = np.divmod(rest, most)
    return Endings(start, length.astype(np.int16), doubles.astype(np.int16), value)
