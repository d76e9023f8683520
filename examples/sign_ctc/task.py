"""The sign-language task: length-aware batches, CTC loss, word error rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from examples.sign_ctc.data import Signer
from examples.sign_ctc.model import FEATURES, build, build_transformer
from swipe.errors import ConfigError
from swipe.scoring import count_edits
from train.checkpoint import ModelCheckpoint, copy_tensors
from train.ctc import Alphabet, collapse, ctc_loss
from train.task import Batch, Score

NETWORKS: Final[dict[str, Callable[..., nn.Module]]] = {
    "lstm": build,
    "transformer": build_transformer,
}


class SignTask:
    """Model, generated sentences, CTC loss and word error rate.

    Args:
        seed: of the weights, the signs, the sentences and their order.
        batch_size: sentences of a batch.
        samples: sentences to train on.
        held_out: further sentences to choose the best checkpoint by.
        glosses: size of the vocabulary.
        longest: most glosses of a sentence.
        noise: of the movements; see `Signer`.
        features: of each frame.
        width: channels of the model.
        hidden: of each direction of its LSTM.
        network: "lstm", or "transformer", which has no `hidden`.
    """

    def __init__(
        self,
        seed: int,
        batch_size: int,
        *,
        samples: int = 1000,
        held_out: int = 100,
        glosses: int = 20,
        longest: int = 5,
        noise: float = 0.5,
        features: int = FEATURES,
        width: int = 32,
        hidden: int = 48,
        network: str = "lstm",
    ) -> None:
        if network not in NETWORKS:
            raise ConfigError(f"no network {network!r}", fix=f"use one of {', '.join(NETWORKS)}")
        torch.manual_seed(seed)
        self._seed, self._size = seed, min(batch_size, samples)
        self._samples, self._held_out = samples, held_out
        self._alphabet = Alphabet([f"gloss-{number:03d}" for number in range(glosses)])
        self._options = {
            "classes": self._alphabet.classes,
            "features": features,
            "width": width,
        }
        if network == "lstm":
            self._options["hidden"] = hidden
        self._factory = NETWORKS[network]
        self.model: nn.Module = self._factory(**self._options)
        self._signer = Signer(seed, glosses, features, longest, noise)
        self._lengths = np.array([self._signer.sentence(n).frames for n in range(samples)])

    @property
    def batches_per_epoch(self) -> int:
        """How many batches show every sentence once; a last one that is not full is left out."""
        return self._samples // self._size

    @property
    def alphabet(self) -> Alphabet:
        """One symbol per gloss; the blank is the last class."""
        return self._alphabet

    def batch(self, index: int) -> Batch:
        """Batch `index`: sentences of similar length, so that little of it is padding.

        Each epoch sorts the sentences by length, with ties and near ties in an order of its own,
        cuts the row into batches and shuffles those.
        """
        epoch, position = divmod(index, self.batches_per_epoch)
        rng = np.random.default_rng([self._seed, 4, epoch])
        order = np.argsort(self._lengths + rng.uniform(-4.0, 4.0, size=self._samples))
        first = self._size * int(rng.permutation(self.batches_per_epoch)[position])
        return self._collate(order[first : first + self._size].tolist())

    def logits(self, batch: Batch) -> Tensor:
        """Class scores ``[B, T, K]``, before the softmax."""
        return cast(Tensor, self.model(batch.tensors["features"], batch.tensors["frames"]))

    def frames(self, batch: Batch) -> Tensor:
        """Real frames of each sentence, ``int64[B]``."""
        return batch.tensors["frames"]

    def loss(self, batch: Batch) -> Tensor:
        """CTC loss per gloss, averaged over the batch."""
        return ctc_loss(
            self.logits(batch),
            batch.tensors["targets"],
            self.frames(batch),
            batch.tensors["lengths"],
            blank=self._alphabet.blank,
        )

    def evaluate(self) -> Score:
        """Word error rate of greedy decoding on held-out sentences."""
        self.model.eval()
        device = next(self.model.parameters()).device
        said: list[str] = []
        read: list[str] = []
        numbers = range(self._samples, self._samples + self._held_out)
        for first in range(0, self._held_out, self._size):
            batch = self._collate(list(numbers[first : first + self._size])).to(device)
            with torch.inference_mode():
                logits = self.logits(batch)
            # One letter per gloss makes words of sentences, and letter edits of word edits.
            read += [_word(row) for row in self._decoded(logits, batch)]
            targets, lengths = batch.tensors["targets"], batch.tensors["lengths"]
            said += [
                _word(row[:length])
                for row, length in zip(targets.tolist(), lengths.tolist(), strict=True)
            ]
        edits = count_edits(said, read)
        exact = 100.0 * sum(a == b for a, b in zip(said, read, strict=True)) / len(said)
        metrics = {"wer": edits.cer, "sentences_right": exact, "sentences": len(said)}
        summary = f"WER {edits.cer:.1f} %, {exact:.1f} % of {len(said)} sentences right"
        return Score(100.0 - edits.cer, metrics, summary)

    def checkpoint(self, step: int, score: Score) -> ModelCheckpoint:
        """The model as it is now."""
        return ModelCheckpoint(
            f"{self._factory.__module__}:{self._factory.__name__}",
            self._options,
            copy_tensors(self.model),
            step,
            score.metrics,
        )

    def _decoded(self, logits: Tensor, batch: Batch) -> list[list[int]]:
        return collapse(logits, self.frames(batch), blank=self._alphabet.blank)

    def _collate(self, numbers: list[int]) -> Batch:
        sentences = [self._signer.sentence(number) for number in numbers]
        frames = [sentence.frames for sentence in sentences]
        lengths = [len(sentence.glosses) for sentence in sentences]
        features = torch.zeros(len(numbers), int(self._options["features"]), max(frames))
        targets = torch.zeros(len(numbers), max(lengths), dtype=torch.long)
        for row, (number, sentence) in enumerate(zip(numbers, sentences, strict=True)):
            features[row, :, : frames[row]] = torch.from_numpy(self._signer.perform(number))
            symbols = [self._alphabet.symbols[gloss] for gloss in sentence.glosses]
            targets[row, : lengths[row]] = torch.tensor(self._alphabet.encode(symbols))
        tensors = {
            "features": features,
            "frames": torch.tensor(frames),
            "targets": targets,
            "lengths": torch.tensor(lengths),
        }
        return Batch(tensors, [f"sentence-{number}" for number in numbers])


def _word(classes: list[Any]) -> str:
    return "".join(chr(ord("!") + int(number)) for number in classes)
