"""Logits -> words: greedy decoding, the trie beam search, and the exact oracle.

The beam search keeps one hypothesis per trie node, because a node *is* a prefix, with the CTC
probabilities of ending in blank and in its letter. Doubled letters also accept their collapsed
form: fingers do not pause on the second ``l`` of "hello", at a price, or "off" would win over "of".

Score of a word of L letters: ``ctc / L**gamma + lam * log p(word) + beta * L``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from swipe.contract import ALPHABET
from swipe.errors import ConfigError, GateError, NonFiniteError
from swipe.lexicon import Lexicon, Trie

_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class DecoderPreset:
    """Settings of the beam search, tuned on development swipes only.

    Attributes:
        beam_width: hypotheses kept per frame.
        top_classes: letters per frame that may extend a hypothesis.
        gamma: exponent of the length that divides the CTC score.
        lam: weight of the word's log probability.
        beta: bonus per letter.
        gamma_prune: exponent of the depth that divides a hypothesis's score when pruning.
        beta_prune: bonus per letter when pruning.
        lam_prune: weight, when pruning, of the log probability of the most frequent word that
            the hypothesis can still become.
        double_penalty: log-probability charged for each doubled letter that was swiped once
            ("helo" read as "hello"); infinite to refuse that.
    """

    beam_width: int = 100
    top_classes: int = 16
    gamma: float = 0.5
    lam: float = 0.17
    beta: float = 0.85
    gamma_prune: float = 0.4
    beta_prune: float = 0.97
    lam_prune: float = 0.05
    double_penalty: float = 4.0

    def __post_init__(self) -> None:
        if self.beam_width < 1 or self.top_classes < 1 or not self.double_penalty >= 0:
            raise ConfigError(
                f"beam width {self.beam_width}, {self.top_classes} classes a frame, penalty "
                f"{self.double_penalty}",
                fix="use a width and classes of at least 1, and a penalty of at least 0",
            )


DEFAULT_PRESET = DecoderPreset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A decoded word and its score; higher is better, scores of different swipes don't compare."""

    word: str
    score: float


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def greedy(logits: NDArray[np.floating], letters: str = ALPHABET) -> list[str]:
    """Best class per frame, repeats merged, blanks dropped: ``[B, T, K + 1]`` -> B strings."""
    _require_sound(logits, letters)
    blank = len(letters)
    words = []
    for best in np.asarray(logits).argmax(axis=-1):
        previous = np.concatenate([[blank], best[:-1]])
        words.append("".join(letters[c] for c in best[(best != previous) & (best != blank)]))
    return words


class BeamDecoder:
    """Beam search over one lexicon; holds the buffers, so one decoder serves one thread."""

    def __init__(self, lexicon: Lexicon, preset: DecoderPreset = DEFAULT_PRESET) -> None:
        self.lexicon = lexicon
        self.preset = preset
        nodes = len(lexicon.trie.word)
        self._slot = np.zeros(nodes, dtype=np.int32)
        self._stamp = np.zeros(nodes, dtype=np.int64)
        self._clock = 0
        self._longest_run = _longest_run(lexicon.trie)

    def decode(self, log_probs: NDArray[np.floating], n: int = 8) -> list[Candidate]:
        """The `n` best words of one swipe.

        Args:
            log_probs: ``[T >= 1, K + 1]``, log-softmax of the logits, blank last.
            n: how many candidates at most.

        Raises:
            NonFiniteError: a value is NaN or infinite.
            GateError: the shape does not fit the alphabet.
        """
        _require_sound(log_probs[None], ALPHABET)
        trie, preset = self.lexicon.trie, self.preset
        words, scores = _beam(
            np.ascontiguousarray(log_probs, dtype=np.float64),
            trie.first_child, trie.child_mask, trie.letter, trie.depth, trie.word,
            self.lexicon.log_prob, self.lexicon.lookahead, self._slot, self._stamp, self._clock,
            self._longest_run,
            preset.beam_width, preset.top_classes, preset.gamma, preset.lam, preset.beta,
            preset.gamma_prune, preset.beta_prune, preset.lam_prune, preset.double_penalty,
        )  # fmt: skip
        self._clock += len(log_probs)
        best = np.lexsort((words, -scores))[:n]
        return [Candidate(self.lexicon.words[words[i]], float(scores[i])) for i in best]

    def decode_batch(self, logits: NDArray[np.floating], n: int = 8) -> list[list[Candidate]]:
        """`decode` of each swipe of raw ``logits [B, T, K + 1]``."""
        _require_sound(logits, ALPHABET)
        return [self.decode(row, n) for row in log_softmax(logits)]

    def decode_words(self, logits: NDArray[np.floating], n: int = 8) -> list[list[str]]:
        """`decode_batch` without the scores: candidates per swipe, best first."""
        return [[candidate.word for candidate in row] for row in self.decode_batch(logits, n)]


def exact_scores(
    log_probs: NDArray[np.floating], lexicon: Lexicon, *, double_penalty: float = math.inf
) -> NDArray[np.float64]:
    """The oracle: log of the CTC probability of every lexicon word, summed over all alignments.

    Depth-first over the trie in the probability domain, each frame scaled by its largest
    probability. No pruning, so it takes a fraction of a second per swipe.

    Args:
        log_probs: ``[T, K + 1]``, log-softmax of the logits, blank last.
        lexicon: the words.
        double_penalty: as in `DecoderPreset`; infinite counts the word's own alignments only.

    Returns:
        float64[len(lexicon)], -Inf for words with no alignment.
    """
    _require_sound(log_probs[None], ALPHABET)
    trie = lexicon.trie
    values = np.asarray(log_probs, dtype=np.float64)
    top = values.max(axis=1, keepdims=True)
    probability = _exact(
        np.exp(values - top), trie.first_child, trie.child_mask, trie.letter, trie.depth,
        trie.word, len(lexicon), math.exp(-double_penalty),
    )  # fmt: skip
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(probability) + top.sum(), dtype=np.float64)


def _longest_run(trie: Trie) -> int:
    """Most equal letters in a row in any word: how far one arrival can reach."""
    run = np.zeros(len(trie.letter), dtype=np.int64)
    for depth in range(1, int(trie.depth[-1]) + 1):
        first, last = np.searchsorted(trie.depth, [depth, depth + 1])
        parent = trie.parent[first:last]
        repeated = trie.letter[first:last] == trie.letter[parent]
        run[first:last] = 1 + repeated * run[parent]
    return int(run.max())


def _require_sound(logits: NDArray[np.floating], letters: str) -> None:
    if logits.ndim != 3 or logits.shape[1] < 1 or logits.shape[2] != len(letters) + 1:
        raise GateError(
            f"logits of shape {logits.shape}, expected [B, T >= 1, {len(letters) + 1}]",
            fix="use the model and the alphabet of one contract",
        )
    if not np.isfinite(logits).all():
        bad = int(logits.size - np.isfinite(logits).sum())
        raise NonFiniteError(
            f"{bad} of {logits.size} logits are NaN or Inf", fix="check the model that gave them"
        )


@numba.njit(cache=True, nogil=True)
def _log_add(a, b):  # type: ignore[no-untyped-def]
    if a < b:
        a, b = b, a
    return a if b == _NEVER else a + math.log1p(math.exp(b - a))


@numba.njit(cache=True, nogil=True)
def _child(first_child, child_mask, node, c):  # type: ignore[no-untyped-def]
    """Index of the child by class `c`, or -1."""
    mask = child_mask[node]
    bit = np.uint32(1) << np.uint32(c)
    if mask & bit == 0:
        return -1
    below = mask & (bit - np.uint32(1))
    count = 0
    while below:
        below &= below - np.uint32(1)
        count += 1
    return first_child[node] + count


@numba.njit(cache=True, nogil=True)
def _beam(  # type: ignore[no-untyped-def]
    log_probs, first_child, child_mask, letter, depth, word, log_prior, lookahead,
    slot, stamp, clock, longest_run,
    width, top_classes, gamma, lam, beta, gamma_prune, beta_prune, lam_prune, double_penalty,
):  # fmt: skip
    frames, classes = log_probs.shape
    blank = classes - 1
    top_classes = min(top_classes, blank)
    # Each hypothesis stays and extends by every top class, along a run of that letter at most:
    # nothing below may write past this.
    capacity = width * (1 + longest_run * top_classes) + 1
    nodes = np.zeros(capacity, dtype=np.int32)
    in_blank = np.full(capacity, _NEVER)
    in_letter = np.full(capacity, _NEVER)
    next_nodes = np.zeros(capacity, dtype=np.int32)
    next_blank = np.full(capacity, _NEVER)
    next_letter = np.full(capacity, _NEVER)
    keys = np.empty(capacity)
    best_classes = np.empty(top_classes, dtype=np.int64)
    in_blank[0] = 0.0
    size = 1
    for t in range(frames):
        frame = log_probs[t]
        tick = clock + t + 1
        _select_classes(frame, blank, best_classes)
        count = 0
        for i in range(size):
            node = nodes[i]
            last = letter[node]
            total = _log_add(in_blank[i], in_letter[i])
            if stamp[node] != tick:
                stamp[node] = tick
                slot[node] = count
                next_nodes[count], next_blank[count], next_letter[count] = node, _NEVER, _NEVER
                count += 1
            here = slot[node]
            next_blank[here] = _log_add(next_blank[here], total + frame[blank])
            if last >= 0:
                stay = in_letter[i] + frame[last]
                next_letter[here] = _log_add(next_letter[here], stay)
            for c in best_classes:
                child = _child(first_child, child_mask, node, c)
                if child < 0:
                    continue
                arriving = (in_blank[i] if c == last else total) + frame[c]
                while child >= 0 and arriving > _NEVER:
                    if stamp[child] != tick:
                        stamp[child] = tick
                        slot[child] = count
                        next_nodes[count] = child
                        next_blank[count], next_letter[count] = _NEVER, _NEVER
                        count += 1
                    at = slot[child]
                    next_letter[at] = _log_add(next_letter[at], arriving)
                    child = _child(first_child, child_mask, child, c)
                    arriving -= double_penalty
        # Keep the `width` best; of equal keys the earlier, so that results are repeatable.
        for i in range(count):
            d = max(1.0, float(depth[next_nodes[i]]))
            mass = _log_add(next_blank[i], next_letter[i])
            keys[i] = mass / d**gamma_prune + beta_prune * depth[next_nodes[i]]
            keys[i] += lam_prune * lookahead[next_nodes[i]]
        threshold, ties = _NEVER, count
        if count > width:
            threshold = np.partition(keys[:count], count - width)[count - width]
            ties = width - np.sum(keys[:count] > threshold)
        size = 0
        for i in range(count):
            if keys[i] < threshold:
                continue
            if keys[i] == threshold:
                if ties == 0:
                    continue
                ties -= 1
            nodes[size] = next_nodes[i]
            in_blank[size], in_letter[size] = next_blank[i], next_letter[i]
            size += 1
    words = np.empty(size, dtype=np.int64)
    scores = np.empty(size)
    found = 0
    for i in range(size):
        index = word[nodes[i]]
        if index >= 0:
            length = float(depth[nodes[i]])
            mass = _log_add(in_blank[i], in_letter[i])
            words[found] = index
            scores[found] = mass / length**gamma + lam * log_prior[index] + beta * length
            found += 1
    return words[:found], scores[:found]


@numba.njit(cache=True, nogil=True)
def _select_classes(frame, blank, out):  # type: ignore[no-untyped-def]
    """The len(out) likeliest letters of a frame, by insertion; ties go to the lower class."""
    filled = 0
    for c in range(blank):
        if filled == len(out) and frame[c] <= frame[out[filled - 1]]:
            continue
        i = filled if filled < len(out) else filled - 1
        while i > 0 and frame[out[i - 1]] < frame[c]:
            out[i] = out[i - 1]
            i -= 1
        out[i] = c
        if filled < len(out):
            filled += 1


@numba.njit(cache=True, nogil=True)
def _exact(  # type: ignore[no-untyped-def]
    probs, first_child, child_mask, letter, depth, word, count, double_share
):
    frames, classes = probs.shape
    blank = classes - 1
    deepest = depth.max() + 1
    # Index 0 of the time axis is "before the first frame".
    in_blank = np.zeros((deepest, frames + 1))
    in_letter = np.zeros((deepest, frames + 1))
    arrivals = np.zeros((deepest, frames + 1))
    result = np.zeros(count)
    in_blank[0, 0] = 1.0
    for t in range(frames):
        in_blank[0, t + 1] = in_blank[0, t] * probs[t, blank]
    stack = np.empty(len(word), dtype=np.int32)
    size = 0
    for c in range(blank):
        child = _child(first_child, child_mask, 0, c)
        if child >= 0:
            stack[size] = child
            size += 1
    previous = np.full(deepest, -1, dtype=np.int64)
    while size:
        size -= 1
        node = stack[size]
        d, c = depth[node], letter[node]
        previous[d] = c
        doubled = d > 1 and previous[d - 1] == c
        for t in range(frames):
            source = in_blank[d - 1, t]
            if not doubled:
                source += in_letter[d - 1, t]
            arriving = source * probs[t, c]
            if doubled:
                arriving += arrivals[d - 1, t + 1] * double_share
            arrivals[d, t + 1] = arriving
            in_letter[d, t + 1] = in_letter[d, t] * probs[t, c] + arriving
            in_blank[d, t + 1] = (in_blank[d, t] + in_letter[d, t]) * probs[t, blank]
        if word[node] >= 0:
            result[word[node]] = in_blank[d, frames] + in_letter[d, frames]
        for k in range(blank):
            child = _child(first_child, child_mask, node, k)
            if child >= 0:
                stack[size] = child
                size += 1
    return result
