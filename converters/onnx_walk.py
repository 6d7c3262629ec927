"""A Keras classifier walked into an ONNX graph: nested models, pooling, reshaping, merging, Keras' arithmetic nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.onnx_graph import INPUT, OUTPUT, Graph
from converters.onnx_layers import (
    ACTIVATION_LAYERS,
    ACTIVATIONS,
    COMPUTING_LAYERS,
    Emit,
    Tensor,
    UnsupportedLayerError,
    array_of,
    refuse,
    same_pads,
)
from converters.onnx_rewrites import simplify

TO_NCHW = [0, 3, 1, 2]
TO_NHWC = [0, 2, 3, 1]

# Layers that do nothing once training is over. RandomCrop is not one of them: it crops and resizes at inference too.
IDENTITIES = frozenset(
    """
    ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity SpatialDropout2D
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomErasing RandomFlip
    RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization
    RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom
    """.split()  # noqa: SIM905 (thirty lines of one name each otherwise)
)


def write(core: Any, scale: float, offset: float) -> Graph:
    """Return the graph of a core whose float input is uint8 * scale + offset.

    Raises:
        UnsupportedLayerError: a layer, or a use of one, has no rule here.
    """
    shape = core.inputs[0].shape[1:]
    if len(core.inputs) != 1 or len(core.outputs) != 1 or len(shape) != 3 or None in shape:
        raise UnsupportedLayerError("not one input of fixed [height, width, channels] and one output")
    graph = Graph(tuple(shape), taken={INPUT, OUTPUT})
    # Transposing bytes moves a quarter of what transposing floats would.
    x = graph.add("Transpose", [INPUT], "image.nchw", perm=TO_NCHW)
    x = graph.add("Cast", [x], "image.float", to=1)
    y = _affine(graph, Tensor(x, tuple(shape)), scale, offset, "image")
    y = _walk(graph, core, [y])
    if len(y.shape) != 1:
        raise UnsupportedLayerError(f"the output has shape {y.shape}, not (classes,)")
    simplify(graph)
    if graph.nodes[-1].output != y.name:
        graph.add("Identity", [y.name], OUTPUT)
    graph.nodes[-1].output = OUTPUT
    return graph


def _walk(graph: Graph, model: Any, xs: list[Tensor]) -> Tensor:
    """Append a Functional or Sequential model, and those inside it."""
    import keras

    if isinstance(model, keras.Sequential):
        model = model._functional
    if type(model).__name__ != "Functional" or len(model.outputs) != 1:
        raise refuse(model, "neither Functional nor Sequential with one output")

    def step(operation: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            if isinstance(operation, keras.Model):
                return _walk(graph, operation, [a for a in keras.tree.flatten(args) if isinstance(a, Tensor)])
            return _emit(graph, operation, args, kwargs)

        return call

    outputs = keras.tree.flatten(model._run_through_graph(xs, operation_fn=step))
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
        raise refuse(model, "not one output")
    return outputs[0]


def _emit(graph: Graph, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Append one layer or one arithmetic node."""
    import keras

    kind = type(operation).__name__
    if not type(operation).__module__.startswith("keras."):
        raise refuse(operation, "not one of Keras' own")
    if not isinstance(operation, keras.layers.Layer):
        return _emit_arithmetic(graph, operation, args, kwargs)
    given = keras.tree.flatten((args, kwargs))
    xs = [a for a in given if isinstance(a, Tensor)]
    if any(hasattr(a, "shape") for a in given if not isinstance(a, Tensor)):
        raise refuse(operation, "a constant array among its inputs")
    if kind in IDENTITIES:
        return xs[0]
    if kind not in RULES:
        raise refuse(operation, "no rule")
    return RULES[kind](graph, operation, xs)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _constant(graph: Graph, value: np.ndarray, rank: int, wish: str) -> str:
    """Store a scalar or a [channels] array so that it broadcasts over a tensor of that rank."""
    if value.size == 1:
        value = value.reshape(())
    elif rank == 3:
        value = value.reshape(-1, 1, 1)
    return graph.constant(value.astype(np.float64), wish)


def _affine(graph: Graph, x: Tensor, scale: np.ndarray | float, offset: np.ndarray | float, wish: str) -> Tensor:
    """Append x * scale + offset; each a scalar or [channels]."""
    name, scale, offset = x.name, np.asarray(scale, np.float64), np.asarray(offset, np.float64)
    if np.any(scale != 1):
        name = graph.add("Mul", [name, _constant(graph, scale, len(x.shape), f"{wish}.scale")], f"{wish}.scaled")
    if np.any(offset != 0):
        name = graph.add("Add", [name, _constant(graph, offset, len(x.shape), f"{wish}.offset")], f"{wish}.shifted")
    return Tensor(name, x.shape)


def _emit_arithmetic(graph: Graph, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Append what Keras records for `x + 3.0` and its like, or for an activation called as a function."""
    kind = type(operation).__name__
    tensors = [a for a in args if isinstance(a, Tensor)]
    if kwargs or not tensors:
        raise refuse(operation, "keyword arguments")
    if len(args) == 1:
        names = {"Relu": "relu", "Relu6": "relu6", "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu"}
        names |= {"Sigmoid": "sigmoid", "Silu": "silu", "Tanh": "tanh"}
        if kind not in names:
            raise refuse(operation, "no rule")
        return ACTIVATIONS[names[kind]](graph, tensors[0])
    if kind not in ("Add", "Multiply", "Subtract", "TrueDivide", "Divide") or len(args) != 2:
        raise refuse(operation, "no rule")
    if len(tensors) == 2:
        return _emit_merge({"Add": "Add", "Multiply": "Mul", "Subtract": "Sub"}.get(kind, "Div"))(
            graph, operation, tensors
        )
    x, other = tensors[0], np.asarray(args[1] if args[0] is tensors[0] else args[0], np.float64)
    if other.size != 1 and other.shape != x.shape[-1:]:
        raise refuse(operation, f"a constant of shape {other.shape}")
    one, zero = 1.0, 0.0
    if kind == "Add":
        return _affine(graph, x, one, other, operation.name)
    if kind == "Multiply":
        return _affine(graph, x, other, zero, operation.name)
    if kind == "Subtract":
        return _affine(graph, x, *((one, -other) if args[0] is x else (-one, other)), operation.name)
    if args[0] is not x:
        raise refuse(operation, "division by a tensor")
    return _affine(graph, x, 1 / other, zero, operation.name)


def _emit_merge(op: str) -> Emit:
    def emit(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
        total = xs[0]
        for x in xs[1:]:
            if len(x.shape) != len(total.shape):
                raise refuse(layer, "ranks that differ")
            shape = np.broadcast_shapes(total.shape, x.shape)
            total = Tensor(graph.add(op, [total.name, x.name], layer.name), shape)
        return total

    return emit


def _emit_concatenate(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    rank = len(xs[0].shape)
    axis = layer.axis - 1 if layer.axis > 0 else layer.axis + rank
    if rank not in (1, 3):
        raise refuse(layer, f"rank {rank}")
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    onnx_axis = (2, 3, 1)[axis] if rank == 3 else 1
    return Tensor(graph.add("Concat", [x.name for x in xs], layer.name, axis=onnx_axis), tuple(shape))


def _emit_batch_norm(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    if axis not in (-1, len(xs[0].shape)) or len(xs[0].shape) not in (1, 3):
        raise refuse(layer, f"axis {axis}")
    gamma = array_of(layer.gamma) if layer.scale else np.float64(1)
    beta = array_of(layer.beta) if layer.center else np.float64(0)
    scale = gamma / np.sqrt(array_of(layer.moving_variance) + layer.epsilon)
    return _affine(graph, xs[0], scale, beta - array_of(layer.moving_mean) * scale, layer.name)


def _emit_rescaling(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if any(v.size != 1 and v.shape != xs[0].shape[-1:] for v in (scale, offset)):
        raise refuse(layer, "a scale that is neither one number nor one a channel")
    return _affine(graph, xs[0], scale, offset, layer.name)


def _emit_normalization(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    mean, variance = array_of(layer.mean).ravel(), array_of(layer.variance).ravel()
    if layer.invert or mean.size not in (1, xs[0].shape[-1]):
        raise refuse(layer, "not one mean a channel")
    deviation = np.maximum(np.sqrt(variance), 1e-7)  # Keras' own floor
    return _affine(graph, xs[0], 1 / deviation, -mean / deviation, layer.name)


# --- pooling and shapes -----------------------------------------------------------------------------------------------


def _emit_pool(op: str) -> Emit:
    def emit(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
        if layer.data_format != "channels_last" or len(xs[0].shape) != 3:
            raise refuse(layer, "not [height, width, channels]")
        kernel, strides = tuple(layer.pool_size), tuple(layer.strides)
        pads = same_pads(layer, xs[0], kernel, strides)
        sides = (0, 1)
        sizes = [(xs[0].shape[i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in sides]
        name = graph.add(op, [xs[0].name], layer.name, kernel_shape=list(kernel), strides=list(strides), pads=pads)
        return Tensor(name, (*sizes, xs[0].shape[2]))

    return emit


def _emit_global_pool(op: str) -> Emit:
    def emit(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
        if layer.data_format != "channels_last" or len(xs[0].shape) != 3:
            raise refuse(layer, "not [height, width, channels]")
        channels = xs[0].shape[2]
        y = Tensor(graph.add(op, [xs[0].name], layer.name), (1, 1, channels))
        return y if layer.keepdims else _reshape(graph, y, (channels,), layer.name)

    return emit


def _emit_padding(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    if layer.data_format != "channels_last" or len(xs[0].shape) != 3:
        raise refuse(layer, "not [height, width, channels]")
    (top, bottom), (left, right) = layer.padding
    height, width, channels = xs[0].shape
    pads = graph.constant(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64), f"{layer.name}.pads")
    name = graph.add("Pad", [xs[0].name, pads], layer.name)
    return Tensor(name, (height + top + bottom, width + left + right, channels))


def _reshape(graph: Graph, x: Tensor, shape: tuple[int, ...], wish: str) -> Tensor:
    """Append a reshape that keeps Keras' order of elements: height, width, channels."""
    name = x.name
    if len(x.shape) == 3 and x.shape[:2] != (1, 1):
        name = graph.add("Transpose", [name], f"{wish}.nhwc", perm=TO_NHWC)
    flat_pixels = len(shape) == 3 and shape[:2] == (1, 1)  # then both layouts have the same order
    onnx_shape = (shape[2], 1, 1) if flat_pixels else shape
    target = graph.constant(np.array([1, *onnx_shape], np.int64), f"{wish}.shape")
    name = graph.add("Reshape", [name, target], wish)
    if len(shape) == 3 and not flat_pixels:
        name = graph.add("Transpose", [name], f"{wish}.nchw", perm=TO_NCHW)
    return Tensor(name, shape)


def _emit_reshape(graph: Graph, layer: Any, xs: list[Tensor]) -> Tensor:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise refuse(layer, "channels first")
    shape = tuple(layer.compute_output_shape((1, *xs[0].shape))[1:])
    return xs[0] if shape == xs[0].shape else _reshape(graph, xs[0], shape, layer.name)


RULES: dict[str, Emit] = {
    **ACTIVATION_LAYERS,
    **COMPUTING_LAYERS,
    "Add": _emit_merge("Add"),
    "Multiply": _emit_merge("Mul"),
    "Subtract": _emit_merge("Sub"),
    "Maximum": _emit_merge("Max"),
    "Concatenate": _emit_concatenate,
    "BatchNormalization": _emit_batch_norm,
    "Rescaling": _emit_rescaling,
    "Normalization": _emit_normalization,
    "MaxPooling2D": _emit_pool("MaxPool"),
    "AveragePooling2D": _emit_pool("AveragePool"),
    "GlobalAveragePooling2D": _emit_global_pool("GlobalAveragePool"),
    "GlobalMaxPooling2D": _emit_global_pool("GlobalMaxPool"),
    "ZeroPadding2D": _emit_padding,
    "Flatten": _emit_reshape,
    "Reshape": _emit_reshape,
}
