"""Layers: convolutions, pooling, matrix products, attention.

Arithmetic is in float32, whatever the declared type: an accelerator accumulates float16 products
in float32 too, and what it stores is rounded to the declared type afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from exporter.mil.operators import Kernel, Options, operator, plain

CONV: Final[dict[int, Callable[..., Tensor]]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: Final[dict[int, Callable[..., Tensor]]] = {
    1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d,
}  # fmt: skip
AVG_POOL: Final[dict[int, Callable[..., Tensor]]] = {
    1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d,
}  # fmt: skip
MAX_POOL: Final[dict[int, Callable[..., Tensor]]] = {
    1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d,
}  # fmt: skip

Padding = Callable[[Sequence[int]], list[tuple[int, int]]]
"""Spatial sizes of the operand -> elements to add before and after, for each axis."""

plain("linear", "x weight bias?", F.linear)


@operator("matmul", "x y")
def matmul(options: Options) -> Kernel:
    x_turned, y_turned = options.flag("transpose_x"), options.flag("transpose_y")

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x.mT if x_turned else x) @ (y.mT if y_turned else y)

    return kernel


@operator("einsum", "values*")
def einsum(options: Options) -> Kernel:
    equation = options.text("equation")
    return lambda *values: torch.einsum(equation, *values)


@operator("scaled_dot_product_attention", "query key value attn_mask?")
def attention(options: Options) -> Kernel:
    """A boolean mask is true where a key takes part; a row without any is NaN, as defined."""

    def kernel(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return torch.softmax(scores, -1) @ value

    return kernel


@operator("conv", "x weight bias?")
def conv(options: Options) -> Kernel:
    kernel_sizes = _spatial(options, "weight")
    rank = len(kernel_sizes)
    strides = options.integers("strides", [1] * rank)
    dilations = options.integers("dilations", [1] * rank)
    groups = options.integer("groups", 1)
    spans = [(k - 1) * dilation + 1 for k, dilation in zip(kernel_sizes, dilations, strict=True)]
    padding = _padding(options, spans, strides)
    compute = CONV[rank]

    def kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pairs = padding(x.shape[2:])
        if all(before == after for before, after in pairs):
            equal = [before for before, _ in pairs]
            return compute(x, weight, bias, strides, equal, dilations, groups)
        return compute(_padded(x, pairs, 0.0), weight, bias, strides, 0, dilations, groups)

    return kernel


@operator("conv_transpose", "x weight bias?")
def conv_transpose(options: Options) -> Kernel:
    """What padding leaves of every place a kernel can be put; ``output_shape`` may only agree."""
    kernel_sizes = _spatial(options, "weight")
    rank = len(kernel_sizes)
    strides = options.integers("strides", [1] * rank)
    dilations = options.integers("dilations", [1] * rank)
    groups = options.integer("groups", 1)
    kind = options.choice("pad_type", "valid", ("valid", "custom"))
    given = options.integers("pad", [0] * 2 * rank)
    pad = given if kind == "custom" else [0] * 2 * rank
    wanted = options.sizes("output_shape")
    if wanted is not None:
        # The converter states it wherever it is known, and never another one.
        spans = [
            (k - 1) * dilation + 1 for k, dilation in zip(kernel_sizes, dilations, strict=True)
        ]
        sizes = [
            None if size is None else (size - 1) * stride + span - before - after
            for size, stride, span, before, after in zip(
                options.shape("x")[2:], strides, spans, pad[::2], pad[1::2], strict=True
            )
        ]
        if wanted[2:] != sizes:
            raise options.refusal(f"output_shape {wanted[2:]} where {sizes} results")
    compute = CONV_TRANSPOSE[rank]

    def kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = compute(x, weight, bias, strides, 0, 0, groups, dilations)
        for axis in range(rank):
            before, after = pad[2 * axis : 2 * axis + 2]
            y = y.narrow(axis + 2, before, y.shape[axis + 2] - before - after)
        return y

    return kernel


@operator("avg_pool", "x")
def avg_pool(options: Options) -> Kernel:
    sizes, strides, padding = _pool(options)
    only_real = options.flag("exclude_padding_from_average")
    compute = AVG_POOL[len(sizes)]

    def kernel(x: Tensor) -> Tensor:
        pairs = padding(x.shape[2:])
        mean = compute(_padded(x, pairs, 0.0), sizes, strides)
        if not only_real:
            return mean
        real = _padded(torch.ones_like(x[:1, :1]), pairs, 0.0)
        return mean / compute(real, sizes, strides)

    return kernel


@operator("max_pool", "x")
def max_pool(options: Options) -> Kernel:
    sizes, strides, padding = _pool(options)
    compute = MAX_POOL[len(sizes)]
    return lambda x: compute(_padded(x, padding(x.shape[2:]), -math.inf), sizes, strides)


def _pool(options: Options) -> tuple[list[int], list[int], Padding]:
    sizes = options.integers("kernel_sizes")
    strides = options.integers("strides", [1] * len(sizes))
    if options.flag("ceil_mode"):
        raise options.refusal("ceil_mode")
    return sizes, strides, _padding(options, sizes, strides)


def _spatial(options: Options, name: str) -> tuple[int, ...]:
    """Declared sizes of the operand's axes from the third on."""
    shape = options.shape(name)
    if len(shape) - 2 not in CONV:
        raise options.refusal(f"{name} of rank {len(shape)}")
    sizes = tuple(size for size in shape[2:] if size is not None)
    if len(sizes) != len(shape) - 2:
        raise options.refusal(f"{name} of a size that is known only at run time")
    return sizes


def _padding(options: Options, spans: Sequence[int], strides: Sequence[int]) -> Padding:
    """How the axes are padded under windows of `spans` elements."""
    kind = options.choice("pad_type", "valid", ("valid", "custom", "same", "same_lower"))
    given = options.integers("pad", [0] * 2 * len(spans))
    if kind in ("valid", "custom"):
        flat = given if kind == "custom" else [0] * 2 * len(spans)
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        return lambda sizes: pairs

    def same(sizes: Sequence[int]) -> list[tuple[int, int]]:
        """So many that ceil(size / stride) elements come out; the odd one goes after or before."""
        pairs = []
        for size, span, stride in zip(sizes, spans, strides, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
            less, more = total // 2, total - total // 2
            pairs.append((less, more) if kind == "same" else (more, less))
        return pairs

    return same


def _padded(x: Tensor, pairs: Sequence[tuple[int, int]], value: float) -> Tensor:
    flat = [size for pair in reversed(pairs) for size in pair]
    return F.pad(x, flat, value=value) if any(flat) else x
