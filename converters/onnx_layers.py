"""Keras' activations, convolutions and dense layers as ONNX operators (the other layers: `onnx_walk`).

A `Tensor` carries its Keras shape without the batch (height, width, channels). In the ONNX graph a tensor of rank 3
lies as [1, channels, height, width]; every other rank lies as Keras has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.onnx_graph import Graph


class UnsupportedLayerError(Exception):
    """The direct writer has no rule for a layer; tf2onnx may."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph: its name and its Keras shape without the batch."""

    name: str
    shape: tuple[int, ...]


FLOAT, DOUBLE = 1, 11
"""ONNX's own numbers of the types: importing it takes a third of a second."""

Emit = Callable[[Graph, Any, list[Tensor]], Tensor]


def array_of(variable: Any) -> np.ndarray:
    """Return a Keras variable as float64."""
    return np.asarray(variable).astype(np.float64)


def refuse(layer: Any, why: str) -> UnsupportedLayerError:
    """Return the error that says which layer, and why."""
    return UnsupportedLayerError(f"{type(layer).__name__} {layer.name}: {why}")


# --- activations ------------------------------------------------------------------------------------------------------


def _clip(graph: Graph, x: Tensor, low: float, high: float) -> Tensor:
    bounds = [graph.constant(np.array(v, np.float32), f"clip_{v:g}") for v in (low, high)]
    return Tensor(graph.add("Clip", [x.name, *bounds], f"{x.name}.clip"), x.shape)


def _unary(graph: Graph, op: str, x: Tensor, **attributes: float) -> Tensor:
    return Tensor(graph.add(op, [x.name], f"{x.name}.{op.lower()}", **attributes), x.shape)


def _softmax(graph: Graph, x: Tensor) -> Tensor:
    """Answer float32, computed in float64: processors' own float32 exponentials differ in the last bits."""
    precise = graph.add("Cast", [x.name], f"{x.name}.double", to=DOUBLE)
    scores = graph.add("Softmax", [precise], f"{x.name}.softmax", axis=1 if len(x.shape) == 3 else -1)
    return Tensor(graph.add("Cast", [scores], f"{x.name}.scores", to=FLOAT), x.shape)


def _silu(graph: Graph, x: Tensor) -> Tensor:
    gate = _unary(graph, "Sigmoid", x)
    return Tensor(graph.add("Mul", [x.name, gate.name], f"{x.name}.silu"), x.shape)


def _gelu(graph: Graph, x: Tensor) -> Tensor:
    def times(tensor: str, factor: float) -> str:
        return graph.add("Mul", [tensor, graph.constant(np.array(factor, np.float32), f"{x.name}.factor")], x.name)

    error = graph.add("Erf", [times(x.name, 0.5**0.5)], f"{x.name}.erf")
    one = graph.constant(np.array(1, np.float32), f"{x.name}.one")
    gate = graph.add("Add", [error, one], f"{x.name}.gate")
    return Tensor(graph.add("Mul", [times(x.name, 0.5), gate], f"{x.name}.gelu"), x.shape)


ACTIVATIONS: dict[str, Callable[[Graph, Tensor], Tensor]] = {
    "linear": lambda _, x: x,
    "relu": lambda graph, x: _unary(graph, "Relu", x),
    "relu6": lambda graph, x: _clip(graph, x, 0, 6),
    "hard_sigmoid": lambda graph, x: _unary(graph, "HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "hard_silu": lambda graph, x: _unary(graph, "HardSwish", x),
    "sigmoid": lambda graph, x: _unary(graph, "Sigmoid", x),
    "silu": _silu,
    "gelu": _gelu,
    "tanh": lambda graph, x: _unary(graph, "Tanh", x),
    "softmax": _softmax,
}


def _activate(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """Apply what the layer's `activation` says."""
    import keras

    function = layer.activation
    if isinstance(function, keras.layers.Layer):
        rule = ACTIVATION_LAYERS.get(type(function).__name__)
        if rule is None:
            raise refuse(layer, f"activation {type(function).__name__}")
        return rule(graph, function, [x])
    name = getattr(function, "__name__", "?")
    if name not in ACTIVATIONS or keras.activations.get(name) is not function:
        raise refuse(layer, f"activation {name}")
    return ACTIVATIONS[name](graph, x)


def _emit_activation(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    return _activate(graph, layer, xs[0])


def _emit_relu(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    if layer.threshold != 0:
        raise refuse(layer, "a threshold")
    if layer.negative_slope:
        if layer.max_value is not None:
            raise refuse(layer, "a slope and a maximum")
        return _unary(graph, "LeakyRelu", xs[0], alpha=float(layer.negative_slope))
    return _unary(graph, "Relu", xs[0]) if layer.max_value is None else _clip(graph, xs[0], 0, float(layer.max_value))


def _emit_leaky_relu(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    return _unary(graph, "LeakyRelu", xs[0], alpha=float(layer.negative_slope))


def _emit_softmax(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    if layer.axis not in (-1, len(xs[0].shape)):
        raise refuse(layer, f"axis {layer.axis}")
    return _softmax(graph, xs[0])


ACTIVATION_LAYERS: dict[str, Emit] = {
    "Activation": _emit_activation,
    "ReLU": _emit_relu,
    "LeakyReLU": _emit_leaky_relu,
    "Softmax": _emit_softmax,
}


# --- convolutions -----------------------------------------------------------------------------------------------------


def same_pads(layer: Any, x: Tensor, kernel: tuple[int, int], strides: tuple[int, int]) -> list[int]:
    """Return ONNX pads [top, left, bottom, right] for the layer's padding; TensorFlow puts the odd one last."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    dilation = getattr(layer, "dilation_rate", (1, 1))
    total = []
    for size, k, s, d in zip(x.shape[:2], kernel, strides, dilation, strict=True):
        total.append(max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0))
    return [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]


def _convolve(
    graph: Graph, layer: Any, x: Tensor, weight: np.ndarray, bias: Any, group: int, pads: list[int], unit: bool = False
) -> Tensor:
    """Append a Conv of weight [out, in/group, kh, kw]; `unit`: stride and dilation 1 whatever the layer says."""
    strides = [1, 1] if unit else list(layer.strides)
    dilations = [1, 1] if unit else list(layer.dilation_rate)
    inputs = [x.name, graph.constant(weight, f"{layer.name}.weight")]
    if bias is not None:
        inputs.append(graph.constant(array_of(bias), f"{layer.name}.bias"))
    kernel = list(weight.shape[2:])
    sizes = [
        (size + pads[i] + pads[i + 2] - (k - 1) * d - 1) // s + 1
        for i, (size, k, s, d) in enumerate(zip(x.shape[:2], kernel, strides, dilations, strict=True))
    ]
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads, "group": group}
    return Tensor(graph.add("Conv", inputs, layer.name, **attributes), (*sizes, len(weight)))


def _check_conv(layer: Any, x: Tensor) -> None:
    if getattr(layer, "data_format", "channels_last") != "channels_last" or len(x.shape) != 3:
        raise refuse(layer, "not [height, width, channels]")
    if layer.padding not in ("same", "valid"):
        raise refuse(layer, f"padding {layer.padding}")


def _depthwise_weight(kernel: np.ndarray) -> np.ndarray:
    """Turn [kh, kw, channels, multiplier] into [channels * multiplier, 1, kh, kw]."""
    weight: np.ndarray = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    return weight


def _emit_conv(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    _check_conv(layer, xs[0])
    kernel = array_of(layer.kernel)
    pads = same_pads(layer, xs[0], kernel.shape[:2], layer.strides)
    weight = kernel.transpose(3, 2, 0, 1)
    return _activate(graph, layer, _convolve(graph, layer, xs[0], weight, layer.bias, layer.groups, pads))


def _emit_depthwise(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    _check_conv(layer, xs[0])
    kernel = array_of(layer.kernel)
    pads = same_pads(layer, xs[0], kernel.shape[:2], layer.strides)
    y = _convolve(graph, layer, xs[0], _depthwise_weight(kernel), layer.bias, kernel.shape[2], pads)
    return _activate(graph, layer, y)


def _emit_separable(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    _check_conv(layer, xs[0])
    kernel = array_of(layer.depthwise_kernel)
    pads = same_pads(layer, xs[0], kernel.shape[:2], layer.strides)
    deep = _convolve(graph, layer, xs[0], _depthwise_weight(kernel), None, kernel.shape[2], pads)
    point = array_of(layer.pointwise_kernel).transpose(3, 2, 0, 1)
    return _activate(graph, layer, _convolve(graph, layer, deep, point, layer.bias, 1, [0, 0, 0, 0], unit=True))


def _emit_dense(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    kernel = array_of(layer.kernel)
    if len(xs[0].shape) == 3:  # over the channels of each pixel, so a 1x1 convolution
        weight = kernel.T[:, :, None, None]
        return _activate(graph, layer, _convolve(graph, layer, xs[0], weight, layer.bias, 1, [0, 0, 0, 0], unit=True))
    if len(xs[0].shape) != 1:
        raise refuse(layer, f"input of rank {len(xs[0].shape)}")
    inputs = [xs[0].name, graph.constant(kernel.T, f"{layer.name}.weight")]
    if layer.bias is not None:
        inputs.append(graph.constant(array_of(layer.bias), f"{layer.name}.bias"))
    y = Tensor(graph.add("Gemm", inputs, layer.name, transB=1), (kernel.shape[1],))
    return _activate(graph, layer, y)


COMPUTING_LAYERS: dict[str, Emit] = {
    "Conv2D": _emit_conv,
    "DepthwiseConv2D": _emit_depthwise,
    "SeparableConv2D": _emit_separable,
    "Dense": _emit_dense,
}
