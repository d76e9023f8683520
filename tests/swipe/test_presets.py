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

from swipe.errors import GateError, UsageError
from swipe.lexicon import Lexicon
from swipe.presets import (
    DEFAULT_PRESET,
    DecoderPreset,
    TunedPreset,
    choose_preset,
    load_preset,
    parse_preset,
    preset_place,
    settings_of,
)

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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wordfreq:5000", "x.wordfreq.preset.json"),
        ("en_wordlist.combined.gz", "x.en_wordlist.preset.json"),
        ("mine.txt", "x.mine.preset.json"),
    ],
)
def test_a_second_lexicon_gets_a_place_of_its_own_which_is_then_found(
    name: str, expected: str, tmp_path: Path
) -> None:
    second = Lexicon(name, OTHER.words, OTHER.log_prob)
    checkpoint = tmp_path / "x.safetensors"
    assert preset_place(checkpoint, second) == tmp_path / "x.preset.json"
    _tuned().save(tmp_path / "x.preset.json")
    assert preset_place(checkpoint, LEXICON) == tmp_path / "x.preset.json"
    place = preset_place(checkpoint, second)
    assert place == tmp_path / expected
    TunedPreset(SETTINGS, name, second.sha256, "w", "dev.jsonl", "c", {}).save(place)
    assert preset_place(checkpoint, second) == place
    assert choose_preset(None, checkpoint, "w", second).settings == SETTINGS


def test_lexicons_of_one_name_keep_a_preset_each(tmp_path: Path) -> None:
    checkpoint = tmp_path / "x.safetensors"
    lexicons = [
        Lexicon("words.txt", ("cat", "dog"), np.array([-1.0, -i], dtype=np.float32))
        for i in (2, 3, 4)
    ]
    for lexicon in lexicons:
        tuned = TunedPreset(SETTINGS, lexicon.name, lexicon.sha256, "w", "dev.jsonl", "c", {})
        tuned.save(preset_place(checkpoint, lexicon))
    assert len(list(tmp_path.iterdir())) == 3
    for lexicon in lexicons:
        assert choose_preset(None, checkpoint, "w", lexicon).settings == SETTINGS


def test_the_preset_that_a_lexicon_has_is_renewed_though_the_default_place_is_free(
    tmp_path: Path,
) -> None:
    _tuned().save(tmp_path / "x.ours.preset.json")
    found = preset_place(tmp_path / "x.safetensors", LEXICON)
    assert found == tmp_path / "x.ours.preset.json"


def test_a_damaged_preset_is_tuned_over(tmp_path: Path) -> None:
    (tmp_path / "x.preset.json").write_text("{")
    place = preset_place(tmp_path / "x.safetensors", LEXICON)
    assert place == tmp_path / "x.preset.json"


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
