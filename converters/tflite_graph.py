"""What is done to a TFLite flatbuffer after the converter: the uint8 front, the names, the signature.

The converter is given the network behind its normalization. Here the file gets the input that every artifact has,
uint8 RGB [1, h, w, 3] in raw bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"


def read(flatbuffer: bytes) -> Any:
    """Unpack a flatbuffer into the schema's ModelT, with the buffers that lie behind it (aeq writes them so) inside."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(flatbuffer), 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(flatbuffer, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write(model: Any) -> bytes:
    """Pack a ModelT into a flatbuffer, leaving out the constants that no tensor holds any more."""
    import flatbuffers

    used = {int(t.buffer) for graph in model.subgraphs for t in graph.tensors}
    used |= {int(m.buffer) for m in model.metadata or []}
    for i, buffer in enumerate(model.buffers):
        if i not in used:
            buffer.data = None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def zero_point(scale: float, offset: float) -> int:
    """Find the uint8 level nearest to zero: (level - zero_point) * scale is about level * scale + offset."""
    return int(np.clip(np.round(-offset / scale), 0, 255))


def shift_input(flatbuffer: bytes, shift: float) -> bytes:
    """Make a float graph read x - shift where it read x, by moving the first convolution's bias.

    uint8 over -1..1 has its zero between two levels (127.5). The half level that the quantization parameters cannot
    say goes into the bias: exact everywhere but under the zero padding at the border. A graph that does not begin
    with a convolution is left as it is: half a level off, like any other quantizer's.
    """
    if abs(shift) < 1e-12:
        return flatbuffer
    model = read(flatbuffer)
    graph = model.subgraphs[0]
    convolution = _first_convolution(model, graph)
    if convolution is None:
        return flatbuffer
    kernel_tensor, bias_tensor = (graph.tensors[i] for i in convolution.inputs[1:3])
    kernel = _values(model, kernel_tensor).reshape(kernel_tensor.shape)
    bias = _values(model, bias_tensor) + np.float32(shift) * kernel.sum(axis=(1, 2, 3))
    own = add_tensor(graph, f"{bias_tensor.name.decode()}/shifted", bias_tensor.type, bias_tensor.shape)
    graph.tensors[own].buffer = add_buffer(model, bias.astype(np.float32))
    convolution.inputs[2] = own  # others may read the bias that it had
    return write(model)


def lift_dead_channels(flatbuffer: bytes, input_scale: Callable[[str], float]) -> bytes:
    """Keep every bias of a float graph inside int32 once the graph is quantized.

    A bias is stored in steps of input scale x weight scale. A dead output channel (all weights about 1e-12) makes that
    step so small that its bias overflows and changes sign. Such a channel gets one weight just large enough: it moves
    the output by less than 1e-4 of a step.

    Args:
        flatbuffer: float TFLite graph.
        input_scale: scale that the activation of this name will have.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(flatbuffer)
    graph = model.subgraphs[0]
    convolutions = (
        schema.BuiltinOperator.CONV_2D,
        schema.BuiltinOperator.DEPTHWISE_CONV_2D,
        schema.BuiltinOperator.FULLY_CONNECTED,
    )
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex].builtinCode
        if code not in convolutions or len(op.inputs) < 3 or op.inputs[2] < 0:
            continue
        source, kernel_tensor, bias_tensor = (graph.tensors[i] for i in op.inputs[:3])
        if model.buffers[kernel_tensor.buffer].data is None or model.buffers[bias_tensor.buffer].data is None:
            continue
        channel_axis = 3 if code == schema.BuiltinOperator.DEPTHWISE_CONV_2D else 0
        kernel = np.moveaxis(_values(model, kernel_tensor).reshape(kernel_tensor.shape).copy(), channel_axis, 0)
        flat = kernel.reshape(len(kernel), -1)
        bias = np.abs(_values(model, bias_tensor))
        least = 127 * bias / (2**30 * input_scale(source.name.decode()))
        dead = np.abs(flat).max(axis=1) < least
        if dead.any():
            flat[dead, 0] = least[dead]
            kernel = np.moveaxis(flat.reshape(kernel.shape), 0, channel_axis)
            kernel_tensor.buffer = add_buffer(model, np.ascontiguousarray(kernel, np.float32))
    return write(model)


def uint8_front(flatbuffer: bytes, scale: float, zero: int, shift: float) -> bytes:
    """Let a graph with a float input read raw uint8: (level - zero) * scale + shift.

    DEQUANTIZE runs inside the delegate for all precisions. In front of an int8 graph its QUANTIZE follows at once; the
    pair takes 15 us at 224, where TFLite's own uint8 -> int8 QUANTIZE takes 110 us outside of the delegate.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read(flatbuffer)
    graph = model.subgraphs[0]
    normalized = int(graph.inputs[0])
    shape = graph.tensors[normalized].shape
    graph.tensors[normalized].name = b"normalized"
    raw = add_tensor(graph, INPUT_NAME, schema.TensorType.UINT8, shape)
    graph.tensors[raw].quantization = _parameters(scale, zero)
    front = []
    scaled = normalized
    if shift:
        scaled = add_tensor(graph, "scaled", schema.TensorType.FLOAT32, shape)
        constant = add_tensor(graph, "offset", schema.TensorType.FLOAT32, ())
        graph.tensors[constant].buffer = add_buffer(model, np.array(shift, np.float32))
        add = operator(model, schema.BuiltinOperator.ADD, [scaled, constant], [normalized])
        add.builtinOptionsType, add.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
        front = [add]
    front = [operator(model, schema.BuiltinOperator.DEQUANTIZE, [raw], [scaled]), *front]
    graph.operators = front + list(graph.operators)
    graph.inputs = np.array([raw], np.int32)
    return write(_named(model))


def kept_float(flatbuffer: bytes) -> tuple[str, ...]:
    """Name the operators of a quantized file that still compute in float: "HARD_SWISH x 19", most first."""
    from ai_edge_litert import schema_py_generated as schema

    model = read(flatbuffer)
    graph = model.subgraphs[0]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    moves = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE, schema.BuiltinOperator.RESHAPE)
    counts: dict[str, int] = {}
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex].builtinCode
        weights = [graph.tensors[i] for i in op.inputs[1:2] if i >= 0]
        hybrid = any(t.type == schema.TensorType.INT8 and model.buffers[t.buffer].data is not None for t in weights)
        answers_float = graph.tensors[int(op.outputs[0])].type == schema.TensorType.FLOAT32
        if code not in moves and answers_float and not hybrid:
            counts[names[code]] = counts.get(names[code], 0) + 1
    return tuple(f"{name} x {n}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def add_tensor(graph: Any, name: str, kind: int, shape: Sequence[int] | np.ndarray) -> int:
    """Add a tensor without constant data to a SubGraphT; return its index."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.hasRank = name.encode(), kind, np.asarray(shape, np.int32), True
    tensor.buffer = 0  # the schema's empty buffer: no constant data
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_buffer(model: Any, values: np.ndarray) -> int:
    """Add a constant to a ModelT; return its index."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def operator(model: Any, code: int, inputs: list[int], outputs: list[int]) -> Any:
    """Make an operator, which the caller puts in its place and gives its options."""
    from ai_edge_litert import schema_py_generated as schema

    known = [i for i, c in enumerate(model.operatorCodes) if c.builtinCode == code and c.version == 1]
    if not known:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        model.operatorCodes.append(entry)
        known = [len(model.operatorCodes) - 1]
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = known[0], np.array(inputs, np.int32), np.array(outputs, np.int32)
    return made


def _named(model: Any) -> Any:
    """Give the input, the output and one signature the names that every artifact has."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    image, probabilities = int(graph.inputs[0]), int(graph.outputs[0])
    graph.tensors[image].name, graph.tensors[probabilities].name = INPUT_NAME.encode(), OUTPUT_NAME.encode()
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_entry(INPUT_NAME, image)]
    signature.outputs = [_entry(OUTPUT_NAME, probabilities)]
    model.signatureDefs = [signature]
    model.description = b"edgenet"
    return model


def _entry(name: str, tensor: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), tensor
    return entry


def _first_convolution(model: Any, graph: Any) -> Any | None:
    """Find the convolution that alone reads the input, directly or behind a PAD."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = int(graph.inputs[0])
    for _ in range(2):
        readers = [op for op in graph.operators if tensor in list(op.inputs)]
        if len(readers) != 1:
            return None
        code = model.operatorCodes[readers[0].opcodeIndex].builtinCode
        if code == schema.BuiltinOperator.CONV_2D and len(readers[0].inputs) == 3:
            return readers[0]
        if code != schema.BuiltinOperator.PAD:
            return None
        tensor = int(readers[0].outputs[0])
    return None


def _values(model: Any, tensor: Any) -> np.ndarray:
    return np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes(), np.float32)


def _parameters(scale: float, zero: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = np.array([scale], np.float32), np.array([zero], np.int64)
    return parameters
