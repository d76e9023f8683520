"""Tuning of the decoder on development swipes: settings that find more words, proven elsewhere.

The beam search gives the exact CTC score of every candidate, so candidates are found once per
temperature and penalty, and the weights of prior and length are searched on them for the price of
a matrix product. Every step is accepted by decoding, not by that estimate.

Settings are tuned on half of the writers and judged on the other half, so that what is reported is
no fit to the noise of its own swipes; then they are tuned again on all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from swipe.console import make_table
from swipe.corpus import corpus_digest, load_corpus, writer_share
from swipe.decode import BeamDecoder, log_softmax
from swipe.errors import DataError, GateError
from swipe.features import feature_batch
from swipe.layout import Layout
from swipe.lexicon import Lexicon
from swipe.presets import DEFAULT_PRESET, DecoderPreset, TunedPreset
from swipe.progress import Say
from train.checkpoint import load_checkpoint
from train.evaluate import predict

SALT: Final = "tuning"
POOL: Final = 48
"""Candidates per swipe among which weights are searched."""
DRAWS: Final = 300
"""Weights tried per set of candidates."""
PATIENCE: Final = 8
"""Rounds without progress after which a search ends."""

Score = tuple[float, float]
"""Strict top-1 and, to break ties, top-4, in percent."""


@dataclass(frozen=True, slots=True, eq=False)
class Swipes:
    """Development swipes, ready to be decoded.

    Attributes:
        log_probs: float64[N, T, K + 1].
        words: their words.
        writers: who swiped them.
    """

    log_probs: NDArray[np.float64]
    words: NDArray[np.str_]
    writers: NDArray[np.str_]

    def halves(self) -> tuple[Swipes, Swipes]:
        """Two parts that have no writer in common.

        Raises:
            DataError: one part would be empty.
        """
        second = np.array([writer_share(str(w), SALT) < 0.5 for w in self.writers])
        if second.all() or not second.any():
            raise DataError(
                "the writers cannot be split in two halves", fix="tune on swipes of more writers"
            )
        return self._only(~second), self._only(second)

    def _only(self, rows: NDArray[np.bool_]) -> Swipes:
        return Swipes(self.log_probs[rows], self.words[rows], self.writers[rows])


def score(swipes: Swipes, lexicon: Lexicon, preset: DecoderPreset) -> Score:
    """Strict accuracy of decoding `swipes` with `preset`."""
    decoder = BeamDecoder(lexicon, preset)
    first = fourth = 0
    for row, word in zip(swipes.log_probs, swipes.words, strict=True):
        found = [candidate.word for candidate in decoder.decode(row, 4)]
        first += found[:1] == [word]
        fourth += word in found
    return 100.0 * first / len(swipes.words), 100.0 * fourth / len(swipes.words)


def search(
    swipes: Swipes,
    lexicon: Lexicon,
    start: DecoderPreset,
    *,
    seconds: float,
    seed: int,
    say: Say,
) -> DecoderPreset:
    """The best settings found for `swipes`, `start` itself if nothing is better.

    Each round draws a temperature and a penalty near the best, or keeps them, and takes the best of
    `DRAWS` weights on the candidates they give.
    """
    generator = np.random.default_rng(seed)
    deadline = time.monotonic() + seconds
    best, record = start, score(swipes, lexicon, start)
    waited = number = 0
    while waited < PATIENCE and time.monotonic() < deadline:
        number += 1
        trial = best if waited == 0 else _sharpness_near(best, generator)
        trial = _best_weights(_pool(swipes, lexicon, trial), trial, generator)
        reached = score(swipes, lexicon, trial)
        waited += 1
        if reached > record:
            best, record, waited = trial, reached, 0
        say(f"round {number}: {reached[0]:.2f} % (best {record[0]:.2f} %, top-4 {record[1]:.2f} %)")
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Candidates of N swipes, padded to C with scores of -Inf.

    Attributes:
        ctc: float64[N, C], log probability over all alignments.
        log_prob: float64[N, C], the prior.
        length: int64[N, C].
        truth: bool[N, C], at most one per row.
    """

    ctc: NDArray[np.float64]
    log_prob: NDArray[np.float64]
    length: NDArray[np.int64]
    truth: NDArray[np.bool_]

    def score(self, gamma: float, lam: float, beta: float) -> Score:
        """Accuracy of these weights among the candidates."""
        lengths = np.arange(self.length.max() + 1)
        weight = np.maximum(lengths, 1.0) ** -gamma
        final = self.ctc * weight[self.length] + lam * self.log_prob + beta * self.length
        own = np.max(final, axis=1, initial=-np.inf, where=self.truth)
        ahead = (final > own[:, None]).sum(axis=1)
        known = self.truth.any(axis=1)
        return 100.0 * float((known & (ahead < 1)).mean()), 100.0 * float(
            (known & (ahead < 4)).mean()
        )


def _pool(swipes: Swipes, lexicon: Lexicon, preset: DecoderPreset) -> _Pool:
    """The candidates that `preset` finds; their CTC scores are taken out of the final ones."""
    decoder = BeamDecoder(lexicon, preset)
    prior = dict(zip(lexicon.words, lexicon.log_prob.tolist(), strict=True))
    shape = len(swipes.words), POOL
    pool = _Pool(
        np.full(shape, -np.inf), np.zeros(shape), np.ones(shape, np.int64), np.zeros(shape, bool)
    )
    for i, (row, word) in enumerate(zip(swipes.log_probs, swipes.words, strict=True)):
        for j, candidate in enumerate(decoder.decode(row, POOL)):
            length, log_prob = len(candidate.word), prior[candidate.word]
            ctc = candidate.score - preset.lam * log_prob - preset.beta * length
            pool.ctc[i, j] = ctc * length**preset.gamma
            pool.log_prob[i, j], pool.length[i, j] = log_prob, length
            pool.truth[i, j] = candidate.word == word
    return pool


def _sharpness_near(preset: DecoderPreset, generator: np.random.Generator) -> DecoderPreset:
    return replace(
        preset,
        temperature=float(np.clip(preset.temperature * np.exp(generator.normal(0, 0.15)), 0.5, 3)),
        double_penalty=float(np.clip(preset.double_penalty + generator.normal(0, 0.7), 0, 12)),
    )


def _best_weights(
    pool: _Pool, preset: DecoderPreset, generator: np.random.Generator
) -> DecoderPreset:
    """The best of `DRAWS` weights, drawn ever closer to the best so far."""
    best = np.array([preset.gamma, preset.lam, preset.beta])
    record = pool.score(*best)
    for draw in range(DRAWS):
        reach = 0.3 * 0.1 ** (draw / DRAWS)
        trial = best + generator.normal(0, 1, 3) * reach * [1.0, 0.5, 1.0]
        trial = np.clip(trial, [0.0, 0.0, -1.0], [1.5, 3.0, 4.0])
        reached = pool.score(*trial)
        if reached > record:
            best, record = trial, reached
    gamma, lam, beta = (round(float(value), 4) for value in best)
    return replace(preset, gamma=gamma, lam=lam, beta=beta)


def tune_swipes(
    swipes: Swipes,
    lexicon: Lexicon,
    start: DecoderPreset,
    *,
    minutes: float,
    seed: int,
    say: Say,
) -> tuple[DecoderPreset, dict[str, Any]]:
    """Settings tuned on all swipes, and the figures of every part before and after.

    Raises:
        GateError: what was tuned on one half of the writers is worse on the other.
        DataError: the writers cannot be split.
    """
    first, second = swipes.halves()
    say(f"tuning on {len(first.words):,} swipes of one half of the writers")
    share = 30.0 * minutes
    half = search(first, lexicon, start, seconds=share, seed=seed, say=say)
    parts = {"tuned half": (first, half), "other half": (second, half)}
    figures = {name: _compare(part, lexicon, start, to) for name, (part, to) in parts.items()}
    lost = figures["other half"]["before"][0] - figures["other half"]["after"][0]
    if lost > 0:
        raise GateError(
            f"what was tuned on one half of the writers costs the other half {lost:.2f} points of "
            "top-1; no preset was written",
            fix="tune on more swipes, or keep the settings there are",
        )
    say(f"tuning on all {len(swipes.words):,} swipes")
    best = search(swipes, lexicon, half, seconds=share, seed=seed + 1, say=say)
    figures["all, tuned on all"] = _compare(swipes, lexicon, start, best)
    return best, figures


def _compare(
    swipes: Swipes, lexicon: Lexicon, before: DecoderPreset, after: DecoderPreset
) -> dict[str, Any]:
    return {
        "swipes": len(swipes.words),
        "before": list(score(swipes, lexicon, before)),
        "after": list(score(swipes, lexicon, after)),
    }


def tune_checkpoint(
    path: Path,
    data: str,
    lexicon: Lexicon,
    *,
    minutes: float,
    seed: int,
    threads: int,
    say: Say,
) -> TunedPreset:
    """Tune the decoder for a checkpoint and a lexicon on the corpus that `data` names.

    Raises:
        SwipeError: checkpoint or data cannot be used, or tuning did not carry over.
    """
    torch.set_num_threads(threads)
    checkpoint = load_checkpoint(path)
    corpus = load_corpus(data, Layout.from_contract(checkpoint.contract))
    logits = predict(checkpoint.model(), checkpoint.contract, feature_batch(corpus.gestures))
    swipes = Swipes(
        log_softmax(logits),
        np.array([gesture.word for gesture in corpus.gestures]),
        np.array([gesture.writer for gesture in corpus.gestures]),
    )
    settings, figures = tune_swipes(
        swipes, lexicon, DEFAULT_PRESET, minutes=minutes, seed=seed, say=say
    )
    return TunedPreset(
        settings=settings,
        lexicon=lexicon.name,
        lexicon_sha256=lexicon.sha256,
        weights_sha256=checkpoint.weights_sha256,
        corpus=corpus.summary(),
        corpus_sha256=None if corpus.synthetic else corpus_digest(data),
        figures=figures,
    )


def table(tuned: TunedPreset) -> Any:
    """What ``swipe-train tune-decoder`` prints."""
    figures = make_table(
        f"{tuned.corpus}; lexicon {tuned.lexicon}",
        "swipes of", "n", "top-1 before", "after", "top-4 before", "after",
    )  # fmt: skip
    for name, part in tuned.figures.items():
        pairs = zip(part["before"], part["after"], strict=True)
        cells = (f"{value:.2f}" for pair in pairs for value in pair)
        figures.add_row(name, f"{part['swipes']:,}", *cells)
    return figures
