"""Which swipes a run trains on and which it is judged by: read, split by writer, filtered.

Of a prepared folder only columns are read for that: gestures stay on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from swipe.corpus import corpus_digest, is_synthetic, load_corpus, split_by_writer, writers
from swipe.errors import DataError
from swipe.gesture import Gesture, letter_miss
from swipe.layout import Layout
from swipe.prepared import PreparedGestures, require_prepared_for
from swipe.sources import Corpus
from train.config import Data

DEV_SALT: Final = "dev"
EARLIER: Final = "earlier"
"""Of a record: those of the runs whose weights this one started from, newest first."""
DEV_WRITERS: Final = 1_000_000
"""First synthetic writer of a held-out corpus, beyond any of a training corpus."""


@dataclass(frozen=True, slots=True, eq=False)
class SwipeData:
    """Training and held-out gestures, disjoint by writer.

    Attributes:
        train: what the model learns from.
        dev: what checkpoints are chosen on.
        mixed: gestures of further corpora to learn from, and their weights beside `train`'s 1.
        filtered: gestures of all these left out because they miss a letter of their word, or are
            of a held-out writer.
        corpora: what was read, with its rejected rows.
        source: the record that goes into the checkpoint, so that export can find the data again.
    """

    train: Sequence[Gesture]
    dev: Sequence[Gesture]
    filtered: int
    corpora: tuple[Corpus, ...]
    source: dict[str, Any]
    mixed: tuple[tuple[Sequence[Gesture], float], ...] = ()


def load_swipe_data(config: Data, layout: Layout, seed: int) -> SwipeData:
    """Read, split by writer and filter the data that `config` names.

    Raises:
        DataError: a corpus cannot be used, was prepared for another layout, or nothing is left to
            train on.
    """
    corpus = load_corpus(config.train, layout, seed=seed)
    corpora = [corpus]
    synthetic = corpus.synthetic
    train, dev = corpus.gestures, corpus.gestures
    if config.dev:
        corpora.append(load_corpus(config.dev, layout, seed=seed + 1, first_writer=DEV_WRITERS))
        dev = corpora[-1].gestures
        _require_disjoint(config.train, train, config.dev, dev)
    else:
        train, dev = split_by_writer(train, config.dev_share, salt=DEV_SALT)
    kept = _on_target(config.train, train, layout, config.max_letter_miss)
    filtered = len(train) - len(kept)
    mixed: list[tuple[Sequence[Gesture], float]] = []
    held_out = writers(dev) if config.mix else set()
    for number, (spec, weight) in enumerate(config.mix.items(), start=2):
        further = load_corpus(spec, layout, seed=seed + number, first_writer=number * DEV_WRITERS)
        corpora.append(further)
        synthetic |= further.synthetic
        if config.dev:
            _require_disjoint(spec, further.gestures, config.dev, dev)
        others = _without(further.gestures, held_out)
        mixed.append((_on_target(spec, others, layout, config.max_letter_miss), weight))
        filtered += len(further.gestures) - len(mixed[-1][0])
    source = {
        "train": config.train,
        "dev": config.dev,
        "dev_share": config.dev_share,
        "layout": config.layout,
        "seed": seed,
        "synthetic": synthetic,
        "mix": dict(config.mix),
        "sha256": {
            spec: corpus_digest(spec) for spec in _files(config.train, config.dev, *config.mix)
        },
    }
    return SwipeData(kept, dev, filtered, tuple(corpora), source, tuple(mixed))


def _files(*specs: str) -> list[str]:
    """Those of `specs` that are on disk."""
    return [spec for spec in specs if spec and not is_synthetic(spec)]


def is_present(recorded: Mapping[str, Any]) -> bool:
    """Whether the corpora of a checkpoint's record (`SwipeData.source`) are on this machine.

    A file of the same name that is another one by now is not what the run split by writer.

    Raises:
        DataError: the record does not name them.
    """
    try:
        specs = [str(recorded["train"]), str(recorded["dev"])]
    except KeyError as error:
        raise DataError(
            f"the checkpoint does not record its data ({error.args[0]})", fix="give --data"
        ) from error
    hashes = recorded.get("sha256", {})
    return all(
        Path(spec).exists() and hashes.get(spec) in (None, corpus_digest(spec))
        for spec in _files(*specs)
    )


def sample(gestures: Sequence[Gesture], count: int, seed: int) -> list[Gesture]:
    """At most `count` gestures drawn over all writers, in file order; equal seeds, equal draws."""
    if len(gestures) <= count:
        return list(gestures)
    rows = np.random.default_rng([seed, 2]).choice(len(gestures), size=count, replace=False)
    return [gestures[row] for row in np.sort(rows)]


def _require_disjoint(
    spec: str, train: Sequence[Gesture], dev_spec: str, dev: Sequence[Gesture]
) -> None:
    shared = writers(train) & writers(dev)
    if shared:
        raise DataError(
            f"{len(shared)} writers are in both {spec} and {dev_spec}",
            fix="split the corpora by writer, or leave out --dev",
        )


def _without(gestures: Sequence[Gesture], held_out: set[str]) -> Sequence[Gesture]:
    """Those of other writers."""
    if isinstance(gestures, PreparedGestures):
        return gestures.where(~gestures.by_writer(held_out.__contains__))
    return [gesture for gesture in gestures if gesture.writer not in held_out]


def _on_target(
    spec: str, gestures: Sequence[Gesture], layout: Layout, limit: float
) -> Sequence[Gesture]:
    """Those that miss no letter of their word by more than `limit` key widths.

    Raises:
        DataError: there is none, or they were prepared for another layout.
    """
    kept: Sequence[Gesture]
    if isinstance(gestures, PreparedGestures):
        require_prepared_for(gestures, layout)
        kept = gestures.where(gestures.letter_misses() <= limit)
    else:
        kept = [gesture for gesture in gestures if letter_miss(gesture, layout) <= limit]
    if not kept:
        raise DataError(
            f"no training swipe passes over the letters of its word in {spec}",
            fix="check data.layout, or raise data.max_letter_miss",
        )
    return kept
