"""Evaluation: a model's logits on swipes, decoded greedily and by beam, and scored.

Logits are computed once and handed to every decoder batch by batch, so that memory does not grow
with them. Which swipes, and whether they may be used, is `train.judge`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from swipe.contract import ModelContract
from swipe.decode import BeamDecoder, greedy
from swipe.errors import DataError
from swipe.lexicon import Lexicon
from swipe.presets import DEFAULT_PRESET, DecoderPreset
from swipe.scoring import KS, ranks, score_words
from train.finite import null_for_nonfinite, require_finite

BATCH: Final = 256
CANDIDATES: Final = max(KS)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Figures of one model on one set of swipes.

    Attributes:
        swipes: what was evaluated on; says "synthetic" when it is.
        swipes_sha256: hash of the set, its order aside; figures compare only when it is equal.
        lexicon: name of the lexicon.
        lexicon_sha256: its hash; likewise.
        preset: settings of the beam search.
        beam: figures of the beam search.
        extended: the beam's figures over the lexicon with the swipes' own words added at its
            lowest frequency, so that none is out of vocabulary; None when not asked for.
        greedy: figures of the greedy strings, no lexicon used to decode.
        ranks: int64[N], place of each word among the beam's candidates; not part of the record.
    """

    swipes: str
    swipes_sha256: str
    lexicon: str
    lexicon_sha256: str
    preset: DecoderPreset
    beam: dict[str, Any]
    extended: dict[str, Any] | None
    greedy: dict[str, Any]
    ranks: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "ranks"}
        return {**fields, "preset": null_for_nonfinite(asdict(self.preset))}


@dataclass(frozen=True, slots=True)
class Groups:
    """What swipes are resampled and told apart by.

    Attributes:
        writers: who made each swipe; intervals resample them.
        kinds: a stratum that each swipe belongs to, empty for none.
    """

    writers: Sequence[str]
    kinds: Sequence[str]


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


def swipes_sha256(features: NDArray[np.floating], truths: Sequence[str]) -> str:
    """SHA-256 of a set of swipes, ``features [N, 2, 64]`` and their words, in whatever order."""
    swipes = (
        hashlib.sha256(row.tobytes() + truth.encode()).digest()
        for row, truth in zip(features, truths, strict=True)
    )
    return hashlib.sha256(b"".join(sorted(swipes))).hexdigest()


def evaluate_words(
    model: nn.Module,
    contract: ModelContract,
    features: NDArray[np.float32],
    truths: Sequence[str],
    lexicon: Lexicon,
    *,
    preset: DecoderPreset = DEFAULT_PRESET,
    swipes: str = "",
    groups: Groups | None = None,
    extended: bool = False,
    say: Callable[[int], None] | None = None,
) -> Evaluation:
    """Decode and score ``features [N, 2, 64]`` whose words are `truths`.

    Args:
        model: what gives the logits.
        contract: what it takes and gives.
        features: what it is shown.
        truths: the intended words.
        lexicon: the words that the beam search knows.
        preset: settings of the beam search.
        swipes: what to call the swipes.
        groups: for intervals over writers and more strata; None for neither.
        extended: decode a second time, over the lexicon extended by `truths`.
        say: is told how many swipes are done.

    Raises:
        DataError: there are no swipes, or not one word for each.
        NonFiniteError: the model gave NaN or Inf.
    """
    if not len(features) or len(features) != len(truths):
        raise DataError(
            f"there are {len(features)} swipes and {len(truths)} words to evaluate on",
            fix="give a corpus with --data",
        )
    decoder = BeamDecoder(lexicon, preset)
    everything = lexicon.extended(truths) if extended else lexicon
    # The same words need no second search.
    second = BeamDecoder(everything, preset) if len(everything) > len(lexicon) else None
    beam: list[list[str]] = []
    with_all: list[list[str]] = []
    strings: list[list[str]] = []
    for logits in _predictions(model, contract, features):
        candidates = decoder.decode_words(logits, CANDIDATES)
        beam += candidates
        with_all += second.decode_words(logits, CANDIDATES) if second else candidates
        strings += [[word] for word in greedy(logits, contract.alphabet)]
        if say is not None:
            say(len(beam))

    def score(rows: list[list[str]], words: Lexicon) -> dict[str, Any]:
        writers, kinds = (groups.writers, groups.kinds) if groups else (None, None)
        return score_words(truths, rows, words, writers=writers, kinds=kinds).to_dict()

    return Evaluation(
        swipes=swipes,
        swipes_sha256=swipes_sha256(features, truths),
        lexicon=lexicon.name,
        lexicon_sha256=lexicon.sha256,
        preset=preset,
        beam=score(beam, lexicon),
        extended=(
            {
                "lexicon": everything.name,
                "lexicon_sha256": everything.sha256,
                "words_added": len(everything) - len(lexicon),
                **score(with_all, everything),
            }
            if extended
            else None
        ),
        greedy=score(strings, lexicon),
        ranks=ranks(truths, beam),
    )
