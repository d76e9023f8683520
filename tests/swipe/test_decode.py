"""Decoding against brute force, against torch's CTC, and against the exact oracle."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import swipe.decode as decode_module
from swipe.contract import ALPHABET
from swipe.decode import BeamDecoder, DecoderPreset, exact_scores, greedy, log_softmax
from swipe.errors import ConfigError, GateError, NonFiniteError
from swipe.features import feature_batch
from swipe.lexicon import Lexicon, load_lexicon, wordfreq_lexicon
from swipe.sources import read_corpus

EXHAUSTIVE = DecoderPreset(
    beam_width=5000, top_classes=26, gamma=0, lam=0, beta=0,
    gamma_prune=0, beta_prune=0, lam_prune=0, double_penalty=math.inf,
)  # fmt: skip


def _lexicon(*words: str) -> Lexicon:
    ordered = tuple(sorted(set(words)))
    return Lexicon("test", ordered, np.linspace(-2, -1, len(ordered), dtype=np.float32))


def _random(frames: int, seed: int, scale: float = 2.0) -> NDArray[np.float64]:
    return log_softmax(np.random.default_rng(seed).normal(0, scale, (frames, 27)))


def _collapsed(path: tuple[int, ...]) -> str:
    return "".join(ALPHABET[c] for c, _ in itertools.groupby(path) if c < 26)


def _spelled(word: str, frames: int = 32) -> NDArray[np.float64]:
    """Logits that say `word` plainly, one peak per letter and blanks between."""
    logits = np.zeros((frames, 27))
    logits[:, 26] = 6.0
    for at, letter in zip(np.linspace(1, frames - 2, len(word)).astype(int), word, strict=True):
        logits[at, ord(letter) - 97] = 12.0
    return logits


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_oracle_is_the_sum_over_all_alignments(seed: int) -> None:
    letters = [0, 1, 26]  # a, b and blank: 3 ** 5 alignments
    log_probs = np.full((5, 27), -40.0)
    log_probs[:, letters] = log_softmax(np.random.default_rng(seed).normal(0, 2, (5, 3)))
    lexicon = _lexicon("a", "b", "ab", "ba", "aa", "aab", "bab", "aaa", "abab")
    totals = dict.fromkeys(lexicon.words, 0.0)
    for path in itertools.product(letters, repeat=5):
        word = _collapsed(path)
        if word in totals:
            totals[word] += math.exp(sum(log_probs[t, c] for t, c in enumerate(path)))
    expected = [math.log(totals[word]) for word in lexicon.words]
    np.testing.assert_allclose(exact_scores(log_probs, lexicon), expected, atol=1e-9)


def test_the_oracle_equals_torch_ctc_loss() -> None:
    lexicon = wordfreq_lexicon(3000)
    log_probs = _random(32, seed=1)
    scores = exact_scores(log_probs, lexicon)
    words = lexicon.words[::101]
    for word in words:
        loss = torch.nn.functional.ctc_loss(
            torch.from_numpy(log_probs)[:, None],
            torch.tensor([[ord(c) - 97 for c in word]]),
            torch.tensor([32]),
            torch.tensor([len(word)]),
            blank=26,
            reduction="sum",
        )
        assert scores[lexicon.words.index(word)] == pytest.approx(-float(loss), abs=1e-5)


@pytest.mark.parametrize("penalty", [math.inf, 1.5, 0.0])
def test_an_exhaustive_beam_equals_the_oracle(penalty: float) -> None:
    lexicon = wordfreq_lexicon(800)
    decoder = BeamDecoder(lexicon, replace(EXHAUSTIVE, double_penalty=penalty))
    for seed in range(5):
        log_probs = _random(12, seed)
        scores = exact_scores(log_probs, lexicon, double_penalty=penalty)
        found = decoder.decode(log_probs, n=20)
        assert [c.word for c in found] == [lexicon.words[i] for i in np.argsort(-scores)[:20]]
        np.testing.assert_allclose([c.score for c in found], np.sort(scores)[::-1][:20], rtol=1e-9)


def test_a_doubled_letter_swiped_once_costs_its_penalty() -> None:
    lexicon = _lexicon("hello", "helo", "world")
    once = log_softmax(_spelled("helo"))
    free, priced, refused = (
        exact_scores(once, lexicon, double_penalty=p)[lexicon.words.index("hello")]
        for p in (0.0, 2.0, math.inf)
    )
    assert 1.5 < free - priced <= 2.0  # a little less: the word's own alignments are free
    assert priced > refused + 1
    best = BeamDecoder(_lexicon("hello", "world")).decode(once)
    assert best[0].word == "hello"


@pytest.mark.slow
def test_the_beam_loses_almost_nothing_on_real_swipes(shared_data: Path, released: Path) -> None:
    from train.checkpoint import load_checkpoint
    from train.evaluate import predict

    gestures = read_corpus(shared_data / "how_we_swipe" / "dev.jsonl.gz").gestures[::40]
    checkpoint = load_checkpoint(released)
    logits = predict(checkpoint.model(), checkpoint.contract, feature_batch(gestures))
    lexicon = load_lexicon(str(shared_data / "lexicon" / "en_wordlist.combined.gz"))
    decoder, preset = BeamDecoder(lexicon), DecoderPreset()
    lengths = np.array([len(word) for word in lexicon.words])
    prior = preset.lam * lexicon.log_prob + preset.beta * lengths
    same = 0
    for row in log_softmax(logits):
        exact = exact_scores(row, lexicon, double_penalty=preset.double_penalty)
        best = int((exact / lengths**preset.gamma + prior).argmax())
        same += decoder.decode(row)[0].word == lexicon.words[best]
    assert same >= 0.97 * len(gestures)


def test_frequency_and_length_enter_the_score() -> None:
    lexicon = Lexicon("test", ("cat", "cot"), np.array([-8.0, -1.0], dtype=np.float32))
    logits = _spelled("cat")
    logits[:, ord("o") - 97] = logits[:, 0] - 0.1  # almost as likely as the a
    assert BeamDecoder(lexicon, EXHAUSTIVE).decode(log_softmax(logits))[0].word == "cat"
    weighted = replace(EXHAUSTIVE, lam=0.3)
    assert BeamDecoder(lexicon, weighted).decode(log_softmax(logits))[0].word == "cot"


def test_a_decoder_gives_the_same_answer_again_and_in_any_order() -> None:
    lexicon = wordfreq_lexicon(5000)
    swipes = [_random(32, seed) for seed in range(6)]
    decoder = BeamDecoder(lexicon)
    first = [decoder.decode(s) for s in swipes]
    assert [decoder.decode(s) for s in reversed(swipes)] == first[::-1]
    assert [BeamDecoder(lexicon).decode(s) for s in swipes] == first


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_candidates_are_distinct_words_best_first(seed: int, width: int, frames: int) -> None:
    decoder = BeamDecoder(wordfreq_lexicon(300), DecoderPreset(beam_width=width))
    found = decoder.decode(_random(frames, seed), n=5)
    assert len({c.word for c in found}) == len(found) <= min(5, width)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    assert all(c.word in decoder.lexicon for c in found)


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_long_runs_of_a_letter_do_not_overrun_the_beam(width: int) -> None:
    pairs = map("".join, itertools.product(ALPHABET, repeat=2))
    lexicon = _lexicon(*pairs, *(letter * 8 for letter in ALPHABET))
    decoder = BeamDecoder(lexicon, DecoderPreset(beam_width=width))
    kernel = decode_module._beam
    found = [decoder.decode(_random(6, seed)) for seed in range(4)]
    with pytest.MonkeyPatch.context() as patch:  # as Python, where a write past the end raises
        for name in ("_beam", "_child", "_log_add", "_select_classes"):
            patch.setattr(decode_module, name, getattr(decode_module, name).py_func)
        assert decode_module._beam is kernel.py_func
        again = [decoder.decode(_random(6, seed)) for seed in range(4)]
    assert [[c.word for c in row] for row in again] == [[c.word for c in row] for row in found]


@pytest.mark.parametrize(
    "fields", [{"beam_width": 0}, {"top_classes": 0}, {"double_penalty": -1.0}]
)
def test_an_impossible_preset_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="beam width"):
        DecoderPreset(**fields)  # type: ignore[arg-type]


def test_greedy_merges_repeats_and_drops_blanks() -> None:
    frames = ["c", "c", "_", "a", "a", "_", "a", "t", "_"]
    logits = np.zeros((1, len(frames), 27))
    for t, letter in enumerate(frames):
        logits[0, t, 26 if letter == "_" else ord(letter) - 97] = 5
    assert greedy(logits) == ["caat"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    logits = np.zeros((1, 4, 27))
    logits[0, 2, 3] = bad
    decoder = BeamDecoder(_lexicon("cat"))
    for decode in (greedy, decoder.decode_batch, lambda x: exact_scores(x[0], decoder.lexicon)):
        with pytest.raises(NonFiniteError, match="1 of 108"):
            decode(logits)


@pytest.mark.parametrize("shape", [(1, 4, 26), (1, 0, 27), (4, 27), (1, 4, 65)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GateError, match="expected"):
        BeamDecoder(_lexicon("cat")).decode_batch(np.zeros(shape))


def test_log_softmax_survives_large_logits() -> None:
    result = log_softmax(np.array([[1e4, 0.0, -1e4]]))
    assert np.isfinite(result).all()
    assert np.exp(result).sum() == pytest.approx(1.0)
