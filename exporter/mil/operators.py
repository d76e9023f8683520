"""The registry of operations: each type's kernel, what it takes, and how its options are read.

An operation is bound once, when a package is opened: its options are read and checked then, and
what remains is a kernel of tensors. An option that its binder did not read is refused by name, so
nothing a file says is ignored.

What it leaves out: the operations themselves, which are in the modules called ``ops_*``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from torch import Tensor

from exporter.mil.program import Constant, Operation, Program, Variable
from swipe.errors import LoweringError

Kernel = Callable[..., Tensor | Sequence[Tensor]]
"""Operands in the order of `Operator.takes` -> one result, or one for each output."""

Value = TypeVar("Value")

REAL: Final = frozenset({"fp16", "fp32"})


@dataclass(slots=True)
class Options:
    """The constant inputs of one operation, and which of them have been read.

    Attributes:
        program: it belongs to.
        operation: whose options these are.
        constants: known values by name, decompressed ones included.
        used: input names that were read.
    """

    program: Program
    operation: Operation
    constants: Mapping[str, Constant]
    used: set[str] = field(default_factory=set)

    @property
    def opset(self) -> int:
        """Of MIL: 5 is iOS 15, 7 is iOS 17."""
        return self.program.opset

    @property
    def output(self) -> Variable:
        """The first result as declared."""
        return self.operation.outputs[0]

    def dtype(self, name: str) -> str:
        """Declared element type of the operand `name`."""
        return self.program.variables[self.operation.inputs[name][0]].dtype

    def shape(self, name: str) -> tuple[int | None, ...]:
        """Declared sizes of the operand `name`."""
        return self.program.variables[self.operation.inputs[name][0]].shape

    def known(self, name: str) -> Constant | None:
        """The value of an input that is constant, else None."""
        bound = self.operation.inputs.get(name, ())
        return self.constants.get(bound[0]) if len(bound) == 1 else None

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer; without a default it must be there."""
        value = self._value(name)
        return int(value.item()) if value is not None else self._default(name, default)

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """A list of integers; without a default it must be there."""
        value = self._value(name)
        return self._default(name, default) if value is None else [int(v) for v in value.flat]

    def sizes(self, name: str) -> list[int] | None:
        """A list of integers, or None where there is none."""
        return self.integers(name) if name in self.operation.inputs else None

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        value = self._value(name)
        return default if value is None else bool(value.item())

    def flags(self, name: str) -> list[bool]:
        """A list of truth values, empty where there is none."""
        value = self._value(name)
        return [] if value is None else [bool(v) for v in value.flat]

    def text(self, name: str) -> str:
        """A word, which must be there."""
        value = self._value(name)
        return self._default(name, None if value is None else str(value.item()))

    def choice(self, name: str, default: str, known: Sequence[str]) -> str:
        """One of the words `known`; any other is refused."""
        value = self._value(name)
        word = default if value is None else str(value.item())
        if word not in known:
            raise self.refusal(f"{name} {word!r} (known: {', '.join(known)})")
        return word

    def number(self, name: str, default: float | None = None, *, of: str | None = "x") -> float:
        """A number, rounded to the element type of the operand `of`.

        The operation adds or compares it in that type: 1e-45 is 0 beside float16.
        """
        value = self._value(name)
        given = self._default(name, default) if value is None else value.item()
        return float(np.float16(given)) if of and self.dtype(of) == "fp16" else float(given)

    def refuse_integers(self, *names: str) -> None:
        """Refuse operands that are not of floating point."""
        for name in names:
            if self.dtype(name) not in REAL:
                raise self.refusal(f"{name} of type {self.dtype(name)}")

    def refusal(self, what: str) -> LoweringError:
        """The error that names this operation and `what` of it is not implemented."""
        return refusal(self.program, self.operation, f"has {what}, which is not implemented")

    def _default(self, name: str, default: Value | None) -> Value:
        if default is None:
            raise self.refusal(f"no {name}")
        return default

    def _value(self, name: str) -> Constant | None:
        self.used.add(name)
        if name not in self.operation.inputs:
            return None
        value = self.known(name)
        if value is None:
            raise self.refusal(f"{name} that is known only at run time")
        return value


@dataclass(frozen=True, slots=True)
class Operator:
    """One type of operation.

    Attributes:
        bind: reads the options and gives the kernel.
        takes: the operands, in the kernel's order.
        optional: those of them that may be absent; the kernel gets None.
        several: the last operand is a list, which the kernel gets as further arguments.
        exact: it moves or picks values and never rounds, so float16 needs no widening.
    """

    bind: Callable[[Options], Kernel]
    takes: tuple[str, ...]
    optional: frozenset[str]
    several: bool
    exact: bool


OPERATORS: Final[dict[str, Operator]] = {}


def operator(
    kind: str, takes: str, *, exact: bool = False
) -> Callable[[Callable[[Options], Kernel]], Callable[[Options], Kernel]]:
    """Register a binder for the operation type `kind`.

    Args:
        kind: MIL's name.
        takes: operands, separated by blanks; ``?`` marks one that may be absent, ``*`` a list.
        exact: see `Operator`.
    """
    names = takes.split()

    def register(bind: Callable[[Options], Kernel]) -> Callable[[Options], Kernel]:
        OPERATORS[kind] = Operator(
            bind=bind,
            takes=tuple(name.rstrip("?*") for name in names),
            optional=frozenset(name[:-1] for name in names if name.endswith("?")),
            several=takes.endswith("*"),
            exact=exact,
        )
        return bind

    return register


def plain(kind: str, takes: str, kernel: Kernel, *, exact: bool = False) -> None:
    """Register an operation without options."""
    operator(kind, takes, exact=exact)(lambda _: kernel)


def bind(options: Options) -> Kernel:
    """The kernel of an operation whose type is known, every option of it read.

    Raises:
        LoweringError: it lacks an operand, or has an option or a value of one that is not known.
    """
    known = OPERATORS[options.operation.type]
    inputs = options.operation.inputs
    for name in known.takes:
        if name not in inputs and name not in known.optional:
            raise options.refusal(f"no {name}")
        if len(inputs.get(name, ())) > 1 and not known.several:
            raise options.refusal(f"{len(inputs[name])} values for {name}")
    kernel = known.bind(options)
    unread = sorted(set(inputs) - options.used - set(known.takes))
    if unread:
        raise options.refusal(f"an option {', '.join(unread)}")
    return kernel


def refusal(program: Program, operation: Operation, what: str) -> LoweringError:
    """The error about one operation of a program."""
    return LoweringError(
        f"{program.package}: operation {operation.name!r} ({operation.type}) {what}",
        fix="run this step on a Mac, or write the model without that operation",
    )
