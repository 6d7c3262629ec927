"""Tiny image classifiers written without TensorFlow: the answer is which of red, green and blue dominates.

scores = softmax(mean over the picture of each channel / 64): easy to compute beside them.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s

SIZE = 8
LABELS = ("red", "green", "blue")


def expected(images: np.ndarray) -> np.ndarray:
    """What the tiny classifiers answer to uint8 images [n, h, w, 3]: float32 [n, 3]."""
    logits = images.astype(np.float64).mean(axis=(1, 2)) / 64
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Noise whose channels differ: uint8 [count, SIZE, SIZE, 3]."""
    rng = np.random.default_rng(seed)
    top = rng.integers(1, 256, (count, 1, 1, 3))
    return (rng.random((count, SIZE, SIZE, 3)) * top).astype(np.uint8)


def tiny_tflite(int8: bool = False, beside: str = "", bare: bool = False) -> bytes:
    """Write uint8 -> float32 scores; or int8 (zero point -128) -> uint8 scores of scale 1/256.

    beside: an op beside the way to the answer whose output scale is absurd, as a dead activation calibrates: "refused"
    by XNNPACK while LiteRT alone runs it, or one that "aborts" or "segfaults" the runtime (LiteRT 2.3.0).
    bare: of ops that XNNPACK leaves to LiteRT; answers the integer means.
    """
    graph = _Graph()
    kinds, ops, tensor, op = s.TensorType, s.BuiltinOperator, graph.tensor, graph.op
    shape = (1, SIZE, SIZE, 3)
    source = tensor("image", shape, kinds.INT8 if int8 else kinds.UINT8, (1.0, -128) if int8 else None)
    extra: list[int] = []
    if beside:
        noise = source if int8 else tensor("noise", shape, kinds.INT8, (1.0, 0), np.ones(shape, np.int8))
        extra = [tensor("dead", shape, kinds.INT8, (1e-38 if beside == "segfaults" else 8e-9, 0))]
        if beside == "refused":
            kernel = tensor("kernel", (3, 1, 1, 3), kinds.INT8, (1.0, 0), np.ones((3, 1, 1, 3), np.int8))
            bias = tensor("bias", (3,), kinds.INT32, (1.0, 0), np.zeros(3, np.int32))
            conv = s.Conv2DOptionsT()
            conv.strideH = conv.strideW = conv.dilationHFactor = conv.dilationWFactor = 1
            op(ops.CONV_2D, [noise, kernel, bias], extra[0], conv, version=3)
        elif beside == "aborts":
            op(ops.ADD, [noise, noise], extra[0], s.AddOptionsT(), version=3)
        else:
            op(ops.QUANTIZE, [noise], extra[0], s.QuantizeOptionsT(), version=3)
    pixels = tensor("pixels", shape, kinds.INT32 if bare else kinds.FLOAT32)
    axes = tensor("axes", (2,), kinds.INT32, data=np.array([1, 2], np.int32))
    means = tensor("means", (1, 3), kinds.INT32 if bare else kinds.FLOAT32)
    scores = tensor("scores", (1, 3), kinds.FLOAT32)
    if int8:
        op(ops.DEQUANTIZE, [source], pixels, s.DequantizeOptionsT())
    else:
        op(ops.CAST, [source], pixels, s.CastOptionsT())
    op(ops.MEAN, [pixels, axes], means, s.ReducerOptionsT())
    if bare:
        op(ops.CAST, [means], scores, s.CastOptionsT())
    else:
        softmax = s.SoftmaxOptionsT()
        softmax.beta = 1 / 64
        op(ops.SOFTMAX, [means], scores, softmax)
    if not int8:
        return graph.model(source, scores, *extra)
    answer = tensor("answer", (1, 3), kinds.UINT8, (1 / 256, 0))
    op(ops.QUANTIZE, [scores], answer, s.QuantizeOptionsT())
    return graph.model(source, answer, *extra)


class _Graph:
    """A TFLite graph under construction."""

    def __init__(self) -> None:
        self._tensors, self._ops, self._codes, self._buffers = [], [], [], [s.BufferT()]

    def tensor(self, name, shape, kind, quantization=None, data=None) -> int:
        t = s.TensorT()
        t.name, t.shape, t.type = name, list(shape), kind
        if quantization is not None:
            t.quantization = s.QuantizationParametersT()
            t.quantization.scale, t.quantization.zeroPoint = [quantization[0]], [quantization[1]]
        if data is not None:
            buffer = s.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self._buffers.append(buffer)
            t.buffer = len(self._buffers) - 1
        self._tensors.append(t)
        return len(self._tensors) - 1

    def op(self, code, inputs, output, options, version=1) -> None:
        opcode = s.OperatorCodeT()
        opcode.builtinCode, opcode.deprecatedBuiltinCode, opcode.version = code, min(code, 127), version
        self._codes.append(opcode)
        o = s.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = len(self._codes) - 1, inputs, [output]
        o.builtinOptions = options
        o.builtinOptionsType = getattr(s.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._ops.append(o)

    def model(self, source, *answers) -> bytes:
        graph, model = s.SubGraphT(), s.ModelT()
        graph.tensors, graph.operators, graph.name = self._tensors, self._ops, "main"
        graph.inputs, graph.outputs = [source], list(answers)
        model.version, model.description, model.subgraphs = 3, "colours", [graph]
        model.operatorCodes, model.buffers = self._codes, self._buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def with_labels(model: bytes, text: bytes, name: str = "labels.txt") -> bytes:
    """Append the zip that TFLite metadata appends."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return model + packed.getvalue()


def tiny_onnx(
    batch: int | str = 1, size: int | str = SIZE, extra=(), tensors=(), scores="s", labels: str | None = None
) -> bytes:
    """Write the same in ONNX; extra nodes and tensors may stand between the scores `s` and the output."""
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, size, size, 3])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [batch, 3])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "temperature"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["s"], axis=-1),
        *extra,
        helper.make_node("Identity", [scores], ["answer"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("temperature", TensorProto.FLOAT, [], [64.0]),
        *tensors,
    ]
    graph = helper.make_graph(nodes, "colours", [image], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"labels": json.dumps(LABELS) if labels is None else labels})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def heavy_onnx() -> tuple[bytes, np.ndarray]:
    """Write an int8 convolution, bytes [1, 3, 8, 8] to floats [1, 8, 6, 6], whose sums of two products leave 16 bits.

    Returns:
        The file, and its weights int8 [8, 3, 3, 3]; an answer is the sum of its products, in steps of 4096.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).integers(100, 128, (8, 3, 3, 3)).astype(np.int8)
    weights[::2] *= -1
    constants = {
        "one": np.float32(1), "step": np.float32(4096), "dark": np.uint8(0), "middle": np.uint8(128),
        "none": np.int8(0), "weights": weights,
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "one", "dark"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "none"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3]),
        helper.make_node("QuantizeLinear", ["y", "step", "middle"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "middle"], ["answer"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, 8, 8])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 8, 6, 6])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "heavy", [image], [answer], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString(), weights


def endless_onnx() -> bytes:
    """Write a file whose inference never ends: a Loop of 2^62 turns."""
    from onnx import TensorProto, helper

    def value(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["v"], ["w"])],
        "turn",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, [1, 3])],
        [value("go_on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, [1, 3])],
    )
    return tiny_onnx(
        extra=[helper.make_node("Loop", ["turns", "true", "s"], ["looped"], body=body)],
        tensors=[
            helper.make_tensor("turns", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        ],
        scores="looped",
    )


def petabyte_onnx() -> bytes:
    """Write a file that asks for four petabytes."""
    from onnx import TensorProto, helper

    return tiny_onnx(
        extra=[
            helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["total"], keepdims=0),
            helper.make_node("Add", ["s", "total"], ["sum"]),
        ],
        tensors=[helper.make_tensor("shape", TensorProto.INT64, [1], [2**50])],
        scores="sum",
    )


def write(folder: Path, name: str, data: bytes) -> Path:
    """Write a file and give its path."""
    path = folder / name
    path.write_bytes(data)
    return path
