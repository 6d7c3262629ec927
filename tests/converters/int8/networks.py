"""Networks that the tests of int8 share, and how well a state of one answers."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from converters.int8 import graph, ranges, simulator
from converters.int8.prepare import Prepared
from converters.int8.sensitivity import decibels, logits
from converters.int8.simulator import Simulator, State

SIGNED = {"scale": 1 / 127.5, "offset": -1.0}
CLASSES = 11
DEAD_CHANNEL = 5
"""Of the layer "wide": no weights to speak of, but a bias."""

WIDTH = 10
"""Channels of the layer "first"."""

DEAD, STILL, WANDERING = 3, 5, 7
"""Of these: one whose weights training drove to nothing, one that ReLU holds at 0 whatever the image, and one that is 0
on all that was seen, but need not be."""

Head = Literal["convolution", "dense"]


def mobile_network(head: Head) -> keras.Model:
    """What MobileNets are made of: a strided depthwise layer behind explicit padding, ReLU6, hard swish, a gate."""

    def convolve(x: Any, name: str, filters: int, size: int = 1, strides: int = 1) -> Any:
        layer = layers.Conv2D(filters, size, strides, "same", use_bias=False, name=name)
        return layers.BatchNormalization(name=f"{name}_bn")(layer(x))

    image = keras.Input((64, 64, 3))
    x = layers.Activation("hard_swish", name="stem_swish")(convolve(image, "stem", 16, 3, 2))
    padding = 1 if head == "dense" else ((0, 1), (0, 1))  # PyTorch's, an operator of its own; Keras', part of the layer
    x = layers.ZeroPadding2D(padding, name="down_pad")(x)
    x = layers.BatchNormalization(name="down_bn")(layers.DepthwiseConv2D(3, 2, use_bias=False, name="down")(x))
    trunk = convolve(layers.ReLU(6.0, name="down_relu")(x), "trunk", 24)
    x = layers.ReLU(6.0, name="wide_relu")(convolve(trunk, "wide", 40))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="deep")(x)
    x = layers.Activation("hard_swish", name="deep_swish")(layers.BatchNormalization(name="deep_bn")(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    gate = layers.Conv2D(8, 1, activation="relu", name="squeeze")(gate)
    gate = layers.Conv2D(40, 1, name="excite")(gate)
    gate = layers.ReLU(6.0, name="gate")(gate + 3.0) * (1 / 6)
    x = convolve(layers.Multiply(name="gated")([x, gate]), "narrow", 24)
    x = layers.ReLU(name="last_relu")(convolve(layers.Add(name="residual")([trunk, x]), "last", 48))
    x = layers.GlobalAveragePooling2D(keepdims=head == "convolution", name="features")(x)
    if head == "dense":
        return keras.Model(image, layers.Dense(CLASSES, "softmax", name="scores")(x))
    x = layers.Conv2D(CLASSES, 1, name="scores")(layers.Dropout(0.2, name="dropout")(x))
    return keras.Model(image, layers.Softmax(name="softmax")(layers.Reshape((CLASSES,), name="flat")(x)))


def as_if_trained(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Spread the activations, open some gates and close others, tell the pictures apart; one channel is dead."""
    rng = np.random.default_rng(4)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
            layer.gamma.assign(rng.uniform(0.7, 1.8, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.7, layer.beta.shape))
    wide = model.get_layer("wide_bn")
    for variable, value in ((wide.gamma, 1e-12), (wide.beta, 2.5)):
        values = np.asarray(variable).copy()
        values[DEAD_CHANNEL] = value
        variable.assign(values)
    for name, factor in (("excite", 30), ("scores", 8)):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * factor)
    model(images * np.float32(SIGNED["scale"]) + np.float32(SIGNED["offset"]), training=True)
    return model


def coarse_network() -> keras.Model:
    """Few channels with one large weight each: 8 bits leave little for the others, as in narrow networks."""
    keras.utils.set_random_seed(7)
    image = keras.Input((64, 64, 3))
    x = image
    for i, (filters, strides) in enumerate(((8, 2), (8, 1), (16, 2))):
        x = layers.Conv2D(filters, 3, strides, "same", use_bias=False, name=f"conv{i}")(x)
        x = layers.BatchNormalization(name=f"conv{i}_bn")(x)
        x = layers.ReLU(6.0, name=f"conv{i}_relu")(x)
        x = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{i}")(x)
        x = layers.ReLU(6.0, name=f"depthwise{i}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    model = keras.Model(image, layers.Dense(6, activation="softmax", name="scores")(x))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            kernel = np.asarray(layer.kernel).copy()
            kernel[1, 1] += rng.choice([-1, 1], kernel.shape[2:]) * np.abs(kernel).max() * 6
            layer.kernel.assign(kernel)
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(2, 4, layer.moving_variance.shape))
    model.get_layer("scores").kernel.assign(np.asarray(model.get_layer("scores").kernel) * 3)
    return model


def chain_network() -> keras.Model:
    """A chain whose first tensors cost nearly all: their channels move by a few levels, and much depends on them."""
    keras.utils.set_random_seed(3)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(WIDTH, 3, 2, "same", name="first")(image)
    x = layers.ReLU(6.0, name="first_relu")(x)
    x = layers.DepthwiseConv2D(3, 2, name="single")(layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(x))
    x = layers.ReLU(6.0, name="single_relu")(x)
    x = layers.Conv2D(32, 1, name="mix")(x)
    x = layers.GlobalAveragePooling2D(name="features")(layers.ReLU(6.0, name="mix_relu")(x))
    model = keras.Model(image, layers.Dense(7, "softmax", name="scores")(x))
    kernel, bias = model.get_layer("first").get_weights()
    kernel, bias = kernel * 0.05, bias + 3.0
    kernel[..., DEAD], bias[DEAD] = 1e-9, -0.4
    bias[WANDERING] = -0.9 * np.abs(kernel[..., WANDERING]).sum()
    model.get_layer("first").set_weights([kernel, bias])
    kernel, bias = model.get_layer("single").get_weights()
    kernel, bias = np.abs(kernel) / np.abs(kernel).sum((0, 1)), bias.copy()
    bias[DEAD], bias[STILL] = 2.5, -7.0
    model.get_layer("single").set_weights([kernel, bias])
    kernel, bias = model.get_layer("mix").get_weights()
    kernel *= 30
    model.get_layer("mix").set_weights([kernel, 3 - 3 * kernel.sum((0, 1, 2))])
    kernel, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([kernel * 4, bias])
    return model


def position(of: Simulator, name: str) -> int:
    """Find a node by the name of its operation."""
    return next(i for i, node in enumerate(of.steps) if node.operation.name == name)


def name_of(of: Simulator, point: int) -> str:
    return str(of.steps[point].operation.name)


def answers_of(core: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """What each operation of a network answers in float, by its name."""
    found: dict[str, np.ndarray] = {}

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        y = node.operation(*args, **kwargs)
        found[node.operation.name] = np.asarray(y)
        return y

    graph.run(core, keras.ops.convert_to_tensor(x), call)
    return found


def float_scores(prepared: Prepared, images: np.ndarray) -> np.ndarray:
    """What the folded network answers before anything is rounded."""
    simulator.write_weights(prepared.simulator.core, prepared.start.weights)
    return np.asarray(prepared.simulator.core(prepared.simulator.read(images)))


def sqnr_db(prepared: Prepared, state: State, images: np.ndarray) -> float:
    """How near the int8 network comes to the float one."""
    expected = float_scores(prepared, images)
    prepared.simulator.load(state)
    return decibels(logits(expected), logits(prepared.simulator.scores(images)))


def is_aligned(prepared: Prepared, state: State) -> bool:
    """Say whether every runtime adds to the same levels: aligned once more, the ranges stay."""
    core, kinds = prepared.simulator.core, prepared.simulator.kinds
    again = ranges.aligned(core, kinds, state.ranges)
    return all(again[point].high <= span.high * (1 + 1e-5) for point, span in state.ranges.items())


def file_scores(flatbuffer: bytes, images: np.ndarray) -> np.ndarray:
    """What a TFLite file answers to uint8 images."""
    runner = Interpreter(model_content=flatbuffer, num_threads=1)
    runner.allocate_tensors()
    image, output = runner.get_input_details()[0]["index"], runner.get_output_details()[0]["index"]
    rows = []
    for one in images:
        runner.set_tensor(image, one[np.newaxis])
        runner.invoke()
        rows.append(runner.get_tensor(output)[0].copy())
    return np.stack(rows)
