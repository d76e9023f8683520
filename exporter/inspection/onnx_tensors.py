"""All tensors that an ONNX model stores, wherever they are: names, values, and which are scales.

Leaves out judging them: that is `exporter.inspection.onnx_file`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from exporter.formats.build import first_line
from swipe.errors import LoweringError

SCALES: Final = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}
"""Which inputs of an operator are scales."""
_TWIN_BYTES: Final = {1: torch.uint8, 2: torch.uint16}


class StoredTensors(Mapping[str, Tensor]):
    """Initializers and constants of graph, subgraphs and functions; each is read when asked for.

    Names are those of the graph; what lies deeper is prefixed by where, as in
    "if_1/then_branch/weight".

    Attributes:
        scales: names of the tensors that some operator divides or multiplies by as a scale.
    """

    def __init__(self, onnx: Any, model: Any, folder: Path) -> None:
        """Collect the tensors of `model`; `folder` is where external data lies."""
        self._onnx = onnx
        self._folder = folder
        self._tensors: dict[str, Any] = {}
        self.scales: set[str] = set()
        self._collect(model.graph, "", {})
        for function in model.functions:
            self._collect(function, f"{function.name}/", {})

    def __getitem__(self, name: str) -> Tensor:
        """The tensor called `name`.

        Raises:
            LoweringError: its values are torn, or lie in a file that is absent or too short.
        """
        stored = self._tensors[name]
        external = stored.data_location == self._onnx.TensorProto.EXTERNAL
        try:
            if external:
                copy = self._onnx.TensorProto()
                copy.CopyFrom(stored)
                self._onnx.external_data_helper.load_external_data_for_tensor(
                    copy, str(self._folder)
                )
                stored = copy
            return _to_torch(self._onnx.numpy_helper.to_array(stored))
        except Exception as error:
            # Any type: a short buffer, an absent file and a path that leads astray all differ.
            where = " in another file" if external else ""
            raise LoweringError(
                f"{name}: its values{where} cannot be read: {first_line(error)}",
                fix="export the model again",
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _collect(self, graph: Any, prefix: str, outer: Mapping[str, str]) -> None:
        """Walk one graph or function; `outer` are the tensors it can see from around it."""
        seen = dict(outer)
        for tensor in getattr(graph, "initializer", ()):
            seen[tensor.name] = self._add(prefix + tensor.name, tensor)
        for sparse in getattr(graph, "sparse_initializer", ()):
            seen[sparse.values.name] = self._add(prefix + sparse.values.name, sparse.values)
            self._add(f"{prefix}{sparse.values.name}.indices", sparse.indices)
        for number, node in enumerate(graph.node):
            label = prefix + (node.name or (node.output[0] if node.output else f"node{number}"))
            for attribute in node.attribute:
                self._collect_attribute(node, attribute, label, seen)
            for position in SCALES.get(node.op_type, ()):
                if position < len(node.input) and node.input[position] in seen:
                    self.scales.add(seen[node.input[position]])

    def _collect_attribute(
        self, node: Any, attribute: Any, label: str, seen: dict[str, str]
    ) -> None:
        for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            self._collect(subgraph, f"{label}/{attribute.name}/", seen)
        tensors = [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
        if attribute.HasField("sparse_tensor"):
            tensors += [attribute.sparse_tensor.values, attribute.sparse_tensor.indices]
        for sparse in attribute.sparse_tensors:
            tensors += [sparse.values, sparse.indices]
        if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            values = attribute.floats if attribute.floats else [attribute.f]
            tensors.append(self._onnx.numpy_helper.from_array(np.array(values, np.float32)))
        for tensor in tensors:
            name = self._add(f"{label}.{attribute.name}", tensor)
            if node.op_type == "Constant" and node.output:
                seen.setdefault(node.output[0], name)

    def _add(self, name: str, tensor: Any) -> str:
        unique, number = name, 1
        while unique in self._tensors:
            number += 1
            unique = f"{name}#{number}"
        self._tensors[unique] = tensor
        return unique


def _to_torch(values: np.ndarray[Any, Any]) -> Tensor:
    """Same values in torch; types that numpy borrows from ml_dtypes become torch's own."""
    if values.dtype.isbuiltin == 1 and values.dtype.kind in "biufc":
        # A copy: values that lie in the protobuf are read-only, which torch warns about.
        return torch.from_numpy(np.array(values))
    if values.dtype.kind in "OSU":
        text = "\0".join(str(value) for value in values.reshape(-1))
        return torch.tensor(list(text.encode()), dtype=torch.uint8)
    twin = getattr(torch, values.dtype.name, None)
    if isinstance(twin, torch.dtype):
        size = values.dtype.itemsize
        bits = np.array(values).view(np.uint8 if size == 1 else np.uint16)
        return torch.from_numpy(bits).view(_TWIN_BYTES[size]).view(twin)
    # Integers and floats of four bits or less: a byte each, which holds them exactly.
    whole = "int" in values.dtype.name
    return torch.from_numpy(values.astype(np.int8 if whole else np.float32))
