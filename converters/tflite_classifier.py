"""The classifier of an int8 TFLite file: its weights are integers as everywhere, its logits are float.

Logits in 8 bits have steps so coarse that the two best often tie, and argmax then takes whichever comes first: on
ImageNet photographs up to 6 % of them. So the classifier is a dynamic-range kernel: it quantizes its one row of inputs
by the row's own extremes, and answers float32. XNNPACK takes it; it is as small, and as fast, as the int8 kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters import tflite_graph


def float_tensors(flatbuffer: bytes) -> tuple[str, ...]:
    """Name what the classifier of a float graph makes float: the logits, and its row of inputs where it is reshaped.

    Returns:
        Names in the order of computation, what the softmax or sigmoid reads last. Empty where the graph does not end
        with a dense layer or 1x1 convolution of one row, and one of these.
    """
    model = tflite_graph.read(flatbuffer)
    graph = model.subgraphs[0]
    end = _end(model, graph)
    if end is None:
        return ()
    logits = _reshaped(model, graph, int(end.inputs[0]))
    classifier = _producer(graph, logits[0])
    if classifier is None or _readers(graph, logits[0]) != 1 or not _is_classifier(model, classifier):
        return ()
    _, *row = _reshaped(model, graph, int(classifier.inputs[0]))
    return tuple(graph.tensors[i].name.decode() for i in (*row, *logits))


def probabilities(flatbuffer: bytes) -> tuple[str, ...]:
    """Name what a float graph answers, where a softmax or sigmoid does: in 8 bits, what is nearly certain ties at 1."""
    model = tflite_graph.read(flatbuffer)
    graph = model.subgraphs[0]
    end = _end(model, graph)
    return () if end is None else (graph.tensors[int(end.outputs[0])].name.decode(),)


def dense_as_convolution(flatbuffer: bytes) -> bytes:
    """Write the dynamic-range dense layers of one row as 1x1 convolutions.

    TFLite up to 2.14 reads a dynamic-range FULLY_CONNECTED with the first channel's scale for all channels, and answers
    nonsense; CONV_2D it computes as it should.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = tflite_graph.read(flatbuffer)
    graph = model.subgraphs[0]
    operators = []
    for op in graph.operators:
        dense = _code(model, op) == schema.BuiltinOperator.FULLY_CONNECTED
        operators += _convolution(model, graph, op) if dense and _dynamic_row(graph, op) else [op]
    graph.operators = operators
    return tflite_graph.write(model)


def _end(model: Any, graph: Any) -> Any | None:
    """Return the softmax or sigmoid that a graph ends in."""
    from ai_edge_litert import schema_py_generated as schema

    op = _producer(graph, int(graph.outputs[0]))
    ends = (schema.BuiltinOperator.SOFTMAX, schema.BuiltinOperator.LOGISTIC)
    return op if op is not None and _code(model, op) in ends else None


def _reshaped(model: Any, graph: Any, tensor: int) -> list[int]:
    """List a tensor and, before it, what it is reshaped from for itself alone."""
    from ai_edge_litert import schema_py_generated as schema

    op = _producer(graph, tensor)
    if op is None or _code(model, op) != schema.BuiltinOperator.RESHAPE or _readers(graph, tensor) != 1:
        return [tensor]
    return [*_reshaped(model, graph, int(op.inputs[0])), tensor]


def _producer(graph: Any, tensor: int) -> Any | None:
    return next((op for op in graph.operators if tensor in list(op.outputs)), None)


def _readers(graph: Any, tensor: int) -> int:
    return sum(tensor in list(op.inputs) for op in graph.operators)


def _is_classifier(model: Any, op: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    if _code(model, op) not in (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.CONV_2D):
        return False
    source, weights = (model.subgraphs[0].tensors[i] for i in op.inputs[:2])
    inputs = int(weights.shape[-1])
    constant = model.buffers[weights.buffer].data is not None
    plain = op.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.NONE
    return constant and plain and int(np.prod(source.shape)) == int(np.prod(weights.shape[1:])) == inputs


def _dynamic_row(graph: Any, dense: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    source, weights = (graph.tensors[i] for i in dense.inputs[:2])
    dynamic = source.type == schema.TensorType.FLOAT32 and weights.type == schema.TensorType.INT8
    one_row = int(np.prod(source.shape)) == int(weights.shape[1])
    return dynamic and one_row and _readers(graph, int(dense.inputs[1])) == 1


def _convolution(model: Any, graph: Any, dense: Any) -> list[Any]:
    from ai_edge_litert import schema_py_generated as schema

    source, kernel, answer = int(dense.inputs[0]), int(dense.inputs[1]), int(dense.outputs[0])
    weights = graph.tensors[kernel]
    outputs, inputs = (int(size) for size in weights.shape)
    name = graph.tensors[answer].name.decode()
    row = tflite_graph.add_tensor(graph, f"{name}/row", schema.TensorType.FLOAT32, (1, 1, 1, inputs))
    pixel = tflite_graph.add_tensor(graph, f"{name}/pixel", schema.TensorType.FLOAT32, (1, 1, 1, outputs))
    weights.shape = np.array((outputs, 1, 1, inputs), np.int32)
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.VALID, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = dense.builtinOptions.fusedActivationFunction
    bias = int(dense.inputs[2]) if len(dense.inputs) > 2 else -1
    if bias < 0:  # all zeros, which TensorFlow leaves out; a convolution needs them
        bias = tflite_graph.add_tensor(graph, f"{name}/bias", schema.TensorType.FLOAT32, (outputs,))
        graph.tensors[bias].buffer = tflite_graph.add_buffer(model, np.zeros(outputs, np.float32))
    convolution = tflite_graph.operator(model, schema.BuiltinOperator.CONV_2D, [row, kernel, bias], [pixel])
    convolution.builtinOptionsType, convolution.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    return [_reshape(model, graph, source, row), convolution, _reshape(model, graph, pixel, answer)]


def _reshape(model: Any, graph: Any, source: int, answer: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    shape = np.asarray(graph.tensors[answer].shape, np.int32)
    name = f"{graph.tensors[answer].name.decode()}/shape"
    constant = tflite_graph.add_tensor(graph, name, schema.TensorType.INT32, (len(shape),))
    graph.tensors[constant].buffer = tflite_graph.add_buffer(model, shape)
    reshape = tflite_graph.operator(model, schema.BuiltinOperator.RESHAPE, [source, constant], [answer])
    reshape.builtinOptionsType, reshape.builtinOptions = schema.BuiltinOptions.ReshapeOptions, schema.ReshapeOptionsT()
    reshape.builtinOptions.newShape = shape
    return reshape


def _code(model: Any, op: Any) -> int:
    return int(model.operatorCodes[op.opcodeIndex].builtinCode)
