"""Whether swipes that a model is judged on were trained on, or come from people it learned from.

Two things are compared: writers by name, and swipes by a digest of the trace, so that a swipe is
found that was renamed, reformatted or given to another writer. Only the evaluation set's digests
are held (16 bytes each); the training corpus passes by once, row by row.

A trace counts as its cells of 1/100 keyboard width and letter-area height, repeated cells once, in
order, without times, plus the word. Finer is worse: of 81 development swipes that also lie here as
raw logs, whose coordinates were not yet rounded, 81 are found at 1/100, 76 at 1/1,000 and 12 at
1/10,000. The word keeps apart scrawls of a handful of cells: without it, one of 8,152 development
swipes looks like a training swipe of another word; with it, none does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from swipe.errors import GateError
from swipe.gesture import Gesture

CELLS: Final = 100
"""Cells per unit of a coordinate."""
EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """What evaluation swipes have in common with training swipes.

    Attributes:
        compared: number of training swipes that were looked at.
        swipes: number of them that are in the evaluation set too.
        writers: names of the shared writers, sorted.
        examples: a few pairs of ids, "evaluated = trained", the same swipe in each.
    """

    compared: int
    swipes: int
    writers: tuple[str, ...]
    examples: tuple[str, ...]


def trace_digest(gesture: Gesture) -> bytes:
    """16 bytes that two records of one swipe share: see the module's text."""
    cells = np.rint(gesture.points[:, :2].astype(np.float64) * CELLS).astype(np.int32)
    moved = np.append(True, (cells[1:] != cells[:-1]).any(axis=1))
    trace = cells[moved].tobytes() + gesture.word.encode()
    return hashlib.blake2b(trace, digest_size=16).digest()


def find_overlap(evaluated: Sequence[Gesture], trained: Iterable[Gesture]) -> Overlap:
    """Compare each of `trained` with all of `evaluated`; `trained` is read once, held never."""
    ids = {trace_digest(gesture): gesture.id for gesture in evaluated}
    writers = {gesture.writer for gesture in evaluated}
    shared: set[str] = set()
    examples: list[str] = []
    compared = swipes = 0
    for gesture in trained:
        compared += 1
        if gesture.writer in writers:
            shared.add(gesture.writer)
        same = ids.get(trace_digest(gesture))
        if same is not None:
            swipes += 1
            if len(examples) < EXAMPLES:
                examples.append(f"{same} = {gesture.id}")
    return Overlap(compared, swipes, tuple(sorted(shared)), tuple(examples))


def require_disjoint(evaluated: Sequence[Gesture], trained: Iterable[Gesture], name: str) -> int:
    """Refuse `evaluated` when swipes or writers of it are in the training corpus called `name`.

    Returns:
        Number of training swipes that were compared.

    Raises:
        GateError: a swipe or a writer is in both; counts and example ids are in the message.
    """
    overlap = find_overlap(evaluated, trained)
    if overlap.swipes or overlap.writers:
        rows = f" (rows {', '.join(overlap.examples)})" if overlap.examples else ""
        people = f" ({', '.join(overlap.writers[:EXAMPLES])})" if overlap.writers else ""
        raise GateError(
            f"the evaluation set is contaminated: {overlap.swipes:,} swipes{rows} and "
            f"{len(overlap.writers):,} writers{people} of it are in the training corpus {name}",
            fix="evaluate on writers that the model was not trained on",
        )
    return overlap.compared
