"""Tuning: it finds what was hidden, proves it on other writers, and refuses what does not last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import train.tuning as tuning
from swipe.decode import log_softmax
from swipe.errors import DataError, GateError
from swipe.lexicon import Lexicon, load_lexicon
from swipe.presets import DEFAULT_PRESET, DecoderPreset, load_preset
from train.tuning import Swipes, score, search, tune_checkpoint, tune_swipes

LEXICON = Lexicon("test", ("cat", "cot", "cut"), np.array([-6.0, -0.1, -5.0], dtype=np.float32))


def _swipes(words: list[str], writers: int = 8) -> Swipes:
    """Swipes that say each word but for the vowel, which is a little less than even."""
    rows = []
    for word in words:
        logits = np.zeros((16, 27))
        logits[:, 26] = 6.0
        for at, letter in zip((2, 8, 13), word, strict=True):
            logits[at, ord(letter) - 97] = 12.0
        logits[8, [0, 14, 20]] += 11.5
        rows.append(log_softmax(logits))
    owners = [f"w{i % writers}" for i in range(len(words))]
    return Swipes(np.stack(rows), np.array(words), np.array(owners))


def test_weights_that_drown_the_swipe_are_turned_down() -> None:
    swipes = _swipes(["cat", "cut", "cot"] * 8)
    loud = DecoderPreset(lam=3.0)
    assert score(swipes, LEXICON, loud)[0] < 40
    said: list[str] = []
    found = search(swipes, LEXICON, loud, seconds=60, seed=0, say=said.append)
    assert score(swipes, LEXICON, found)[0] == 100.0
    assert said[0].startswith("round 1")
    again = search(swipes, LEXICON, loud, seconds=60, seed=0, say=said.append)
    assert again == found


def test_the_estimate_on_candidates_is_the_accuracy_of_decoding() -> None:
    swipes = _swipes(["cat", "cut", "cot", "dog"] * 4)
    for preset in (DEFAULT_PRESET, DecoderPreset(lam=0.6, gamma=1.0, beta=0.1)):
        pool = tuning._pool(swipes, LEXICON, DEFAULT_PRESET)
        estimate = pool.score(preset.gamma, preset.lam, preset.beta)
        assert estimate == score(swipes, LEXICON, preset)


def test_the_halves_share_no_writer() -> None:
    first, second = _swipes(["cat"] * 40).halves()
    assert not set(first.writers) & set(second.writers)
    assert len(first.words) + len(second.words) == 40
    with pytest.raises(DataError, match="two halves"):
        _swipes(["cat"] * 4, writers=1).halves()


def test_settings_that_other_writers_lose_by_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swipes = _swipes(["cat", "cut", "cot"] * 8)
    monkeypatch.setattr(tuning, "search", lambda *_, **__: DecoderPreset(lam=3.0))
    with pytest.raises(GateError, match="costs the other half"):
        tune_swipes(swipes, LEXICON, DEFAULT_PRESET, minutes=1, seed=0, say=print)


@pytest.mark.slow
def test_a_checkpoint_is_tuned_and_the_file_says_with_what(released: Path, tmp_path: Path) -> None:
    lexicon = load_lexicon("wordfreq:5000")
    tuned = tune_checkpoint(
        released, "synthetic:200", lexicon, minutes=0.0, seed=0, threads=1, say=print
    )
    tuned.save(tmp_path / "out.preset.json")
    assert load_preset(tmp_path / "out.preset.json").to_dict() == tuned.to_dict()
    assert tuned.lexicon == "wordfreq:5000"
    assert "synthetic" in tuned.corpus
    assert tuned.corpus_sha256 is None
    assert set(tuned.figures) == {"tuned half", "other half", "all, tuned on all"}
    parts = [tuned.figures[name]["swipes"] for name in ("tuned half", "other half")]
    assert sum(parts) == tuned.figures["all, tuned on all"]["swipes"]
