"""Reads the ML Program of a saved ``.mlpackage``: its operations, constants, inputs and outputs.

The protobuf and the weight file are what is read, not coremltools' own reconstruction of the
program: that one runs the converter's type inference again and stops at the first operation it
does not know with a bare KeyError. Its two readers of bytes are used, `load_spec` for the protobuf
and the blob reader for weights; the latter checks type and bounds of every entry.

What it leaves out: everything that computes. Functions besides ``main``, states and images are
refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats.build import library, quiet, unusable
from swipe.errors import LoweringError

Constant = NDArray[Any]

EXTRA: Final = "coreml"
WEIGHTS: Final = Path("Data", "com.apple.CoreML", "weights")
FUNCTION: Final = "main"

NAMES: Final = {
    "BOOL": "bool", "STRING": "string", "FLOAT16": "fp16", "FLOAT32": "fp32",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT4": "int4",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32",
    "UINT1": "uint1", "UINT2": "uint2", "UINT3": "uint3", "UINT4": "uint4", "UINT6": "uint6",
}  # fmt: skip
"""MIL's names of the element types that constants may have."""

STORAGE: Final[Mapping[str, Any]] = {
    "bool": np.bool_, "fp16": np.float16, "fp32": np.float32,
    "int4": np.int8, "int8": np.int8, "int16": np.int16, "int32": np.int32,
    "uint1": np.uint8, "uint2": np.uint8, "uint3": np.uint8, "uint4": np.uint8,
    "uint6": np.uint8, "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32,
}  # fmt: skip
"""The array type that holds each; below eight bits, one element per byte."""

BITS: Final = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}


@dataclass(frozen=True, slots=True)
class Variable:
    """A value as the program declares it.

    Attributes:
        name: unique in the program.
        dtype: MIL's name, e.g. "fp16".
        shape: sizes; None where it is known only at run time.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation that is not a constant.

    Attributes:
        type: e.g. "conv".
        inputs: names of the values bound to each input; several where it takes a list.
        outputs: at least one.
    """

    type: str
    inputs: Mapping[str, tuple[str, ...]]
    outputs: tuple[Variable, ...]

    @property
    def name(self) -> str:
        """Of its first output, which is how reports call it."""
        return self.outputs[0].name


@dataclass(frozen=True, slots=True)
class Extent:
    """The sizes that one dimension may have; `largest` is None where nothing bounds it."""

    smallest: int
    largest: int | None

    def holds(self, size: int) -> bool:
        """Whether `size` is allowed."""
        return self.smallest <= size and (self.largest is None or size <= self.largest)

    def __str__(self) -> str:
        if self.smallest == self.largest:
            return str(self.smallest)
        return f"{self.smallest}..{'' if self.largest is None else self.largest}"


@dataclass(frozen=True, slots=True)
class Feature:
    """An input or output of the package.

    Attributes:
        name: as the host binds it.
        dtype: MIL's name.
        shape: what each dimension may be.
        choices: when not empty, the only shapes allowed.
    """

    name: str
    dtype: str
    shape: tuple[Extent, ...]
    choices: tuple[tuple[int, ...], ...] = ()

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` fits."""
        if self.choices:
            return shape in self.choices
        return len(shape) == len(self.shape) and all(
            extent.holds(size) for extent, size in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        shapes = [str(list(choice)) for choice in self.choices]
        return f"{self.dtype}{' or '.join(shapes) or '[' + ', '.join(map(str, self.shape)) + ']'}"


@dataclass(frozen=True, slots=True)
class Program:
    """What a package computes.

    Attributes:
        package: the file name, for messages.
        opset: of MIL: 7 for iOS 17.
        inputs: in the package's order.
        outputs: in the package's order.
        operations: in the order of execution, without plain constants.
        constants: plain constants by name.
        variables: every value as declared, by name.
    """

    package: str
    opset: int
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Constant]
    variables: Mapping[str, Variable]


def read_program(package: Path) -> Program:
    """Read the program of `package`, every constant included.

    Raises:
        LoweringError: the package is damaged, or holds what is not an ML Program of arrays.
        MissingError: coremltools is not installed.
    """
    coremltools = library("coremltools", EXTRA)
    try:
        with quiet():
            specification = coremltools.utils.load_spec(str(package))
    except Exception as error:
        # Any type: the package reader and protobuf raise their own.
        raise unusable(package, "cannot be read", error, EXTRA) from error
    return _Reader(package, specification).program()


class _Reader:
    """One specification on its way to a `Program`."""

    def __init__(self, package: Path, specification: Any) -> None:
        self._package = package
        self._specification = specification
        self._proto = library("coremltools.proto.MIL_pb2", EXTRA)
        self._blobs: dict[str, Any] = {}
        self._constants: dict[str, Constant] = {}
        self._variables: dict[str, Variable] = {}

    def program(self) -> Program:
        function, description = self._main(), self._specification.description
        block = function.block_specializations[function.opset]
        for value in function.inputs:
            self._declare(self._variable(value))
        operations = tuple(self._operations(block))
        named = [value.name for value in description.output]
        if list(block.outputs) != named:
            raise self._refusal(f"outputs {named}, but its program gives {list(block.outputs)}")
        return Program(
            package=self._package.name,
            opset=int(function.opset.removeprefix("CoreML")),
            inputs=tuple(map(self._input, description.input)),
            outputs=tuple(self._output(name) for name in named),
            operations=operations,
            constants=self._constants,
            variables=self._variables,
        )

    def _main(self) -> Any:
        kind = self._specification.WhichOneof("Type")
        if kind != "mlProgram":
            raise self._refusal(f"type {kind}, and only an ML Program can be interpreted")
        functions = self._specification.mlProgram.functions
        if list(functions) != [FUNCTION]:
            raise self._refusal(f"functions {sorted(functions)}, and only {FUNCTION} can be run")
        function = functions[FUNCTION]
        opset = function.opset
        if opset not in function.block_specializations or not opset.startswith("CoreML"):
            raise self._refusal(f"no program for its operation set {opset!r}")
        return function

    def _operations(self, block: Any) -> Iterator[Operation]:
        for operation in block.operations:
            outputs = tuple(map(self._variable, operation.outputs))
            for output in outputs:
                self._declare(output)
            if operation.type == "const":
                value = operation.attributes["val"]
                self._constants[outputs[0].name] = self._constant(outputs[0].name, value)
            elif not outputs:
                raise self._refusal(f"a {operation.type} without a result")
            else:
                inputs = {
                    name: tuple(self._bound(operation, name, argument.arguments))
                    for name, argument in operation.inputs.items()
                } | {
                    name: (self._anonymous(operation, name, value),)
                    for name, value in operation.attributes.items()
                    if name != "name"
                }
                yield Operation(operation.type, inputs, outputs)

    def _bound(self, operation: Any, name: str, bindings: Any) -> Iterator[str]:
        for index, binding in enumerate(bindings):
            if binding.WhichOneof("binding") == "name":
                if binding.name not in self._variables:
                    raise self._refusal(f"a {operation.type} of {binding.name!r}, which is unknown")
                yield binding.name
            else:
                yield self._anonymous(operation, f"{name}[{index}]", binding.value)

    def _anonymous(self, operation: Any, name: str, value: Any) -> str:
        """Declare a constant that has no name of its own; constexpr operations hold such."""
        # No name in a program holds a colon.
        full = f"{operation.outputs[0].name}:{name}"
        self._constants[full] = self._constant(full, value)
        self._declare(self._typed(full, value.type))
        return full

    def _declare(self, variable: Variable) -> None:
        if variable.name in self._variables:
            raise self._refusal(f"two values called {variable.name!r}")
        self._variables[variable.name] = variable

    def _variable(self, value: Any) -> Variable:
        return self._typed(value.name, value.type)

    def _typed(self, name: str, kind: Any) -> Variable:
        if kind.WhichOneof("type") != "tensorType":
            raise self._refusal(f"{name!r} of a kind ({kind.WhichOneof('type')}) that is no array")
        declared = self._proto.DataType.Name(kind.tensorType.dataType)
        shape = [
            int(size.constant.size) if size.WhichOneof("dimension") == "constant" else None
            for size in kind.tensorType.dimensions
        ]
        return Variable(name, NAMES.get(declared, declared.lower()), tuple(shape))

    def _constant(self, name: str, value: Any) -> Constant:
        variable = self._typed(name, value.type)
        if variable.dtype != "string" and variable.dtype not in STORAGE:
            raise self._refusal(f"{name!r} of type {variable.dtype}, which is not known")
        shape = tuple(size or 0 for size in variable.shape)
        if value.WhichOneof("value") == "blobFileValue":
            flat = self._blob(name, value.blobFileValue, variable.dtype)
        else:
            flat = self._immediate(name, value, variable.dtype, math.prod(shape))
        if flat.size != math.prod(shape):
            raise self._refusal(f"{flat.size} elements in {name!r} of shape {list(shape)}")
        return flat.reshape(shape)

    def _blob(self, name: str, where: Any, dtype: str) -> Constant:
        file = self._package / WEIGHTS / Path(where.fileName).name
        library_of_blobs = library("coremltools.libmilstoragepython", EXTRA)
        kind = {"fp32": "float"}.get(dtype, dtype)
        try:
            if file.name not in self._blobs:
                self._blobs[file.name] = library_of_blobs._BlobStorageReader(str(file))
            flat = getattr(self._blobs[file.name], f"read_{kind}_data")(where.offset)
        except (AttributeError, RuntimeError, ValueError) as error:
            # AttributeError: a type that is never stored in a file, such as bool.
            what = f"has weights that cannot be read ({name!r} in {file.name})"
            raise unusable(self._package, what, error, EXTRA) from error
        # float16 comes as the bits it is made of.
        return np.array(flat).view(np.float16) if dtype == "fp16" else np.array(flat)

    def _immediate(self, name: str, value: Any, dtype: str, count: int) -> Constant:
        tensor = value.immediateValue.tensor
        field = tensor.WhichOneof("value")
        if value.immediateValue.WhichOneof("value") != "tensor" or field is None:
            raise self._refusal(f"{name!r} without a value that is an array")
        values = getattr(tensor, field).values
        if field == "strings":
            return np.array(list(values), dtype=np.str_)
        if field != "bytes":
            return np.array(values, dtype=STORAGE[dtype])
        if dtype not in BITS:
            return np.frombuffer(values, dtype=STORAGE[dtype])
        return unpack_bits(np.frombuffer(values, dtype=np.uint8), BITS[dtype], count, dtype)

    def _input(self, feature: Any) -> Feature:
        variable = self._array(feature)
        array = feature.type.multiArrayType
        flexible = array.WhichOneof("ShapeFlexibility")
        choices: tuple[tuple[int, ...], ...] = ()
        if flexible == "shapeRange":
            shape = tuple(
                Extent(int(size.lowerBound), int(size.upperBound) if size.upperBound >= 0 else None)
                for size in array.shapeRange.sizeRanges
            )
        else:
            shape = tuple(Extent(int(size), int(size)) for size in array.shape)
        if flexible == "enumeratedShapes":
            shapes = array.enumeratedShapes.shapes
            choices = tuple(tuple(int(size) for size in choice.shape) for choice in shapes)
        return Feature(feature.name, variable.dtype, shape, choices)

    def _output(self, name: str) -> Feature:
        variable = self._variables[name]
        shape = tuple(Extent(size or 0, size) for size in variable.shape)
        return Feature(name, variable.dtype, shape)

    def _array(self, feature: Any) -> Variable:
        kind = feature.type.WhichOneof("Type")
        if kind != "multiArrayType" or feature.type.isOptional:
            kind = f"optional {kind}" if feature.type.isOptional else kind
            raise self._refusal(f"the input {feature.name!r} of kind {kind}")
        variable = self._variables.get(feature.name)
        array = feature.type.multiArrayType
        declared = NAMES.get(array.ArrayDataType.Name(array.dataType))
        if variable is None or declared != variable.dtype:
            raise self._refusal(f"the input {feature.name!r}, which its program takes otherwise")
        return variable

    def _refusal(self, what: str) -> LoweringError:
        return LoweringError(
            f"{self._package.name} has {what}",
            fix="run this step on a Mac, or export the model again with swipe-export coreml",
        )


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int, dtype: str) -> Constant:
    """`count` elements of `bits` bits each, least significant first, one per byte.

    Returns:
        int8 where `dtype` is signed, else uint8; fewer than `count` when `packed` is too short.
    """
    flags = np.unpackbits(packed, bitorder="little")[: count * bits]
    rows = flags[: len(flags) // bits * bits].reshape(-1, bits)
    values: NDArray[np.uint8] = (rows << np.arange(bits, dtype=np.uint8)).sum(
        axis=1, dtype=np.uint8
    )
    if dtype.startswith("uint"):
        return values
    half = 1 << (bits - 1)
    signed: NDArray[np.int16] = (values ^ half).astype(np.int16) - half
    return signed.astype(np.int8)
