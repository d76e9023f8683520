"""The word loss is the decoder's own score, and following its gradient makes the right word win."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from swipe.contract import ALPHABET, FRAMES
from swipe.decode import log_softmax
from swipe.lexicon import Lexicon
from swipe.oracle import exact_scores
from swipe.presets import DEFAULT_PRESET
from train.config import WordLossConfig
from train.stream import encode
from train.word_loss import WordLoss

WORDS = ("cat", "cot", "cut", "dog", "dogs", "of", "off", "on")
LEXICON = Lexicon(
    "few", WORDS, np.log(np.array([8, 1, 2, 4, 1, 20, 2, 30]) / 68).astype(np.float32)
)
ALL = WordLossConfig(share=1.0, candidates=100, beam_width=1000, sharpness=1.0)


def labels(words: list[str]) -> tuple[Tensor, Tensor]:
    targets, lengths = encode(words, ALPHABET, max(map(len, words)))
    return torch.from_numpy(targets).long(), torch.from_numpy(lengths)


def random_logits(seed: int, count: int = 1, frames: int = 8) -> Tensor:
    """Likely are the letters of the lexicon and the blank only: the search takes 16 a frame."""
    logits = np.random.default_rng(seed).normal(0, 2, (count, frames, 27)).astype(np.float32)
    logits[:, :, [c for c, letter in enumerate(ALPHABET) if letter not in "".join(WORDS)]] = -20.0
    return torch.from_numpy(logits)


def decoder_scores(logits: Tensor) -> np.ndarray:
    """By the oracle, without any beam."""
    ctc = exact_scores(log_softmax(logits.numpy()), LEXICON)
    length = np.array([len(word) for word in WORDS])
    preset = DEFAULT_PRESET
    return ctc / length**preset.gamma + preset.lam * LEXICON.log_prob + preset.beta * length


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), word=st.sampled_from(WORDS))
def test_it_is_the_cross_entropy_of_the_decoder_s_scores(seed: int, word: str) -> None:
    logits = random_logits(seed)
    scores = decoder_scores(logits[0])
    expected = np.log(np.exp(scores - scores.max()).sum()) + scores.max()
    loss = WordLoss(LEXICON, ALL)(logits, *labels([word]))
    assert float(loss) == pytest.approx(expected - scores[WORDS.index(word)], rel=1e-4, abs=1e-4)


def test_its_gradient_makes_the_right_words_win() -> None:
    words = ["cot", "dogs", "off"]
    logits = random_logits(0, count=3, frames=FRAMES).requires_grad_()
    loss = WordLoss(LEXICON, WordLossConfig(share=1.0, candidates=3))
    before = [WORDS[decoder_scores(row.detach()).argmax()] for row in logits]
    for _ in range(60):
        (gradient,) = torch.autograd.grad(loss(logits, *labels(words)), logits)
        logits = (logits - 20.0 * gradient).detach().requires_grad_()
    assert before != words
    assert [WORDS[decoder_scores(row.detach()).argmax()] for row in logits] == words


def test_a_word_that_is_not_in_the_lexicon_has_no_say() -> None:
    logits = random_logits(1, count=2, frames=FRAMES)
    loss = WordLoss(LEXICON, ALL)
    alone = loss(logits[:1], *labels(["cat"]))
    beside = loss(logits, *labels(["cat", "xyzzy"]))
    assert float(beside) == pytest.approx(float(alone))
    nothing = logits.clone().requires_grad_()
    total = loss(nothing, *labels(["xyzzy", "plugh"]))
    total.backward()
    assert float(total.detach()) == 0.0
    assert nothing.grad is not None
    assert not nothing.grad.any()


def test_a_candidate_that_needs_more_frames_than_there_are_is_left_out() -> None:
    """'off' needs a blank between its f's: four frames."""
    logits = random_logits(2, frames=3)
    loss = WordLoss(LEXICON, ALL)(logits, *labels(["of"]))
    assert math.isfinite(float(loss))


def test_the_right_word_is_there_though_the_search_missed_it() -> None:
    """Logits that spell 'on' so clearly that nothing else is found."""
    logits = torch.full((1, FRAMES, 27), -20.0)
    logits[0, :, 26] = 20.0
    logits[0, 4, ALPHABET.index("o")] = 40.0
    logits[0, 9, ALPHABET.index("n")] = 40.0
    narrow = WordLoss(LEXICON, WordLossConfig(share=1.0, candidates=2, beam_width=1))
    assert float(narrow(logits, *labels(["on"]))) == pytest.approx(0.0, abs=1e-3)
    assert float(narrow(logits, *labels(["cat"]))) > 10.0
