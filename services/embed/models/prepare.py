"""Rewrites a published network so that onnxruntime runs it, fast, with the same result.

1. Weights stored as int8 blocks are folded into floats (onnxruntime runs no blocked DequantizeLinear).
2. Inputs that only repeat an initialiser, and initialisers that nothing uses, are stripped: while they can be
   overridden, nothing can be folded into them.
3. The batch becomes dynamic; a detector's height and width too.
4. PReLU becomes a·x + (1 - a)·relu(x): the same function for every slope, in operations that the CPU kernels keep in
   their blocked layout. (max(x, a·x) is another function where a slope lies outside [0, 1].)

The same input bytes give the same output bytes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Part of every prepared file's name; raised when the bytes that preparation makes change.
PREPARATION_VERSION = 1

Array = np.ndarray
_DETECTOR_ROWS = "rows_{name}"


def prepare(source: bytes, role: str) -> bytes:
    """The prepared network. ValueError when a blocked weight has a form that is not known."""
    model = onnx.load_model_from_string(source)
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes = _fold_weights(list(graph.node), constants)
    nodes = _rewrite_prelu(nodes, constants)
    if role == "detector":
        _free_batch_of_reshapes(nodes, constants)
    _replace_nodes(graph, nodes, constants)
    _make_dynamic(graph, role)
    model.producer_name, model.producer_version = "likeness", str(PREPARATION_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _fold_weights(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> list[onnx.NodeProto]:
    kept: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type == "DequantizeLinear" and all(name in constants for name in node.input):
            constants[node.output[0]] = _dequantised(node, [constants[name] for name in node.input])
        elif node.op_type == "Reshape" and all(name in constants for name in node.input):
            shape = [int(size) for size in constants[node.input[1]]]
            constants[node.output[0]] = constants[node.input[0]].reshape(shape)
        else:
            kept.append(node)
    return kept


def _dequantised(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """(quantised - zero point) * scale, where a scale holds for `block_size` values along `axis`."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    block, axis = int(attributes.get("block_size", 0)), int(attributes.get("axis", 1))
    if block < 1 or len(inputs) != 3:
        raise ValueError(f"{node.name or node.output[0]}: only blocked weights with a zero point are known")
    quantised, scale, zero = inputs
    window = tuple(slice(0, size) for size in quantised.shape)
    scale = np.repeat(scale, block, axis=axis)[window]
    zero = np.repeat(zero, block, axis=axis)[window]
    centred = quantised.astype(np.int32) - zero.astype(np.int32)
    return centred.astype(np.float32) * scale.astype(np.float32)


def _rewrite_prelu(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> list[onnx.NodeProto]:
    rewritten: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type != "PRelu" or node.input[1] not in constants:
            rewritten.append(node)
            continue
        value, slope, output = node.input[0], constants[node.input[1]], node.output[0]
        constants[f"{output}_slope"] = slope
        constants[f"{output}_rest"] = (1 - slope.astype(np.float64)).astype(np.float32)
        rewritten += [
            helper.make_node("Mul", [value, f"{output}_slope"], [f"{output}_line"]),
            helper.make_node("Relu", [value], [f"{output}_relu"]),
            helper.make_node("Mul", [f"{output}_relu", f"{output}_rest"], [f"{output}_bend"]),
            helper.make_node("Add", [f"{output}_line", f"{output}_bend"], [output]),
        ]
    return rewritten


def _free_batch_of_reshapes(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> None:
    """Reshapes to (1, -1, k) keep the batch they get: (0, -1, k)."""
    for node in nodes:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = constants[node.input[1]]
        if shape.shape == (3,) and shape[0] == 1 and shape[1] == -1:
            name = f"{node.output[0]}_shape"
            constants[name] = np.array([0, -1, shape[2]], dtype=np.int64)
            node.input[1] = name


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> None:
    used = {name for node in nodes for name in node.input}
    inputs = [item for item in graph.input if item.name in used and item.name not in constants]
    for field in (graph.node, graph.initializer, graph.input, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items() if name in used
    )


def _make_dynamic(graph: onnx.GraphProto, role: str) -> None:
    for item in (*graph.input, *graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    if role == "detector":
        height_and_width = graph.input[0].type.tensor_type.shape.dim[2:4]
        for size, name in zip(height_and_width, ("height", "width"), strict=True):
            size.dim_param = name
        for item in graph.output:
            item.type.tensor_type.shape.dim[1].dim_param = _DETECTOR_ROWS.format(name=item.name)
