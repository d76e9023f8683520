"""What exporting needs of the sign models, e.g. ``--model examples.sign_ctc.exportable:lstm``.

Sentences have up to `MOST` frames. The transformer takes them as long as they are. torch cannot
export a recurrent layer for more than one length, so the BiLSTM gets every sentence padded to
`MOST`, and is told how much of it is real.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from examples.sign_ctc.data import Signer
from examples.sign_ctc.model import FEATURES, build, build_transformer
from exporter.adapter import Axis, Exportable, Inputs, Kind, Length, Outputs, Reading
from swipe.scoring import count_edits

SEED: Final = 0
GLOSSES: Final = 20
LONGEST: Final = 5
NOISE: Final = 0.5
TRAINED_ON: Final = 1000
"""Sentences below this number were trained on; see `config.toml`."""
CALIBRATION: Final = 32
VERIFICATION: Final = 300
LEAST: Final = 8
MOST: Final = 80
"""Frames: five signs of at most 12, and the movements between them."""


def lstm() -> Exportable:
    """The convolutions and BiLSTM, for sentences padded to one length."""
    return _exportable("sign-lstm", build(GLOSSES + 1), Axis("T", MOST, MOST))


def transformer() -> Exportable:
    """The transformer, for sentences of any length."""
    return _exportable("sign-transformer", build_transformer(GLOSSES + 1), Axis("T", LEAST, MOST))


def _exportable(name: str, module: nn.Module, axis: Axis) -> Exportable:
    signer = Signer(SEED, GLOSSES, FEATURES, LONGEST, NOISE)
    numbers = range(TRAINED_ON, TRAINED_ON + VERIFICATION)
    said = [_word(signer.sentence(number).glosses) for number in numbers]

    def right(outputs: Outputs) -> list[float]:
        """The share of each sentence that needs no correction."""
        pairs = zip(said, map(_read, outputs), strict=True)
        edits = [count_edits([truth], [answer]) for truth, answer in pairs]
        return [max(0.0, 1.0 - edit.cer / 100.0) for edit in edits]

    calibration = [_call(signer, number, axis) for number in range(CALIBRATION)]
    return Exportable(
        module=module,
        example=calibration[0],
        calibration=calibration,
        verification=[_call(signer, number, axis) for number in numbers],
        reading=Reading(Kind.CTC, blank=GLOSSES),
        name=name,
        output_name="logits",
        axes={"features": {2: axis}},
        lengths=(Length("frames", "T"),),
        decode=_read,
        metric=right,
        metric_name="glosses right",
        samples=f"{VERIFICATION} generated sentences",
        meanings={
            "features": "one row per keypoint feature, one column per frame",
            "logits": "raw, the glosses in order, then the CTC blank",
        },
    )


def _call(signer: Signer, number: int, axis: Axis) -> Inputs:
    frames = signer.perform(number)
    length = frames.shape[1]
    features = np.zeros((1, FEATURES, max(length, axis.least)), dtype=np.float32)
    features[0, :, :length] = frames
    return {"features": features, "frames": np.array([length], dtype=np.int64)}


def _read(logits: NDArray[np.float32]) -> str:
    """Greedy decoding, a letter for each gloss."""
    best = logits.argmax(axis=1)
    kept = best[(best != np.concatenate([[GLOSSES], best[:-1]])) & (best != GLOSSES)]
    return _word(kept.tolist())


def _word(glosses: Sequence[int]) -> str:
    return "".join(chr(ord("!") + gloss) for gloss in glosses)
