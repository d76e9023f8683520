"""Swipe typing as a `Task`: CTC over key classes, scored by decoded words."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from swipe.contract import ModelContract
from swipe.features import trajectories
from swipe.layout import Layout
from swipe.lexicon import load_lexicon
from train.augment import augment
from train.checkpoint import Checkpoint
from train.config import TrainConfig
from train.evaluate import evaluate_words
from train.models import ModelSpec, build_model
from train.stream import TrainingRows, row_groups
from train.swipe_data import SwipeData, sample
from train.task import Batch, Score


class SwipeTask:
    """The task of one run: model, batches, loss, evaluation."""

    def __init__(self, config: TrainConfig, data: SwipeData, layout: Layout) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        self._contract: ModelContract = layout.contract()
        self._spec = ModelSpec(**config.model.model_dump())
        self._source = data.source
        self.model = build_model(self._spec)
        self._keys = layout.centers.astype(np.float32)
        self._rows = TrainingRows(row_groups(data.train, layout.letters), config.seed)
        self._dev = sample(data.dev, config.evaluation.swipes, config.seed)
        self._dev_features = np.clip(trajectories(self._dev), 0.0, 1.0)
        self._lexicon = load_lexicon(config.evaluation.lexicon)
        self._size = min(config.optimizer.batch_size, len(self._rows))
        self._batches_per_epoch = max(1, len(self._rows) // self._size)

    @property
    def parameters_count(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.model.parameters())

    def batch(self, index: int) -> Batch:
        """Batch `index` of the run: rows from (seed, epoch), augmentation from (seed, index)."""
        epoch, position = divmod(index, self._batches_per_epoch)
        rows = self._rows.rows(epoch, position * self._size, (position + 1) * self._size)
        rng = np.random.default_rng([self._config.seed, 1, index])
        moved, keys = augment(rows.trajectories, self._keys, self._config.augment, rng)
        return Batch(
            {
                "features": torch.from_numpy(np.clip(moved, 0.0, 1.0)),
                "keys": torch.from_numpy(keys),
                "targets": torch.from_numpy(rows.targets),
                "lengths": torch.from_numpy(rows.lengths),
            },
            rows.ids,
        )

    def loss(self, batch: Batch) -> Tensor:
        """CTC loss per letter, averaged over the batch.

        ``zero_infinity`` stays off: an infeasible word must be seen, not turned into a zero.
        """
        tensors = batch.tensors
        logits = self.model(tensors["features"], tensors["keys"])
        log_probs = F.log_softmax(logits, dim=-1).transpose(0, 1)
        frames = torch.full((logits.shape[0],), logits.shape[1], dtype=torch.long)
        return F.ctc_loss(
            log_probs,
            tensors["targets"],
            frames,
            tensors["lengths"],
            blank=self._contract.blank,
            zero_infinity=False,
        )

    def evaluate(self) -> Score:
        """Beam-decode the held-out swipes; the score is strict top-1."""
        result = evaluate_words(
            self.model,
            self._contract,
            self._dev_features,
            [g.word for g in self._dev],
            self._lexicon,
            beam_width=self._config.evaluation.beam_width,
        )
        top = result.beam["strict"]["top_k"]
        summary = f"dev top-1 {top['1']:.1f} %, top-4 {top['4']:.1f} % of {len(self._dev)} swipes"
        return Score(float(top["1"]), result.to_dict(), summary)

    def checkpoint(self, step: int, score: Score) -> Checkpoint:
        """The model as it is now."""
        tensors = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        return Checkpoint(self._spec, self._contract, tensors, step, score.metrics, self._source)
