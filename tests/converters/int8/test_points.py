"""Points: each tensor of a float file is found in the Keras network, and what the converter fuses away is not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from converters import to_tflite
from converters.int8 import graph, points
from converters.int8.points import match, tflite_values
from converters.int8.prepare import Prepared, prepare
from converters.int8.simulator import write_weights

from .networks import as_if_trained, mobile_network, name_of

STORED = [
    "stem",
    "stem_swish",
    "down_relu",
    "trunk",
    "wide_relu",
    "deep",
    "deep_swish",
    "pool",
    "squeeze_activation",
    "gate",
    "opening",
    "gated",
    "narrow",
    "residual",
    "last_relu",
    "features",
    "scores",
]
"""Fused away: the layers in front of a ReLU, the shift in front of the gate, dropout, and Keras' padding."""


def found(prepared: Prepared, images: np.ndarray) -> tuple[dict[str, tuple[str, ...]], dict[str, np.ndarray]]:
    """Names in the file by the name in Keras, and the file's tensors."""
    core = prepared.simulator.core
    write_weights(core, prepared.start.weights)
    x = prepared.simulator.read(images)
    values = tflite_values(to_tflite.trace(core), x)
    names = match(core, x, values)
    return {_name(prepared, point): names[point] for point in sorted(names)}, values


def _name(prepared: Prepared, point: int) -> str:
    """The sixth of a gate has no name of its own in Keras."""
    before = name_of(prepared.simulator, point - 1) if point else ""
    return "opening" if before == "gate" else name_of(prepared.simulator, point)


def test_the_points_are_those_that_a_file_stores(mobile: Prepared) -> None:
    assert [_name(mobile, point) for point in mobile.simulator.points] == STORED


def test_every_tensor_of_the_file_is_found_once(mobile: Prepared, images: np.ndarray) -> None:
    names, values = found(mobile, images[:3])
    claimed = [name for some in names.values() for name in some]
    assert sorted(claimed) == sorted(values)
    softmax = list(names)[-1]
    assert list(names) == [*STORED, softmax]
    assert softmax in ("softmax", "scores_activation")


def test_a_move_shares_its_names(mobile: Prepared, images: np.ndarray) -> None:
    """PyTorch's padding and the reshape behind the classifier are tensors of the file, but no points of their own."""
    names, values = found(mobile, images[:3])
    dense = isinstance(mobile.simulator.core.get_layer("scores"), layers.Dense)
    moved, shape = ("stem_swish", (3, 1, 34, 34, 16)) if dense else ("scores", (3, 1, 11))
    assert [name for name, some in names.items() if len(some) > 1] == [moved]
    assert values[names[moved][1]].shape == shape


def test_values_are_those_of_the_float_network(mobile: Prepared, images: np.ndarray) -> None:
    _, values = found(mobile, images[:3])
    *_, last = values
    expected = np.asarray(mobile.simulator.core(mobile.simulator.read(images[:3])))
    np.testing.assert_allclose(values[last][:, 0], expected, atol=1e-5)


def test_behind_gates_that_are_open_everywhere_equal_tensors_are_told_apart(images: np.ndarray) -> None:
    """What is gated then equals what gates it: each is claimed in the order in which both compute them."""
    keras.utils.set_random_seed(11)
    model = as_if_trained(mobile_network("dense"), images)
    excite = model.get_layer("excite")
    kernel, bias = excite.get_weights()
    excite.set_weights([kernel * 0, bias * 0 + 9])
    x = (images[:3].astype(np.float32) - 128) / np.float32(127.5)
    values = tflite_values(to_tflite.trace(model), x)
    names = match(model, x, values)
    by_name = {node.operation.name: names.get(i, ()) for i, node in enumerate(graph.nodes(model))}
    (swish,), (gated,) = by_name["deep_swish"][:1], by_name["gated"]
    np.testing.assert_allclose(values[swish], values[gated], atol=1e-5)
    assert "deep_swish" in swish
    assert "gated" in gated


# --- match() on tensors made by hand ----------------------------------------------------------------------------------


def chain() -> tuple[keras.Model, np.ndarray]:
    """A convolution, a ReLU that changes it, a ReLU that does not, a padding, and a pooling."""
    keras.utils.set_random_seed(2)
    image = keras.Input((6, 6, 3))
    x = layers.ReLU(name="relu")(layers.Conv2D(4, 1, name="conv")(image))
    x = layers.ZeroPadding2D(1, name="pad")(layers.ReLU(name="again")(x))
    model = keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x))
    return model, np.random.default_rng(0).normal(0, 1, (3, 6, 6, 3)).astype(np.float32)


def answers(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(keras.Model(model.input, model.get_layer(name).output)(x)) for name in POSITION}


POSITION = {"conv": 0, "relu": 1, "again": 2, "pad": 3, "pool": 4}


def test_equal_tensors_are_claimed_in_order() -> None:
    model, x = chain()
    now = answers(model, x)
    np.testing.assert_array_equal(now["relu"], now["again"])
    values = {"first": now["relu"], "second": now["again"], "padded": now["pad"]}
    assert match(model, x, values) == {1: ("first",), 2: ("second", "padded")}
    # Where the file has but one of them, the first takes it, and the other is found nowhere.
    assert match(model, x, {"only": now["relu"]}) == {1: ("only",)}


def test_dead_channels_and_axes_of_length_one_do_not_matter() -> None:
    model, x = chain()
    now = answers(model, x)
    wider = np.pad(now["conv"], ((0, 0), (0, 0), (0, 0), (0, 4)))
    assert match(model, x, {"wider": wider, "flat": now["pool"][:, None, None]}) == {0: ("wider",), 4: ("flat",)}


@pytest.mark.parametrize("off", [0.3, 3.0])
def test_near_is_not_equal(off: float) -> None:
    """A difference of some thousandths of the largest value, in one channel of one pixel, is another tensor."""
    model, x = chain()
    conv = answers(model, x)["conv"].copy()
    conv[2, 5, 5, 3] += off * points.TOLERANCE * np.abs(conv).max()
    assert match(model, x, {"conv": conv}) == ({0: ("conv",)} if off < 1 else {})


def test_another_shape_is_another_tensor() -> None:
    model, x = chain()
    conv = answers(model, x)["conv"].copy()
    for other in (conv[:, 1:], conv[..., 1:], np.moveaxis(conv, 3, 1), conv[:2]):
        assert match(model, x, {"other": other}) == {}


@pytest.mark.parametrize("layer", ["LSTM", "unrolled LSTM"])
def test_what_a_recurrent_layer_answers_is_found_and_what_it_leaves_unread_left_out(layer: str) -> None:
    image = keras.Input((24, 24, 3))
    x = layers.Conv2D(8, 3, strides=3, activation="relu", name="rows")(image)
    x = layers.LSTM(6, unroll=layer != "LSTM")(layers.Reshape((8, 64))(x))
    core = keras.Model(image, layers.Dense(4, "softmax")(x))
    pictures = np.random.default_rng(0).random((3, 24, 24, 3), np.float32)
    values = tflite_values(to_tflite.trace(core), pictures)
    found = match(core, pictures, values)
    assert {graph.nodes(core)[point].operation.name for point in found} >= {"rows", core.layers[-1].name}


def test_where_a_layer_gives_several_tensors_nothing_is_corrected() -> None:
    """As ShuffleNet's splits do: calibration alone decides there."""
    image = keras.Input((24, 24, 3))
    one, other = keras.ops.split(layers.Conv2D(8, 3, activation="relu")(image), 2, axis=-1)
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()([one, layers.Conv2D(4, 1)(other)]))
    core = keras.Model(image, layers.Dense(4, "softmax")(x))
    pictures = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 3), np.uint8)
    assert prepare(core, pictures, scale=1 / 127.5, offset=-1.0) is None
