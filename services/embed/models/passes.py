"""Rewriting passes over a network's nodes. Each leaves the function that the network computes as it is.

`Network` is the part of an ONNX graph that passes touch: nodes in topological order, and constants by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Network:
    """Nodes in topological order and constants by name."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, Array]

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 else None

    def writer(self, name: str) -> onnx.NodeProto | None:
        return next((node for node in self.nodes if name in node.output), None)

    def weights(self, node: onnx.NodeProto) -> Array:
        """A convolution's or matrix product's weights, in double precision."""
        return self.constants[node.input[1]].astype(np.float64)

    def bias(self, node: onnx.NodeProto) -> Array:
        if len(node.input) > 2:
            return self.constants[node.input[2]].astype(np.float64)
        return np.zeros(self.constants[node.input[1]].shape[0])

    def add_constant(self, name: str, value: Array) -> str:
        self.constants[name] = np.ascontiguousarray(value, dtype=np.float32)
        return name


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def fold_weights(network: Network) -> None:
    """Weights stored as int8 blocks become floats: onnxruntime runs no blocked DequantizeLinear on a CPU."""
    kept: list[onnx.NodeProto] = []
    constants = network.constants
    for node in network.nodes:
        if node.op_type == "DequantizeLinear" and all(name in constants for name in node.input):
            constants[node.output[0]] = _dequantised(node, [constants[name] for name in node.input])
        elif node.op_type == "Reshape" and all(name in constants for name in node.input):
            shape = [int(size) for size in constants[node.input[1]]]
            constants[node.output[0]] = constants[node.input[0]].reshape(shape)
        else:
            kept.append(node)
    network.nodes = kept


def _dequantised(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """(quantised - zero point) * scale, where a scale holds for `block_size` values along `axis`."""
    settings = attributes(node)
    block, axis = int(settings.get("block_size", 0)), int(settings.get("axis", 1))
    if block < 1 or len(inputs) != 3:
        raise ValueError(f"{node.name or node.output[0]}: only blocked weights with a zero point are known")
    quantised, scale, zero = inputs
    window = tuple(slice(0, size) for size in quantised.shape)
    scale = np.repeat(scale, block, axis=axis)[window]
    zero = np.repeat(zero, block, axis=axis)[window]
    centred = quantised.astype(np.int32) - zero.astype(np.int32)
    return centred.astype(np.float32) * scale.astype(np.float32)


def fold_batch_norm(network: Network) -> None:
    """A BatchNormalization behind a convolution or a matrix product goes into its weights and bias."""
    for node in list(network.nodes):
        if node.op_type != "BatchNormalization":
            continue
        writer = network.writer(node.input[0])
        if writer is None or network.only_reader(node.input[0]) is not node or not _can_absorb(network, writer):
            continue
        gain, offset, mean, variance = (network.constants[name].astype(np.float64) for name in node.input[1:5])
        scale = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
        weights = network.weights(writer)
        shaped = scale.reshape(-1, *[1] * (weights.ndim - 1))
        names = [
            network.add_constant(f"{node.output[0]}_weights", weights * shaped),
            network.add_constant(f"{node.output[0]}_bias", network.bias(writer) * scale + offset - mean * scale),
        ]
        _set_inputs(writer, [writer.input[0], *names])
        writer.output[0] = node.output[0]
        network.nodes.remove(node)


def _can_absorb(network: Network, node: onnx.NodeProto) -> bool:
    if node.op_type == "Gemm":
        settings = attributes(node)
        plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        is_plain = all(settings.get(name, value) == value for name, value in plain.items())
        return is_plain and int(settings.get("transB", 0)) == 1
    return node.op_type == "Conv" and node.input[1] in network.constants


def rewrite_prelu(network: Network) -> None:
    """PReLU in operations that the CPU kernels keep in their blocked layout, fused with its neighbours where it can be.

    The function is a·x + (1 - a)·relu(x) for every slope a, also outside [0, 1]; max(x, a·x) would not be.

    1. Before a depthwise convolution, which is linear in each channel, both parts go into copies of its weights.
    2. Before another convolution the scale of relu(x) goes inside the relu, where it can fuse with the scaling: with
       c = 1 - a the function is x + relu(-c·x) where c >= 0, and minus (-a·x + relu(-c·x)) elsewhere; the minus goes
       into the next convolution's weights.
    3. Anywhere else it is spelt out.
    """
    for node in list(network.nodes):
        if node.op_type != "PRelu" or node.input[1] not in network.constants:
            continue
        slope = network.constants[node.input[1]].astype(np.float64).reshape(-1)
        reader = network.only_reader(node.output[0])
        if reader is not None and _is_depthwise(network, reader):
            replacement = list(_split_depthwise(network, node, reader, slope))
            _replace(network, reader, [])
        elif reader is not None and reader.op_type == "Conv" and attributes(reader).get("group", 1) == 1:
            replacement = list(_bend_before_convolution(network, node, reader, slope))
        else:
            replacement = list(_spell_out(network, node, slope))
        _replace(network, node, replacement)


def _is_depthwise(network: Network, node: onnx.NodeProto) -> bool:
    if node.op_type != "Conv" or node.input[1] not in network.constants:
        return False
    outputs, inputs_of_group = network.constants[node.input[1]].shape[:2]
    groups = int(attributes(node).get("group", 1))
    return bool(groups == outputs and outputs > 1 and inputs_of_group == 1)


def _split_depthwise(
    network: Network, node: onnx.NodeProto, reader: onnx.NodeProto, slope: Array
) -> Iterator[onnx.NodeProto]:
    value, output = node.input[0], reader.output[0]
    weights, settings = network.weights(reader), attributes(reader)
    line = network.add_constant(f"{output}_line_weights", weights * _by_channel(slope))
    bend = network.add_constant(f"{output}_bend_weights", weights * _by_channel(1 - slope))
    bias = network.add_constant(f"{output}_line_bias", network.bias(reader))
    yield helper.make_node("Relu", [value], [f"{output}_relu"])
    yield helper.make_node("Conv", [value, line, bias], [f"{output}_line"], **settings)
    yield helper.make_node("Conv", [f"{output}_relu", bend], [f"{output}_bend"], **settings)
    yield helper.make_node("Add", [f"{output}_bend", f"{output}_line"], [output])


def _bend_before_convolution(
    network: Network, node: onnx.NodeProto, reader: onnx.NodeProto, slope: Array
) -> Iterator[onnx.NodeProto]:
    value, output, channels = node.input[0], node.output[0], len(slope)
    is_positive = slope <= 1
    line = network.add_constant(f"{output}_line_weights", _by_channel(np.where(is_positive, 1.0, -slope)))
    bend = network.add_constant(f"{output}_bend_weights", _by_channel(slope - 1))
    sign = np.where(is_positive, 1.0, -1.0).reshape(1, -1, 1, 1)
    weights = network.add_constant(f"{reader.output[0]}_signed_weights", network.weights(reader) * sign)
    _set_inputs(reader, [reader.input[0], weights, *reader.input[2:]])
    pointwise: dict[str, Any] = {"group": channels, "kernel_shape": [1, 1]}
    yield helper.make_node("Conv", [value, bend], [f"{output}_scaled"], **pointwise)
    yield helper.make_node("Relu", [f"{output}_scaled"], [f"{output}_bend"])
    yield helper.make_node("Conv", [value, line], [f"{output}_line"], **pointwise)
    yield helper.make_node("Add", [f"{output}_line", f"{output}_bend"], [output])


def _spell_out(network: Network, node: onnx.NodeProto, slope: Array) -> Iterator[onnx.NodeProto]:
    value, output = node.input[0], node.output[0]
    line = network.add_constant(f"{output}_slope", slope.reshape(-1, 1, 1))
    bend = network.add_constant(f"{output}_rest", (1 - slope).reshape(-1, 1, 1))
    yield helper.make_node("Mul", [value, line], [f"{output}_line"])
    yield helper.make_node("Relu", [value], [f"{output}_relu"])
    yield helper.make_node("Mul", [f"{output}_relu", bend], [f"{output}_bend"])
    yield helper.make_node("Add", [f"{output}_line", f"{output}_bend"], [output])


def _by_channel(values: Array) -> Array:
    return values.reshape(-1, 1, 1, 1)


def _replace(network: Network, node: onnx.NodeProto, replacement: list[onnx.NodeProto]) -> None:
    place = next(index for index, item in enumerate(network.nodes) if item is node)
    network.nodes[place : place + 1] = replacement


def _set_inputs(node: onnx.NodeProto, names: list[str]) -> None:
    del node.input[:]
    node.input.extend(names)


def free_batch_of_reshapes(network: Network) -> None:
    """Reshapes to (1, -1, k) keep the batch they get: (0, -1, k)."""
    for node in network.nodes:
        if node.op_type != "Reshape" or node.input[1] not in network.constants:
            continue
        shape = network.constants[node.input[1]]
        if shape.shape == (3,) and shape[0] == 1 and shape[1] == -1:
            name = f"{node.output[0]}_shape"
            network.constants[name] = np.array([0, -1, shape[2]], dtype=np.int64)
            node.input[1] = name
