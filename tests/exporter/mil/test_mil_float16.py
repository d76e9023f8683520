"""float16: stored after every operation, rounded once, and never repaired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coremltools")

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mil_programs import Array, Case, mb, run, save

from exporter.mil import Interpreter

LOGITS = np.array([[0.0, -5.0, -20.0, -40.0]], dtype=np.float32)


def half(value: Any) -> Any:
    return mb.cast(x=value, dtype="fp16")


def single(value: Any) -> Any:
    return mb.cast(x=value, dtype="fp32")


def row(*values: float) -> Array:
    return np.array([values], dtype=np.float32)


def stepwise(x: Array) -> Array:
    """x * x + x, rounded after the product and after the sum."""
    narrow = x.astype(np.float16).astype(np.float32)
    product = (narrow * narrow).astype(np.float16).astype(np.float32)
    return (product + narrow).astype(np.float16).astype(np.float32)


CASES = [
    Case("cast", lambda x: single(half(x)), (row(1 + 2**-11, 1 + 3 * 2**-11, 65519, 65520, 1e-8),),
         row(1, 1 + 2**-9, 65504, np.inf, 0)),
    Case("overflow", lambda x: single(mb.mul(x=half(x), y=half(x))), (row(300, -300, 200),),
         row(np.inf, np.inf, 40000)),
    # Inside one operation nothing is rounded: 300 * 300 - 300 * 300.
    Case("accumulation",
         lambda x: single(mb.matmul(x=half(x), y=np.array([[300], [-300]], np.float16))),
         (row(300, 300),), row(0)),
    Case("log_of_softmax", lambda x: single(mb.log(x=mb.softmax(x=half(x)))), (LOGITS,),
         row(-0.006859, -5.007812, -np.inf, -np.inf)),
    Case("log_of_softmax_in_float32", lambda x: mb.log(x=mb.softmax(x=x)), (LOGITS,),
         row(-0.006715, -5.006715, -20.006715, -40.006715)),
    # The default epsilons: 1e-45 and 1e-12 are 0 in float16, 1e-4 is not.
    Case("log_of_zero", lambda x: single(mb.log(x=half(x))), (row(0),), row(-np.inf)),
    Case("rsqrt_of_zero", lambda x: single(mb.rsqrt(x=half(x))), (row(0),), row(np.inf)),
    Case("inverse", lambda x: single(mb.inverse(x=half(x))), (row(0, 1e-4, 0.01, 1),),
         row(10000, 5000, 99, 1)),
    # 1e-7 is 1.19e-7 in float16, and counts beside a variance of 1e-6.
    Case("small_layer_norm",
         lambda x: single(mb.layer_norm(x=half(x), axes=[-1], epsilon=np.float16(1e-7))),
         (row(1e-3, -1e-3),), row(0.9453, -0.9453)),
    Case("nan", lambda x: single(mb.clip(x=half(x), alpha=np.float16(-1), beta=np.float16(1))),
         (row(np.nan, 5),), row(np.nan, 1)),
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    return run(CASES, tmp_path_factory.mktemp("half"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float16_rounds_and_overflows_where_it_is_stored(
    case: Case, results: dict[str, Array]
) -> None:
    np.testing.assert_allclose(results[case.name], case.wanted, rtol=1e-3)


@pytest.fixture(scope="module")
def polynomial(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    def build(x: Any) -> Any:
        narrow = half(x)
        return single(mb.add(x=mb.mul(x=narrow, y=narrow), y=narrow))

    case = Case("y", build, (np.zeros((1, 16), np.float32),))
    return Interpreter.open(save([case], tmp_path_factory.mktemp("polynomial")))


@settings(deadline=None)
@given(x=arrays(np.float32, (1, 16), elements=st.floats(-1e5, 1e5, width=32)))
def test_every_operation_rounds_once_to_nearest_even(polynomial: Interpreter, x: Array) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = stepwise(x)
    np.testing.assert_array_equal(polynomial.run({"y_in0": x})["y"], wanted)


def test_a_trace_shows_values_in_their_declared_type(polynomial: Interpreter) -> None:
    steps = list(polynomial.trace({"y_in0": np.full((1, 16), 300, np.float32)}))
    assert [step.operator for step in steps] == ["cast", "mul", "add", "cast", "identity"]
    assert [step.values.dtype for step in steps] == [np.float16] * 3 + [np.float32] * 2
    assert np.isinf(steps[1].values).all()
    assert steps[-1].name == "y"


UNARY = (
    "relu", "relu6", "sigmoid", "tanh", "exp", "abs", "sign", "sqrt", "square", "silu", "softplus",
    "floor", "ceil", "round", "log", "inverse", "rsqrt", "gelu", "softmax",
)  # fmt: skip
WITH_ALPHA = ("thresholded_relu", "threshold", "leaky_relu", "elu")


def test_nan_stays_nan(tmp_path: Path) -> None:
    nan = np.full((1, 3), np.nan, dtype=np.float32)
    cases = [
        *(Case(name, lambda x, name=name: getattr(mb, name)(x=x), (nan,)) for name in UNARY),
        *(Case(name, lambda x, name=name: getattr(mb, name)(x=x, alpha=0.5), (nan,))
          for name in WITH_ALPHA),
        *(Case(name, lambda x, name=name: getattr(mb, name)(x=x, y=np.float32(2)), (nan,))
          for name in ("maximum", "minimum", "add", "mul")),
        *(Case(name, lambda x, name=name: getattr(mb, name)(x=x, axes=[1]), (nan,))
          for name in ("reduce_max", "reduce_min", "reduce_mean", "reduce_sum")),
        Case("clip", lambda x: mb.clip(x=x, alpha=-1.0, beta=1.0), (nan,)),
        Case("sigmoid_hard", lambda x: mb.sigmoid_hard(x=x, alpha=1.0, beta=0.5), (nan,)),
        Case("clamped_relu", lambda x: mb.clamped_relu(x=x, alpha=1.0, beta=0.5), (nan,)),
    ]  # fmt: skip
    results = run(cases, tmp_path)
    assert [name for name, values in results.items() if not np.isnan(values).all()] == []
