"""What a model was trained on, compared with the swipes that it is to be judged on.

Its record names the corpora of its run, and of the runs whose weights that one started from. A file
that is another one by now than the one that was read is not compared: it would prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swipe.contamination import require_disjoint
from swipe.corpus import corpus_digest, is_synthetic, writer_share
from swipe.errors import UsageError
from swipe.gesture import Gesture
from swipe.prepared import prepared_rows
from swipe.progress import counting, reporting
from swipe.sources import read_rows
from train.checkpoint import Checkpoint
from train.swipe_data import DEV_SALT, EARLIER

UNCHECKED_SYNTHETIC: Final = "it is generated, and no real swipe can be among its swipes"
UNCHECKED_GONE: Final = "it is not at this path: name it with --train-data"
UNCHECKED_OTHER: Final = "another corpus is at this path by now: name it with --train-data"
_SPLIT: Final = ("train", "dev", "dev_share")
"""Fields of a record that say who was held out."""


@dataclass(frozen=True, slots=True)
class Contamination:
    """What the evaluation set was compared with; an overlap is an error and never gets here.

    Attributes:
        trained_on: the training corpus.
        compared: number of its swipes that were compared; 0 when none could be.
        unchecked: why it was not compared, empty when it was.
    """

    trained_on: str
    compared: int
    unchecked: str = ""


def check_exposure(
    checkpoint: Checkpoint,
    evaluated: Sequence[Gesture],
    train_data: str | None,
    trained: Sequence[Gesture] | None = None,
) -> Contamination:
    """Compare `evaluated` with `train_data`, or with all that the checkpoint's record names.

    Args:
        checkpoint: the model to be judged.
        evaluated: the swipes to judge it on.
        train_data: corpus to compare with; None for the recorded ones.
        trained: what the run trained on, when `evaluated` are those that it held out.

    Raises:
        GateError: there is an overlap.
        DataError: a corpus cannot be read.
        UsageError: `train_data` is generated.
    """
    letters = checkpoint.contract.alphabet
    if train_data is not None:
        if is_synthetic(train_data):
            raise UsageError(
                "--train-data names generated swipes, with which nothing real can overlap",
                fix="name the corpus that the model was trained on, or leave it out",
            )
        return _compare(train_data, _rows(Path(train_data), letters), evaluated)
    own = checkpoint.data
    found = []
    for name, record in _corpora(own):
        left_out = _unchecked(name, record)
        if left_out:
            found.append(Contamination(name, 0, left_out))
            continue
        if trained is not None and record is own and name == own["train"]:
            rows: Iterable[Gesture] = trained
        else:
            rows = _rows(Path(name), letters)
            same_split = all(record.get(key) == own.get(key) for key in _SPLIT)
            held_out = {gesture.writer for gesture in evaluated} if trained is not None else set()
            if name != record["train"] and same_split and held_out:
                # The run left the writers it held out of what it mixed in: see `train.swipe_data`.
                rows = _without(rows, held_out)
            elif name == record["train"] and not record.get("dev"):
                rows = _first_part(rows, float(record["dev_share"]))
        found.append(_compare(name, rows, evaluated))
    if len(found) == 1:
        return found[0]
    return Contamination(
        ", ".join(one.trained_on for one in found),
        sum(one.compared for one in found),
        "; ".join(f"{one.trained_on}: {one.unchecked}" for one in found if one.unchecked),
    )


def _corpora(own: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every corpus that the weights have seen, with the record of the run that read it.

    Stages of one recipe mostly read the same: that is compared once.
    """
    known = []
    for record in (own, *own.get(EARLIER, ())):
        for name in (str(record["train"]), *record.get("mix", {})):
            seen = (name, record.get("sha256", {}).get(name), *(record.get(k) for k in _SPLIT))
            if seen not in known:
                known.append(seen)
                yield name, record


def _unchecked(name: str, record: Mapping[str, Any]) -> str:
    """Why the corpus called `name` cannot be compared; empty if it can."""
    if is_synthetic(name):
        return UNCHECKED_SYNTHETIC
    if not Path(name).exists():
        return UNCHECKED_GONE
    recorded = record.get("sha256", {}).get(name)
    return UNCHECKED_OTHER if recorded not in (None, corpus_digest(name)) else ""


def _compare(name: str, rows: Iterable[Gesture], evaluated: Sequence[Gesture]) -> Contamination:
    with counting("training swipes compared") as say:
        return Contamination(name, require_disjoint(evaluated, reporting(rows, say), name))


def _without(rows: Iterable[Gesture], writers: set[str]) -> Iterator[Gesture]:
    return (gesture for gesture in rows if gesture.writer not in writers)


def _first_part(rows: Iterable[Gesture], dev_share: float) -> Iterator[Gesture]:
    """Those of the writers that the run did not hold out of its own corpus."""
    return (gesture for gesture in rows if writer_share(gesture.writer, DEV_SALT) >= dev_share)


def _rows(path: Path, letters: str) -> Iterable[Gesture]:
    """The swipes of a corpus one after the other, repeated ids included, since fit trains on them.

    Raises:
        DataError: while reading, when the corpus cannot be used.
    """
    if path.is_dir():
        return prepared_rows(path)
    return (row for row in read_rows(path, letters) if isinstance(row, Gesture))
