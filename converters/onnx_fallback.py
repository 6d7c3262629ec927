"""tf2onnx for the layers that the direct writer has no rule for, with the same input and output as every other file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters import onnx_rewrites
from converters.errors import ConverterError
from converters.onnx_graph import INPUT, OPSET, OUTPUT, Graph, from_model

if TYPE_CHECKING:
    import keras


def write(core: keras.Model, scale: float, offset: float) -> Graph:
    """Return the graph of a core whose float input is uint8 * scale + offset.

    Raises:
        ConverterError: tf2onnx has no rule for it either.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((1, *core.inputs[0].shape[1:]), tf.uint8, name=INPUT)]
    function = tf.function(
        lambda image: core(tf.cast(image, tf.float32) * scale + offset, training=False), autograph=False
    )
    # Keras compiles grouped convolutions apart, which tf2onnx does not look into; so they become part of the graph.
    apart = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        model, _ = tf2onnx.convert.from_function(
            function,
            input_signature=signature,
            opset=OPSET,
            custom_op_handlers={"Erfc": (_express_erfc, [])},
        )
        graph = from_model(model)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, AttributeError) as exc:
        reason = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise ConverterError(
            f"{core.name} has a layer that ONNX cannot express ({reason}); convert to TFLite instead"
        ) from exc
    finally:
        tf.config.run_functions_eagerly(apart)
    # tf2onnx logs what it does not know, and passes it through.
    unknown = sorted({n.op for n in graph.nodes if not onnx.defs.has(n.op, max_inclusive_version=OPSET)})
    if unknown:
        raise ConverterError(f"ONNX has no {', '.join(unknown)}, which {core.name} needs; convert to TFLite instead")
    answer = model.graph.output[0].name
    for node in graph.nodes:
        node.inputs = [OUTPUT if name == answer else name for name in node.inputs]
        node.output = OUTPUT if node.output == answer else node.output
    graph.taken.add(OUTPUT)
    onnx_rewrites.fold_affine_after(graph)  # batch norms of depthwise convolutions, which tf2onnx leaves behind them
    return graph


def _express_erfc(context: Any, node: Any, _name: str, _arguments: list[Any]) -> None:
    """Write TensorFlow's Erfc(x), half of a GELU, as 1 - Erf(x): tf2onnx has no rule for it."""
    one = context.make_const(f"{node.name}_one", np.array(1, np.float32)).output[0]
    error = context.make_node("Erf", [node.input[0]]).output[0]
    node.type = "Sub"
    context.replace_inputs(node, [one, error])
