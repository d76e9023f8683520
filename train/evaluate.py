"""Evaluation: a model's logits on held-out swipes, decoded greedily and by beam, and scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from swipe.console import make_table
from swipe.contract import ModelContract
from swipe.corpus import load_corpus
from swipe.decode import DEFAULT_PRESET, BeamDecoder, greedy
from swipe.errors import DataError
from swipe.features import feature_batch
from swipe.layout import Layout
from swipe.lexicon import Lexicon, load_lexicon
from swipe.scoring import KS, score_words
from train.checkpoint import load_checkpoint
from train.config import Data
from train.finite import require_finite

BATCH: Final = 256
CANDIDATES: Final = max(KS)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one model on one set of swipes.

    Attributes:
        swipes: what was evaluated on; says "synthetic" when it is.
        lexicon: name of the lexicon.
        lexicon_sha256: its hash; results compare only when it is equal.
        beam_width: of the beam search.
        beam: figures of the beam search.
        greedy: figures of the greedy strings, no lexicon used to decode.
    """

    swipes: str
    lexicon: str
    lexicon_sha256: str
    beam_width: int
    beam: dict[str, Any]
    greedy: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def predict(
    model: nn.Module, contract: ModelContract, features: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Logits ``[N, 32, K + 1]`` of ``features [N, 2, 64]`` in their precision.

    Raises:
        NonFiniteError: the model gave NaN or Inf.
    """
    return np.concatenate(list(_predictions(model, contract, features)))


def _predictions(
    model: nn.Module, contract: ModelContract, features: NDArray[np.floating]
) -> Iterator[NDArray[np.float32]]:
    """The logits batch by batch, so that a caller that keeps none needs no more memory."""
    model.eval()
    device = next(model.parameters(), torch.empty(0)).device
    keys = torch.tensor(contract.keys).to(device, torch.from_numpy(features[:0]).dtype)
    for start in range(0, len(features), BATCH):
        batch = torch.from_numpy(features[start : start + BATCH]).to(device)
        with torch.inference_mode():
            logits = model(batch, keys.expand(len(batch), -1, -1)).cpu()
        require_finite({"logits": logits}, where="in evaluation", fix="train again")
        yield logits.numpy()


def rounding_error(
    model: nn.Module,
    contract: ModelContract,
    features: NDArray[np.float32],
    logits: NDArray[np.float32],
) -> float:
    """Largest |float32 - float64| of the model's `logits` on ``features [N, 2, 64]``.

    What the model's own arithmetic leaves uncertain: no other implementation can be asked to come
    closer. `model` is converted to float64 and must not be used afterwards.
    """
    double = predict(model.double(), contract, features.astype(np.float64))
    return float(np.abs(double - logits).max())


def evaluate_words(
    model: nn.Module,
    contract: ModelContract,
    features: NDArray[np.float32],
    truths: Sequence[str],
    lexicon: Lexicon,
    *,
    beam_width: int = DEFAULT_PRESET.beam_width,
    swipes: str = "",
) -> Evaluation:
    """Decode and score ``features [N, 2, 64]`` whose words are `truths`."""
    if not len(features):
        raise DataError("there are no swipes to evaluate on", fix="give a corpus with --data")
    decoder = BeamDecoder(lexicon, replace(DEFAULT_PRESET, beam_width=beam_width))
    beam: list[list[str]] = []
    strings: list[list[str]] = []
    for logits in _predictions(model, contract, features):
        beam += decoder.decode_words(logits, CANDIDATES)
        strings += [[word] for word in greedy(logits, contract.alphabet)]
    return Evaluation(
        swipes=swipes,
        lexicon=lexicon.name,
        lexicon_sha256=lexicon.sha256,
        beam_width=beam_width,
        beam=score_words(truths, beam, lexicon).to_dict(),
        greedy=score_words(truths, strings, lexicon).to_dict(),
    )


def evaluate_checkpoint(
    path: Path, data: str | None, lexicon: str, *, beam_width: int, limit: int, threads: int
) -> Evaluation:
    """Evaluate a checkpoint on a corpus, or on its own run's held-out swipes.

    Args:
        path: a checkpoint or a run folder.
        data: corpus; None for the swipes the run held out.
        lexicon: lexicon specification.
        beam_width: of the beam search.
        limit: at most this many swipes, drawn over all writers; 0 for all.
        threads: torch threads.

    Raises:
        SwipeError: checkpoint, data or lexicon cannot be used.
    """
    from train.swipe_data import load_swipe_data, sample

    torch.set_num_threads(threads)
    checkpoint = load_checkpoint(path)
    layout = Layout.from_contract(checkpoint.contract)
    if data is not None:
        corpus = load_corpus(data, layout)
        gestures, label = corpus.gestures, corpus.summary()
    else:
        # Who is held out is a matter of train and dev: what was mixed in need not be here.
        known = Data.model_fields.keys() - {"mix"}
        fields = {k: v for k, v in checkpoint.data.items() if k in known}
        own = load_swipe_data(Data(**fields), layout, int(checkpoint.data["seed"]))
        gestures, label = own.dev, f"{own.corpora[-1].label}, held-out writers"
    if limit:
        gestures = sample(gestures, limit, 0)
    return evaluate_words(
        checkpoint.model(),
        checkpoint.contract,
        feature_batch(gestures),
        [g.word for g in gestures],
        load_lexicon(lexicon),
        beam_width=beam_width,
        swipes=label,
    )


def table(result: Evaluation) -> list[Table | str]:
    """What ``swipe-train eval`` prints."""
    beam = result.beam
    title = f"{result.swipes}; lexicon {result.lexicon}, beam {result.beam_width}"
    accuracy = make_table(title, "set", "swipes", *(f"top-{k} %" for k in KS))
    rows = {"strict": beam["strict"], "in vocabulary": beam["in_vocabulary"], **beam["strata"]}
    for name, part in rows.items():
        if part is not None:
            figures = (f"{part['top_k'][str(k)]:.2f}" for k in KS)
            accuracy.add_row(name, f"{part['n']:,}", *figures)
    top1 = result.greedy["strict"]["top_k"]["1"]
    edits = result.greedy["edits"]
    return [
        accuracy,
        f"greedy strings: {top1:.2f} % right, CER {result.greedy['cer']:.2f} % "
        f"({edits['substitutions']} substitutions, {edits['deletions']} deletions, "
        f"{edits['insertions']} insertions); beam CER {beam['cer']:.2f} %",
        f"lexicon hash {result.lexicon_sha256[:16]}",
    ]
