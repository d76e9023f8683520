"""The keyboard is read, not learnt by heart: on the released model, and on ones that cheat."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from torch import Tensor, nn

from swipe.corpus import load_corpus
from swipe.errors import GateError
from swipe.gesture import Gesture
from swipe.layout import load_layout
from swipe.lexicon import Lexicon, load_lexicon
from swipe.synthesis import synthesize
from train.checkpoint import Checkpoint, load_checkpoint
from train.geometry import Geometry, measure_geometry, require_geometry
from train.swipe_data import sample

MODELS = Path(__file__).parents[2] / "models"


def found(recorded: float = 80.0, dvorak: float = 75.0, shuffled: float = 0.1) -> Geometry:
    return Geometry(100, "0" * 64, recorded, {"azerty": 79.0, "dvorak": dvorak}, shuffled)


def test_a_model_within_the_limits_passes() -> None:
    require_geometry(found())


def test_a_keyboard_that_costs_too_much_is_named() -> None:
    with pytest.raises(GateError, match=r"dvorak costs 12\.5 points"):
        require_geometry(found(dvorak=67.5))


def test_swipes_that_are_read_on_a_shuffled_keyboard_are_refused() -> None:
    with pytest.raises(GateError, match=r"5\.0 % of the swipes are still read"):
        require_geometry(found(shuffled=5.0))


@pytest.mark.parametrize("recorded", [0.0, 23.9])
def test_a_model_that_reads_too_little_to_lose_anything_is_refused(recorded: float) -> None:
    little = Geometry(100, "0" * 64, recorded, {"dvorak": 0.0 if recorded == 0 else 20.0}, 0.0)
    with pytest.raises(GateError, match=r"only .* % of the swipes are read as recorded"):
        require_geometry(little)
    require_geometry(found(recorded=24.0, dvorak=12.0))


def test_a_measurement_without_another_keyboard_is_refused() -> None:
    with pytest.raises(GateError, match="no other keyboard"):
        require_geometry(Geometry(100, "0" * 64, 80.0, {}, 0.0))


def test_the_keyboard_itself_is_not_another_one(released: Path) -> None:
    own = load_checkpoint(released)
    words = load_lexicon("wordfreq:1000")
    swipes = synthesize(load_layout("qwerty"), words, 4).gestures
    with pytest.raises(GateError, match="no other keyboard"):
        measure_geometry(Never(), own.contract, swipes, words, layouts=["qwerty"])


class Never(nn.Module):
    """Must not be asked."""

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        raise AssertionError("swipes were decoded before the refusal")


class Blind(nn.Module):
    """Reads nothing: the blank, whatever it is given."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.frames, self.classes = checkpoint.contract.frames, checkpoint.contract.classes

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        logits = features.new_zeros(len(features), self.frames, self.classes)
        logits[..., -1] = 30.0
        return logits


def test_a_model_that_reads_nothing_is_refused(released: Path) -> None:
    own = load_checkpoint(released)
    words = load_lexicon("wordfreq:1000")
    swipes = synthesize(load_layout("qwerty"), words, 40).gestures
    measured = measure_geometry(Blind(own), own.contract, swipes, words)
    assert measured.recorded < 5
    with pytest.raises(GateError, match="too few to tell"):
        require_geometry(measured)


class ByHeart(nn.Module):
    """Looks at the keyboard it was trained on, whatever it is given."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.model = checkpoint.model()
        self.keys = load_layout("qwerty").centers

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        own = keys.new_tensor(self.keys).expand_as(keys)
        return cast(Tensor, self.model(features, own))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(MODELS / "base.safetensors")


@pytest.fixture(scope="module")
def lexicon(shared_data: Path) -> Lexicon:
    return load_lexicon(str(shared_data / "lexicon" / "en_wordlist.combined.gz"))


@pytest.fixture(scope="module")
def gestures(shared_data: Path) -> list[Gesture]:
    corpus = load_corpus(str(shared_data / "how_we_swipe" / "dev.jsonl.gz"), load_layout("qwerty"))
    return sample(corpus.gestures, 600, 0)


@pytest.mark.slow
def test_the_released_model_reads_keyboards_it_was_never_trained_on(
    checkpoint: Checkpoint, gestures: list[Gesture], lexicon: Lexicon
) -> None:
    require_geometry(measure_geometry(checkpoint.model(), checkpoint.contract, gestures, lexicon))


@pytest.mark.slow
def test_a_model_that_ignores_the_keys_is_refused(
    checkpoint: Checkpoint, gestures: list[Gesture], lexicon: Lexicon
) -> None:
    cheat = ByHeart(checkpoint)
    measured = measure_geometry(cheat, checkpoint.contract, gestures[:200], lexicon)
    assert measured.shuffled == measured.recorded > 50
    with pytest.raises(GateError, match="still read"):
        require_geometry(measured)
