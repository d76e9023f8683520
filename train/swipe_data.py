"""Which swipes a run trains on and which it is judged by: read, split by writer, filtered.

Of a prepared folder only columns are read for that: gestures stay on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from swipe.corpus import is_synthetic, load_corpus, split_by_writer, writers
from swipe.errors import DataError
from swipe.gesture import Gesture, letter_miss
from swipe.layout import Layout
from swipe.prepared import PreparedGestures, require_prepared_for
from swipe.sources import Corpus
from train.config import Data

DEV_SALT: Final = "dev"
DEV_WRITERS: Final = 1_000_000
"""First synthetic writer of a held-out corpus, beyond any of a training corpus."""


@dataclass(frozen=True, slots=True, eq=False)
class SwipeData:
    """Training and held-out gestures, disjoint by writer.

    Attributes:
        train: what the model learns from.
        dev: what checkpoints are chosen on.
        filtered: training gestures left out because they miss a letter of their word.
        corpora: what was read, with its rejected rows.
        source: the record that goes into the checkpoint, so that export can find the data again.
    """

    train: Sequence[Gesture]
    dev: Sequence[Gesture]
    filtered: int
    corpora: tuple[Corpus, ...]
    source: dict[str, Any]


def load_swipe_data(config: Data, layout: Layout, seed: int) -> SwipeData:
    """Read, split by writer and filter the data that `config` names.

    Raises:
        DataError: a corpus cannot be used, was prepared for another layout, or nothing is left to
            train on.
    """
    corpus = load_corpus(config.train, layout, seed=seed)
    corpora = [corpus]
    train, dev = corpus.gestures, corpus.gestures
    if config.dev:
        held_out = load_corpus(config.dev, layout, seed=seed + 1, first_writer=DEV_WRITERS)
        corpora.append(held_out)
        dev = held_out.gestures
        shared = writers(train) & writers(dev)
        if shared:
            raise DataError(
                f"{len(shared)} writers are in both {config.train} and {config.dev}",
                fix="split the corpora by writer, or leave out --dev",
            )
    else:
        train, dev = split_by_writer(train, config.dev_share, salt=DEV_SALT)
    kept = _on_target(train, layout, config.max_letter_miss)
    if not kept:
        raise DataError(
            "no training swipe passes over the letters of its word",
            fix="check data.layout, or raise data.max_letter_miss",
        )
    source = {
        "train": config.train,
        "dev": config.dev,
        "dev_share": config.dev_share,
        "layout": config.layout,
        "seed": seed,
        "synthetic": corpus.synthetic,
    }
    return SwipeData(kept, dev, len(train) - len(kept), tuple(corpora), source)


def is_present(recorded: Mapping[str, Any]) -> bool:
    """Whether the corpora of a checkpoint's record (`SwipeData.source`) are on this machine.

    Raises:
        DataError: the record does not name them.
    """
    try:
        specs = [str(recorded["train"]), str(recorded["dev"])]
    except KeyError as error:
        raise DataError(
            f"the checkpoint does not record its data ({error.args[0]})", fix="give --data"
        ) from error
    return all(not spec or is_synthetic(spec) or Path(spec).exists() for spec in specs)


def sample(gestures: Sequence[Gesture], count: int, seed: int) -> list[Gesture]:
    """At most `count` gestures drawn over all writers, in file order; equal seeds, equal draws."""
    if len(gestures) <= count:
        return list(gestures)
    rows = np.random.default_rng([seed, 2]).choice(len(gestures), size=count, replace=False)
    return [gestures[row] for row in np.sort(rows)]


def _on_target(gestures: Sequence[Gesture], layout: Layout, limit: float) -> Sequence[Gesture]:
    """Those that miss no letter of their word by more than `limit` key widths."""
    if isinstance(gestures, PreparedGestures):
        require_prepared_for(gestures, layout)
        return gestures.where(gestures.letter_misses() <= limit)
    return [gesture for gesture in gestures if letter_miss(gesture, layout) <= limit]
