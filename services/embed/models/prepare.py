"""Rewrites a published network so that onnxruntime runs it, fast, with the same result.

1. Weights stored as int8 blocks are folded into floats.
2. Inputs that only repeat an initialiser, and initialisers that nothing uses, are stripped: while they can be
   overridden, nothing can be folded into them.
3. Batch normalisation goes into the convolution before it, and PReLU into operations with fast kernels.
4. The batch becomes dynamic; a detector's height and width too.

The same input bytes give the same output bytes, so that the manifest can pin both.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from services.embed.models.passes import (
    Network,
    fold_batch_norm,
    fold_weights,
    free_batch_of_reshapes,
    rewrite_prelu,
)

# Stands in every prepared file; raised when the bytes that preparation makes change.
PREPARATION_VERSION = 2


def prepare(source: bytes, role: str) -> bytes:
    """The prepared network. ValueError when a blocked weight has a form that is not known."""
    model = onnx.load_model_from_string(source)
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    network = Network(list(graph.node), constants)
    fold_weights(network)
    fold_batch_norm(network)
    rewrite_prelu(network)
    if role == "detector":
        free_batch_of_reshapes(network)
    _put_back(graph, network)
    _make_dynamic(graph, role)
    model.producer_name, model.producer_version = "likeness", str(PREPARATION_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _put_back(graph: onnx.GraphProto, network: Network) -> None:
    used = {name for node in network.nodes for name in node.input}
    inputs = [item for item in graph.input if item.name in used and item.name not in network.constants]
    for field in (graph.node, graph.initializer, graph.input, graph.value_info):
        del field[:]
    graph.node.extend(network.nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in network.constants.items()
        if name in used
    )


def _make_dynamic(graph: onnx.GraphProto, role: str) -> None:
    for item in (*graph.input, *graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    if role == "detector":
        height_and_width = graph.input[0].type.tensor_type.shape.dim[2:4]
        for size, name in zip(height_and_width, ("height", "width"), strict=True):
            size.dim_param = name
        for item in graph.output:
            item.type.tensor_type.shape.dim[1].dim_param = f"rows_{item.name}"
