"""What a prepared network is given on top where an accelerator runs it.

On a CPU nothing of this pays: there the networks are the prepared ones, bit for bit.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHANNELS = 3


def take_pixels(prepared: bytes, *, scale: float, mean: float) -> bytes:
    """The same network for pixels as they are: batch x height x width x BGR, bytes.

    Turning them into floats, channels first, RGB, less `mean` and times `scale` is the accelerator's work then, and a
    quarter of the bytes has to be carried to it.
    """
    model = onnx.load_model_from_string(prepared)
    graph = model.graph
    (given,) = graph.input
    batch, _channels, height, width = (size.dim_param or size.dim_value for size in given.type.tensor_type.shape.dim)
    name = given.name
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([2, 1, 0], np.int64), "pixels_rgb"),
            numpy_helper.from_array(np.array(mean, np.float32), "pixels_mean"),
            numpy_helper.from_array(np.array(scale, np.float32), "pixels_scale"),
        ]
    )
    steps = [helper.make_node("Cast", ["pixels"], ["pixels_float"], to=TensorProto.FLOAT)]
    last = "pixels_float"
    if (scale, mean) != (1.0, 0.0):
        steps.append(helper.make_node("Sub", [last, "pixels_mean"], ["pixels_centred"]))
        steps.append(helper.make_node("Mul", ["pixels_centred", "pixels_scale"], ["pixels_scaled"]))
        last = "pixels_scaled"
    steps.append(helper.make_node("Transpose", [last], ["pixels_planes"], perm=[0, 3, 1, 2]))
    steps.append(helper.make_node("Gather", ["pixels_planes", "pixels_rgb"], [name], axis=1))
    nodes = [*steps, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, [batch, height, width, _CHANNELS]))
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def halve_precision(network: bytes) -> bytes:
    """The same network in 16-bit floats; input and output keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - where it is asked for only

    converted = convert_float_to_float16(onnx.load_model_from_string(network), keep_io_types=True)
    return bytes(converted.SerializeToString())
