"""The examples' factories: what they promise of the data, and padding that does not count."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from examples.eeg import exportable as eeg
from examples.sign_ctc import exportable as sign
from examples.sign_ctc.task import SignTask
from examples.vision import exportable as vision
from exporter.adapter import Exportable
from exporter.proof import evidence_of, references
from exporter.sweep import paddings
from swipe.errors import ConfigError

EXAMPLES = Path(eeg.__file__).parents[1]


def _options(name: str) -> dict[str, Any]:
    options: dict[str, Any] = tomllib.loads((EXAMPLES / name).read_text())["options"]
    return options


def test_the_factories_build_what_the_configurations_train() -> None:
    assert _options("eeg/config.toml") == {
        "sensors": eeg.SENSORS, "regions": eeg.REGIONS, "samples": eeg.SAMPLES,
    }  # fmt: skip
    images = _options("vision/config.toml")
    assert (images["classes"], images["image"]) == (vision.CLASSES, vision.IMAGE)
    for name in ("config.toml", "transformer.toml"):
        sentences = _options(f"sign_ctc/{name}")
        assert (sentences["glosses"], sentences["samples"]) == (sign.GLOSSES, sign.TRAINED_ON)


def _narrow(monkeypatch: pytest.MonkeyPatch, module: ModuleType, **sizes: int) -> None:
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)


def test_recordings_are_scored_by_the_strongest_region(monkeypatch: pytest.MonkeyPatch) -> None:
    _narrow(monkeypatch, eeg, VERIFICATION=20, CALIBRATION=4)
    made = eeg.recordings()
    assert made.metric is not None
    head = eeg.Head(eeg.SEED, eeg.SENSORS, eeg.REGIONS, eeg.SAMPLES)
    truths = [head.recording(eeg.TRAINED_ON + n)[1].astype(np.float32) for n in range(20)]
    assert list(made.metric(truths)) == [1.0] * 20
    assert sum(made.metric([-row for row in truths])) == 0.0


def test_images_are_scored_by_their_label(monkeypatch: pytest.MonkeyPatch) -> None:
    _narrow(monkeypatch, vision, VERIFICATION=8, CALIBRATION=2)
    made = vision.images()
    assert made.metric is not None
    right = [np.eye(30, dtype=np.float32)[(vision.TRAINED_ON + n) * 7919 % 30] for n in range(8)]
    assert list(made.metric(right)) == [1.0] * 8


@pytest.mark.parametrize("factory", [sign.lstm, sign.transformer])
def test_padding_does_not_reach_what_the_sign_models_say(
    monkeypatch: pytest.MonkeyPatch, factory: Any
) -> None:
    _narrow(monkeypatch, sign, VERIFICATION=6, CALIBRATION=2)
    torch.manual_seed(0)
    made: Exportable = factory()
    made.module.eval()
    (case,) = paddings(made)
    assert len(case.padded) == 6
    evidence = evidence_of(made, references(made), 0.0)
    padding = evidence.trials[-1]
    with torch.inference_mode():
        for call, wanted in zip(padding.calls, padding.expected, strict=True):
            output = made.module(*map(torch.from_numpy, call.values()))[0].numpy()
            assert np.abs(made.real(call, output) - wanted).max() < 1e-4


def test_a_sentence_is_scored_by_the_glosses_that_are_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _narrow(monkeypatch, sign, VERIFICATION=3, CALIBRATION=2)
    made = sign.transformer()
    assert made.metric is not None
    assert made.decode is not None
    outputs = []
    for number in range(3):
        glosses = sign.Signer(0, 20, 6516, 5, 0.5).sentence(sign.TRAINED_ON + number).glosses
        path = [c for gloss in glosses for c in (gloss, sign.GLOSSES)]
        outputs.append(np.eye(21, dtype=np.float32)[path])
        assert made.decode(outputs[-1]) == "".join(chr(ord("!") + gloss) for gloss in glosses)
    assert list(made.metric(outputs)) == [1.0, 1.0, 1.0]
    silent = [np.eye(21, dtype=np.float32)[[sign.GLOSSES]] for _ in range(3)]
    assert list(made.metric(silent)) == [0.0, 0.0, 0.0]


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="no network 'gru'"):
        SignTask(0, 4, samples=8, held_out=2, features=12, network="gru")
