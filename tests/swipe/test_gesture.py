"""Gesture validation: each defect is named, a sound gesture has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from swipe.contract import ALPHABET, frames_needed
from swipe.gesture import Gesture, defect, letter_miss
from swipe.layout import load_layout

SOUND = Gesture(
    id="1",
    word="the",
    points=np.array([[0.45, 0.17, 0], [0.6, 0.5, 90], [0.25, 0.17, 200]], dtype=np.float32),
    writer="w",
    source="test",
)


def _points(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 3)


def test_a_sound_gesture_has_no_defect() -> None:
    assert defect(SOUND, ALPHABET) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"word": ""}, "no word"),
        ({"word": "a"}, "one-letter"),
        ({"word": "théa"}, "outside the alphabet: é"),
        ({"points": _points((0, 0, 0), (1, 1, 5))}, "fewer than 3 points"),
        ({"points": _points((0, 0, 0), (np.nan, 1, 5), (1, 1, 9))}, "not finite"),
        ({"points": _points((0, 0, 0), (1, 1, np.inf), (1, 1, 9))}, "not finite"),
        ({"points": _points((0, 0, 0), (400, 1, 5), (1, 1, 9))}, "keyboard widths"),
        ({"points": _points((0, 0, 7), (1, 1, 7), (1, 0, 7))}, "same time"),
        ({"points": np.zeros((4, 2), dtype=np.float32)}, "expected [N, 3]"),
        ({"points": _points((0, 0, 0), (1, 1, 5), (1, 1, 1.7e12))}, "longer than a minute"),
        ({"aspect": float("nan")}, "times as high as wide"),
        ({"aspect": -1.0}, "times as high as wide"),
        ({"word": "abcdefgh" * 4 + "z"}, "infeasible for CTC: needs 33 of 32"),
    ],
)
def test_each_defect_is_named(change: dict[str, object], reason: str) -> None:
    found = defect(replace(SOUND, **change), ALPHABET)  # type: ignore[arg-type]
    assert found is not None
    assert reason in found


def test_doubled_letters_need_a_frame_between() -> None:
    assert frames_needed("cat") == 3
    assert frames_needed("hello") == 6
    assert frames_needed("aaaa") == 7


def test_letter_miss_follows_the_order_of_the_letters() -> None:
    layout = load_layout("qwerty")
    path = layout.path("was")
    points = np.column_stack([path, [0, 100, 200]]).astype(np.float32)
    exact = Gesture("1", "was", points, "w", "test", aspect=1 / 3)
    backwards = replace(exact, word="saw")
    assert letter_miss(exact, layout) == pytest.approx(0.0, abs=1e-5)
    assert letter_miss(backwards, layout) > 0.5


def test_letter_miss_is_in_key_widths() -> None:
    layout = load_layout("qwerty")
    points = np.column_stack([layout.path("we") + np.array([0.2, 0.0]), [0, 50]]).astype(np.float32)
    assert letter_miss(Gesture("1", "we", points, "w", "test"), layout) == pytest.approx(2, abs=0.1)
