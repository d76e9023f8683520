"""The compiled beam search: frames x trie -> words with their exact CTC probabilities.

One hypothesis per trie node, because a node *is* a prefix, with the probabilities of ending in
blank and in its letter. Everything is in the probability domain, each frame scaled by its largest
probability: a word less than 1e-300 times as likely as the best path is not found.

Hypotheses are compared by the best final score they can still reach: for every length of word below
the node, the probability so far times that of the remaining frames giving just the letters that
are missing (`forecast`), scored like a word. So the pruning follows any weighting of prior and
length, and needs no settings of its own.

The words that are left get their probability anew, over all alignments: those that pruning cut off
on the way do not count against them.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_NEVER = -math.inf


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def forecast(probs, double_share, most_doubles, longest):  # type: ignore[no-untyped-def]
    """Log probability that the frames from t on give k more letters, whichever.

    Args:
        probs: float64[T, K + 1], frames by class, blank last.
        double_share: factor for each doubled letter that was swiped once.
        most_doubles: of the missing letters, how many may be doubled ones.
        longest: most missing letters.

    Returns:
        float64[T + 1, most_doubles + 1, longest + 1], by frame, doubled letters, letters.
    """
    frames, classes = probs.shape
    blank = classes - 1
    reach = min(longest, frames) + 1
    result = np.full((frames + 1, most_doubles + 1, longest + 1), _NEVER)
    # after_blank[k], after_letter[k, c]: the frames from t on give k letters, when the frame
    # before was blank or letter c, whose repetition gives none.
    after_blank = np.zeros(longest + 1)
    after_letter = np.zeros((reach, blank))
    after_blank[0] = 1.0
    after_letter[0] = 1.0
    for t in range(frames, -1, -1):
        if t < frames:
            for k in range(reach - 1, -1, -1):
                new = 0.0
                if k > 0:
                    for c in range(blank):
                        new += probs[t, c] * after_letter[k - 1, c]
                new += probs[t, blank] * after_blank[k]
                after_blank[k] = new
                for c in range(blank):
                    fewer = after_letter[k - 1, c] if k > 0 else 0.0
                    change = probs[t, c] * (after_letter[k, c] - fewer)
                    after_letter[k, c] = max(new + change, 0.0)
        for doubles in range(most_doubles + 1):
            for k in range(longest + 1):
                total, ways = 0.0, 1.0
                for collapsed in range(min(doubles, k) + 1):
                    total += ways * after_blank[k - collapsed]
                    ways *= double_share * (doubles - collapsed) / (collapsed + 1)
                if total > 0.0:
                    result[t, doubles, k] = math.log(total)
    return result


@numba.njit(cache=True, nogil=True)
def search(  # type: ignore[no-untyped-def]
    probs, log_scale, first_child, child_mask, letter, depth, word, parent,
    start, ending, bonus, place, clock, longest_run, lengths, most_doubles,
    width, floor, gamma, double_share,
):  # fmt: skip
    """Words of one swipe and their scores, in no order.

    Args:
        probs: float64[T, K + 1], frames by class, blank last, each scaled at will.
        log_scale: what that scaling took from the log probability of every word.
        first_child, child_mask, letter, depth, word, parent: see `swipe.trie.Trie`.
        start: see `swipe.trie.Endings`.
        ending: int32[E], ``doubles * lengths + length`` of the endings.
        bonus: float64[E], what each ending's prior and length add to the score.
        place: int64[N], working memory: when each node was last met, and where it stands.
        clock: number of frames this memory has seen.
        longest_run: most equal letters in a row in any word.
        lengths: power of two above the letters of the longest word.
        most_doubles: most doubled letters in any word.
        width: hypotheses kept per frame.
        floor: share of a frame's likeliest hypothesis below which none is extended.
        gamma: exponent of the length that divides a word's log probability.
        double_share: factor for each doubled letter that was swiped once.

    Returns:
        int64[W] word indices and float64[W] scores.
    """
    frames, classes = probs.shape
    blank = classes - 1
    outlook = forecast(probs, double_share, most_doubles, lengths - 1).reshape(frames + 1, -1)
    weight = np.ones(lengths)
    for length in range(1, lengths):
        weight[length] = float(length) ** -gamma
    # Each hypothesis stays and extends by every letter, along a run of that letter at most:
    # nothing below may write past this.
    capacity = width * (1 + longest_run * blank) + 1
    nodes = np.zeros(capacity, dtype=np.int32)
    in_blank = np.zeros(capacity)
    in_letter = np.zeros(capacity)
    next_nodes = np.zeros(capacity, dtype=np.int32)
    next_blank = np.zeros(capacity)
    next_letter = np.zeros(capacity)
    keys = np.empty(capacity)
    in_blank[0] = 1.0
    size = 1
    for t in range(frames):
        frame = probs[t]
        now = (clock + t + 1) << 32
        least = floor * (in_blank[:size] + in_letter[:size]).max() if size else 0.0
        count = 0
        for i in range(size):
            node, before_blank, before_letter = nodes[i], in_blank[i], in_letter[i]
            last = letter[node]
            total = before_blank + before_letter
            if place[node] < now:
                place[node] = now + count
                next_nodes[count], next_blank[count], next_letter[count] = node, 0.0, 0.0
                count += 1
            here = place[node] - now
            next_blank[here] += total * frame[blank]
            if last >= 0:
                next_letter[here] += before_letter * frame[last]
            mask, child = child_mask[node], first_child[node] - 1
            for c in range(blank):
                if mask >> np.uint32(c) == 0:
                    break
                if mask >> np.uint32(c) & np.uint32(1) == 0:
                    continue
                child += 1
                arriving = (before_blank if c == last else total) * frame[c]
                reached = child
                while reached >= 0 and arriving > least:
                    if place[reached] < now:
                        place[reached] = now + count
                        next_nodes[count], next_blank[count] = reached, 0.0
                        next_letter[count] = 0.0
                        count += 1
                    next_letter[place[reached] - now] += arriving
                    reached = child_of(first_child, child_mask, reached, c)
                    arriving *= double_share
        # Unsigned indices spare the compiler the question whether they count from the end.
        ahead, low_bits = outlook[t + 1], np.uint32(lengths - 1)
        for i in range(count):
            node = next_nodes[i]
            mass = next_blank[i] + next_letter[i]
            key = _NEVER
            if mass > 0.0:
                so_far, offset = math.log(mass) + log_scale, np.uint32(depth[node])
                for e in range(np.uint64(start[node]), np.uint64(start[node + 1])):
                    at = np.uint32(ending[e])
                    reach = so_far + ahead[np.uint64(at - offset)]
                    score = reach * weight[np.uint64(at & low_bits)] + bonus[e]
                    if score > key:
                        key = score
            keys[i] = key
        size = _keep(keys, count, width, next_nodes, next_blank, next_letter, nodes, in_blank,
                     in_letter)  # fmt: skip
    return _rescore(probs, log_scale, nodes[:size], letter, depth, word, parent, start, bonus,
                    weight, double_share)  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _keep(  # type: ignore[no-untyped-def]
    keys, count, width, from_nodes, from_blank, from_letter, nodes, in_blank, in_letter
):
    """Move the `width` best over; of equal keys the earlier, so that results are repeatable."""
    threshold, ties = _NEVER, 0
    if count > width:
        threshold = np.partition(keys[:count], count - width)[count - width]
        ties = width - np.sum(keys[:count] > threshold)
    size = 0
    for i in range(count):
        if keys[i] == _NEVER or keys[i] < threshold:
            continue
        if keys[i] == threshold:
            if ties == 0:
                continue
            ties -= 1
        nodes[size], in_blank[size], in_letter[size] = from_nodes[i], from_blank[i], from_letter[i]
        size += 1
    return size


@numba.njit(cache=True, nogil=True)
def _rescore(  # type: ignore[no-untyped-def]
    probs, log_scale, nodes, letter, depth, word, parent, start, bonus, weight, double_share
):
    """Final scores of the words that end at `nodes`, over all their alignments."""
    frames, classes = probs.shape
    blank = classes - 1
    words = np.empty(len(nodes), dtype=np.int64)
    scores = np.empty(len(nodes))
    spelling = np.empty(len(weight), dtype=np.int64)
    # Index 0 of the time axis is "before the first frame".
    in_blank = np.empty(frames + 1)
    in_letter = np.empty(frames + 1)
    arrivals = np.empty(frames)
    found = 0
    for node in nodes:
        if word[node] < 0:
            continue
        length, above = depth[node], node
        for k in range(length - 1, -1, -1):
            spelling[k] = letter[above]
            above = parent[above]
        in_blank[0], in_letter[:], arrivals[:] = 1.0, 0.0, 0.0
        for t in range(frames):
            in_blank[t + 1] = in_blank[t] * probs[t, blank]
        for k in range(length):
            c = spelling[k]
            doubled = k > 0 and spelling[k - 1] == c
            source_blank, source_letter = in_blank[0], in_letter[0]
            in_blank[0], in_letter[0] = 0.0, 0.0
            now_blank, now_letter = 0.0, 0.0
            for t in range(frames):
                source = source_blank if doubled else source_blank + source_letter
                arriving = source * probs[t, c]
                if doubled:
                    arriving += arrivals[t] * double_share
                arrivals[t] = arriving
                source_blank, source_letter = in_blank[t + 1], in_letter[t + 1]
                now_blank = (now_blank + now_letter) * probs[t, blank]
                now_letter = now_letter * probs[t, c] + arriving
                in_blank[t + 1], in_letter[t + 1] = now_blank, now_letter
        mass = in_blank[frames] + in_letter[frames]
        words[found] = word[node]
        # A word is the first ending of its own node: every other one is longer.
        scores[found] = (math.log(mass) + log_scale) * weight[length] + bonus[start[node]]
        found += 1
    return words[:found], scores[:found]
