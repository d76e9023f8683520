"""Operations over axes: reductions, softmax, norms, running sums, the largest k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from exporter.mil.operators import Kernel, Options, operator

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REAL_REDUCTIONS: Final[Mapping[str, Reduction]] = {
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}
REDUCTIONS: Final[Mapping[str, Reduction]] = {
    **REAL_REDUCTIONS,
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "reduce_prod": _product,
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


def _register(kind: str, reduction: Reduction) -> None:
    @operator(kind, "x")
    def reduce(options: Options) -> Kernel:
        if kind in REAL_REDUCTIONS:
            options.refuse_integers("x")
        axes, keep = options.sizes("axes"), options.flag("keep_dims")
        return lambda x: reduction(x, list(range(x.ndim)) if axes is None else axes, keep)


for _kind, _reduction in REDUCTIONS.items():
    _register(_kind, _reduction)


def _position(options: Options, find: Callable[..., Tensor]) -> Kernel:
    axis, keep = options.integer("axis", -1), options.flag("keep_dims")
    options.choice("output_dtype", options.output.dtype, (options.output.dtype,))
    return lambda x: find(x, axis, keepdim=keep)


@operator("reduce_argmax", "x")
def reduce_argmax(options: Options) -> Kernel:
    return _position(options, torch.argmax)


@operator("reduce_argmin", "x")
def reduce_argmin(options: Options) -> Kernel:
    return _position(options, torch.argmin)


@operator("softmax", "x")
def softmax(options: Options) -> Kernel:
    axis = options.integer("axis", -1)
    return lambda x: torch.softmax(x, axis)


@operator("cumsum", "x")
def cumsum(options: Options) -> Kernel:
    axis = options.integer("axis", 0)
    exclusive, reverse = options.flag("exclusive"), options.flag("reverse")

    def kernel(x: Tensor) -> Tensor:
        turned = x.flip(axis) if reverse else x
        sums = turned.cumsum(axis)
        if exclusive:
            # Not sums - x: that leaves the rounding of what was added.
            zero = torch.zeros_like(sums.narrow(axis, 0, 1))
            sums = torch.cat([zero, sums.narrow(axis, 0, x.shape[axis] - 1)], axis)
        return sums.flip(axis) if reverse else sums

    return kernel


@operator("topk", "x")
def topk(options: Options) -> Kernel:
    count, axis = options.integer("k", 1), options.integer("axis", -1)
    ascending = options.flag("ascending")
    # Sorted also where that is not asked for, which leaves the order open.
    options.flag("sort", True)
    indexed = options.flag("return_indices", True)
    options.choice("output_indices_dtype", "int32", ("int32", "uint16"))

    def kernel(x: Tensor) -> Sequence[Tensor]:
        values, indices = x.sort(dim=axis, descending=not ascending, stable=True)
        kept = x.shape[axis] if count == -1 else count
        results = (values.narrow(axis, 0, kept), indices.narrow(axis, 0, kept))
        return results if indexed else results[:1]

    return kernel


@operator("layer_norm", "x gamma? beta?")
def layer_norm(options: Options) -> Kernel:
    epsilon, given = options.number("epsilon", 1e-5), options.sizes("axes")

    def kernel(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        axes = sorted(axis % x.ndim for axis in given) if given else list(range(x.ndim))
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        y = (x - mean) / torch.sqrt(variance + epsilon)
        shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
        y = y if gamma is None else y * gamma.reshape(shape)
        return y if beta is None else y + beta.reshape(shape)

    return kernel


@operator("batch_norm", "x mean variance gamma? beta?")
def batch_norm(options: Options) -> Kernel:
    epsilon = options.number("epsilon", 1e-5)

    def kernel(
        x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor | None, beta: Tensor | None
    ) -> Tensor:
        shape = [-1, *[1] * (x.ndim - 2)]
        y = (x - mean.reshape(shape)) / torch.sqrt(variance.reshape(shape) + epsilon)
        y = y if gamma is None else y * gamma.reshape(shape)
        return y if beta is None else y + beta.reshape(shape)

    return kernel


@operator("instance_norm", "x gamma? beta?")
def instance_norm(options: Options) -> Kernel:
    epsilon = options.number("epsilon", 1e-5)

    def kernel(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        axes = list(range(2, x.ndim))
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        y = (x - mean) / torch.sqrt(variance + epsilon)
        shape = [-1, *[1] * (x.ndim - 2)]
        y = y if gamma is None else y * gamma.reshape(shape)
        return y if beta is None else y + beta.reshape(shape)

    return kernel
