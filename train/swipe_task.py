"""Swipe typing as a `Task`: CTC over key classes, scored by decoded words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor

from swipe.contract import ModelContract
from swipe.decode import greedy
from swipe.errors import ConfigError
from swipe.features import trajectories
from swipe.layout import Layout
from swipe.lexicon import load_lexicon
from swipe.presets import DEFAULT_PRESET
from train.augment import augment
from train.checkpoint import Checkpoint, copy_tensors, load_checkpoint
from train.config import TrainConfig
from train.ctc import Alphabet, ctc_loss
from train.evaluate import evaluate_words, predict
from train.mix import MixedRows
from train.models import build_model
from train.picture import draw_swipes
from train.relayout import relayout
from train.stream import TrainingRows, row_groups
from train.swipe_data import EARLIER, SwipeData, sample
from train.task import Batch, Score
from train.word_loss import WordLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURED: Final = 12
"""Held-out swipes in the picture."""


class SwipeTask:
    """The task of one run: model, batches, loss, evaluation."""

    def __init__(self, config: TrainConfig, data: SwipeData, layout: Layout) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        self._contract: ModelContract = layout.contract()
        self._spec = config.model
        self._source = data.source
        self.model = build_model(self._spec)
        if config.init:
            self._start_from(Path(config.init))
        elif config.words.share:
            raise ConfigError(
                "the word loss needs a model that spells already",
                fix="train by CTC first, then name that run: --init runs/latest",
            )
        self._keys = layout.centers.astype(np.float32)
        self._rows = _training_rows(data, layout.letters, config.seed)
        self._dev = sample(data.dev, config.evaluation.swipes, config.seed)
        self._dev_features = np.clip(trajectories(self._dev), 0.0, 1.0)
        self._lexicon = load_lexicon(config.evaluation.lexicon)
        self._words = WordLoss(self._lexicon, config.words) if config.words.share else None
        self._size = min(config.optimizer.batch_size, len(self._rows))
        self._batches_per_epoch = max(1, len(self._rows) // self._size)

    def _start_from(self, path: Path) -> None:
        """Take the weights of a checkpoint of the same architecture.

        Raises:
            ConfigError: it has another architecture.
        """
        checkpoint = load_checkpoint(path)
        if checkpoint.spec.model_copy(update={"dropout": self._spec.dropout}) != self._spec:
            raise ConfigError(
                f"{path} holds {checkpoint.spec.to_dict()}, the configuration asks for "
                f"{self._spec.to_dict()}",
                fix="use the checkpoint's own architecture: --config or --set model.…",
            )
        self.model.load_state_dict(dict(checkpoint.tensors))
        # What these weights have seen may not judge the weights that come of them.
        before = {key: value for key, value in checkpoint.data.items() if key != EARLIER}
        self._source = {**self._source, EARLIER: [before, *checkpoint.data.get(EARLIER, [])]}

    @property
    def batches_per_epoch(self) -> int:
        """How many batches show every swipe of `data.train` once, and those mixed in with them.

        A last one that is not full is left out.
        """
        return self._batches_per_epoch

    @property
    def alphabet(self) -> Alphabet:
        """The layout's letters, in class order."""
        return Alphabet(self._contract.alphabet, self._contract.blank)

    def batch(self, index: int) -> Batch:
        """Batch `index` of the run: rows from (seed, epoch), augmentation from (seed, index)."""
        epoch, position = divmod(index, self._batches_per_epoch)
        rows = self._rows.rows(epoch, position * self._size, (position + 1) * self._size)
        rng = np.random.default_rng([self._config.seed, 1, index])
        rows, keyboards = relayout(rows, self._keys, self._config.augment, rng)
        moved, keys = augment(rows.trajectories, keyboards, self._config.augment, rng)
        return Batch(
            {
                "features": torch.from_numpy(np.clip(moved, 0.0, 1.0)),
                "keys": torch.from_numpy(keys),
                "targets": torch.from_numpy(rows.targets),
                "lengths": torch.from_numpy(rows.lengths),
            },
            rows.ids,
        )

    def logits(self, batch: Batch) -> Tensor:
        """Class scores ``[B, 32, K + 1]``."""
        return cast(Tensor, self.model(batch.tensors["features"], batch.tensors["keys"]))

    def frames(self, batch: Batch) -> Tensor:
        """Every frame of every swipe is real: bounded resampling leaves nothing to pad."""
        count = len(batch.tensors["lengths"])
        return torch.full((count,), self._contract.frames, dtype=torch.long)

    def contract_ids(self, batch: Batch) -> dict[str, str]:
        """Ids of what the configuration asks for, and of what the data and the model really do."""
        _, channels, points = batch.tensors["features"].shape
        keys = batch.tensors["keys"].shape[1]
        with torch.no_grad():
            frames, classes = self.logits(batch).shape[1:]
        asked = self._contract
        return {
            "configuration": asked.contract_id,
            "data": (
                replace(asked, points=points).contract_id
                if (channels, keys) == (2, len(asked.alphabet))
                else f"{channels} channels, {keys} keys"
            ),
            "model": (
                replace(asked, frames=frames).contract_id
                if classes == asked.classes
                else f"{classes} classes"
            ),
        }

    def loss(self, batch: Batch) -> Tensor:
        """CTC loss per letter, averaged over the batch, and the share of the word loss."""
        tensors = batch.tensors
        logits = self.logits(batch)
        ctc = ctc_loss(
            logits,
            tensors["targets"],
            self.frames(batch),
            tensors["lengths"],
            blank=self._contract.blank,
        )
        # Logits that are not finite cannot be decoded; the CTC loss shows them to the guard.
        if self._words is None or not torch.isfinite(ctc):
            return ctc
        share = self._config.words.share
        words = self._words(logits, tensors["targets"], tensors["lengths"])
        return (1.0 - share) * ctc + share * words

    def evaluate(self) -> Score:
        """Beam-decode the held-out swipes; the score is strict top-1."""
        result = evaluate_words(
            self.model,
            self._contract,
            self._dev_features,
            [g.word for g in self._dev],
            self._lexicon,
            preset=replace(DEFAULT_PRESET, beam_width=self._config.evaluation.beam_width),
        )
        top = result.beam["strict"]["top_k"]
        summary = f"dev top-1 {top['1']:.1f} %, top-4 {top['4']:.1f} % of {len(self._dev)} swipes"
        return Score(float(top["1"]), result.to_dict(), summary)

    def figure(self) -> Figure:
        """Some held-out swipes, and the words that the model reads in them without a lexicon."""
        few = self._dev_features[:PICTURED]
        read = greedy(predict(self.model, self._contract, few), self._contract.alphabet)
        words = [g.word for g in self._dev[:PICTURED]]
        return draw_swipes(few, words, read, self._keys, self._contract.alphabet)

    def checkpoint(self, step: int, score: Score) -> Checkpoint:
        """The model as it is now."""
        tensors = copy_tensors(self.model)
        return Checkpoint(self._spec, self._contract, tensors, step, score.metrics, self._source)


def _training_rows(data: SwipeData, letters: str, seed: int) -> TrainingRows | MixedRows:
    groups = row_groups(data.train, letters)
    if not data.mixed:
        return TrainingRows(groups, seed)
    further = [row_groups(gestures, letters) for gestures, _ in data.mixed]
    return MixedRows([groups, *further], [1.0, *(weight for _, weight in data.mixed)], seed)
