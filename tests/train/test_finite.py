"""The finite guard sees every kind of bad value and names the tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swipe.errors import NonFiniteError
from train.finite import all_finite, culprit, find_nonfinite, null_for_nonfinite, require_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_bad_value_is_found_and_named(bad: float, dtype: torch.dtype) -> None:
    tensors = {"good": torch.ones(5, dtype=dtype), "bad": torch.ones(7, 3, dtype=dtype)}
    assert all_finite(tensors.values())
    assert find_nonfinite(tensors) is None
    tensors["bad"][4, 1] = bad
    assert not all_finite(tensors.values())
    found = find_nonfinite(tensors)
    assert found is not None
    assert (found.name, found.nan + found.inf, found.size) == ("bad", 1, 21)
    with pytest.raises(NonFiniteError, match="before the test: bad"):
        require_finite(tensors, where="before the test", fix="-")


def test_integers_empty_and_none_are_finite() -> None:
    tensors = {"counter": torch.tensor(3), "empty": torch.empty(0)}
    assert all_finite(tensors.values())
    assert all_finite([])
    assert find_nonfinite(tensors) is None


def test_a_norm_that_overflows_is_an_explosion() -> None:
    assert not all_finite([torch.full((4,), 3e38)])


def test_the_largest_floats_are_what_made_a_norm_overflow() -> None:
    """A counter may be larger and an empty tensor has no largest value: neither is to blame."""
    tensors = {
        "counter": torch.tensor(2**62),
        "empty": torch.empty(0),
        "small": torch.full((4,), -1e9),
        "exploded": torch.cat([torch.zeros(1), torch.full((4095,), -4e17)]),
    }
    assert not all_finite(tensors.values())
    name, what = culprit(tensors)
    assert (name, what) == ("exploded", "values up to 4.0e+17, the norm overflows")


def test_json_gets_null_for_what_it_does_not_know_however_nested() -> None:
    nan, inf = float("nan"), np.float64("inf")
    value = {"a": [1, (nan, 2.5)], "b": {"c": inf, "d": "nan"}, "e": np.float32(0.5), "f": True}
    told = null_for_nonfinite(value)
    assert told == {"a": [1, [None, 2.5]], "b": {"c": None, "d": "nan"}, "e": 0.5, "f": True}
    assert type(told["e"]) is float
