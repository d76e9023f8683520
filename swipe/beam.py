"""The compiled search, best first: frames x trie -> the best words with their exact probabilities.

A prefix is met once, with the probability that its last letter begins at each frame. From that
follows a bound on the score of every word below it: for each length of word there, the probability
of the prefix and then of the likeliest letters, whichever, that the remaining frames give in the
number that is missing (`forecast`), scored like a word. The bound of a word itself is its score,
over all alignments.

Prefixes are extended in the order of their bounds, less a price per missing letter. None is
extended whose bound lies below the worst of the words asked for; when no other is left, no word of
the trie is better than those found. Else the search ends when its extensions are used up.

It follows any weighting of prior and length. Everything is in the probability domain, each frame
scaled by its largest probability: a word less than 1e-300 times as likely as the best path is not
found.
"""

from __future__ import annotations

import heapq
import math

import numpy as np

from swipe.compiled import compiled

_NEVER = -math.inf

LETTER_PRICE = 2.0
"""Nats per missing letter, in the order of extension only: a word's own letters are less likely
than the likeliest ones, and a search that forgets it goes through all the short prefixes first."""

_ROOM = 512
"""Prefixes that there is room for at first; it doubles when they are more."""


@compiled()
def child_of(first_child, child_mask, node, c):  # type: ignore[no-untyped-def]
    """Index of the child by class `c`, or -1; the arrays are those of `swipe.trie.Trie`."""
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


@compiled()
def forecast(probs, longest):  # type: ignore[no-untyped-def]
    """Probability that the remaining frames give k more letters: those that make it the highest.

    At every step the likeliest letter is taken, so no string of k letters is likelier.

    Args:
        probs: float64[T, K + 1], frames by class, blank last.
        longest: most missing letters.

    Returns:
        float64[K, longest + 1, T], by the letter c that frame t gave, letters to come, and t.
    """
    frames, classes = probs.shape
    blank = classes - 1
    result = np.zeros((blank, longest + 1, frames))
    # after_blank[k], after_letter[k, c]: the frames from t on give k letters, when the frame
    # before was blank or letter c, whose repetition gives none.
    after_blank = np.zeros(longest + 1)
    after_letter = np.zeros((longest + 1, blank))
    after_blank[0] = 1.0
    after_letter[0] = 1.0
    for t in range(frames - 1, -1, -1):
        frame = probs[t]
        for k in range(min(longest, frames - 1 - t) + 1):
            for c in range(blank):
                result[c, k, t] = after_letter[k, c]
        for k in range(min(longest, frames - t), -1, -1):
            best, second, likeliest = 0.0, 0.0, -1
            if k > 0:
                for c in range(blank):
                    by = frame[c] * after_letter[k - 1, c]
                    if by > best:
                        best, second, likeliest = by, best, c
                    elif by > second:
                        second = by
            pause = frame[blank] * after_blank[k]
            for c in range(blank):
                other = second if c == likeliest else best
                after_letter[k, c] = pause + other + frame[c] * after_letter[k, c]
            after_blank[k] = pause + best
    return result


@compiled(fastmath={"reassoc", "contract", "nsz"})
def _dot(a, b):  # type: ignore[no-untyped-def]
    """Sum of products; in whatever order, so that it is compiled to vector instructions."""
    total = 0.0
    for t in range(len(a)):
        total += a[t] * b[t]
    return total


@compiled()
def search(  # type: ignore[no-untyped-def]
    probs, log_scale, first_child, child_mask, letter, depth, word, start, ending, bonus,
    length_bits, most_doubles, extensions, floor, gamma, double_share, n,
):  # fmt: skip
    """The best words of one swipe and their scores, best first.

    Args:
        probs: float64[T, K + 1], frames by class, blank last, each scaled at will.
        log_scale: what that scaling took from the log probability of every word.
        first_child, child_mask, letter, depth, word: see `swipe.trie.Trie`.
        start: see `swipe.trie.Endings`.
        ending: int32[E], ``(doubles << length_bits) + length`` of the endings.
        bonus: float64[E], what each ending's prior and length add to the score.
        length_bits: of the letters of the longest word.
        most_doubles: most doubled letters in any word.
        extensions: most prefixes to extend.
        floor: words of less than this share of the likeliest word found are not looked for.
        gamma: exponent of the length that divides a word's log probability.
        double_share: factor for each doubled letter that was swiped once.
        n: how many words at most, 1 or more.

    Returns:
        int64[W <= n] word indices and float64[W] scores.
    """
    frames, blank = len(probs), probs.shape[1] - 1
    lengths, doubled_gain = 1 << length_bits, math.log1p(double_share)
    columns = np.ascontiguousarray(probs.T)
    ahead = forecast(probs, lengths - 1)
    highest = np.zeros((blank, frames))
    for missing in range(lengths):
        highest = np.maximum(highest, ahead[:, missing])
    weight = np.ones(lengths)
    for length in range(1, lengths):
        weight[length] = float(length) ** -gamma
    words, scores = np.full(n, -1, dtype=np.int64), np.full(n, _NEVER)
    nodes, bounds = np.zeros(_ROOM, dtype=np.int32), np.full(_ROOM, math.inf)
    begins = np.zeros((_ROOM, frames))
    after_blank, after_any, reach = np.empty(frames), np.empty(frames), np.zeros(lengths)
    queue, size, extended, least = [(0.0, 0)], 1, 0, 0.0
    while len(queue) > 0 and extended < extensions:
        at = heapq.heappop(queue)[1]
        if bounds[at] < scores[-1]:
            continue
        extended += 1
        if size + blank > len(nodes):
            nodes = np.concatenate((nodes, np.zeros_like(nodes)))
            bounds = np.concatenate((bounds, np.zeros_like(bounds)))
            begins = np.concatenate((begins, np.zeros_like(begins)))
        node = nodes[at]
        mask, last, child = child_mask[node], letter[node], first_child[node] - 1
        _follow(columns, begins[at], last, after_blank, after_any)
        for c in range(blank):
            if mask >> np.uint32(c) == 0:
                break
            if mask >> np.uint32(c) & np.uint32(1) == 0:
                continue
            child += 1
            begin = begins[size]
            for t in range(frames):
                if c == last:
                    begin[t] = after_blank[t] * columns[c, t] + double_share * begins[at, t]
                else:
                    begin[t] = after_any[t] * columns[c, t]
            rough = _dot(begin, highest[c])
            if not rough > least:
                continue
            first, stop = _worthwhile(
                math.log(rough) + log_scale, scores[-1], start[child], start[child + 1], ending,
                bonus, weight, length_bits, doubled_gain,
            )  # fmt: skip
            if first == stop:
                continue
            nearest = (ending[first] & (lengths - 1)) - depth[child]
            furthest = (ending[stop - 1] & (lengths - 1)) - depth[child]
            for missing in range(max(nearest - most_doubles, 0), furthest + 1):
                reach[missing] = _dot(begin, ahead[c, missing])
            bound, urgency = _bound(
                reach, least, log_scale, depth[child], first, stop, ending, bonus, weight,
                length_bits, double_share,
            )  # fmt: skip
            if nearest == 0 and reach[0] > least:
                least = max(least, floor * reach[0])
                score = (math.log(reach[0]) + log_scale) * weight[depth[child]] + bonus[first]
                _insert(words, scores, word[child], score)
            if child_mask[child] != 0 and bound > _NEVER and bound >= scores[-1]:
                nodes[size], bounds[size] = child, bound
                heapq.heappush(queue, (-urgency, size))
                size += 1
    found = np.sum(words >= 0)
    return words[:found], scores[:found]


@compiled()
def _follow(columns, begin, last, after_blank, after_any):  # type: ignore[no-untyped-def]
    """Probability of having spelled the prefix before each frame: ending in blank, and in all.

    The root, whose `last` is below 0, has been spelled before the first frame.
    """
    blank = len(columns) - 1
    in_blank, in_letter = (1.0, 0.0) if last < 0 else (0.0, 0.0)
    for t in range(len(begin)):
        total = in_blank + in_letter
        after_blank[t], after_any[t] = in_blank, total
        in_blank = total * columns[blank, t]
        if last >= 0:
            in_letter = in_letter * columns[last, t] + begin[t]


@compiled()
def _worthwhile(  # type: ignore[no-untyped-def]
    reach, worst, first, stop, ending, bonus, weight, length_bits, doubled_gain
):
    """Those of the endings ``first : stop`` that may score `worst` or more: a part of the range.

    Args:
        reach: log probability of the prefix and the likeliest letters of the best number.
        worst: score.
        doubled_gain: log of what one doubled letter can add to the probability.
        ending, bonus, weight, length_bits: as in `search`.
    """
    begin, end, low_bits = stop, stop, (1 << length_bits) - 1
    for e in range(first, stop):
        doubles, length = ending[e] >> length_bits, ending[e] & low_bits
        if (reach + doubled_gain * doubles) * weight[length] + bonus[e] >= worst:
            begin, end = min(begin, e), e + 1
    return begin, end


@compiled()
def _bound(  # type: ignore[no-untyped-def]
    reach, least, log_scale, depth, first, stop, ending, bonus, weight, length_bits, double_share
):
    """A bound on the score of the endings, and the same less the price of the missing letters.

    Args:
        reach: probability of the prefix and the likeliest letters, by their number.
        least: endings of a smaller probability do not count.
        depth: letters of the prefix.
        first, stop: range of the endings.
        log_scale, ending, bonus, weight, length_bits, double_share: as in `search`.
    """
    bound, urgency, low_bits = _NEVER, _NEVER, (1 << length_bits) - 1
    for e in range(first, stop):
        doubles, length = ending[e] >> length_bits, ending[e] & low_bits
        missing = length - depth
        total, ways = reach[missing], 1.0
        for collapsed in range(1, min(doubles, missing) + 1):
            ways *= double_share * (doubles - collapsed + 1) / collapsed
            total += ways * reach[missing - collapsed]
        if total > least:
            score = (math.log(total) + log_scale) * weight[length] + bonus[e]
            bound = max(bound, score)
            urgency = max(urgency, score - LETTER_PRICE * missing * weight[length])
    return bound, urgency


@compiled()
def _insert(words, scores, word, score):  # type: ignore[no-untyped-def]
    """Put a word in its place among the best, if it is one of them; of equal ones after them."""
    at = len(scores)
    while at > 0 and scores[at - 1] < score:
        at -= 1
    if at < len(scores):
        words[at + 1 :], scores[at + 1 :] = words[at:-1].copy(), scores[at:-1].copy()
        words[at], scores[at] = word, score
