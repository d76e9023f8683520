"""The exact oracle: the probability of every word of a lexicon, nothing pruned.

What the beam search is judged by. It takes a fraction of a second per swipe.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from swipe.beam import child_of
from swipe.compiled import compiled
from swipe.decode import require_sound, tempered
from swipe.lexicon import Lexicon
from swipe.presets import DecoderPreset


def exact_scores(
    log_probs: NDArray[np.floating], lexicon: Lexicon, *, double_penalty: float = math.inf
) -> NDArray[np.float64]:
    """Log of the CTC probability of every lexicon word, summed over all alignments.

    Depth-first over the trie in the probability domain, each frame scaled by its largest
    probability.

    Args:
        log_probs: ``[T, K + 1]``, log-softmax of the logits, blank last.
        lexicon: the words.
        double_penalty: as in `DecoderPreset`; infinite counts the word's own alignments only.

    Returns:
        float64[len(lexicon)], -Inf for words with no alignment.
    """
    require_sound(log_probs[None])
    trie = lexicon.trie
    values = np.asarray(log_probs, dtype=np.float64)
    top = values.max(axis=1, keepdims=True)
    probability = _exact(
        np.exp(values - top), trie.first_child, trie.child_mask, trie.letter, trie.depth,
        trie.word, len(lexicon), math.exp(-double_penalty),
    )  # fmt: skip
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(probability) + top.sum(), dtype=np.float64)


def exact_ranking(
    log_probs: NDArray[np.floating], lexicon: Lexicon, preset: DecoderPreset
) -> NDArray[np.float64]:
    """The score that `preset` gives every lexicon word: float64[len(lexicon)]; see `exact_scores`.

    Args:
        log_probs: ``[T, K + 1]``, log-softmax of the logits, blank last.
        lexicon: the words.
        preset: the final score's weights; those of the search play no part.
    """
    sharpened = tempered(log_probs, preset.temperature)
    ctc = exact_scores(sharpened, lexicon, double_penalty=preset.double_penalty)
    return weigh(ctc, lexicon, preset)


def weigh(ctc: NDArray[np.float64], lexicon: Lexicon, preset: DecoderPreset) -> NDArray[np.float64]:
    """The scores of `exact_ranking` from ``ctc``, what `exact_scores` gave with its penalty."""
    lengths = np.array([len(word) for word in lexicon.words])
    prior = preset.lam * lexicon.log_prob.astype(np.float64) + preset.beta * lengths
    ranking: NDArray[np.float64] = ctc / lengths**preset.gamma + prior
    return ranking


@compiled()
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
        child = child_of(first_child, child_mask, 0, c)
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
            child = child_of(first_child, child_mask, node, k)
            if child >= 0:
                stack[size] = child
                size += 1
    return result
