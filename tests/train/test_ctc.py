"""What every CTC task shares, against definitions that are too slow to use."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swipe.contract import frames_needed as frames_of_word
from swipe.errors import ConfigError, DataError
from train.ctc import Alphabet, collapse, ctc_loss, frames_needed

SYMBOLS = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=8, unique=True)


@given(SYMBOLS, st.data())
def test_l2_an_alphabet_is_a_bijection_that_leaves_the_blank_out(
    symbols: list[str], data: st.DataObject
) -> None:
    blank = data.draw(st.one_of(st.none(), st.integers(0, len(symbols))))
    alphabet = Alphabet(symbols, blank)
    classes = alphabet.encode(symbols)
    assert alphabet.decode(classes) == symbols
    assert sorted([*classes, alphabet.blank]) == list(range(alphabet.classes))
    assert alphabet.symbols == tuple(symbols)
    with pytest.raises(DataError, match="has no symbol"):
        alphabet.decode([alphabet.blank])


@pytest.mark.parametrize(
    ("symbols", "blank", "says"),
    [
        ([], None, "is empty"),
        (["a", "a"], None, "repeats"),
        (["a", ""], None, "leaves out"),
        (["a", "b"], 3, "blank is class 3 of 3"),
        (["a", "b"], -1, "blank is class -1"),
    ],
)
def test_l2_an_alphabet_that_is_none_is_refused_when_it_is_made(
    symbols: list[str], blank: int | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        Alphabet(symbols, blank)


def test_l2_padding_that_is_a_symbol_cannot_also_be_the_blank() -> None:
    """Both were class 0 there. Here the blank is never the class of a symbol."""
    alphabet = Alphabet(["<pad>", "hello"], blank=0)
    assert alphabet.encode(["<pad>"]) == [1]
    with pytest.raises(DataError, match="not in the alphabet"):
        alphabet.encode(["<unknown>"])


@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=5))
def test_frames_needed_is_that_of_the_words(words: list[str]) -> None:
    longest = max(map(len, words))
    targets = torch.tensor([["abc".index(c) for c in word.ljust(longest, "c")] for word in words])
    lengths = torch.tensor([len(word) for word in words])
    assert frames_needed(targets, lengths).tolist() == [frames_of_word(word) for word in words]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=10), st.integers(0, 3))
def test_collapsing_merges_repeats_and_drops_blanks(path: list[int], padding: int) -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([path + [0] * padding]), 3).float()
    expected = [k for k, _ in itertools.groupby(path) if k != 2]
    assert collapse(logits, torch.tensor([len(path)]), blank=2) == [expected]


def test_the_loss_ignores_padding_and_shows_the_infeasible() -> None:
    logits = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    targets, lengths = torch.tensor([[0, 1, 2], [1, 0, 0]]), torch.tensor([3, 1])
    frames = torch.tensor([6, 4])
    loss = ctc_loss(logits, targets, frames, lengths, blank=3)
    other = logits.clone()
    other[1, 4:] = 50.0
    assert torch.equal(ctc_loss(other, targets, frames, lengths, blank=3), loss)
    assert torch.isfinite(loss)
    assert torch.isinf(ctc_loss(logits, targets, torch.tensor([2, 4]), lengths, blank=3))
