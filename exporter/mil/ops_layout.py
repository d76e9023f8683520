"""Operations that move, pick and repeat values, or tell shapes; none of them rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from exporter.mil.operators import Kernel, Options, operator, plain

IOS17: Final = 7
"""The operation set that counts zeros of a shape from the end, and knows no negative index."""


def listed(values: Tensor) -> list[int]:
    """The integers in a tensor."""
    return [int(value) for value in values.reshape(-1).tolist()]


plain("shape", "x", lambda x: torch.tensor(x.shape, dtype=torch.int32), exact=True)
plain("tile", "x reps", lambda x, reps: x.repeat(listed(reps)), exact=True)


@operator("reshape", "x shape", exact=True)
def reshape(options: Options) -> Kernel:
    """-1 is what is left over, 0 the size of ``x`` there; from iOS 17 on counted from the end."""
    counted_from_end = options.opset >= IOS17

    def kernel(x: Tensor, shape: Tensor) -> Tensor:
        sizes = listed(shape)
        if 0 in sizes:
            if len(sizes) != x.ndim and not counted_from_end:
                raise ValueError(f"0 in shape {sizes} for an operand of rank {x.ndim}")
            offset = x.ndim - len(sizes)
            sizes = [
                size or (x.shape[i + offset] if i + offset >= 0 else 1)
                for i, size in enumerate(sizes)
            ]
        return x.reshape(sizes)

    return kernel


@operator("transpose", "x", exact=True)
def transpose(options: Options) -> Kernel:
    order = options.integers("perm")
    return lambda x: x.permute(order)


@operator("expand_dims", "x", exact=True)
def expand_dims(options: Options) -> Kernel:
    axes = options.integers("axes")

    def kernel(x: Tensor) -> Tensor:
        rank = x.ndim + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return kernel


@operator("squeeze", "x", exact=True)
def squeeze(options: Options) -> Kernel:
    axes = options.sizes("axes")
    return lambda x: x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("reverse", "x", exact=True)
def reverse(options: Options) -> Kernel:
    axes = options.sizes("axes")
    return lambda x: x.flip(list(range(x.ndim)) if axes is None else axes)


@operator("concat", "values*", exact=True)
def concat(options: Options) -> Kernel:
    axis, interleave = options.integer("axis"), options.flag("interleave")

    def kernel(*values: Tensor) -> Tensor:
        # Scalars, of which shapes are put together, count as vectors of one.
        whole = [value.reshape(1) if value.ndim == 0 else value for value in values]
        if not interleave:
            return torch.cat(whole, axis)
        along = axis % whole[0].ndim
        return torch.stack(whole, along + 1).flatten(along, along + 1)

    return kernel


@operator("stack", "values*", exact=True)
def stack(options: Options) -> Kernel:
    axis = options.integer("axis")
    return lambda *values: torch.stack(values, axis)


@operator("split", "x", exact=True)
def split(options: Options) -> Kernel:
    axis, sizes = options.integer("axis"), options.sizes("split_sizes")
    count = options.integer("num_splits", len(sizes or ()))
    if count != len(options.operation.outputs):
        raise options.refusal(f"{count} parts for {len(options.operation.outputs)} results")

    def kernel(x: Tensor) -> Sequence[Tensor]:
        if sizes is None and x.shape[axis] % count:
            raise ValueError(f"{x.shape[axis]} is not divisible by {count}")
        return torch.split_with_sizes(x, sizes or [x.shape[axis] // count] * count, axis)

    return kernel


@operator("slice_by_index", "x begin end", exact=True)
def slice_by_index(options: Options) -> Kernel:
    strides = options.sizes("stride")
    masks = [options.flags(f"{name}_mask") for name in ("begin", "end", "squeeze")]

    def picks(begin: list[int], end: list[int]) -> tuple[int | slice, ...]:
        rank = len(begin)
        rows = zip(begin, end, strides or [1] * rank, *(m or [False] * rank for m in masks),
                   strict=True)  # fmt: skip
        return tuple(
            (0 if no_begin else first)
            if squeezed
            else slice(None if no_begin else first, None if no_end else last, step)
            for first, last, step, no_begin, no_end, squeezed in rows
        )

    begin, end = options.known("begin"), options.known("end")
    if begin is not None and end is not None:
        # The usual case, settled here and not for every swipe.
        fixed = picks(begin.tolist(), end.tolist())
        return lambda x, begin, end: _picked(x, fixed)
    return lambda x, begin, end: _picked(x, picks(listed(begin), listed(end)))


def _picked(x: Tensor, picks: tuple[int | slice, ...]) -> Tensor:
    """numpy's indexing; torch's has no negative steps."""
    if all(isinstance(pick, int) or pick.step > 0 for pick in picks):
        return x[picks]
    for axis in reversed(range(x.ndim)):
        pick = picks[axis]
        if isinstance(pick, int):
            x = x.select(axis, pick)
        else:
            x = x.index_select(axis, torch.tensor(range(*pick.indices(x.shape[axis]))))
    return x


@operator("slice_by_size", "x begin size", exact=True)
def slice_by_size(options: Options) -> Kernel:
    def kernel(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
        for axis, (start, length) in enumerate(zip(listed(begin), listed(size), strict=True)):
            first = start % x.shape[axis] if start < 0 else start
            x = x.narrow(axis, first, x.shape[axis] - first if length == -1 else length)
        return x

    return kernel


@operator("pad", "x pad", exact=True)
def pad(options: Options) -> Kernel:
    mode = options.choice("mode", "constant", ("constant", "reflect", "replicate"))
    value = options.number("constant_val", 0.0)

    def kernel(x: Tensor, pad: Tensor) -> Tensor:
        pairs = list(zip(*[iter(listed(pad))] * 2, strict=True))
        if mode == "constant":
            return F.pad(x, [size for pair in reversed(pairs) for size in pair], value=value)
        for axis, (before, after) in enumerate(pairs, start=x.ndim - len(pairs)):
            last = x.shape[axis] - 1
            at = torch.arange(-before, last + 1 + after)
            if mode == "replicate":
                at = at.clamp(0, last)
            elif max(before, after) > last:
                raise ValueError(f"cannot reflect {max(before, after)} of {last + 1} elements")
            else:
                at = last - (last - at.abs()).abs()
            x = x.index_select(axis, at)
        return x

    return kernel


@operator("gather", "x indices", exact=True)
def gather(options: Options) -> Kernel:
    axis = options.integer("axis", 0)
    if options.integer("batch_dims", 0) != 0:
        raise options.refusal("batch_dims other than 0")
    prepare = _indices(options)

    def kernel(x: Tensor, indices: Tensor) -> Tensor:
        along = axis % x.ndim
        picked = x.index_select(along, prepare(x.shape[along], indices).reshape(-1))
        return picked.reshape([*x.shape[:along], *indices.shape, *x.shape[along + 1 :]])

    return kernel


@operator("gather_along_axis", "x indices", exact=True)
def gather_along_axis(options: Options) -> Kernel:
    axis, prepare = options.integer("axis", 0), _indices(options)
    return lambda x, indices: x.gather(axis, prepare(x.shape[axis], indices))


@operator("fill", "shape", exact=True)
def fill(options: Options) -> Kernel:
    value = options.number("value", 0.0, of=None)
    return lambda shape: torch.full(listed(shape), value, dtype=torch.float64)


@operator("fill_like", "ref_tensor", exact=True)
def fill_like(options: Options) -> Kernel:
    value = options.number("value", 0.0, of=None)
    return lambda like: torch.full_like(like, value)


@operator("range_1d", "start end step")
def range_1d(options: Options) -> Kernel:
    return lambda start, end, step: torch.arange(start.item(), end.item(), step.item())


@operator("one_hot", "indices one_hot_vector_size")
def one_hot(options: Options) -> Kernel:
    axis = options.integer("axis", -1)
    on = options.number("on_value", 1.0, of=None)
    off = options.number("off_value", 0.0, of=None)

    def kernel(indices: Tensor, one_hot_vector_size: Tensor) -> Tensor:
        places = torch.arange(int(one_hot_vector_size))
        hot = (indices.unsqueeze(-1) == places).movedim(-1, axis)
        return torch.where(hot, on, off)

    return kernel


@operator("band_part", "x", exact=True)
def band_part(options: Options) -> Kernel:
    lower, upper = options.integer("lower", -1), options.integer("upper", -1)

    def kernel(x: Tensor) -> Tensor:
        below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
        outside = ((below > lower) & (lower >= 0)) | ((-below > upper) & (upper >= 0))
        return x.masked_fill(outside, 0)

    return kernel


def _indices(options: Options) -> Callable[[int, Tensor], Tensor]:
    """How this operation's indices become torch's, given the size of what they point into.

    An index outside is refused whatever ``validate_indices`` says: without validation the result
    is undefined, and a reference has none to give.
    """
    options.flag("validate_indices")
    negative = options.opset < IOS17

    def prepare(size: int, indices: Tensor) -> Tensor:
        wide = indices.long()
        if wide.numel() and not (-size * negative <= int(wide.min()) and int(wide.max()) < size):
            raise IndexError(f"an index is outside of {size} elements")
        return torch.where(wide < 0, wide + size, wide) if negative else wide

    return prepare
