"""Operations on each element: arithmetic, comparisons, activations, casts.

NaN stays NaN in all of them, also where MIL's words would allow a number ("x if x >= alpha,
otherwise 0"): an artefact that computes NaN must be seen to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from exporter.mil.operators import REAL, Kernel, Options, operator, plain

Unary = Callable[[Tensor], Tensor]
Binary = Callable[[Tensor, Tensor], Tensor]

UNARY: Final[Mapping[str, Unary]] = {
    "acos": torch.acos, "asin": torch.asin, "atan": torch.atan, "atanh": torch.atanh,
    "cos": torch.cos, "cosh": torch.cosh, "erf": torch.erf, "exp": torch.exp,
    "exp2": torch.exp2, "sigmoid": torch.sigmoid, "silu": F.silu, "sin": torch.sin,
    "sinh": torch.sinh, "softplus": F.softplus, "softsign": F.softsign, "sqrt": torch.sqrt,
    "square": torch.square, "tan": torch.tan, "tanh": torch.tanh,
}  # fmt: skip

EXACT_UNARY: Final[Mapping[str, Unary]] = {
    "abs": torch.abs, "ceil": torch.ceil, "floor": torch.floor, "identity": lambda x: x,
    "logical_not": torch.logical_not, "relu": torch.relu, "round": torch.round,
    "sign": lambda x: torch.where(x == x, torch.sign(x), x),
    "relu6": lambda x: torch.clamp(x, 0, 6),
}  # fmt: skip
"""Results are exact in the type of the operand."""

BINARY: Final[Mapping[str, Binary]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "pow": torch.pow,
    "floor_div": torch.floor_divide, "mod": torch.remainder,
    "maximum": torch.maximum, "minimum": torch.minimum,
    "equal": torch.eq, "not_equal": torch.ne, "less": torch.lt, "less_equal": torch.le,
    "greater": torch.gt, "greater_equal": torch.ge,
    "logical_and": torch.logical_and, "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}  # fmt: skip

for _kind, _unary in UNARY.items():
    plain(_kind, "x", _unary)
for _kind, _unary in EXACT_UNARY.items():
    plain(_kind, "x", _unary, exact=True)
for _kind, _binary in BINARY.items():
    plain(_kind, "x y", _binary)

plain("select", "cond a b", torch.where, exact=True)


@operator("real_div", "x y")
def real_div(options: Options) -> Kernel:
    """Of integers, such as shapes, only without a remainder: MIL does not say how it rounds."""
    if {options.dtype("x"), options.dtype("y")} <= REAL:
        return torch.true_divide

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        if bool((torch.remainder(x, y) != 0).any()):
            raise ValueError("integers do not divide, and how the quotient is rounded is not said")
        return torch.floor_divide(x, y)

    return kernel


@operator("cast", "x", exact=True)
def cast(options: Options) -> Kernel:
    # The conversion itself is what happens to every result: to the declared type.
    options.choice("dtype", "", (options.output.dtype,))
    return lambda x: x


@operator("log", "x")
def log(options: Options) -> Kernel:
    epsilon = options.number("epsilon", 1e-45)
    return lambda x: torch.log(x + epsilon)


@operator("rsqrt", "x")
def rsqrt(options: Options) -> Kernel:
    epsilon = options.number("epsilon", 1e-12)
    return lambda x: torch.rsqrt(x + epsilon)


@operator("inverse", "x")
def inverse(options: Options) -> Kernel:
    """1 / (x + epsilon), and by default that is 1e-4: MIL has no plain reciprocal."""
    epsilon = options.number("epsilon", 1e-4)
    return lambda x: torch.reciprocal(x + epsilon)


@operator("clip", "x")
def clip(options: Options) -> Kernel:
    low, high = options.number("alpha"), options.number("beta")
    return lambda x: torch.clamp(x, low, high)


@operator("threshold", "x")
def threshold(options: Options) -> Kernel:
    low = options.number("alpha")
    return lambda x: torch.clamp(x, min=low)


@operator("gelu", "x")
def gelu(options: Options) -> Kernel:
    kernels: dict[str, Unary] = {
        "EXACT": F.gelu,
        "TANH_APPROXIMATION": lambda x: F.gelu(x, approximate="tanh"),
        "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
    }
    return kernels[options.choice("mode", "EXACT", tuple(kernels))]


@operator("elu", "x")
def elu(options: Options) -> Kernel:
    alpha = options.number("alpha")
    return lambda x: F.elu(x, alpha)


@operator("leaky_relu", "x")
def leaky_relu(options: Options) -> Kernel:
    alpha = options.number("alpha")
    return lambda x: F.leaky_relu(x, alpha)


@operator("prelu", "x alpha")
def prelu(options: Options) -> Kernel:
    return F.prelu


@operator("clamped_relu", "x")
def clamped_relu(options: Options) -> Kernel:
    alpha, beta = options.number("alpha"), options.number("beta")
    return lambda x: torch.clamp(F.leaky_relu(x, alpha), max=beta)


@operator("thresholded_relu", "x")
def thresholded_relu(options: Options) -> Kernel:
    alpha = options.number("alpha")
    return lambda x: x.masked_fill(x < alpha, 0.0)


@operator("linear_activation", "x")
def linear_activation(options: Options) -> Kernel:
    alpha, beta = options.number("alpha"), options.number("beta")
    return lambda x: x * alpha + beta


@operator("scaled_tanh", "x")
def scaled_tanh(options: Options) -> Kernel:
    alpha, beta = options.number("alpha"), options.number("beta")
    return lambda x: torch.tanh(x * beta) * alpha


@operator("sigmoid_hard", "x")
def sigmoid_hard(options: Options) -> Kernel:
    alpha, beta = options.number("alpha"), options.number("beta")
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)
