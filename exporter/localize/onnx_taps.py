"""The inside of an ONNX model: every tensor that its inputs reach, as onnxruntime computes it.

The tensors become outputs of a copy of the model. torch's exporter names a tensor after the
operator that computes it, and neither opset 14 nor quantization renames one, so the file that is
shipped still has the names. A tensor that is only rounded to int8 is looked at after that, which
is what its readers see and what lets onnxruntime keep its int8 kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs, Lowering, onnx
from exporter.formats.build import first_line, library, quiet
from exporter.formats.onnx_quantization import EXTRA, onnxruntime
from exporter.formats.opset14 import SOURCE_OPSET
from exporter.formats.program import exported, remembered
from exporter.localize.taps import ROUNDED, Piece, Tensor, Values, nearest
from swipe.errors import LoweringError

SUFFIX: Final = ".onnx"
SCRIPT: Final = """\
def run(path, inputs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options).run(None, dict(inputs))[0]
"""


class OnnxTaps:
    """An ONNX file as `exporter.localize.taps.Tapped`."""

    note: Final = "tensors as onnxruntime computes them, from the file"

    def __init__(self, path: Path, job: Lowering) -> None:
        self._model = library("onnx", EXTRA).load(path)
        self._graph = self._model.graph
        self._makers = {name: node for node in self._graph.node for name in node.output if name}
        self._run = onnx.load(path)
        self.program = remembered(job, "onnx program", lambda: _program(job))
        self.tensors = self._tensors()
        tapped = copy.deepcopy(self._model)
        named = {value.name for value in tapped.graph.output}
        value_info = library("onnx", EXTRA).helper.make_empty_tensor_value_info
        tapped.graph.output.extend(
            value_info(tensor.name) for tensor in self.tensors if tensor.name not in named
        )
        self._session = _session(tapped)

    def trace(self, call: Inputs) -> Values:
        """See `Tapped.trace`."""
        names = [tensor.name for tensor in self.tensors]
        try:
            values: list[NDArray[Any]] = self._session.run(names, dict(call))
        except Exception as error:
            raise _refused("executed", error) from error
        return dict(zip(names, values, strict=True))

    def output(self, call: Inputs) -> NDArray[Any]:
        """See `Tapped.output`."""
        return self._run(*call.values())

    def cut(self, starts: Values, tensor: Tensor, path: Path) -> Piece:
        """See `Tapped.cut`."""
        tools = library("onnx", EXTRA)
        needed = _needed(tensor.name, set(starts), self._makers)
        used = {name for node in needed for name in node.input}
        initializers = [value for value in self._graph.initializer if value.name in used]
        inputs = {name: value for name, value in starts.items() if name in used}
        graph = tools.helper.make_graph(
            needed,
            "piece",
            [
                tools.helper.make_tensor_value_info(
                    name, tools.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for name, value in inputs.items()
            ],
            [tools.helper.make_empty_tensor_value_info(tensor.name)],
            initializers,
        )
        model = tools.helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        path = path.with_suffix(SUFFIX)
        path.write_bytes(model.SerializeToString(deterministic=True))
        session = _session(model)

        def run() -> NDArray[Any]:
            return np.asarray(session.run(None, inputs)[0])

        return Piece(path, inputs, run, SCRIPT)

    def _tensors(self) -> tuple[Tensor, ...]:
        output = self._graph.output[0].name
        live = {value.name for value in self._graph.input}
        readers: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
            if live.intersection(node.input):
                live.update(name for name in node.output if name)
        inputs = {value.name for value in self._graph.input}
        seen = {
            name
            for name in live - inputs
            if self._makers[name].op_type != "QuantizeLinear"
            and not (name != output and _only_rounded(readers.get(name, [])))
        }
        return tuple(
            self._tensor(name, seen | inputs)
            for node in self._graph.node
            for name in node.output
            if name in seen
        )

    def _tensor(self, name: str, seen: set[str]) -> Tensor:
        maker = self._makers[name]
        operator, node, entry = maker.op_type, name, name
        if maker.op_type == "DequantizeLinear":
            node = entry = self._makers[maker.input[0]].input[0]
            before = self._makers.get(entry)
            operator = ("Input" if before is None else before.op_type) + ROUNDED
        if name == self._graph.output[0].name:
            node = _output_of(self.program)
        sources = nearest(maker.input, lambda other: other in seen, self._inputs_of)
        return Tensor(name, operator, node, sources, entry)

    def _inputs_of(self, name: str) -> Sequence[str]:
        maker = self._makers.get(name)
        return () if maker is None else list(maker.input)


def _program(job: Lowering) -> Any:
    """The job's program as torch's exporter decomposes it before it writes ONNX."""
    import torch

    with quiet(), torch.no_grad():
        converted = torch.onnx.export(
            exported(job),
            dynamo=True,
            opset_version=SOURCE_OPSET,
            external_data=False,
            input_names=list(job.example),
            output_names=[job.output_name],
            verbose=False,
        )
    return converted.exported_program  # type: ignore[union-attr]


def _output_of(program: Any) -> str:
    (name,) = program.graph_signature.user_outputs
    return str(name)


def _only_rounded(readers: list[Any]) -> bool:
    return bool(readers) and all(node.op_type == "QuantizeLinear" for node in readers)


def _needed(name: str, starts: set[str], makers: dict[str, Any]) -> list[Any]:
    """The nodes that compute `name` from `starts` and constants, in the model's order."""
    wanted: set[int] = set()
    waiting = [name]
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and id(maker) not in wanted:
            wanted.add(id(maker))
            waiting += [other for other in maker.input if other not in starts]
    kept = {id(node): node for node in makers.values() if id(node) in wanted}
    return list(kept.values())


def _session(model: Any) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        with quiet():
            return ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:
        raise _refused("loaded", error) from error


def _refused(what: str, error: Exception) -> LoweringError:
    return LoweringError(
        f"the model cannot be {what} with its tensors as outputs: {first_line(error)}",
        fix="export the model again with swipe-export onnx",
    )
