"""Our beam search beside general CTC decoders and the exact oracle: time, accuracy, agreement.

    python benchmarks/decoder.py --data dev.jsonl.gz --lexicon en_wordlist.combined.gz

All decode the same log-probabilities with the same words and prior at beam width 100, swipe by
swipe in turn, in CPU time, so that the ratios hold on a busy machine: of wall time a short answer
needs less there, as it is seldom interrupted. Ours is asked for eight words, as a
keyboard asks, which costs it more than one; "ours, 1 word" is asked for one. General decoders are
those of ``general_decoders.py`` that can be imported (PYTHONPATH may name a ``pip install
--target`` folder); the settings of each are the most accurate on swipes that are not measured
afterwards.
Without --data, synthetic swipes are used and the output says so.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from general_decoders import Decode, general_decoders
from numpy.typing import NDArray

from swipe.corpus import load_corpus
from swipe.decode import BeamDecoder, log_softmax
from swipe.features import feature_batch
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.oracle import exact_ranking
from swipe.presets import choose_preset
from train.checkpoint import load_checkpoint
from train.evaluate import predict
from train.swipe_data import sample

MODEL = Path(__file__).parents[1] / "models" / "base.safetensors"
OURS = "ours"
WORDS = 8
ORACLE = "exact oracle"


def main(
    data: Annotated[str, typer.Option(help="Corpus file, or synthetic[:COUNT].")] = "synthetic",
    lexicon: Annotated[str, typer.Option(help="Word list.")] = "wordfreq",
    swipes: Annotated[int, typer.Option(help="Swipes to decode.")] = 1000,
    tuning: Annotated[int, typer.Option(help="Further swipes to choose settings on.")] = 200,
    checkpoint: Annotated[Path, typer.Option(help="Model.")] = MODEL,
) -> None:
    """Print CPU milliseconds per swipe, top-1 and agreement with the oracle for every decoder."""
    corpus = load_corpus(data, load_layout("qwerty"))
    gestures = sample(list(corpus.gestures), swipes + tuning, 0)
    order = np.random.default_rng(0).permutation(len(gestures))
    gestures = [gestures[i] for i in order]
    model = load_checkpoint(checkpoint)
    rows = log_softmax(predict(model.model(), model.contract, feature_batch(gestures)))
    truths = [gesture.word for gesture in gestures]
    words = load_lexicon(lexicon)
    choice = choose_preset(None, checkpoint, model.weights_sha256, words)
    decoder, preset = BeamDecoder(words, choice.settings), choice.settings
    decoders: dict[str, Decode] = {
        OURS: lambda row: next((c.word for c in decoder.decode(row, WORDS)), ""),
        f"{OURS}, 1 word": lambda row: next((c.word for c in decoder.decode(row, 1)), ""),
        ORACLE: lambda row: words.words[int(exact_ranking(row, words, preset).argmax())],
    }
    print(f"{corpus.label}, {len(words):,} words, {checkpoint.name}; {choice.origin}")
    with tempfile.TemporaryDirectory() as folder:
        present, absent = general_decoders(words, Path(folder))
    for name, variants in present.items():
        scored = [
            (sum(d(row) == w for row, w in zip(rows[:tuning], truths, strict=False)), settings, d)
            for settings, d in variants
        ]
        right, settings, decoders[name] = max(scored, key=lambda one: one[0])
        print(f"{name}: {settings} ({right} of {tuning} right, best of {len(variants)})")
    for name, why in absent.items():
        print(f"{name}: absent ({why})")
    _compare(decoders, rows[tuning:], truths[tuning:])


def _compare(decoders: dict[str, Decode], rows: NDArray[np.float64], truths: list[str]) -> None:
    for decode in decoders.values():
        decode(rows[0])
    names = list(decoders)
    found: dict[str, list[str]] = {name: [] for name in names}
    spent: dict[str, list[float]] = {name: [] for name in names}
    for i, row in enumerate(rows):
        for name in np.roll(names, i):
            started = time.process_time()
            found[name].append(decoders[name](row))
            spent[name].append(1e3 * (time.process_time() - started))
    print(
        f"{len(rows):,} swipes\ndecoder            p50 ms   p90 ms   x ours   top-1 %   = oracle %"
    )
    for name in names:
        p50, p90 = np.percentile(spent[name], [50, 90])
        ratio = np.median(np.array(spent[name]) / np.array(spent[OURS]))
        right = 100 * np.mean(np.array(found[name]) == np.array(truths))
        same = 100 * np.mean(np.array(found[name]) == np.array(found[ORACLE]))
        print(f"{name:<17}{p50:8.2f} {p90:8.2f} {ratio:8.1f} {right:9.2f} {same:12.2f}")


if __name__ == "__main__":
    typer.run(main)
