"""The finite guard sees every kind of bad value and names the tensor."""

from __future__ import annotations

import pytest
import torch

from swipe.errors import NonFiniteError
from train.finite import all_finite, find_nonfinite, require_finite


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
