"""Which swipes calibrate, which verify: never the same writer, never the same swipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.origins.requests import CALIBRATION_SHARE, CALIBRATION_SWIPES, SEED
from exporter.provenance import portable
from swipe.corpus import load_corpus, split_by_writer
from swipe.errors import GateError
from swipe.gesture import Gesture
from swipe.layout import Layout
from swipe.sources import SYNTHETIC
from train.config import Data
from train.swipe_data import is_present, load_swipe_data, sample


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Swipes for one export.

    Attributes:
        calibration: what static quantization measures ranges on.
        verification: what artefacts are judged by.
        label: where they came from; says "synthetic" when they are.
    """

    calibration: list[Gesture]
    verification: list[Gesture]
    label: str

    def __post_init__(self) -> None:
        require_disjoint(self.calibration, self.verification)


def require_disjoint(calibration: Sequence[Gesture], verification: Sequence[Gesture]) -> None:
    """Refuse verification on writers that calibration has seen.

    Raises:
        GateError: a writer is on both sides, or one side is empty.
    """
    if not calibration or not verification:
        raise GateError(
            f"{len(calibration)} calibration and {len(verification)} verification swipes",
            fix="give more data with --data",
        )
    shared = {g.writer for g in calibration} & {g.writer for g in verification}
    if shared:
        raise GateError(
            f"{len(shared)} writers are among the calibration and the verification swipes",
            fix="split the data by writer",
        )


def choose_samples(
    data: str | None, trained_on: Mapping[str, Any], layout: Layout, count: int
) -> Samples:
    """Pick calibration and verification swipes.

    Args:
        data: corpus given on the command line; it is split by writer.
        trained_on: the checkpoint's data record, used when `data` is None: calibration comes from
            the training writers, verification from the held-out ones. When those files are not
            here, synthetic swipes stand in, and the label says so.
        layout: the keyboard.
        count: how many verification swipes at most.

    Raises:
        DataError: the data cannot be used.
    """
    if data is None and is_present(trained_on):
        fields = {key: trained_on[key] for key in ("train", "dev", "dev_share", "layout")}
        loaded = load_swipe_data(Data(**fields), layout, int(trained_on["seed"]))
        held_out = loaded.corpora[-1].label + (" held-out writers" if not fields["dev"] else "")
        return _pick(loaded.train, loaded.dev, count, held_out)
    spec = data or SYNTHETIC
    corpus = load_corpus(spec, layout, seed=SEED)
    verification, calibration = split_by_writer(
        corpus.gestures, CALIBRATION_SHARE, salt="calibration"
    )
    label = corpus.label
    if data is None:
        named = portable(str(trained_on.get("train")))
        label += f"; the training data {named!r} is not on this machine"
    return _pick(calibration, verification, count, label)


def _pick(
    calibration: Sequence[Gesture], verification: Sequence[Gesture], count: int, label: str
) -> Samples:
    return Samples(
        sample(calibration, CALIBRATION_SWIPES, SEED), sample(verification, count, SEED), label
    )
