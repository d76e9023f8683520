"""Layouts: the built-in ones, and the FUTO schema there and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from swipe.contract import ALPHABET, ModelContract
from swipe.errors import ConfigError, DataError
from swipe.layout import BUILT_IN, Layout, load_layout


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_layouts_are_whole(name: str) -> None:
    layout = load_layout(name)
    assert layout.letters == ALPHABET
    assert len({tuple(c) for c in layout.centers.round(6)}) == 26
    low, high = layout.centers - layout.radii, layout.centers + layout.radii
    assert low.min() >= -1e-9
    assert high.max() <= 1 + 1e-3


def test_qwerty_is_the_corpus_own_file(shared_data: Path) -> None:
    published = Layout.from_json((shared_data / "futo" / "qwerty.json").read_text())
    np.testing.assert_allclose(load_layout("qwerty").centers, published.centers, atol=1e-12)
    np.testing.assert_allclose(load_layout("qwerty").radii, published.radii, atol=1e-12)


def test_json_round_trip(tmp_path: Path) -> None:
    load_layout("azerty").save(tmp_path / "azerty.json")
    again = load_layout(str(tmp_path / "azerty.json"))
    np.testing.assert_array_equal(again.centers, load_layout("azerty").centers)
    assert again.contract().contract_id == load_layout("azerty").contract().contract_id


def test_layouts_have_different_contracts() -> None:
    assert len({load_layout(name).contract().contract_id for name in BUILT_IN}) == len(BUILT_IN)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"name": "x", "letters": "ab", "keys": []}',
        '{"name": "x", "letters": "a", "keys": [{"letter": "a", "cx": 0.1}]}',
        json.dumps(
            {
                "name": "x",
                "letters": "a",
                "keys": [{"letter": "a", "cx": 1, "cy": 1, "rx": 0, "ry": 1}],
            }
        ),
        '{"name": "", "letters": "a", "keys": [{"letter": "a", "cx": NaN, "cy": 0, '
        '"rx": 1, "ry": 1}]}',
    ],
)
def test_a_broken_layout_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        Layout.from_json(text)


def test_unknown_layout_names_the_known_ones() -> None:
    with pytest.raises(DataError) as caught:
        load_layout("colemak")
    assert "qwertz" in caught.value.fix


def test_a_model_is_made_for_the_letters_a_to_z_in_order_only() -> None:
    qwerty = load_layout("qwerty")
    shuffled = Layout("mine", qwerty.letters[::-1], qwerty.centers, qwerty.radii)
    with pytest.raises(DataError, match="decoded over a to z"):
        shuffled.contract()


def test_a_word_off_the_keyboard_is_refused() -> None:
    with pytest.raises(DataError, match="é"):
        load_layout("qwerty").path("été")


def test_contract_round_trips_and_is_a_bijection() -> None:
    contract = load_layout("qwerty").contract()
    assert ModelContract.from_json(contract.to_json()) == contract
    assert contract.blank == 26
    assert contract.classes == 27
    with pytest.raises(ConfigError, match="repeats"):
        ModelContract("aa", "x", ((0.0, 0.0), (0.1, 0.0)))
    with pytest.raises(ConfigError, match="key centres"):
        ModelContract("ab", "x", ((0.0, 0.0),))
    with pytest.raises(ConfigError, match="not a model contract"):
        ModelContract.from_json("{}")
