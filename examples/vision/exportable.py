"""What exporting needs of the image classifier: ``--model examples.vision.exportable:images``."""

from __future__ import annotations

from typing import Final

from examples.vision.data import label_of, picture
from examples.vision.model import build
from exporter.adapter import Exportable, Inputs, Kind, Outputs, Reading

SEED: Final = 0
CLASSES: Final = 30
IMAGE: Final = 224
TRAINED_ON: Final = 20_000
"""Images below this number were trained on; see `config.toml`."""
CALIBRATION: Final = 64
VERIFICATION: Final = 640


def images() -> Exportable:
    """The small vision transformer, judged by top-1 on images that it was not trained on."""
    numbers = range(TRAINED_ON, TRAINED_ON + VERIFICATION)
    labels = [label_of(number, CLASSES) for number in numbers]

    def top1(outputs: Outputs) -> list[float]:
        pairs = zip(outputs, labels, strict=True)
        return [float(scores.argmax() == label) for scores, label in pairs]

    return Exportable(
        module=build(CLASSES, IMAGE),
        example=_call(0),
        calibration=[_call(number) for number in range(CALIBRATION)],
        verification=[_call(number) for number in numbers],
        reading=Reading(Kind.CLASSES),
        name="vision",
        output_name="scores",
        metric=top1,
        metric_name="top1",
        samples=f"{VERIFICATION} generated images",
        meanings={"images": "red, green, blue around 0", "scores": "of each class, raw"},
    )


def _call(number: int) -> Inputs:
    return {"images": picture(SEED, number, CLASSES, IMAGE)[None]}
