"""Executes an ML Program as its operations are defined, on any machine.

A package is opened once: every operation is looked up and its options are checked, compressed
weights are decoded, names become places in a list. Running is then a loop over kernels.

**float16.** A value declared float16 is stored in float16. An operation widens such operands to
float32, computes in float32, and its result is rounded once, to nearest even, to the declared
type; beyond 65504 that is Inf. What is inside an operation is never rounded: the two steps of
log(softmax) are two operations, and so -Inf there shows, while a sum inside a convolution does
not overflow. Integers below 32 bits are widened to int32 likewise.

It proves what the program means. What Core ML's own kernels make of it, in which order they add
and what an accelerator rounds in between, takes a Mac to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporter.mil import ops_elementwise, ops_layers, ops_layout, ops_recurrent, ops_reduce
from exporter.mil.constants import DECODERS
from exporter.mil.operators import OPERATORS, Kernel, Options, bind, refusal
from exporter.mil.program import (
    STORAGE,
    Constant,
    Feature,
    Operation,
    Program,
    Variable,
    read_program,
)
from swipe.errors import LoweringError

FAMILIES: Final = (ops_elementwise, ops_layers, ops_layout, ops_recurrent, ops_reduce)
"""Importing them fills `OPERATORS`."""

KNOWN: Final = frozenset({"const", *OPERATORS, *DECODERS})
"""Every operation type that can be executed."""

TENSORS: Final[Mapping[str, torch.dtype]] = {
    "fp16": torch.float16, "fp32": torch.float32, "bool": torch.bool,
    "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
    "uint8": torch.uint8, "uint16": torch.uint16,
}  # fmt: skip
"""The types that values have at run time."""

WIDER: Final[Mapping[str, torch.dtype]] = {
    "fp16": torch.float32,
    "int8": torch.int32, "int16": torch.int32, "uint8": torch.int32, "uint16": torch.int32,
}  # fmt: skip
"""The type that each is computed in, where that is another one."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One result on the way to the outputs.

    Attributes:
        name: of the value, as in the package.
        operator: type of the operation that made it.
        values: in the declared type.
    """

    name: str
    operator: str
    values: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Bound:
    """An operation ready to run: operands are places, each with the type to widen it to."""

    operation: Operation
    kernel: Kernel
    operands: tuple[tuple[int, torch.dtype | None], ...]
    results: tuple[_Result, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """Where a result goes, and what it has to be."""

    place: int
    variable: Variable
    dtype: torch.dtype
    size: torch.Size | None
    """None when some size is known only at run time."""


class Interpreter:
    """An opened package.

    Attributes:
        operators: types of the operations in it, constants included.
        inputs: what `run` takes, in the package's order.
        outputs: what it gives, in the package's order.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.inputs: tuple[Feature, ...] = program.inputs
        self.outputs: tuple[Feature, ...] = program.outputs
        self.operators: frozenset[str] = frozenset(
            {operation.type for operation in program.operations}
            | ({"const"} if program.constants else set())
        )
        _refuse_unknown(program)
        # Place 0 holds None: what an absent operand is.
        self._values: list[Tensor | None] = [None]
        self._places: dict[str, int] = {}
        self._constants = dict(program.constants)
        self._input_places = [self._place(feature.name) for feature in program.inputs]
        self._steps = tuple(self._bound(operation) for operation in self._decoded())
        self._output_places = [self._source(feature.name, None) for feature in program.outputs]

    @classmethod
    def open(cls, package: Path) -> Interpreter:
        """Read the ``.mlpackage`` at `package` and check that all of it can be executed.

        Raises:
            LoweringError: the package is damaged, or holds an operation or an option that is not
                known; names the operation, its type and what is known.
            MissingError: coremltools, which reads the file format, is not installed.
        """
        return cls(read_program(package))

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name for `inputs` by name.

        Raises:
            LoweringError: an input is missing, unknown, or of another type or shape than the
                package allows; an operation meets values that it is not defined for.
        """
        with torch.inference_mode():
            values = self._start(inputs)
            for bound in self._steps:
                self._execute(bound, values)
            return {
                feature.name: _array(values[place])
                for feature, place in zip(self.outputs, self._output_places, strict=True)
            }

    def trace(self, inputs: Mapping[str, NDArray[Any]]) -> Iterator[Step]:
        """Every result of every operation that is not a constant, in the order of execution.

        Raises:
            LoweringError: as `run`, when the iteration gets there.
        """
        values = self._start(inputs)
        for bound in self._steps:
            # Not around the yield: the mode is the thread's, and would leak to the caller.
            with torch.inference_mode():
                self._execute(bound, values)
            for result in bound.results:
                yield Step(result.variable.name, bound.operation.type, _array(values[result.place]))

    def _start(self, inputs: Mapping[str, NDArray[Any]]) -> list[Tensor | None]:
        if inputs.keys() != {feature.name for feature in self.inputs}:
            raise self._misfit(
                f"takes {', '.join(feature.name for feature in self.inputs)}"
                f" and got {', '.join(inputs) or 'nothing'}"
            )
        values = self._values.copy()
        for feature, place in zip(self.inputs, self._input_places, strict=True):
            given = inputs[feature.name]
            if given.dtype != STORAGE[feature.dtype] or not feature.takes(given.shape):
                raise self._misfit(
                    f"takes {feature} as {feature.name} and got {given.dtype}{list(given.shape)}"
                )
            # A copy: torch warns of arrays it may not write to, and has no negative strides.
            values[place] = torch.from_numpy(np.array(given, order="C"))
        return values

    def _execute(self, bound: _Bound, values: list[Tensor | None]) -> None:
        operands = [
            values[place] if wider is None else _widened(values[place], wider)
            for place, wider in bound.operands
        ]
        try:
            made = bound.kernel(*operands)
        except (RuntimeError, IndexError, ValueError) as error:
            # What torch raises for shapes that do not fit, and the kernels for values.
            reason = str(error).strip().partition("\n")[0]
            raise refusal(self._program, bound.operation, f"failed: {reason}") from error
        results: Sequence[Tensor] = (made,) if isinstance(made, Tensor) else made
        if len(results) != len(bound.results):
            raise refusal(self._program, bound.operation, f"gives {len(results)} results")
        for result, value in zip(bound.results, results, strict=True):
            if not _fits(value, result):
                raise refusal(
                    self._program,
                    bound.operation,
                    f"gives {list(value.shape)}, declared as {list(result.variable.shape)}",
                )
            values[result.place] = value if value.dtype == result.dtype else value.to(result.dtype)

    def _decoded(self) -> Iterator[Operation]:
        """The operations to execute, once the constants before each of them are decoded."""
        for operation in self._program.operations:
            if operation.type in DECODERS:
                self._constants[operation.name] = self._decode(operation)
            else:
                yield operation

    def _decode(self, operation: Operation) -> Constant:
        decoder, known = DECODERS[operation.type]
        unknown = sorted(set(operation.inputs) - known)
        if unknown:
            raise refusal(self._program, operation, f"has an unknown {', '.join(unknown)}")
        try:
            inputs = {name: self._constants[bound[0]] for name, bound in operation.inputs.items()}
            with np.errstate(over="ignore"):
                value = decoder(inputs).astype(STORAGE[operation.outputs[0].dtype])
        except (KeyError, IndexError, ValueError) as error:
            # A missing input, an index beyond its table, sizes that do not fit.
            raise refusal(self._program, operation, f"cannot be decoded: {error}") from error
        if value.shape != operation.outputs[0].shape:
            raise refusal(
                self._program,
                operation,
                f"gives {list(value.shape)}, declared as {list(operation.outputs[0].shape)}",
            )
        return value

    def _bound(self, operation: Operation) -> _Bound:
        known = OPERATORS[operation.type]
        kernel = bind(Options(self._program, operation, self._constants))
        names = [name for taken in known.takes for name in operation.inputs.get(taken, (None,))]
        self._refuse_types(operation, names)
        operands = tuple(self._operand(name, known.exact) for name in names)
        results = tuple(map(self._result, operation.outputs))
        return _Bound(operation, kernel, operands, results)

    def _refuse_types(self, operation: Operation, names: Sequence[str | None]) -> None:
        """Refuse operands and results of a type that values cannot have at run time."""
        operands = [self._program.variables[name] for name in names if name is not None]
        for variable in (*operands, *operation.outputs):
            if variable.dtype not in TENSORS:
                what = f"uses {variable.name!r} of type {variable.dtype}, which is not implemented"
                raise refusal(self._program, operation, what)

    def _operand(self, name: str | None, exact: bool) -> tuple[int, torch.dtype | None]:
        if name is None:
            return 0, None
        dtype = self._program.variables[name].dtype
        wider = None if exact and dtype == "fp16" else WIDER.get(dtype)
        # A constant is widened here, once.
        return self._source(name, wider), None if name in self._constants else wider

    def _source(self, name: str, wider: torch.dtype | None) -> int:
        """The place of a value; a constant gets one for each type it is wanted in."""
        if name not in self._constants:
            return self._places[name]
        key = name if wider is None else f"{name}:{wider}"
        if key not in self._places:
            place = self._place(key)
            tensor = torch.from_numpy(np.array(self._constants[name], order="C"))
            self._values[place] = _widened(tensor, wider) if wider else tensor
        return self._places[key]

    def _place(self, key: str) -> int:
        self._values.append(None)
        return self._places.setdefault(key, len(self._values) - 1)

    def _result(self, variable: Variable) -> _Result:
        sizes = [size for size in variable.shape if size is not None]
        return _Result(
            place=self._place(variable.name),
            variable=variable,
            dtype=TENSORS[variable.dtype],
            size=torch.Size(sizes) if len(sizes) == len(variable.shape) else None,
        )

    def _misfit(self, what: str) -> LoweringError:
        return LoweringError(
            f"{self._program.package} {what}", fix="pass what the package declares"
        )


def _refuse_unknown(program: Program) -> None:
    """Refuse a program with an operation of a type that nothing here executes."""
    for operation in program.operations:
        if operation.type not in KNOWN:
            raise refusal(
                program, operation, f"is of an unknown type; known: {', '.join(sorted(KNOWN))}"
            )


def _widened(value: Tensor | None, wider: torch.dtype) -> Tensor:
    assert value is not None
    return value.to(wider)


def _fits(value: Tensor, result: _Result) -> bool:
    if result.size is not None:
        return value.shape == result.size
    declared = result.variable.shape
    return len(declared) == value.ndim and all(
        size is None or size == got for size, got in zip(declared, value.shape, strict=True)
    )


def _array(value: Tensor | None) -> NDArray[Any]:
    """A copy: results may share memory with weights."""
    assert value is not None
    return value.numpy().copy()
