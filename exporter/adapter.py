"""Bring your own model: what a factory returns, so that it is exported as a swipe model is.

A factory is a callable without arguments, named ``package.module:factory`` on the command line.
It gives the network, real samples to calibrate and to judge by, and how outputs are read. What is
wrong with any of these is said when the record is made, not after the first hour of lowering.

What it leaves out: running the network (`exporter.proof`) and everything that knows a format.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Axis, Inputs
from exporter.parity import Kind, Reading
from exporter.parity.outputs import Outputs
from swipe.errors import GateError, UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Axis", "Exportable", "Inputs", "Kind", "Length", "Outputs", "Reading"]

DTYPES: Final = (np.float32, np.int64)


@dataclass(frozen=True, slots=True)
class Length:
    """An input that says how much of an axis is real; the rest is padding.

    The network must not depend on the padding, neither on how long it is nor on what it holds:
    that is tried on the network and on every artefact.

    Attributes:
        input: its name; int64[1].
        axis: name of the `Axis` it is about. An axis whose `least` is its `most` is static, and
            may still hold shorter samples.
        stride: frames of that axis for each frame of the output, whose first axis they are; the
            output's frames beyond ``ceil(length / stride)`` have no meaning and are not compared.
            None where the output has no such axis.
    """

    input: str
    axis: str
    stride: int | None = 1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Exportable:
    """A network and everything needed to export it and to judge the artefacts.

    Attributes:
        module: takes the inputs in order, gives one float32 tensor; a batch of one is exported.
        example: one call, by input name: float32 or int64 arrays with a batch of one. Its shapes
            become the artefact's, except along `axes`.
        calibration: real calls that static quantization measures ranges on.
        verification: other real calls, which artefacts are judged by. 600 or more, to tell a loss
            of half a point from chance.
        reading: what outputs are, e.g. ``Reading(Kind.CTC, blank=26)``.
        name: of the artefacts' files.
        output_name: what artefacts call their output.
        axes: the dimensions that vary, by input name and dimension.
        lengths: the inputs that tell real from padding.
        float_inputs: as in `exporter.formats.Lowering`.
        decode: from one output, without the batch axis, to text; None where there is none.
        metric: from all verification outputs, in order, to a score in [0, 1] for each; None where
            nobody knows what is right, and then the accuracy budget has nothing to measure: of
            `Kind.VALUES`, or of too few samples, no quantized artefact can pass, as no decisions
            tell either.
        metric_name: what to call that score.
        writers: who made each verification sample; None: no two belong together.
        strata: the members of each part of the verification samples, bool[N] by name.
        samples: what the samples are, for the report; say so when they are generated.
        meanings: what each input and the output mean, by name; embedded in every artefact.
        metadata: further entries to embed.
    """

    module: nn.Module
    example: Inputs
    calibration: Sequence[Inputs]
    verification: Sequence[Inputs]
    reading: Reading
    name: str = "model"
    output_name: str = "output"
    axes: Mapping[str, Mapping[int, Axis]] = field(default_factory=dict)
    lengths: tuple[Length, ...] = ()
    float_inputs: frozenset[str] = frozenset()
    decode: Callable[[NDArray[np.float32]], str] | None = None
    metric: Callable[[Outputs], Sequence[float] | NDArray[Any]] | None = None
    metric_name: str = "score"
    writers: Sequence[str] | None = None
    strata: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    samples: str = "samples of the model's own factory"
    meanings: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_types(self)
        object.__setattr__(self, "example", _laid_out(self.example))
        for role in ("calibration", "verification"):
            object.__setattr__(self, role, [_laid_out(call) for call in getattr(self, role)])
        if re.fullmatch(r"[\w.-]+", self.name) is None or not self.output_name.isidentifier():
            raise _wrong(f"it is called {self.name!r} and its output {self.output_name!r}")
        _require_axes(self)
        for role in ("calibration", "verification"):
            calls: Sequence[Inputs] = getattr(self, role)
            if not calls:
                raise _wrong(f"there are no {role} samples")
            for number, call in enumerate(calls):
                _require_fit(self, call, f"{role} sample {number}")
        _require_fit(self, self.example, "the example")
        _require_reading(self.reading)
        _require_population(self)
        require_disjoint(self)

    @property
    def dynamic(self) -> dict[str, dict[int, Axis]]:
        """`axes` without those of one size."""
        varying = {
            name: {d: axis for d, axis in dimensions.items() if axis.least < axis.most}
            for name, dimensions in self.axes.items()
        }
        return {name: dimensions for name, dimensions in varying.items() if dimensions}

    def axis(self, name: str) -> Axis:
        """The axis called `name`, which is known to exist."""
        return next(a for d in self.axes.values() for a in d.values() if a.name == name)

    def size(self, call: Inputs, axis: str) -> int:
        """How long `call` is along `axis`, padding included."""
        return next(
            int(call[name].shape[dimension])
            for name, dimensions in self.axes.items()
            for dimension, found in dimensions.items()
            if found.name == axis
        )

    def real(self, call: Inputs, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """`output` of `call`, without the batch axis, as far as it has meaning."""
        for length in self.lengths:
            if length.stride is not None:
                output = output[: -(-int(call[length.input][0]) // length.stride)]
        return output

    def digest(self, call: Inputs) -> bytes:
        """SHA-256 of the real part of `call`: equal for the same sample, however it is padded."""
        found = hashlib.sha256()
        real = {length.axis: int(call[length.input][0]) for length in self.lengths}
        for name, value in call.items():
            for dimension, axis in self.axes.get(name, {}).items():
                count = real.get(axis.name, int(value.shape[dimension]))
                value = value.take(range(count), dimension)
            found.update(f"{name} {value.dtype} {value.shape} ".encode())
            found.update(np.ascontiguousarray(value).data)
        return found.digest()


def require_disjoint(exportable: Exportable) -> None:
    """Refuse to judge by samples that calibration has seen.

    Raises:
        GateError: a verification sample is a calibration sample too, padding aside.
    """
    seen = {exportable.digest(call) for call in exportable.calibration}
    shared = [
        number
        for number, call in enumerate(exportable.verification)
        if exportable.digest(call) in seen
    ]
    if shared:
        raise GateError(
            f"{len(shared)} verification samples are calibration samples too, the first is "
            f"number {shared[0]}",
            fix="give the factory samples of its own for each of the two",
        )


def _require_types(given: Exportable) -> None:
    """Refuse what would fail later as something else: a factory is not checked for types."""
    from torch import nn

    if not isinstance(given.module, nn.Module):
        raise _wrong(f"its module is {given.module!r}, no instance of torch.nn.Module")
    if not isinstance(given.reading, Reading) or not isinstance(given.reading.kind, Kind):
        raise _wrong(f"its reading is {given.reading!r}, and not e.g. Reading(Kind.CLASSES)")
    for field_name in ("meanings", "metadata"):
        for key, value in getattr(given, field_name).items():
            if not isinstance(value, str):
                raise _wrong(f"{key} of its {field_name} is {value!r}, no text")


def _laid_out(call: Inputs) -> Inputs:
    """`call` as the runtimes want it in memory: ``row[None]`` has a stride of 0, a copy has not."""
    for name, value in call.items():
        if not isinstance(value, np.ndarray):
            raise _wrong(f"{name} of a call is a {type(value).__name__}, no numpy array")
    return {
        name: value if value.flags.c_contiguous and 0 not in value.strides else value.copy("C")
        for name, value in call.items()
    }


def _require_axes(given: Exportable) -> None:
    known: dict[str, Axis] = {}
    for name, dimensions in given.axes.items():
        for dimension, axis in dimensions.items():
            rank = given.example[name].ndim if name in given.example else 0
            if not 1 <= dimension < rank:
                raise _wrong(
                    f"axis {axis.name} is dimension {dimension} of {name!r}: there is none"
                )
            whole = all(isinstance(bound, int | np.integer) for bound in (axis.least, axis.most))
            if not axis.name.isidentifier() or not whole or not 1 <= axis.least <= axis.most:
                raise _wrong(f"the axis {axis} has no valid name, or no valid bounds")
            if known.setdefault(axis.name, axis) != axis:
                raise _wrong(f"axis {axis.name} is {axis} and {known[axis.name]}")
    for length in given.lengths:
        value = given.example.get(length.input)
        if value is None or value.shape != (1,) or value.dtype != np.int64:
            raise _wrong(f"the length {length.input!r} is no input of one int64")
        if length.axis not in known:
            raise _wrong(f"{length.input} is the length of {length.axis!r}, which is no axis")
        stride = length.stride
        if stride is not None and not (isinstance(stride, int | np.integer) and stride >= 1):
            raise _wrong(f"{length.input} has a stride of {length.stride}")


def _require_fit(given: Exportable, call: Inputs, what: str) -> None:
    """Refuse a call that is unlike the example, out of an axis' bounds, or not finite."""
    if list(call) != list(given.example):
        raise _wrong(f"{what} has the inputs {list(call)}, the example {list(given.example)}")
    sizes: dict[str, int] = {}
    for name, value in call.items():
        model = given.example[name]
        if value.dtype not in DTYPES or value.dtype != model.dtype:
            raise _wrong(f"{name} of {what} is {value.dtype}: float32 or int64, as the example's")
        if value.ndim != model.ndim or value.ndim == 0 or value.shape[0] != 1:
            raise _wrong(f"{name} of {what} is {list(value.shape)}: a batch of one, as the example")
        if not np.isfinite(value).all():
            raise _wrong(f"{name} of {what} holds NaN or Inf")
        for dimension, size in enumerate(value.shape):
            axis = given.axes.get(name, {}).get(dimension)
            if axis is None:
                if size != model.shape[dimension]:
                    raise _wrong(
                        f"{name} of {what} is {list(value.shape)}, the example's "
                        f"{list(model.shape)}, and dimension {dimension} is no axis that varies"
                    )
            elif not axis.least <= size <= axis.most or sizes.setdefault(axis.name, size) != size:
                raise _wrong(f"{name} of {what} has {size} along {axis}")
    for length in given.lengths:
        if not 1 <= int(call[length.input][0]) <= sizes[length.axis]:
            raise _wrong(
                f"{length.input} of {what} is {int(call[length.input][0])}, and {length.axis} "
                f"has {sizes[length.axis]}"
            )


def _require_reading(reading: Reading) -> None:
    if (reading.kind is Kind.CTC) != (reading.blank is not None):
        raise _wrong(f"outputs are {reading.kind}, the blank is {reading.blank}: CTC has one")


def _require_population(given: Exportable) -> None:
    count = len(given.verification)
    if given.writers is not None and len(given.writers) != count:
        raise _wrong(f"{len(given.writers)} writers of {count} verification samples")
    for name, members in given.strata.items():
        if members.dtype != np.bool_ or members.shape != (count,) or not members.any():
            raise _wrong(f"the stratum {name} is not bool[{count}] with a member")


def _wrong(reason: str) -> UsageError:
    return UsageError(
        f"the Exportable cannot be used: {reason}",
        fix="mend the factory; exporter/adapter.py says what each field holds",
    )
