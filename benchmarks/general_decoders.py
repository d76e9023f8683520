"""General CTC decoders behind one call, each with a few settings to choose from.

All get the lexicon and its unigram prior where they can take them: an ARPA file for KenLM.

* flashlight-text (what torchaudio's ``ctc_decoder`` wraps): lexicon trie, the best prior below each
  node ("max" smearing), alignments added up; doubled letters may be collapsed free of charge.
* pyctcdecode and ctc-beam-decoder, which does the same in C++: no trie, unknown words at a price.
* fast-ctc-decode: neither lexicon nor prior.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swipe.contract import ALPHABET
from swipe.lexicon import Lexicon

Decode = Callable[[NDArray[np.float64]], str]
"""Log-probabilities ``[T, K + 1]`` of one swipe -> its word; anything else is a miss."""

WIDTH = 100
FLOOR = 25.0


def write_arpa(path: Path, lexicon: Lexicon) -> None:
    """The unigram prior as KenLM reads it: it insists on a bigram, so a dummy gets one."""
    lines = ["\\data\\", f"ngram 1={len(lexicon) + 4}", "ngram 2=1", "", "\\1-grams:"]
    lines += ["-99\t<unk>\t0", "-99\t<s>\t0", "0\t</s>\t0", "-99\t<dummy>\t0"]
    prior = lexicon.log_prob / math.log(10)
    lines += [f"{p:.5f}\t{w}\t0" for w, p in zip(lexicon.words, prior, strict=True)]
    lines += ["", "\\2-grams:", "-99\t<dummy> <dummy>", "", "\\end\\", ""]
    path.write_text("\n".join(lines))


def _flashlight(lexicon: Lexicon, arpa: Path) -> Iterator[tuple[str, Decode]]:
    decoder = importlib.import_module("flashlight.lib.text.decoder")
    kenlm = importlib.import_module("flashlight.lib.text.decoder.kenlm")
    dictionary = importlib.import_module("flashlight.lib.text.dictionary")
    prior = kenlm.KenLM(str(arpa), dictionary.Dictionary(list(lexicon.words)))
    blank = len(ALPHABET)
    silence = blank + 1
    tries = {}
    for collapsing in (False, True):
        trie = tries[collapsing] = decoder.Trie(silence, silence)
        state = prior.start(False)
        for index, word in enumerate(lexicon.words):
            once = "".join(letter for letter, _ in itertools.groupby(word))
            value = prior.score(state, index)[1]
            for spelling in {word, once} if collapsing else {word}:
                trie.insert([ALPHABET.index(letter) for letter in spelling], index, value)
        trie.smear(decoder.SmearingMode.MAX)
    for collapsing, lam, per_word in itertools.product(tries, (0.2, 0.4, 0.8), (-4.0, -8.0)):
        options = decoder.LexiconDecoderOptions(
            WIDTH, 16, FLOOR, lam, per_word, -math.inf, 0.0, True, decoder.CriterionType.CTC
        )
        search = decoder.LexiconDecoder(
            options, tries[collapsing], prior, silence, blank, -1, [], False
        )

        def decode(log_probs: NDArray[np.float64], search: Any = search) -> str:
            silent = np.full((len(log_probs), 1), -1e4)
            emissions = np.concatenate([log_probs, silent], axis=1).astype(np.float32)
            best = search.decode(emissions.ctypes.data, *emissions.shape)[:1]
            return " ".join(lexicon.words[i] for one in best for i in one.words if i >= 0)

        yield f"weight {lam}, per word {per_word}, collapsing {collapsing}", decode


def _by_pyctcdecode(build: Callable[[float, float], Any]) -> Iterator[tuple[str, Decode]]:
    """pyctcdecode and what shares its interface; `build` takes the prior's and unknowns' weight."""
    for lam, unknown in itertools.product((0.05, 0.1, 0.2, 0.4), (-10.0, -20.0)):
        search = build(lam, unknown)

        def decode(log_probs: NDArray[np.float64], search: Any = search) -> str:
            word: str = search.decode(
                log_probs, beam_width=WIDTH, beam_prune_logp=-FLOOR, token_min_logp=-12.0
            )
            return word

        yield f"weight {lam}, unknown {unknown}", decode


def _pyctcdecode(lexicon: Lexicon, arpa: Path) -> Iterator[tuple[str, Decode]]:
    library = importlib.import_module("pyctcdecode")
    importlib.import_module("kenlm")
    return _by_pyctcdecode(
        lambda lam, unknown: library.build_ctcdecoder(
            [*ALPHABET, ""], str(arpa), list(lexicon.words), alpha=lam, beta=0.0,
            unk_score_offset=unknown, lm_score_boundary=False,
        )
    )  # fmt: skip


def _ctc_beam_decoder(lexicon: Lexicon, arpa: Path) -> Iterator[tuple[str, Decode]]:
    library = importlib.import_module("ctc_beam_decoder")
    return _by_pyctcdecode(
        lambda lam, unknown: library.BeamSearchDecoder(
            [*ALPHABET, ""], kenlm_model_path=str(arpa), unigrams=list(lexicon.words), alpha=lam,
            beta=0.0, unk_score_offset=unknown, score_boundary=False,
        )
    )  # fmt: skip


def _fast_ctc_decode(lexicon: Lexicon, arpa: Path) -> Iterator[tuple[str, Decode]]:
    library = importlib.import_module("fast_ctc_decode")

    def decode(log_probs: NDArray[np.float64]) -> str:
        blank_first = np.roll(np.exp(log_probs), 1, axis=1).astype(np.float32)
        word: str = library.beam_search(
            blank_first, "_" + ALPHABET, beam_size=WIDTH, beam_cut_threshold=1e-5
        )[0]
        return word

    yield "no lexicon", decode


_FAMILIES = {
    "flashlight-text": _flashlight,
    "pyctcdecode": _pyctcdecode,
    "ctc-beam-decoder": _ctc_beam_decoder,
    "fast-ctc-decode": _fast_ctc_decode,
}


def general_decoders(
    lexicon: Lexicon, folder: Path
) -> tuple[dict[str, list[tuple[str, Decode]]], dict[str, str]]:
    """What can be imported, with its settings to choose from; and why the others are absent."""
    arpa = folder / "unigram.arpa"
    write_arpa(arpa, lexicon)
    present: dict[str, list[tuple[str, Decode]]] = {}
    absent: dict[str, str] = {}
    for name, family in _FAMILIES.items():
        try:
            with _quiet():
                present[name] = list(family(lexicon, arpa))
        except ImportError as error:
            absent[name] = str(error)
    return present, absent


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """KenLM draws a bar on stderr, past Python."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
