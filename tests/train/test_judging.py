"""Commands that judge a model: what they write is safe before anything long or last is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from swipe_train_command import SwipeTrain

from swipe.lexicon import Lexicon
from swipe.presets import DEFAULT_PRESET, TunedPreset, load_preset
from train.checkpoint import load_checkpoint
from train.geometry import Geometry

LEXICON = "wordfreq:1000"


@pytest.fixture
def model(released: Path, tmp_path: Path) -> Path:
    """A checkpoint beside which a test may write."""
    return Path(shutil.copyfile(released, tmp_path / "x.safetensors"))


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tuning that takes no time; the lexicons it was asked for."""
    asked: list[str] = []

    def tune(path: Path, data: str, words: Lexicon, **options: Any) -> TunedPreset:
        asked.append(words.name)
        weights = load_checkpoint(path).weights_sha256
        return TunedPreset(DEFAULT_PRESET, words.name, words.sha256, weights, data, None, {})

    monkeypatch.setattr("train.tuning.tune_checkpoint", tune)
    return asked


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--checkpoint", "absent", "--json", "file/x"],
        ["geometry", "--checkpoint", "absent", "--json", "file/x"],
        ["tune-decoder", "--checkpoint", "absent", "--data", "absent", "--out", "file/x"],
        ["card", "absent", "--evaluation", "absent", "--corpus", "futo", "--out", "file/x"],
        ["card", "taken", "--evaluation", "absent", "--corpus", "futo"],
        ["tune-decoder", "--checkpoint", "x.safetensors", "--data", "absent", "--lexicon", LEXICON],
    ],
    ids=["eval", "geometry", "tune", "card", "card, default place", "tune, default place"],
)
def test_an_output_that_cannot_be_written_is_known_before_the_work(
    arguments: list[str], model: Path, tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.md").mkdir()
    (tmp_path / "x.preset.json").mkdir()
    done = swipe_train(*arguments)
    assert done.code == 2
    assert "cannot write" in done.err, "it went to work first"


def test_tuned_settings_are_saved_before_they_are_shown(
    model: Path, tuning: list[str], swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.tuning.table", lambda _: str(list(model.parent.glob("*.json"))))
    done = swipe_train("tune-decoder", "--checkpoint", str(model), "--data", "d", "--out", "p.json")
    assert done.code == 0, done.err
    assert "p.json" in done.out.splitlines()[0]


def test_tuning_for_a_second_lexicon_keeps_the_first_ones_preset(
    model: Path,
    tmp_path: Path,
    tuning: list[str],
    swipe_train: SwipeTrain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("train.tuning.table", lambda _: "")
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    for lexicon in (LEXICON, "words.txt", LEXICON, "words.txt"):
        swipes = ("--checkpoint", str(model), "--data", "d")
        done = swipe_train("tune-decoder", *swipes, "--lexicon", lexicon)
        assert done.code == 0, done.err
    assert tuning == [LEXICON, "words.txt"] * 2
    found = {path.name: load_preset(path).lexicon for path in tmp_path.glob("*.preset.json")}
    assert found == {"x.preset.json": LEXICON, "x.words.preset.json": "words.txt"}
    assert "x.words.preset.json" in done.out


def test_figures_of_geometry_say_of_which_weights_they_are(
    model: Path, tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Geometry(100, "0" * 64, 80.0, {"dvorak": 75.0}, 0.0)
    monkeypatch.setattr("train.geometry.measure_geometry", lambda *_, **__: found)
    monkeypatch.setattr("train.judge.held_out", lambda *_: SimpleNamespace(gestures=[]))
    given = ("--checkpoint", str(model), "--lexicon", LEXICON)
    done = swipe_train("geometry", *given, "--json", "g.json")
    assert done.code == 0, done.err
    written = json.loads((tmp_path / "g.json").read_text())
    assert written == {**found.to_dict(), "weights_sha256": load_checkpoint(model).weights_sha256}
