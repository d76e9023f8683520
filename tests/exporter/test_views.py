"""Keyboards as hosts pass them, and what PyTorch's logits look like in their slots."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.views import (
    AGNOSTIC,
    BAKED,
    POINTS,
    SLOTS,
    TEXT,
    VIEWS,
    Keyboard,
    View,
    choose_views,
)
from swipe.decode import log_softmax
from swipe.layout import BUILT_IN, load_layout

QWERTY = load_layout("qwerty").contract()
LOGITS = np.random.default_rng(0).normal(0, 5, (3, 32, 27)).astype(np.float32)


@pytest.mark.parametrize("keyboard", [Keyboard.in_order(QWERTY), Keyboard.shuffled(QWERTY)])
def test_every_letter_is_in_a_slot_of_its_own(keyboard: Keyboard) -> None:
    assert len(set(keyboard.slots)) == 26
    assert keyboard.mask.sum() == 26
    np.testing.assert_allclose(keyboard.keys[0, keyboard.slots], QWERTY.keys, atol=1e-6)
    assert (keyboard.mask[0, keyboard.slots] == 1).all()


def test_shuffled_slots_are_no_prefix_and_empty_ones_hold_decoys() -> None:
    keyboard = Keyboard.shuffled(QWERTY)
    assert list(keyboard.slots) != sorted(keyboard.slots)
    assert max(keyboard.slots) >= 26
    letters = {tuple(key) for key in np.float32(QWERTY.keys)}
    assert all(tuple(key) in letters for key in keyboard.keys[0])


@pytest.mark.parametrize("keyboard", [Keyboard.in_order(QWERTY), Keyboard.shuffled(QWERTY)])
def test_emissions_are_log_probabilities_of_letters_and_blank(keyboard: Keyboard) -> None:
    emissions = keyboard.emissions(LOGITS)
    assert emissions.shape == (3, 32, SLOTS + 1)
    read = emissions[:, :, [*keyboard.slots, SLOTS]]
    np.testing.assert_allclose(read, log_softmax(LOGITS), atol=1e-5)
    empty = sorted(set(range(SLOTS)) - set(keyboard.slots))
    assert emissions[:, :, empty].max() < -9e3


def test_the_agnostic_view_is_tried_on_other_slots_and_every_other_keyboard() -> None:
    tried = {name: contract.layout for name, contract, _ in AGNOSTIC.keyboards(QWERTY)}
    assert tried.pop("qwerty in shuffled slots") == "qwerty"
    assert set(tried) == set(BUILT_IN) - {"qwerty"}
    assert all(name == layout for name, layout in tried.items())


@pytest.mark.parametrize(
    ("view", "inputs", "output"),
    [
        (BAKED, ["features"], ("logits", (1, 32, 27))),
        (AGNOSTIC, ["features", "layout_keys", "layout_mask"], ("log_emissions", (1, 32, 65))),
        (POINTS, ["points"], ("logits", (1, 32, 27))),
        (TEXT, ["features"], ("logits", (1, 32, 27))),
    ],
)
def test_a_view_says_what_every_tensor_means(
    view: View, inputs: list[str], output: tuple[str, tuple[int, ...]]
) -> None:
    described = view.describe(QWERTY)
    assert [tensor.name for tensor in described.inputs] == inputs
    assert (described.output.name, described.output.shape) == output
    assert all(tensor.meaning for tensor in (*described.inputs, described.output))


def test_text_and_what_was_tried_besides_are_described() -> None:
    text = TEXT.describe(QWERTY)
    assert text.text is not None
    assert (text.text.name, text.text.dtype, text.only_in) == ("text", "string", ("onnx",))
    assert POINTS.describe(QWERTY).also_tried == ("zeros in unused rows",)
    assert BAKED.describe(QWERTY).text is None


def test_views_are_chosen_by_name_or_by_group() -> None:
    assert choose_views("points") == (POINTS,)
    assert choose_views("both") == (BAKED, AGNOSTIC)
    assert choose_views("all") == VIEWS
