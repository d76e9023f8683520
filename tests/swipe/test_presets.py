"""Preset files: what is kept, and every way they must be refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swipe.decode import DEFAULT_PRESET, DecoderPreset
from swipe.errors import GateError, UsageError
from swipe.lexicon import Lexicon
from swipe.presets import TunedPreset, choose_preset, load_preset, parse_preset, settings_of

LEXICON = Lexicon("ours", ("cat", "dog"), np.array([-1.0, -2.0], dtype=np.float32))
OTHER = Lexicon("theirs", ("cat", "dog"), np.array([-2.0, -1.0], dtype=np.float32))
SETTINGS = DecoderPreset(lam=0.3, double_penalty=2.0)


def _tuned(settings: DecoderPreset = SETTINGS, weights: str = "w") -> TunedPreset:
    return TunedPreset(settings, LEXICON.name, LEXICON.sha256, weights, "dev.jsonl", "c", {})


@given(
    st.builds(
        DecoderPreset,
        beam_width=st.integers(1, 500),
        floor=st.one_of(st.just(math.inf), st.floats(0.1, 100)),
        lam=st.floats(0, 3),
        double_penalty=st.one_of(st.just(math.inf), st.floats(0, 20)),
    )
)
def test_what_is_written_is_read_again(settings: DecoderPreset) -> None:
    tuned = _tuned(settings)
    text = json.dumps(tuned.to_dict(), allow_nan=False)
    assert parse_preset(json.loads(text), "here") == tuned


def test_a_preset_of_another_lexicon_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = tmp_path / "x.preset.json"
    _tuned().save(path)
    for attempt in (
        lambda: choose_preset(path, tmp_path / "x.safetensors", "w", OTHER),
        lambda: settings_of(_tuned().to_dict(), OTHER),
    ):
        with pytest.raises(GateError, match="tuned with lexicon") as refusal:
            attempt()
        assert LEXICON.sha256 in str(refusal.value)
        assert OTHER.sha256 in str(refusal.value)
    forced = choose_preset(path, tmp_path / "x.safetensors", "w", OTHER, force=True)
    assert forced.settings == SETTINGS


def test_the_preset_beside_a_checkpoint_is_used_when_it_fits(tmp_path: Path) -> None:
    checkpoint = tmp_path / "x.safetensors"
    assert choose_preset(None, checkpoint, "w", LEXICON).settings == DEFAULT_PRESET
    _tuned().save(tmp_path / "x.preset.json")
    fitting = choose_preset(None, checkpoint, "w", LEXICON)
    assert fitting.settings == SETTINGS
    assert "x.preset.json" in fitting.origin


@pytest.mark.parametrize(
    ("lexicon", "weights", "reason"),
    [(OTHER, "w", "another lexicon"), (LEXICON, "v", "another weights")],
)
def test_a_preset_beside_a_checkpoint_that_does_not_fit_is_left_alone(
    lexicon: Lexicon, weights: str, reason: str, tmp_path: Path
) -> None:
    _tuned().save(tmp_path / "x.preset.json")
    choice = choose_preset(None, tmp_path / "x.safetensors", weights, lexicon)
    assert choice.settings == DEFAULT_PRESET
    assert choice.tuned is None
    assert reason in choice.origin


def test_each_lexicon_may_have_a_preset_of_its_own(tmp_path: Path) -> None:
    other = TunedPreset(DEFAULT_PRESET, OTHER.name, OTHER.sha256, "w", "dev.jsonl", "c", {})
    other.save(tmp_path / "model.preset.json")
    _tuned().save(tmp_path / "model.ours.preset.json")
    _tuned(DEFAULT_PRESET).save(tmp_path / "model2.preset.json")
    choice = choose_preset(None, tmp_path / "model.safetensors", "w", LEXICON)
    assert choice.settings == SETTINGS
    assert "model.ours.preset.json" in choice.origin


def test_a_named_preset_of_other_weights_is_used_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    _tuned().save(path)
    choice = choose_preset(path, tmp_path / "x.safetensors", "v", LEXICON)
    assert choice.settings == SETTINGS
    assert "other weights" in choice.origin


def _damaged(**changes: Any) -> str:
    return json.dumps(_tuned().to_dict() | changes)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "\xff", _damaged(schema="swipe-export/preset/9"), _damaged(settings=3),
        _damaged(settings={"beam_width": 100, "lamb": 1.0}), _damaged(extra=1),
        _damaged(settings={"beam_width": None}), _damaged(settings={"beam_width": 0}),
        _damaged(settings={"beam_width": 100, "lam": None}),
        _damaged(settings={"beam_width": 100, "lam": "1"}),
    ],
)  # fmt: skip
def test_a_damaged_preset_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.preset.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(GateError, match=r"x\.preset\.json"):
        load_preset(path)


def test_a_missing_preset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no preset"):
        choose_preset(tmp_path / "none.json", tmp_path / "x.safetensors", "w", LEXICON)


def test_no_record_stands_for_the_default() -> None:
    assert settings_of(None, LEXICON) == DEFAULT_PRESET
    assert settings_of(_tuned().to_dict(), LEXICON) == SETTINGS
