"""Correction: what it promises of means and of weights, and that the network it leads to is nearer to the float one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from converters.int8 import arithmetic, graph, islands
from converters.int8 import correct as correct_module
from converters.int8.arithmetic import Range
from converters.int8.correct import METHODS, Method, correct
from converters.int8.prepare import Prepared, prepare
from converters.int8.simulator import State

from .networks import SIGNED, position, sqnr_db

NEAREST, GPTQ, COMPENSATED = METHODS
BY_NAME = pytest.mark.parametrize("method", METHODS, ids=["nearest", "GPTQ", "compensated"])


def with_rounded_weights(prepared: Prepared, state: State) -> State:
    """What the file would hold without correction."""
    layer = prepared.simulator.core.get_layer
    rounded = {name: (arithmetic.round_kernel(layer(name), k), b) for name, (k, b) in state.weights.items()}
    return replace(state, weights=rounded)


def layer_means(prepared: Prepared, state: State, images: np.ndarray, *, rounded: bool) -> dict[str, np.ndarray]:
    """Mean of each channel that each layer answers, with the weights of a state; points rounded to 8 bits, or not."""
    simulator, found = prepared.simulator, {}
    quiet = simulator.float_points(state.kept_float)

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        place, layer = simulator.position[id(node)], node.operation
        if graph.weighted(layer):
            y = graph.linear(layer, args[0], *state.weights[layer.name])
            found[layer.name] = np.asarray(y, np.float64).mean(axis=tuple(range(len(y.shape) - 1)))
        else:
            y = layer(*args, **kwargs)
        stored = rounded and place in state.ranges and place not in quiet
        return arithmetic.round_real(y, state.ranges[place]) if stored else y

    graph.run(simulator.core, keras.ops.convert_to_tensor(simulator.read(images)), call)
    return found


@pytest.mark.parametrize("kept", [(), ("conv1", "depthwise1")], ids=["all int8", "with an island"])
@BY_NAME
def test_the_mean_of_every_layer_is_restored(
    coarse: Prepared, images: np.ndarray, method: Method, kept: tuple[str, ...]
) -> None:
    """Behind layers and points that are rounded, too."""
    start = replace(coarse.start, kept_float=islands.of_layers(coarse.simulator, kept))
    corrected = correct(coarse.simulator, start, images, method)
    true = layer_means(coarse, start, images, rounded=False)
    rough = layer_means(coarse, with_rounded_weights(coarse, start), images, rounded=True)
    mended = layer_means(coarse, corrected, images, rounded=True)
    assert true.keys() == mended.keys() == {"conv0", "conv1", "conv2", "scores", *(f"depthwise{i}" for i in range(3))}
    for name, mean in true.items():
        off = np.abs(rough[name] - mean).max()
        assert off > 1e-4, "rounding must shift some mean of each layer, or this test says nothing"
        assert np.abs(mended[name] - mean).max() < 0.01 * off + 2e-6


@BY_NAME
def test_a_dense_layer_may_stand_behind_more_axes_than_one(
    images: np.ndarray, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(3)
    image = keras.Input(images.shape[1:])
    x = layers.Conv2D(12, 3, 2, "same", activation="relu", name="stem")(image)
    gate = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Dense(12, "sigmoid", name="excite")(layers.Dense(4, "relu", name="squeeze")(gate))
    x = layers.Dense(8, "relu", name="pixels")(layers.Multiply()([x, gate]))
    answer = layers.Dense(5, "softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    prepared = prepare(keras.Model(image, answer), images, **SIGNED)
    assert prepared is not None
    corrected = correct(prepared.simulator, prepared.start, images, method)
    assert sqnr_db(prepared, corrected, images) > 20
    monkeypatch.setattr(correct_module, "MOST_INPUTS", 3)  # where GPTQ would take an hour, weights go to the nearest
    wide = correct(prepared.simulator, prepared.start, images, method)
    nearest = correct(prepared.simulator, prepared.start, images, NEAREST)
    assert all((wide.weights[name][0] == nearest.weights[name][0]).all() for name in nearest.weights)


@BY_NAME
def test_each_method_gains_on_pictures_not_seen(
    coarse: Prepared, images: np.ndarray, others: np.ndarray, method: Method
) -> None:
    plain = sqnr_db(coarse, coarse.start, others)
    gained = sqnr_db(coarse, correct(coarse.simulator, coarse.start, images, method), others) - plain
    assert plain < 30
    assert gained > {"nearest": 2, "GPTQ": 8}[method.rounding]


@pytest.mark.parametrize("mobile", ["dense"], indirect=True)
@BY_NAME
def test_weights_are_on_their_grid(mobile: Prepared, images: np.ndarray, method: Method) -> None:
    """Exactly: whoever rounds them again, as simulator and converters do, finds them as they are."""
    before = {name: (kernel.copy(), bias.copy()) for name, (kernel, bias) in mobile.start.weights.items()}
    corrected = correct(mobile.simulator, mobile.start, images, method)
    assert corrected.ranges == mobile.start.ranges
    for name, (kernel, _) in corrected.weights.items():
        layer = mobile.simulator.core.get_layer(name)
        np.testing.assert_array_equal(arithmetic.round_kernel(layer, kernel), kernel, err_msg=name)
        off = np.abs(kernel - before[name][0])
        step = arithmetic.kernel_scale(layer, before[name][0])
        if method == NEAREST:
            assert (off <= 0.5001 * step).all(), name
        else:
            assert (off > 0.6 * step).any(), f"{name}: GPTQ rounds some weights to another step than the nearest"
    for name, (kernel, bias) in mobile.start.weights.items():
        np.testing.assert_array_equal(kernel, before[name][0])
        np.testing.assert_array_equal(bias, before[name][1])


@BY_NAME
def test_weights_in_float_stay(coarse: Prepared, images: np.ndarray, method: Method) -> None:
    """Their biases take up what is lost ahead of them."""
    kept = islands.of_layers(coarse.simulator, ["depthwise1", "scores"])
    start = replace(coarse.start, kept_float=kept)
    corrected = correct(coarse.simulator, start, images, method)
    assert corrected.kept_float == kept
    for name, (kernel, bias) in corrected.weights.items():
        same = (kernel == start.weights[name][0]).all()
        assert same == (name in ("depthwise1", "scores"))
        assert (bias != start.weights[name][1]).any()


def test_progress_is_told_layer_by_layer(coarse: Prepared, images: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    correct(coarse.simulator, coarse.start, images[:4], NEAREST, lambda done, of: told.append((done, of)))
    assert told == [(i, 7) for i in range(1, 8)]


def test_names_for_a_table() -> None:
    assert [method.name for method in METHODS] == [
        "bias correction",
        "GPTQ rounding, bias correction",
        "GPTQ rounding, compensation, bias correction",
    ]


# --- one layer at a time ----------------------------------------------------------------------------------------------

ONE: dict[str, Any] = {
    "pointwise": lambda: layers.Conv2D(8, 1, name="one"),
    "strided pointwise": lambda: layers.Conv2D(8, 1, 2, name="one"),
    "convolution": lambda: layers.Conv2D(8, (3, 2), 2, "same", name="one"),
    "dilated": lambda: layers.Conv2D(8, 3, dilation_rate=2, name="one"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, 2, "same", name="one"),
    "dilated depthwise": lambda: layers.DepthwiseConv2D((3, 5), padding="same", dilation_rate=2, name="one"),
    "grouped": lambda: layers.Conv2D(8, 3, groups=2, name="one"),
    "multiplied": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="one"),
}


def one_layer(kind: str, images: np.ndarray) -> Prepared:
    """A network around one layer, whose inputs are neighbours in a picture, and so go together."""
    keras.utils.set_random_seed(4)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(12, 3, 2, "same", activation="relu", name="before")(image)
    x = ONE[kind]()(x)
    x = layers.GlobalAveragePooling2D(name="features")(layers.ReLU()(x))
    model = keras.Model(image, layers.Dense(5, "softmax", name="scores")(x))
    layer = model.get_layer("one")
    kernel, bias = layer.get_weights()
    kernel[0, 0] *= 12  # what makes the steps coarse
    layer.set_weights([kernel, bias])
    prepared = prepare(model, images, **SIGNED)
    assert prepared is not None
    return prepared


def answer_error(prepared: Prepared, state: State, images: np.ndarray, name: str) -> float:
    """Variance of the difference between what a layer answers with its new and its own weights, to the same input."""
    simulator, found = prepared.simulator, []

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        layer = node.operation
        if layer.name == name:
            new, own = (np.asarray(graph.linear(layer, args[0], *s.weights[name])) for s in (state, prepared.start))
            found.append((new - own).var(axis=tuple(range(new.ndim - 1))).mean())
        return layer(*args, **kwargs)

    for layer, pair in prepared.start.weights.items():
        simulator.core.get_layer(layer).set_weights(list(pair))
    graph.run(simulator.core, keras.ops.convert_to_tensor(simulator.read(images)), call)
    return float(found[0])


@pytest.mark.parametrize("kind", [kind for kind in ONE if kind not in ("grouped", "multiplied")])
def test_gptq_sees_what_the_layer_multiplies(kind: str, images: np.ndarray) -> None:
    """With the taps or channels in another order its covariance would be of other inputs, and would not help."""
    prepared = one_layer(kind, images)
    errors = [
        answer_error(prepared, correct(prepared.simulator, prepared.start, images, method), images, "one")
        for method in (NEAREST, GPTQ)
    ]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("kind", ["grouped", "multiplied"])
def test_what_gptq_does_not_know_is_rounded_to_the_nearest_step(kind: str, images: np.ndarray) -> None:
    prepared = one_layer(kind, images)
    corrected = correct(prepared.simulator, prepared.start, images, COMPENSATED)
    kernel = arithmetic.round_kernel(prepared.simulator.core.get_layer("one"), prepared.start.weights["one"][0])
    np.testing.assert_array_equal(corrected.weights["one"][0], kernel)


def test_compensation_fits_the_weights_to_the_quantized_input(images: np.ndarray, others: np.ndarray) -> None:
    """A range that cuts off half of what the layer reads: weights fitted to what is left answer more like the float."""
    prepared = one_layer("convolution", images)
    point = position(prepared.simulator, "before_activation")
    span = prepared.start.ranges[point]
    ranges = {**prepared.start.ranges, point: Range(0.0, span.high / 3)}
    start = replace(prepared.start, ranges=ranges)
    found = [sqnr_db(prepared, correct(prepared.simulator, start, images, m), others) for m in (GPTQ, COMPENSATED)]
    assert found[1] > found[0] + 1


def test_a_layer_that_is_called_twice(images: np.ndarray) -> None:
    keras.utils.set_random_seed(2)
    image = keras.Input((64, 64, 3))
    twice = layers.Conv2D(3, 3, padding="same", name="twice")
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(twice(layers.ReLU()(twice(image)))))
    prepared = prepare(keras.Model(image, layers.Dense(4, "softmax", name="scores")(x)), images, **SIGNED)
    assert prepared is not None
    for method in METHODS:
        corrected = correct(prepared.simulator, prepared.start, images, method)
        assert corrected.weights.keys() == {"twice", "scores"}
        assert sqnr_db(prepared, corrected, images) > 15


@pytest.mark.slow
def test_a_real_narrow_network_gains_8_db(data: Path) -> None:
    """V1-0.25, a genuine float network, on photographs that the correction has not seen."""
    model = keras.applications.MobileNet(alpha=0.25, weights=None)
    model.load_weights(data / "models" / "mobilenet_v1_0.25_224.h5")

    def photographs(folder: str) -> np.ndarray:
        files = sorted((data / "imagenet" / folder).glob("*/*.png"))[::5][:40]
        return np.stack([np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files])

    seen, unseen = photographs("calibration"), photographs("validation")
    prepared = prepare(model, seen, **SIGNED)
    assert prepared is not None
    plain = sqnr_db(prepared, prepared.start, unseen)
    corrected = [sqnr_db(prepared, correct(prepared.simulator, prepared.start, seen, m), unseen) for m in METHODS]
    assert plain < 14
    assert min(corrected) > 21
    assert max(corrected[1:]) > corrected[0], "GPTQ gains over the nearest step"


def test_a_sum_that_has_one_tensor_twice_is_prepared() -> None:
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3))
    one, other = (layers.Conv2D(4, 1, name=name)(image) for name in ("one", "other"))
    x = layers.GlobalAveragePooling2D()(layers.Add(name="sum")([one, other, one]))
    model = keras.Model(image, layers.Dense(3, "softmax")(x))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    assert prepare(model, images, **SIGNED) is not None
