"""Whatever a torch file nests, as plain dense tensors by dotted name.

Sparse, quantized and nested tensors are taken apart into the dense ones they store, since NaN can
hide in their values and scales alike, and torch computes with none of them. A dimension that only
repeats one value (`expand`) counts once: a file of four bytes must not fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

_COMPRESSED: Final = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


def flatten(content: Any) -> dict[str, Tensor]:
    """All tensors of a nested structure, in its order.

    Raises:
        RecursionError: it contains itself.
    """
    return {
        name if part == "" else f"{name}.{part}": dense
        for name, tensor in _tensors(content, "")
        for part, dense in _dense(tensor)
    }


def _tensors(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name or "tensor", content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _tensors(value, f"{name}.{index}" if name else str(index))


def _dense(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The dense tensors that `tensor` stores, each with its role; one without a role if dense."""
    if tensor.is_nested:
        for index, part in enumerate(tensor.unbind()):
            yield str(index), part
    elif tensor.layout == torch.sparse_coo:
        yield "indices", tensor._indices()
        yield "values", tensor._values()
    elif tensor.layout in _COMPRESSED:
        for role in _COMPRESSED[tensor.layout]:
            yield role, getattr(tensor, role)()
        yield "values", tensor.values()
    elif tensor.is_quantized:
        yield "integers", tensor.int_repr()
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            yield "scale", torch.tensor(tensor.q_scale(), dtype=torch.float64)
        else:
            yield "scales", tensor.q_per_channel_scales()
            yield "zero_points", tensor.q_per_channel_zero_points()
    else:
        yield "", _once(tensor)


def _once(tensor: Tensor) -> Tensor:
    tensor = tensor.resolve_conj().resolve_neg()
    repeats = False
    for dimension, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor, repeats = tensor.narrow(dimension, 0, 1), True
    return tensor.clone(memory_format=torch.contiguous_format) if repeats else tensor
