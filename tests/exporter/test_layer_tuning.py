"""Layers are kept float in the order of what that gains, and no longer than there is time."""

from __future__ import annotations

import pytest

from exporter.tuning import Budget, rank_layers, revert_greedily

ERRORS = {"stem": 5.0, "middle": 0.0, "worse": -1.0, "tail": 2.0}
PLENTY, NONE = Budget(600.0), Budget(0.0)


def _error(kept: frozenset[str]) -> float:
    return 10.0 - sum(ERRORS[layer] for layer in kept)


def test_layers_are_ranked_by_what_keeping_each_one_float_gains() -> None:
    assert rank_layers(list(ERRORS), _error, PLENTY) == ["stem", "tail"]


def test_a_layer_that_cannot_be_kept_float_gains_nothing() -> None:
    def broken(kept: frozenset[str]) -> float:
        return float("inf") if "stem" in kept else _error(kept)

    assert rank_layers(list(ERRORS), broken, PLENTY) == ["tail"]


def test_as_few_layers_as_pass_are_kept_float() -> None:
    tried: list[frozenset[str]] = []

    def passes(kept: frozenset[str]) -> bool:
        tried.append(kept)
        return len(kept) == 2

    assert revert_greedily(["a", "b", "c"], passes, PLENTY) == {"a", "b"}
    assert tried == [{"a"}, {"a", "b"}]
    assert revert_greedily(["a"], passes, PLENTY) is None


@pytest.mark.parametrize("layers", [[], ["a", "b"]])
def test_without_time_nothing_is_built(layers: list[str]) -> None:
    def never(kept: frozenset[str]) -> bool:
        raise AssertionError("there was no time for this")

    assert revert_greedily(layers, never, NONE) is None
    assert rank_layers(layers, lambda kept: 1.0, NONE) == []
