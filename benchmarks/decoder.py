"""Beam search against the exact oracle: time per swipe, and how often they agree.

    python benchmarks/decoder.py --data dev.jsonl.gz --lexicon en_wordlist.combined.gz

Both decode the same logits with the same lexicon and final score in one run, so the ratio holds
on a noisy machine. Without --data, synthetic swipes are used and the output says so.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from swipe.corpus import load_corpus
from swipe.decode import DEFAULT_PRESET, BeamDecoder, log_softmax
from swipe.features import feature_batch
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.oracle import exact_ranking
from train.checkpoint import load_checkpoint
from train.evaluate import predict
from train.swipe_data import sample

MODEL = Path(__file__).parents[1] / "models" / "base.safetensors"


def main(
    data: Annotated[str, typer.Option(help="Corpus file, or synthetic[:COUNT].")] = "synthetic",
    lexicon: Annotated[str, typer.Option(help="Word list.")] = "wordfreq",
    swipes: Annotated[int, typer.Option(help="Swipes to decode.")] = 400,
) -> None:
    """Print milliseconds per swipe of beam and oracle, their ratio and agreement."""
    corpus = load_corpus(data, load_layout("qwerty"))
    gestures = sample(list(corpus.gestures), swipes, 0)
    checkpoint = load_checkpoint(MODEL)
    logits = predict(checkpoint.model(), checkpoint.contract, feature_batch(gestures))
    words = load_lexicon(lexicon)
    decoder, preset = BeamDecoder(words), DEFAULT_PRESET
    rows = log_softmax(logits)
    decoder.decode(rows[0])
    exact_ranking(rows[0], words, preset)

    beam_ms, oracle_ms, agree, beam_right, oracle_right = [], [], 0, 0, 0
    for row, gesture in zip(rows, gestures, strict=True):
        started = time.perf_counter()
        found = decoder.decode(row)[0].word
        decoded = time.perf_counter()
        best = words.words[int(exact_ranking(row, words, preset).argmax())]
        oracle_ms.append(1e3 * (time.perf_counter() - decoded))
        beam_ms.append(1e3 * (decoded - started))
        agree += found == best
        beam_right += found == gesture.word
        oracle_right += best == gesture.word
    p50, p90, p99 = np.percentile(beam_ms, [50, 90, 99])
    ratio = np.median(np.array(oracle_ms) / np.array(beam_ms))
    count = len(gestures)
    print(f"{count} swipes of {corpus.label}, {len(words):,} words, width {preset.beam_width}")
    print(f"beam   p50 {p50:.2f} ms  p90 {p90:.2f} ms  p99 {p99:.2f} ms")
    print(f"oracle p50 {np.median(oracle_ms):.1f} ms, {ratio:.0f} times the beam (paired median)")
    print(f"same top-1 {agree / count:.2%}; right: beam {beam_right / count:.2%}, oracle "
          f"{oracle_right / count:.2%}")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
