"""What exporting needs of the EEG model: ``--model examples.eeg.exportable:recordings``."""

from __future__ import annotations

from typing import Final

from examples.eeg.data import Head
from examples.eeg.model import build
from exporter.adapter import Exportable, Inputs, Kind, Outputs, Reading

SEED: Final = 0
SENSORS: Final = 32
REGIONS: Final = 32
SAMPLES: Final = 128
TRAINED_ON: Final = 50_000
"""Recordings below this number were trained on; see `config.toml`."""
CALIBRATION: Final = 128
VERIFICATION: Final = 800


def recordings() -> Exportable:
    """The transformer for recordings of one second, judged by whether the source is found."""
    head = Head(SEED, SENSORS, REGIONS, SAMPLES)
    numbers = range(TRAINED_ON, TRAINED_ON + VERIFICATION)
    seen = [head.recording(number) for number in numbers]
    strongest = [int(activity.argmax()) for _, activity in seen]

    def located(outputs: Outputs) -> list[float]:
        pairs = zip(outputs, strongest, strict=True)
        return [float(activity.argmax() == region) for activity, region in pairs]

    calls: list[Inputs] = [{"signals": signals[None]} for signals, _ in seen]
    further: list[Inputs] = [
        {"signals": head.recording(number)[0][None]} for number in range(CALIBRATION)
    ]
    return Exportable(
        module=build(SENSORS, REGIONS),
        example=further[0],
        calibration=further,
        verification=calls,
        reading=Reading(Kind.VALUES),
        name="eeg",
        output_name="activity",
        metric=located,
        metric_name="located",
        samples=f"{VERIFICATION} generated recordings",
        meanings={
            "signals": "one row per sensor at 128 Hz, of about unit variance",
            "activity": "root mean square of each region, in units of the signal",
        },
    )
