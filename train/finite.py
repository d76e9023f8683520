"""The finite guard: one pair of functions, used at every hand-over.

A batch, a loss, gradients, parameters, buffers, a file about to be written and one just read all
pass through here, so "finite" means the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from swipe.errors import NonFiniteError

ABSURD: Final = 1e6
"""A loss or score beyond this is a diverged run's, whatever its task."""


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first tensor that is not finite.

    Attributes:
        name: the tensor's name or module path.
        nan: how many of its values are NaN.
        inf: how many are infinite.
        size: how many values it has.
    """

    name: str
    nan: int
    inf: int
    size: int

    def __str__(self) -> str:
        return f"{self.name}: {self.nan} NaN and {self.inf} Inf of {self.size} values"


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every value of every floating-point tensor is finite; one synchronisation.

    A norm is NaN or Inf exactly when a value is, or when finite values overflow float32 squared:
    the latter is an explosion that no caller wants to keep either.
    """
    floats = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    if not floats:
        return True
    norms = torch._foreach_norm(floats)
    return bool(torch.isfinite(torch.stack(norms).sum()))


def find_nonfinite(named: Mapping[str, Tensor]) -> NonFinite | None:
    """The first tensor of `named` with a value that is not finite, and how many it has."""
    for name, tensor in named.items():
        if not tensor.is_floating_point() and not tensor.is_complex():
            continue
        # torch knows no isfinite for float8; a float32 holds every value of it.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if not bool(torch.isfinite(values).all()):
            nan = int(torch.isnan(values).sum())
            return NonFinite(name, nan, int(torch.isinf(values).sum()), values.numel())
    return None


def culprit(named: Mapping[str, Tensor]) -> tuple[str, str]:
    """Name of the tensor for which `all_finite` refused `named`, and what is wrong with it.

    The first with a bad value, or the one whose finite values are so large that the norm is not.
    """
    found = find_nonfinite(named)
    if found is not None:
        return found.name, f"{found.nan} NaN and {found.inf} Inf of {found.size} values"
    floats = {name: t.detach() for name, t in named.items() if t.is_floating_point() and t.numel()}
    largest = max(floats, key=lambda name: float(floats[name].abs().max()))
    return largest, f"values up to {float(floats[largest].abs().max()):.1e}, the norm overflows"


def require_finite(named: Mapping[str, Tensor], *, where: str, fix: str) -> None:
    """Raise when a tensor of `named` holds NaN or Inf.

    Args:
        named: tensors by name or module path.
        where: what was about to happen, e.g. "before saving last.safetensors".
        fix: the mend to show.

    Raises:
        NonFiniteError: names the first bad tensor and counts its bad values.
    """
    found = find_nonfinite(named)
    if found is not None:
        raise NonFiniteError(f"not finite {where}: {found}", fix=fix)


def null_for_nonfinite(value: Any) -> Any:
    """`value` with None for every NaN or Inf in it, however nested: JSON knows neither."""
    if isinstance(value, Mapping):
        return {key: null_for_nonfinite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nonfinite(part) for part in value]
    if isinstance(value, float | np.floating):
        # numpy's numbers too, which JSON does not know.
        return float(value) if math.isfinite(value) else None
    return value
