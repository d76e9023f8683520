"""Training rows of several corpora in the proportion of their weights.

The first corpus sets the epoch: each of its rows comes once. Of every other one come so many rows
that its weight is kept, going on in the next epoch where this one ended, so that each of its rows
comes equally often over a long run. Which places of an epoch belong to which corpus is a
permutation drawn from (seed, epoch). As in `train.stream`, nothing is remembered that could change
an answer: a resumed run draws the rows that the uninterrupted one would have drawn.

Each corpus holds its own windows; the places take a byte per row of the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from train.stream import RowGroups, Rows, TrainingRows, joined

# What a seed is for: see `train.stream` for the others.
_PLACES: Final = 5


class MixedRows:
    """Training rows of several corpora, in the order of (seed, epoch); see the module's text."""

    def __init__(self, groups: Sequence[RowGroups], weights: Sequence[float], seed: int) -> None:
        """Draw from `groups`, from each in proportion to its weight.

        Args:
            groups: of each corpus, the one that sets the epoch first; 255 at most.
            weights: of each corpus, above 0.
            seed: equal arguments give equal rows.
        """
        self._parts = [TrainingRows(part, seed) for part in groups]
        self._width = max(part.width for part in groups)
        self._seed = seed
        first = len(self._parts[0])
        self._counts = [max(1, round(first * weight / weights[0])) for weight in weights]
        self._places = lru_cache(maxsize=1)(self._places_of)

    def __len__(self) -> int:
        return sum(self._counts)

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of `epoch`: see `train.stream.TrainingRows.rows`.

        Raises:
            DataError: a corpus cannot be read.
            IndexError: the range is empty or beyond the epoch's end.
        """
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of {len(self)}")
        places = self._places(epoch)
        asked = places[start:stop]
        found: list[Rows] = []
        for part in np.unique(asked):
            before = epoch * self._counts[part] + np.count_nonzero(places[:start] == part)
            found += self._draw(int(part), int(before), int(np.count_nonzero(asked == part)))
        order = np.empty(len(asked), dtype=np.int64)
        order[np.argsort(asked, kind="stable")] = np.arange(len(asked))
        return joined(found).take(order)

    def _draw(self, part: int, position: int, count: int) -> list[Rows]:
        """`count` rows of a corpus from `position` of its endless stream on."""
        source = self._parts[part]
        found: list[Rows] = []
        while count:
            epoch, start = divmod(position, len(source))
            taken = min(count, len(source) - start)
            rows = source.rows(epoch, start, start + taken)
            targets = np.zeros((taken, self._width), dtype=np.int64)
            targets[:, : rows.targets.shape[1]] = rows.targets
            found.append(replace(rows, targets=targets))
            position, count = position + taken, count - taken
        return found

    def _places_of(self, epoch: int) -> NDArray[np.uint8]:
        """Which corpus each row of `epoch` is of."""
        parts = np.arange(len(self._counts), dtype=np.uint8)
        rng = np.random.default_rng([self._seed, _PLACES, epoch])
        return rng.permutation(np.repeat(parts, self._counts))
