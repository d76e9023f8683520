"""The quantized rungs of ExecuTorch: static int8 and dynamic int8, by PT2E for XNNPACK.

* ``int8``: weights per channel and activations per tensor, with ranges measured on the job's
  calibration calls.
* ``int8-dynamic``: weights per channel, and activations rounded by each call's own range. Linear
  layers only: XNNPACK's quantizer leaves a one-dimensional convolution as it is without a word, so
  a model without linear layers is refused here.

There is no rung of int8 weights with float32 activations. XNNPACK has no convolution of that kind:
a dequantize of the weight stays outside the delegate, the convolution leaves XNNPACK with it, and
both run in the runtime's portable kernels. That works and is as small as int8, but two
convolutions of 64 channels took 10 ms where XNNPACK's float32 takes 0.034 ms.
"""

from __future__ import annotations

from typing import Any, Final

from exporter.formats import Lowering
from exporter.formats.build import calibration_calls, first_line, library, quiet
from exporter.formats.program import arguments, exported, module_path, require_known
from swipe.errors import LoweringError

EXTRA: Final = "executorch"


def quantized(job: Lowering, rung: str) -> Any:
    """The exported program of the job with the layers of `rung` in int8.

    Raises:
        LoweringError: torchao cannot quantize it, or there is nothing to quantize.
        UsageError: `Lowering.float_layers` holds a name that is no layer.
    """
    import torch

    quantizers = library("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", EXTRA)
    pt2e = library("torchao.quantization.pt2e.quantize_pt2e", EXTRA)
    calls = calibration_calls(job)
    source = exported(job)
    chosen = {node.name for node in _chosen(source, job, rung)}
    if not chosen:
        raise LoweringError(
            f"{rung} quantization changed nothing: there is no {_kinds(rung)} to quantize",
            fix="ship the float32 artefact of this model",
        )
    config = quantizers.get_symmetric_quantization_config(
        is_per_channel=True, is_dynamic=rung == "int8-dynamic"
    )
    quantizer = quantizers.XNNPACKQuantizer()
    for operator in _operators(rung):
        quantizer.set_operator_type(operator, config)
    quantizer.set_filter_function(
        lambda node: node.target not in _operators("int8") or node.name in chosen
    )
    try:
        with quiet(), torch.no_grad():
            observed = pt2e.prepare_pt2e(source.module(), quantizer)
            for call in calls:
                observed(*arguments(call))
            converted = _with_float_kept_apart(pt2e.convert_pt2e(observed))
    except Exception as error:
        # Any type: observers raise bare asserts.
        raise LoweringError(
            f"torchao cannot quantize the model: {first_line(error)}",
            fix="ship the float32 artefact, or write the layer that it names with others",
        ) from error
    return exported(job, converted)


def quantized_paths(job: Lowering, rung: str) -> tuple[str, ...]:
    """Paths of the layers that `rung` quantizes, in order, each once."""
    return tuple(dict.fromkeys(module_path(node) for node in _chosen(exported(job), job, rung)))


def _operators(rung: str) -> tuple[Any, ...]:
    import torch

    aten = torch.ops.aten
    if rung == "int8-dynamic":
        return (aten.linear.default,)
    return (aten.conv1d.default, aten.conv2d.default, aten.linear.default)


def _kinds(rung: str) -> str:
    return "linear layer" if rung == "int8-dynamic" else "convolution or linear layer"


def _chosen(source: Any, job: Lowering, rung: str) -> list[Any]:
    """The operators that `rung` quantizes, in order.

    The first layer reads raw kinematics, whose rare fast strokes stretch an int8 range until slow
    ones round to nothing (greedy accuracy -9 points on How We Swipe); the last one writes the
    logits. Both are small and stay float, as do additions: a residual stream that is rounded at
    every block loses what the blocks add. What `float_inputs` reach stays float altogether.
    """
    inputs = [
        node for node in source.graph.nodes if node.name in source.graph_signature.user_inputs
    ]
    reached = {
        node for name, node in zip(job.example, inputs, strict=True) if name in job.float_inputs
    }
    layers = []
    for node in source.graph.nodes:
        if reached.intersection(node.all_input_nodes):
            reached.add(node)
        elif node.target in _operators("int8"):
            layers.append(node)
    require_known(job, [module_path(node) for node in layers])
    inner = layers[1:-1] if len(layers) > 2 else layers
    return [
        node
        for node in inner
        if node.target in _operators(rung) and module_path(node) not in job.float_layers
    ]


def _with_float_kept_apart(module: Any) -> Any:
    """Put a clamp, which XNNPACK does not fuse, between a float layer and int8 beside it.

    ExecuTorch takes a conv1d whose only readers are quantize nodes for a quantized one, and a relu
    between them is fused into the convolution first: the file lowers without complaint and cannot
    be loaded ("Failed to create convolution node"). It refuses a float layer that reads a
    dequantize ("Weight and Input should both be quantized"). A relu is written as clamp(min=0);
    other clamps are at the smallest float32 and change nothing.
    """
    import torch

    aten, decomposed = torch.ops.aten, torch.ops.quantized_decomposed
    for node in list(module.graph.nodes):
        source: Any = node.args[0] if node.args else None
        if node.target is decomposed.quantize_per_tensor.default:
            if source.target in (aten.relu.default, aten.relu_.default) and _is_float_layer(
                source.args[0]
            ):
                source.target, source.args = aten.clamp.default, (source.args[0], 0.0)
            elif _is_float_layer(source):
                _clamp_between(source, node)
        elif _is_float_layer(node) and source.target is decomposed.dequantize_per_tensor.default:
            _clamp_between(source, node)
    module.recompile()
    return module


def _clamp_between(source: Any, reader: Any) -> None:
    import torch

    with reader.graph.inserting_before(reader):
        smallest = torch.finfo(torch.float32).min
        clamp = reader.graph.call_function(torch.ops.aten.clamp.default, (source, smallest))
    reader.replace_input_with(source, clamp)


def _is_float_layer(node: Any) -> bool:
    # The weight of a quantized layer comes out of a dequantize, that of a float one is stored.
    return node.target in _operators("int8") and node.args[1].op == "get_attr"
