"""The inside of a Core ML package: every result of its program, as our interpreter computes it.

The converter calls a result by the name of torch's operator, with a suffix where it computes in
another float type. A piece is cut out of the package itself, so altered weights stay altered; its
weight file is the whole package's.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs, Lowering, coreml
from exporter.formats.build import library, quiet
from exporter.localize.reference import functional
from exporter.localize.taps import Piece, Tensor, Values, nearest
from exporter.mil import Interpreter
from exporter.mil.program import EXTRA, STORAGE, Operation, read_program

SUFFIX: Final = ".mlpackage"
IN_ANOTHER_TYPE: Final = re.compile(r"_(?:cast|to)_fp(?:16|32)(?:_\d+)?$")
ARRAY_TYPES: Final = {"fp16": "FLOAT16", "fp32": "FLOAT32", "int32": "INT32"}
SCRIPT: Final = """\
def run(path, inputs):
    from pathlib import Path

    from exporter.mil import Interpreter

    (output,) = Interpreter.open(Path(path)).run(dict(inputs)).values()
    return output
"""


class CoreMlTaps:
    """A Core ML package as `exporter.localize.taps.Tapped`."""

    def __init__(self, path: Path, job: Lowering) -> None:
        self.note = (
            f"tensors as exporter.mil interprets the package; its output by {coreml.runtime()}"
        )
        self._path = path
        self._program = read_program(path)
        self._interpreter = Interpreter.open(path)
        self._run = coreml.load(path)
        self._makers = {
            variable.name: operation
            for operation in self._program.operations
            if not operation.type.startswith("constexpr_")
            for variable in operation.outputs
        }
        self.program = functional(job)
        self.tensors = tuple(self._tensor(name) for name in self._makers)

    def trace(self, call: Inputs) -> Values:
        """See `Tapped.trace`."""
        return {step.name: step.values for step in self._interpreter.trace(call)}

    def output(self, call: Inputs) -> NDArray[Any]:
        """See `Tapped.output`."""
        return self._run(*call.values())

    def cut(self, starts: Values, tensor: Tensor, path: Path) -> Piece:
        """See `Tapped.cut`."""
        path = path.with_suffix(SUFFIX)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._path, path)
        with quiet():
            specification = library("coremltools", EXTRA).utils.load_spec(str(path))
        names = _cut(specification, list(starts), tensor.name)
        types = {name: self._program.variables[name].dtype for name in (*names, tensor.name)}
        inputs = {name: starts[name].astype(STORAGE[types[name]]) for name in names}
        description = specification.description
        del description.input[:], description.output[:]
        for name, value in inputs.items():
            _declare(description.input.add(name=name), types[name], value.shape)
        shape = self._program.variables[tensor.name].shape
        _declare(description.output.add(name=tensor.name), types[tensor.name], shape)
        (path / coreml.SPECIFICATION).write_bytes(specification.SerializeToString())
        piece = Interpreter.open(path)

        def run() -> NDArray[Any]:
            return np.asarray(piece.run(inputs)[tensor.name])

        return Piece(path, inputs, run, SCRIPT)

    def _tensor(self, name: str) -> Tensor:
        maker = self._makers[name]
        node = IN_ANOTHER_TYPE.sub("", name)
        if name == self._program.outputs[0].name:
            (node,) = self.program.graph_signature.user_outputs
        inputs = {feature.name for feature in self._program.inputs}
        seen = self._makers.keys() | inputs
        sources = nearest(_operands(maker), lambda other: other in seen, lambda _: ())
        return Tensor(name, maker.type, str(node), sources, name)


def _operands(operation: Operation) -> list[str]:
    return [name for names in operation.inputs.values() for name in names]


def _cut(specification: Any, starts: list[str], output: str) -> list[str]:
    """Reduce the program to what computes `output` from `starts`, and give those it takes."""
    function = specification.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    makers = {value.name: op for op in block.operations for value in op.outputs}
    declared = {value.name: value for value in function.inputs}
    declared |= {value.name: value for op in block.operations for value in op.outputs}
    wanted: set[int] = set()
    taken: dict[str, None] = {}
    waiting = [output]
    while waiting:
        maker = makers[waiting.pop()]
        if id(maker) in wanted:
            continue
        wanted.add(id(maker))
        for argument in maker.inputs.values():
            for binding in argument.arguments:
                if binding.name in starts:
                    taken[binding.name] = None
                elif binding.name:
                    waiting.append(binding.name)
    operations = [op for op in block.operations if id(op) in wanted]
    inputs = [declared[name] for name in taken]
    kept = [type(part).FromString(part.SerializeToString()) for part in operations]
    given = [type(part).FromString(part.SerializeToString()) for part in inputs]
    del block.operations[:], function.inputs[:], block.outputs[:]
    block.operations.extend(kept)
    function.inputs.extend(given)
    block.outputs.append(output)
    return list(taken)


def _declare(feature: Any, dtype: str, shape: Any) -> None:
    array = feature.type.multiArrayType
    array.dataType = array.ArrayDataType.Value(ARRAY_TYPES[dtype])
    array.shape.extend(shape)
