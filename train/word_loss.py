"""Word loss: cross-entropy over the words that the decoder confuses with the right one.

CTC judges a swipe letter by letter and knows nothing of the other words, so it is overconfident
where a whole word was swiped carelessly. Here the present logits are decoded as they will be on
the phone, and the right word has to win against the candidates found, by the decoder's own score
(n-best maximum mutual information). The candidates are those of the logits at hand: they are never
stale, follow every augmentation, and leave nothing to store, so a resumed run stays bit for bit
the uninterrupted one.

Needs a model that already spells: start from one that was trained by CTC (`TrainConfig.init`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from swipe.contract import ALPHABET
from swipe.decode import BeamDecoder
from swipe.lexicon import Lexicon
from swipe.presets import DEFAULT_PRESET
from train.config import WordLossConfig
from train.ctc import frames_needed
from train.stream import encode

_OUT: Final = -1e4
"""Score of what is no candidate."""


class WordLoss:
    """Cross-entropy of the right words among each other swipe's candidates."""

    def __init__(self, lexicon: Lexicon, config: WordLossConfig) -> None:
        self._preset = replace(DEFAULT_PRESET, beam_width=config.beam_width)
        self._decoder = BeamDecoder(lexicon, self._preset)
        self._prior = dict(zip(lexicon.words, lexicon.log_prob.tolist(), strict=True))
        self._config = config

    def __call__(self, logits: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Mean over the swipes whose word is in the lexicon; zero when none is.

        Args:
            logits: finite float[B, T, K + 1], blank last.
            targets: int64[B, L], padded beyond `lengths`.
            lengths: int64[B].
        """
        found = self._decoder.decode_words(
            logits.detach().float().cpu().numpy(), self._config.candidates
        )
        truths = [
            "".join(ALPHABET[c] for c in row[:length])
            for row, length in zip(targets.tolist(), lengths.tolist(), strict=True)
        ]
        known = [index for index, truth in enumerate(truths) if truth in self._prior]
        if not known:
            return logits.sum() * 0.0
        rivals = self._config.candidates - 1
        lists = [
            [truths[i], *[word for word in found[i] if word != truths[i]][:rivals]] for i in known
        ]
        scores = self._scores(logits[known], lists) * self._config.sharpness
        return F.cross_entropy(scores, scores.new_zeros(len(known), dtype=torch.long))

    def _scores(self, logits: Tensor, lists: list[list[str]]) -> Tensor:
        """The decoder's score ``[N, C]`` of each row's words, `_OUT` where it has fewer."""
        columns = max(map(len, lists))
        words = [word for row in lists for word in row]
        cells, spelt = encode(words, ALPHABET, max(map(len, words)))
        targets, lengths = torch.from_numpy(cells).long(), torch.from_numpy(spelt)
        feasible = frames_needed(targets, lengths) <= logits.shape[1]
        rows = torch.tensor([index for index, row in enumerate(lists) for _ in row])
        column = torch.tensor([place for row in lists for place in range(len(row))])
        prior = torch.tensor([self._prior[word] for word in words])
        rows, column, prior = rows[feasible], column[feasible], prior[feasible]
        targets, lengths = targets[feasible], lengths[feasible]
        log_probs = F.log_softmax(logits.float(), dim=-1)[rows.to(logits.device)].transpose(0, 1)
        ctc = -F.ctc_loss(
            log_probs,
            targets.to(logits.device),
            torch.full_like(lengths, logits.shape[1]),
            lengths,
            blank=logits.shape[2] - 1,
            reduction="none",
        )
        count = lengths.float()
        bonus = self._preset.lam * prior + self._preset.beta * count
        scores = ctc / (count**self._preset.gamma).to(ctc.device) + bonus.to(ctc.device)
        table = scores.new_full((len(lists), columns), _OUT)
        return table.index_put((rows.to(ctc.device), column.to(ctc.device)), scores)
