"""What every CTC task shares: the alphabet, what fits into how many frames, the loss, collapsing.

The blank is a class of its own and no symbol: a padding symbol that is also the blank, or a class
without a symbol, is refused when the alphabet is made and not found after 23 epochs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from swipe.errors import ConfigError, DataError


class Alphabet:
    """A bijection between symbols and classes, and the blank beside them.

    Args:
        symbols: one per class, in class order, without the blank.
        blank: class of the blank; default: the last, after all symbols.

    Raises:
        ConfigError: a symbol is repeated or empty, there is none, or the blank is outside.
    """

    def __init__(self, symbols: Sequence[str], blank: int | None = None) -> None:
        self.blank = len(symbols) if blank is None else blank
        if not symbols or not all(symbols) or len(set(symbols)) != len(symbols):
            raise ConfigError(
                f"the alphabet {list(symbols)!r} is empty, or repeats or leaves out a symbol",
                fix="give each class exactly one symbol; the blank and the padding need none",
            )
        if not 0 <= self.blank <= len(symbols):
            raise ConfigError(
                f"the blank is class {self.blank} of {len(symbols) + 1}",
                fix=f"use a class from 0 to {len(symbols)}",
            )
        # Classes from the blank on move up by one, so that none is both a symbol and the blank.
        self._class = {s: i + (i >= self.blank) for i, s in enumerate(symbols)}
        self._symbol = {number: symbol for symbol, number in self._class.items()}

    @property
    def classes(self) -> int:
        """Number of classes, the blank included."""
        return len(self._class) + 1

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols in class order, without the blank."""
        return tuple(self._class)

    def encode(self, label: Iterable[str]) -> list[int]:
        """Symbols -> classes.

        Raises:
            DataError: a symbol is not in the alphabet.
        """
        try:
            return [self._class[symbol] for symbol in label]
        except KeyError as error:
            raise DataError(
                f"{error.args[0]!r} is not in the alphabet",
                fix="leave such samples out, or add the symbol to the alphabet",
            ) from error

    def decode(self, classes: Iterable[int]) -> list[str]:
        """Classes -> symbols; inverse of `encode`.

        Raises:
            DataError: a class is the blank, or none at all.
        """
        try:
            return [self._symbol[int(number)] for number in classes]
        except KeyError as error:
            raise DataError(
                f"class {error.args[0]} has no symbol (the blank is {self.blank})",
                fix="the labels were encoded with another alphabet: encode them again",
            ) from error


def frames_needed(targets: Tensor, lengths: Tensor) -> Tensor:
    """Least frames that can spell each label: a repeated class needs a blank between.

    Args:
        targets: int64[B, L], padded with anything beyond `lengths`.
        lengths: int64[B].

    Returns:
        int64[B].
    """
    longest = max(1, targets.shape[1])
    inside = torch.arange(1, longest, device=targets.device) < lengths[:, None]
    repeats = (targets[:, 1:] == targets[:, :-1]) & inside
    return lengths + repeats.sum(dim=1)


def ctc_loss(
    logits: Tensor, targets: Tensor, frames: Tensor, lengths: Tensor, *, blank: int
) -> Tensor:
    """CTC loss per symbol, averaged over the batch.

    ``zero_infinity`` stays off: an infeasible label must be seen, not turned into a zero.

    Args:
        logits: float[B, T, K], before the softmax.
        targets: int64[B, L], padded with anything beyond `lengths`.
        frames: int64[B], real frames of each row.
        lengths: int64[B], real symbols of each row.
        blank: class of the blank.
    """
    log_probs = F.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    return F.ctc_loss(log_probs, targets, frames, lengths, blank=blank, zero_infinity=False)


def collapse(logits: Tensor, frames: Tensor, *, blank: int) -> list[list[int]]:
    """Greedy decoding: the best class of each real frame, repeats merged, blanks dropped."""
    best = logits.argmax(dim=-1)
    rows = []
    for row, count in zip(best.tolist(), frames.tolist(), strict=True):
        merged = [c for i, c in enumerate(row[:count]) if i == 0 or c != row[i - 1]]
        rows.append([c for c in merged if c != blank])
    return rows
