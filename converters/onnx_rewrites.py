"""Rewrites that make a graph small and fast without changing what it computes.

Each function changes the graph in place and needs nothing from the others; `simplify` runs them in the order that lets
each see what the one before it has uncovered. All folding is done in float64.
"""

from __future__ import annotations

import math

import numpy as np

from converters.onnx_graph import INPUT, OUTPUT, Graph, Node

NEARLY_ZERO = 1e-30


def simplify(graph: Graph) -> None:
    """Run every rewrite."""
    _fuse_hard_sigmoid(graph)
    _fuse_hard_swish(graph)
    _put_addition_first(graph)
    fold_affine_after(graph)
    _fold_pads(graph)
    _fold_scale_before(graph)
    _convolve_interleaved(graph)
    _dense_as_convolution(graph)


def _scalar(graph: Graph, name: str) -> float | None:
    array = graph.constants.get(name)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _split(graph: Graph, node: Node, op: str) -> tuple[str, np.ndarray] | None:
    """Return (tensor, constant) where the node is `op` of a tensor and a constant, whichever way round."""
    if node.op != op:
        return None
    for tensor, constant in (node.inputs, node.inputs[::-1]):
        if constant in graph.constants and tensor not in graph.constants:
            return tensor, graph.constants[constant].astype(np.float64)
    return None


def _fuse_hard_sigmoid(graph: Graph) -> None:
    """Turn clip(x + b, 0, m) * a with a * m = 1, as keras.applications writes it, into one HardSigmoid."""
    for mul in list(graph.nodes):
        made, read = graph.producers(), graph.consumers()
        outer = _split(graph, mul, "Mul")
        clip = made.get(outer[0]) if outer else None
        if outer is None or clip is None or clip.op != "Clip" or outer[1].size != 1 or len(read[clip.output]) != 1:
            continue
        add = made.get(clip.inputs[0])
        inner = _split(graph, add, "Add") if add else None
        low, high = _scalar(graph, clip.inputs[1]), _scalar(graph, clip.inputs[2])
        if add is None or inner is None or inner[1].size != 1 or len(read[add.output]) != 1 or low != 0 or not high:
            continue
        alpha, beta = outer[1].item(), inner[1].item()
        if math.isclose(alpha * high, 1, rel_tol=1e-6):
            mul.op, mul.inputs, mul.attributes = "HardSigmoid", [inner[0]], {"alpha": alpha, "beta": alpha * beta}
            graph.nodes.remove(clip)
            graph.nodes.remove(add)


def _fuse_hard_swish(graph: Graph) -> None:
    """Turn x * HardSigmoid(x) with the paper's 1/6 and 1/2 into one HardSwish."""
    for mul in list(graph.nodes):
        made, read = graph.producers(), graph.consumers()
        if mul.op != "Mul":
            continue
        for x, gate in (mul.inputs, mul.inputs[::-1]):
            sigmoid = made.get(gate)
            if sigmoid is None or sigmoid.op != "HardSigmoid" or sigmoid.inputs != [x] or len(read[gate]) != 1:
                continue
            if math.isclose(sigmoid.attributes["alpha"], 1 / 6, rel_tol=1e-6) and math.isclose(
                sigmoid.attributes["beta"], 0.5, rel_tol=1e-6
            ):
                mul.op, mul.inputs, mul.attributes = "HardSwish", [x], {}
                graph.nodes.remove(sigmoid)
                break


def _put_addition_first(graph: Graph) -> None:
    """Turn (x * s) + o into (x + o/s) * s: a convolution's weights can take s, but at a border not o."""
    for add in list(graph.nodes):
        made, read = graph.producers(), graph.consumers()
        outer = _split(graph, add, "Add")
        mul = made.get(outer[0]) if outer else None
        inner = _split(graph, mul, "Mul") if mul else None
        if outer is None or mul is None or inner is None or len(read[mul.output]) != 1:
            continue
        if np.abs(inner[1]).min() < NEARLY_ZERO:  # the quotient would leave float32
            continue
        if made.get(inner[0]) is not None and made[inner[0]].op in ("Conv", "Gemm"):
            continue  # a batch norm: it folds into what lies before it
        offset, scale = np.asarray(outer[1] / inner[1]), inner[1]
        mul.op, mul.inputs = "Add", [inner[0], graph.constant(offset, f"{mul.output}.offset")]
        add.op, add.inputs = "Mul", [mul.output, graph.constant(scale, f"{add.output}.scale")]


def _per_channel(constant: np.ndarray, channels: int) -> np.ndarray | None:
    """Return the constant as [channels], or None where it varies along another axis."""
    if constant.size == 1:
        return np.full(channels, constant.item())
    flat = constant.shape == (channels,) or constant.shape in ((channels, 1, 1), (1, channels, 1, 1), (1, channels))
    return constant.reshape(channels) if flat else None


def fold_affine_after(graph: Graph) -> None:
    """Fold constant multiplications and additions (batch norm above all) into the convolution or Gemm before them."""
    for node in list(graph.nodes):
        made, read = graph.producers(), graph.consumers()
        for op in ("Mul", "Add"):
            parts = _split(graph, node, op)
            conv = made.get(parts[0]) if parts else None
            if parts is None or conv is None or conv.op not in ("Conv", "Gemm") or len(read[conv.output]) != 1:
                continue
            if node.output == OUTPUT or any(name not in graph.constants for name in conv.inputs[1:]):
                continue
            if conv.op == "Gemm" and conv.attributes != {"transB": 1}:  # tf2onnx has others
                continue
            weight = graph.constants[conv.inputs[1]].astype(np.float64)
            constant = _per_channel(parts[1], len(weight))
            if constant is None or (conv.op == "Gemm" and parts[1].ndim > 2):
                continue
            bias = graph.constants[conv.inputs[2]].astype(np.float64) if len(conv.inputs) > 2 else np.zeros(len(weight))
            if op == "Mul":
                weight, bias = weight * constant.reshape(-1, *[1] * (weight.ndim - 1)), bias * constant
            else:
                bias = bias + constant
            graph.constants[conv.inputs[1]] = weight
            if len(conv.inputs) == 2:
                conv.inputs.append(graph.name(f"{conv.output}.bias"))
            graph.constants[conv.inputs[2]] = bias
            graph.remove(node, conv.output)
            break


def _fold_pads(graph: Graph) -> None:
    """Fold a zero padding into the convolutions that read it."""
    for pad in [node for node in graph.nodes if node.op == "Pad"]:
        readers = graph.consumers().get(pad.output, [])
        if not readers or any(r.op != "Conv" or r.inputs[0] != pad.output for r in readers):
            continue
        pads = graph.constants[pad.inputs[1]].tolist()
        for conv in readers:
            extra = [pads[2], pads[3], pads[6], pads[7]]
            conv.attributes["pads"] = [a + b for a, b in zip(conv.attributes["pads"], extra, strict=True)]
        graph.remove(pad, pad.inputs[0])


def keep_pads_of_pools(graph: Graph) -> None:
    """Let a zero padding before a maximum stay: ONNX Runtime would make it part of the MaxPool, which pads with -inf.

    It does so where the padding is 0 exactly; what cannot be negative has the same maximum both ways.
    """
    made, read = graph.producers(), graph.consumers()
    for pad in [node for node in graph.nodes if node.op == "Pad" and len(node.inputs) == 2]:
        source = made.get(pad.inputs[0])
        pooled = any(reader.op == "MaxPool" for reader in read.get(pad.output, []))
        if pooled and (source is None or source.op != "Relu"):
            pad.inputs.append(graph.constant(np.array(NEARLY_ZERO, np.float32), f"{pad.output}.value"))


def _fold_scale_before(graph: Graph) -> None:
    """Fold a constant multiplication into the weights of the convolutions that read it."""
    for mul in [node for node in graph.nodes if node.op == "Mul"]:
        parts = _split(graph, mul, "Mul")
        readers = graph.consumers().get(mul.output, [])
        if parts is None or not readers:
            continue
        if any(r.op != "Conv" or r.inputs[0] != mul.output or r.attributes["group"] != 1 for r in readers):
            continue
        channels = graph.constants[readers[0].inputs[1]].shape[1]
        scale = _per_channel(parts[1], channels)
        if scale is None:
            continue
        for conv in readers:
            weight = graph.constants[conv.inputs[1]].astype(np.float64)
            graph.constants[conv.inputs[1]] = weight * scale[None, :, None, None]
        graph.remove(mul, parts[0])


def _convolve_interleaved(graph: Graph) -> None:
    """Let a first convolution read the interleaved bytes where they lie, as one channel three times as wide.

    A kernel of k pixels x 3 channels over [1, 3, h, w] is a kernel of 3k bytes over [1, 1, h, 3w] whose stride is three
    times as long: the same sums, without transposing the picture (2 to 4 % of MobileNet's time).
    """
    made, read = graph.producers(), graph.consumers()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        add = made.get(conv.inputs[0])
        shifted = add is not None and add.op == "Add"
        cast = made.get(add.inputs[0]) if add is not None and shifted else add
        transpose = made.get(cast.inputs[0]) if cast is not None and cast.op == "Cast" else None
        if add is None or cast is None or transpose is None or transpose.inputs != [INPUT]:
            continue
        attributes, weight = conv.attributes, graph.constants[conv.inputs[1]]
        out, channels, height, width = weight.shape
        alone = all(len(read[node.output]) == 1 for node in (add, cast, transpose))
        if not alone or attributes["group"] != 1 or attributes["dilations"] != [1, 1]:
            continue
        if shifted and graph.constants[add.inputs[1]].size != 1:
            continue
        graph.constants[conv.inputs[1]] = weight.transpose(0, 2, 3, 1).reshape(out, 1, height, width * channels)
        top, left, bottom, right = attributes["pads"]
        attributes["pads"] = [top, left * channels, bottom, right * channels]
        attributes["strides"] = [attributes["strides"][0], attributes["strides"][1] * channels]
        attributes["kernel_shape"] = [height, width * channels]
        shape = graph.constant(np.array([1, 1, graph.input_shape[0], -1], np.int64), "image.rows.shape")
        transpose.op, transpose.inputs, transpose.attributes = "Reshape", [INPUT, shape], {}


def _dense_as_convolution(graph: Graph) -> None:
    """Turn a dense layer on pooled features into a 1x1 convolution: half the time of a Gemm, 2 % of V2's."""
    for gemm in [node for node in graph.nodes if node.op == "Gemm"]:
        made, read = graph.producers(), graph.consumers()
        reshape = made.get(gemm.inputs[0])
        pool = made.get(reshape.inputs[0]) if reshape is not None and reshape.op == "Reshape" else None
        if reshape is None or pool is None or len(read[reshape.output]) != 1:
            continue
        weight = graph.constants[gemm.inputs[1]]
        if pool.op not in ("GlobalAveragePool", "GlobalMaxPool"):
            continue
        graph.constants[gemm.inputs[1]] = weight[:, :, None, None]
        inputs = [pool.output, *gemm.inputs[1:]]
        reshape.op, reshape.output, reshape.inputs = "Conv", graph.name(f"{gemm.output}.pixel"), inputs
        window = {"kernel_shape": [1, 1], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
        reshape.attributes = {**window, "group": 1}
        shape = graph.constant(np.array([1, len(weight)], np.int64), f"{gemm.output}.shape")
        gemm.op, gemm.inputs, gemm.attributes = "Reshape", [reshape.output, shape], {}


def dense_last(graph: Graph) -> None:
    """Turn a classifier written as a 1x1 convolution into a Gemm, the form whose int8 kernel can answer in float."""
    for reshape in [node for node in graph.nodes if node.op == "Reshape"]:
        made, read = graph.producers(), graph.consumers()
        conv = made.get(reshape.inputs[0])
        if conv is None or conv.op != "Conv" or len(read[conv.output]) != 1 or reshape.inputs[1] not in graph.constants:
            continue
        if any(name not in graph.constants for name in conv.inputs[1:]):
            continue
        weight = graph.constants[conv.inputs[1]]
        one_pixel = graph.constants[reshape.inputs[1]].tolist() == [1, len(weight)] and weight.shape[2:] == (1, 1)
        if not one_pixel or conv.attributes.get("group", 1) != 1 or any(conv.attributes.get("pads", [])):
            continue
        graph.constants[conv.inputs[1]] = weight[:, :, 0, 0]
        shape = graph.constant(np.array([1, weight.shape[1]], np.int64), f"{reshape.output}.shape")
        parameters = conv.inputs[1:]
        conv.op, conv.attributes, conv.inputs = "Reshape", {}, [conv.inputs[0], shape]
        reshape.op, reshape.attributes, reshape.inputs = "Gemm", {"transB": 1}, [conv.output, *parameters]
