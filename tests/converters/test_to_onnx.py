"""The ONNX files hold the same network as Keras: layer by layer, at odd sizes, in float and in integers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

from converters import onnx_graph, to_onnx
from converters.errors import ConverterError
from tests.converters.in_onnx import opened

V1 = {"scale": 1 / 127.5, "offset": -1.0}


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(7)


def pictures(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs with noise: uint8 [count, size, size, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 5, 5, 3)).repeat(-(-size // 5), 1).repeat(-(-size // 5), 2)[:, :size, :size]
    return (coarse + rng.integers(-20, 20, coarse.shape)).clip(0, 255).astype(np.uint8)


def trained(model: keras.Model, images: np.ndarray, scale: float = 1 / 127.5, offset: float = -1.0) -> keras.Model:
    """Give a fresh network the batch statistics and the spread-out answers of a trained one."""
    rng = np.random.default_rng(1)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        for weight, low, high in ((norm.gamma, 0.6, 1.4), (norm.beta, -0.3, 0.6)):
            if weight is not None:
                weight.assign(rng.uniform(low, high, weight.shape))
        norm.momentum = 0.0
    model(images.astype(np.float32) * scale + offset, training=True)
    for norm in norms:  # a channel that never moves would amplify rounding noise thirtyfold, layer upon layer
        norm.moving_variance.assign(np.maximum(norm.moving_variance, 0.05))
    return model


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    session = opened(path)
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", [1, *images.shape[1:]])
    assert (output.name, output.type) == ("probabilities", "tensor(float)")
    return np.concatenate([session.run(None, {"image": picture[None]})[0] for picture in images])


def wanted(model: keras.Model, images: np.ndarray, scale: float, offset: float) -> np.ndarray:
    return np.asarray(model(images.astype(np.float32) * np.float32(scale) + np.float32(offset), training=False))


def written(done: to_onnx.OnnxModel, path: Path) -> to_onnx.OnnxModel:
    path.write_bytes(done.onnx)
    return done


def same(model: keras.Model, path: Path, images: np.ndarray, scale: float, offset: float) -> to_onnx.OnnxModel:
    """Convert, and hold the file to Keras."""
    done = written(to_onnx.convert(model, scale=scale, offset=offset), path)
    np.testing.assert_allclose(answers(path, images), wanted(model, images, scale, offset), atol=1e-5)
    return done


def v3_small(size: int) -> keras.Model:
    return keras.applications.MobileNetV3Small(
        input_shape=(size, size, 3), alpha=0.5, weights=None, classes=10, include_preprocessing=False
    )


FAMILIES: dict[str, Callable[[int], keras.Model]] = {
    "v1": lambda size: keras.applications.MobileNet((size, size, 3), 0.25, weights=None, classes=10),
    "v2": lambda size: keras.applications.MobileNetV2((size, size, 3), 0.35, weights=None, classes=10),
    "v3": v3_small,
    "v3-minimalistic": lambda size: keras.applications.MobileNetV3Small(
        input_shape=(size, size, 3), minimalistic=True, weights=None, classes=10, include_preprocessing=False
    ),
}


@pytest.fixture(scope="session")
def v3() -> tuple[keras.Model, np.ndarray]:
    """A V3-Small with healthy activations, and pictures for it."""
    keras.utils.set_random_seed(7)
    images = pictures(24, 96)
    return trained(v3_small(96), images), images


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [96, 97])
def test_families_are_exact(family: str, size: int, tmp_path: Path) -> None:
    images = pictures(3, size)
    model = trained(FAMILIES[family](size), images)
    assert same(model, tmp_path / "m.onnx", images, **V1).fallback == ""


def test_size_33_and_no_transposed_picture(tmp_path: Path) -> None:
    images = pictures(32, 33)
    same(trained(FAMILIES["v1"](33), images), tmp_path / "m.onnx", images, **V1)
    operators = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert "Transpose" not in operators
    assert "BatchNormalization" not in operators
    assert "Pad" not in operators


def test_v3_is_fused_into_single_activations(v3: tuple[keras.Model, np.ndarray], tmp_path: Path) -> None:
    same(v3[0], tmp_path / "m.onnx", v3[1][:4], **V1)
    operators = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert operators.count("HardSwish") == 19
    assert operators.count("HardSigmoid") == 9
    residuals = [layer for layer in v3[0].layers if isinstance(layer, layers.Add)]
    assert operators.count("Add") == 1 + len(residuals)  # one is the picture's offset


def users_model(size: int) -> keras.Model:
    """Every layer the direct writer knows and MobileNets do not use, nested twice, normalization inside."""
    inner = keras.Sequential(
        [
            layers.Input((None, None, 8)),
            layers.SeparableConv2D(12, 3, strides=2, padding="same", activation="silu"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2, padding="same", activation=layers.ReLU(4.0)),
            layers.BatchNormalization(scale=False),
            layers.LeakyReLU(),
            layers.Conv2D(24, 1, bias_initializer="ones"),  # a bias that is folded, too
            layers.BatchNormalization(),
        ],
        name="inner",
    )
    x = image = layers.Input((size, size, 3))
    x = layers.RandomFlip()(x)
    x = layers.Rescaling(1 / 255, offset=[-0.4, -0.5, -0.6])(x)
    x = layers.ZeroPadding2D(((1, 2), (0, 3)))(x)
    x = layers.Conv2D(8, 3, strides=2, groups=1, activation="relu6")(x)
    x = layers.SpatialDropout2D(0.2)(x)
    left, right = layers.MaxPooling2D(3, 2, padding="same")(x), layers.AveragePooling2D(3, 2, padding="same")(x)
    x = layers.Concatenate()([inner(x), left, right])
    gate = layers.GlobalMaxPooling2D()(x)
    gate = layers.Reshape((1, 1, x.shape[-1]))(layers.Dense(x.shape[-1], "sigmoid")(gate))
    x = layers.Multiply()([x, gate])
    x = layers.Conv2D(4, 1, use_bias=False, activation="hard_swish")(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(layers.Dense(16, "tanh")(layers.BatchNormalization()(x)))
    return keras.Model(image, layers.Softmax()(layers.Dense(5)(x)))


@pytest.mark.parametrize("size", [32, 33])
def test_a_users_model(size: int, tmp_path: Path) -> None:
    images = pictures(8, size)
    model = trained(users_model(size), images, 1, 0)
    assert same(model, tmp_path / "m.onnx", images, 1, 0).fallback == ""
    written(to_onnx.quantize(model, [images], scale=1, offset=0), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, 1, 0)).max() < 0.05


def test_a_channel_that_training_scaled_to_nothing_answers_its_shift(tmp_path: Path) -> None:
    """A batch norm that no convolution can take, as DenseNet's: its shift divided by its scale would be infinite."""
    image = layers.Input((24, 24, 3))
    norm = layers.BatchNormalization(beta_initializer=keras.initializers.Constant(0.3))
    x = layers.Conv2D(8, 3)(norm(layers.Conv2D(8, 3, strides=2, activation="relu")(image)))
    model = keras.Model(image, layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(x)))
    norm.gamma.assign([1] * 7 + [1e-40])
    same(model, tmp_path / "m.onnx", pictures(3, 24), **V1)


def test_preprocess_input_inside_the_graph(tmp_path: Path) -> None:
    image = layers.Input((40, 40, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(image)
    x = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.Reshape((20, 20, 32))(x)  # mixes pixels and channels: the order of elements is Keras'
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1, activation="gelu")(x))
    model = keras.Model(image, layers.Activation("softmax")(x))
    assert same(model, tmp_path / "m.onnx", pictures(3, 40), 1, 0).fallback == ""


def test_unknown_layers_go_through_tf2onnx(tmp_path: Path) -> None:
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.UpSampling2D()(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    model = keras.Model(image, layers.Dense(4, "softmax")(x))
    images = pictures(4, 32)
    done = same(model, tmp_path / "m.onnx", images, **V1)
    assert "UpSampling2D" in done.fallback
    written(to_onnx.quantize(model, [images], **V1), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.02


def test_batch_norms_that_tf2onnx_leaves_are_in_the_weights(tmp_path: Path) -> None:
    """Apart, an integer file would round what the convolution answers, and then normalize that in float."""
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(layers.UpSampling2D()(image))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU(6.0)(layers.BatchNormalization()(x)))
    images = pictures(8, 32)
    model = trained(keras.Model(image, layers.Dense(4, "softmax")(x)), images)
    assert "UpSampling2D" in same(model, tmp_path / "m.onnx", images, **V1).fallback
    done = written(to_onnx.quantize(model, [images], **V1), tmp_path / "q.onnx")
    kept = {one for one in done.kept_float if one.startswith(("Mul", "Add", "Clip"))}
    assert kept == {"Mul x 1", "Add x 1", "Clip x 1"}  # those of the image, and the first convolution's
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.02


def test_gelu_groups_and_splits_go_through_tf2onnx(tmp_path: Path) -> None:
    """tf2onnx knows neither TensorFlow's Erfc nor the function in which Keras compiles grouped convolutions."""
    image = layers.Input((24, 24, 3))
    x = layers.Conv2D(16, 3, strides=2, activation="gelu")(layers.UpSampling2D()(image))
    x = layers.Permute((2, 1, 3))(layers.Conv2D(24, 3, groups=4)(x))
    thirds = keras.ops.split(x, 3, axis=-1)
    few, many = keras.ops.split(thirds[2], [3], axis=-1)
    x = layers.Conv2D(8, 3)(layers.Concatenate()([many, thirds[0] * keras.ops.sigmoid(thirds[1]), few]))
    model = keras.Model(image, layers.Dense(4, "softmax")(layers.GlobalMaxPooling2D()(x)))
    images = pictures(4, 24)
    assert "UpSampling2D" in same(model, tmp_path / "m.onnx", images, **V1).fallback
    written(to_onnx.quantize(model, [images], **V1), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.02


@pytest.mark.parametrize("writer", ["direct", "tf2onnx"])
def test_zeros_around_what_is_negative_count_in_a_maximum(writer: str, tmp_path: Path) -> None:
    """ResNet V2 pads what a convolution answers, without a ReLU between."""
    image = layers.Input((24, 24, 3))
    below = keras.initializers.Constant(-2.0)
    x = layers.ZeroPadding2D(1)(layers.Conv2D(8, 3, padding="same", bias_initializer=below)(image))
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Permute((2, 1, 3))(x) if writer == "tf2onnx" else x
    model = keras.Model(image, layers.Dense(4, "softmax")(layers.Flatten()(x)))
    images = pictures(4, 24)
    assert bool(same(model, tmp_path / "m.onnx", images, **V1).fallback) == (writer == "tf2onnx")
    written(to_onnx.quantize(model, [images], **V1), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.03


RAMP = np.linspace(-3, 3, 16 * 16 * 4, dtype=np.float32).reshape(1, 16, 16, 4)


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: layers.Add()([x, RAMP]),
        lambda x: layers.Multiply()([x, RAMP]),
        layers.Flatten(data_format="channels_first"),
    ],
    ids=["add", "multiply", "flatten"],
)
def test_constant_inputs_and_another_order_count(layer: Callable[[Any], Any], tmp_path: Path) -> None:
    image = layers.Input((16, 16, 3))
    x = layers.Flatten()(layer(layers.Conv2D(4, 3, padding="same")(image)))
    same(keras.Model(image, layers.Dense(4, "softmax")(x)), tmp_path / "m.onnx", pictures(3, 16), **V1)


def test_what_tf2onnx_writes_is_valid_in_16_bits_too(tmp_path: Path) -> None:
    image = layers.Input((24, 24, 3))
    x = layers.LayerNormalization()(layers.Conv2D(6, 3, strides=2)(image))  # means whose axes are read from opset 18 on
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu")(x))
    model = keras.Model(image, layers.Dense(4, "softmax")(x))
    images = pictures(6, 24)
    written(to_onnx.quantize(model, [images], **V1, precision="int16x8"), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.01


def test_what_tf2onnx_cannot_express_is_one_line() -> None:
    image = layers.Input((16, 16, 3))
    x = layers.UnitNormalization()(layers.GlobalAveragePooling2D()(image))
    x = keras.ops.erfinv(x * 0.5)
    with pytest.raises(ConverterError, match=r"Ndtri|Erfinv") as caught:
        to_onnx.convert(keras.Model(image, layers.Dense(3, "softmax")(x)), **V1)
    assert "\n" not in str(caught.value)


def test_metadata_go_along(v3: tuple[keras.Model, np.ndarray]) -> None:
    said = {"labels": '["a"]', "kind": "any"}
    for done in (
        to_onnx.convert(v3[0], **V1, metadata=said),
        to_onnx.quantize(v3[0], [v3[1][:2]], **V1, metadata=said),
    ):
        assert {entry.key: entry.value for entry in onnx.load_from_string(done.onnx).metadata_props} == said


def test_float16_and_dynamic_shrink_the_file(v3: tuple[keras.Model, np.ndarray], tmp_path: Path) -> None:
    model, images = v3
    full, half, weights = (tmp_path / f"{name}.onnx" for name in ("full", "half", "weights"))
    written(to_onnx.convert(model, **V1), full)
    written(to_onnx.convert(model, **V1, precision="float16"), half)
    written(to_onnx.quantize(model, (), **V1, precision="dynamic"), weights)
    assert half.stat().st_size < 0.56 * full.stat().st_size
    assert weights.stat().st_size < 0.36 * full.stat().st_size
    right = wanted(model, images, **V1)
    assert np.abs(answers(half, images) - right).max() < 0.01
    assert np.abs(answers(weights, images) - right).max() < 0.1
    graph = onnx.load(weights).graph
    float_weights = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    depthwise = [node for node in convolutions if any(one.name == "group" and one.i > 1 for one in node.attribute)]
    assert depthwise
    assert all(node.input[1] in float_weights for node in depthwise), "8 bits cost these most, and they are the fewest"
    assert not all(node.input[1] in float_weights for node in convolutions)


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.15), ("int16x8", 0.03)])
def test_integers_stay_near_keras(
    v3: tuple[keras.Model, np.ndarray], tmp_path: Path, precision: Any, bound: float
) -> None:
    model, images = v3
    done = written(to_onnx.quantize(model, [images[:12], images[12:]], **V1, precision=precision), tmp_path / "q.onnx")
    assert done.calibration_images == len(images)
    error = np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1))
    assert error.max() < bound
    if precision == "int8":
        assert done.kept_float == ("Add x 1", "Conv x 1", "HardSwish x 1", "Softmax x 1")


def test_activations_of_16_bits_have_room_for_what_no_image_showed(tmp_path: Path) -> None:
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, activation="relu")(layers.Conv2D(16, 3, strides=2, activation="relu")(image))
    model = keras.Model(image, layers.Dense(4, "softmax")(layers.GlobalMaxPooling2D()(x)))
    images = pictures(8, 32)
    pale = (images // 2 + 64).astype(np.uint8)
    written(to_onnx.quantize(model, [pale], **V1, precision="int16x8"), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.005


def test_onnx_runtime_runs_int8_on_bytes(v3: tuple[keras.Model, np.ndarray], tmp_path: Path) -> None:
    """What ONNX Runtime makes of the file: one float convolution, and no dequantized island but the answer."""
    written(to_onnx.quantize(v3[0], [v3[1]], **V1), tmp_path / "q.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "q.onnx"), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    operators = [node.op_type for node in nodes]
    assert operators.count("QLinearConv") == 52
    assert operators.count("QGemm") == 1
    assert operators.count("DequantizeLinear") == 0
    # The stem stays float. ONNX Runtime 1.31 fuses its HardSwish into the convolution; 1.23 leaves a HardSigmoid.
    fuses = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 31)
    assert operators.count("HardSwish") + operators.count("HardSigmoid") <= (0 if fuses else 1)
    depthwise = [
        n for n in nodes if n.op_type == "QLinearConv" and any(a.name == "group" and a.i > 1 for a in n.attribute)
    ]
    assert depthwise
    assert all(a.i % 16 == 0 for n in depthwise for a in n.attribute if a.name == "group")


def test_ranges_are_true_minima_and_maxima(v3: tuple[keras.Model, np.ndarray], tmp_path: Path) -> None:
    """One vivid picture among pale ones must move the range all the way."""
    model, images = v3
    pale, vivid = images[:6] // 8 + 112, images[6:7]
    done = written(to_onnx.quantize(model, [pale[:3], vivid, pale[3:]], **V1), tmp_path / "q.onnx")
    name = "expanded_conv_1_project"  # a convolution with its batch norm folded in, and no activation
    tap = keras.Model(model.input, model.get_layer(f"{name}_bn").output)
    values = wanted(tap, np.concatenate([pale, vivid]), **V1)
    assert done.ranges[name] == pytest.approx((values.min(), values.max()), rel=1e-3)
    alone = wanted(tap, pale, **V1)
    assert values.max() - values.min() > 1.2 * (alone.max() - alone.min())
    stored = onnx_graph.from_model(onnx.load(tmp_path / "q.onnx")).constants[f"{name}.scale"]
    assert stored == pytest.approx((values.max() - values.min()) / 255, rel=1e-3)


@pytest.mark.parametrize("activation", ["hard_sigmoid", "hard_swish"])
def test_gates_of_bytes_have_no_bias(activation: str, tmp_path: Path) -> None:
    """The mean over 64 channels shows half a level of systematic error that a maximum would hide."""
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(image)
    gate = layers.Conv2D(64, 1, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 0.5))(x)
    mean = layers.Dense(2, kernel_initializer=keras.initializers.Constant(1 / 64))
    model = keras.Model(image, mean(layers.GlobalAveragePooling2D()(gate)))
    images = pictures(16, 32)
    written(to_onnx.quantize(model, [images], **V1), tmp_path / "q.onnx")
    error = answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)
    assert abs(error.mean()) < 0.0006


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_a_gate_of_one_channel_for_all_stays_one(precision: Any, tmp_path: Path) -> None:
    """Spatial attention: what is gated has a width that depthwise kernels are slow in, and others do get channels."""
    image = layers.Input((24, 24, 3))
    x = layers.Conv2D(24, 3, strides=2, padding="same", activation="relu6")(image)
    gate = layers.Conv2D(1, 7, padding="same", activation="sigmoid")(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Conv2D(20, 1, activation="relu")(layers.Multiply()([gate, x]))
    x = layers.Conv2D(8, 1)(layers.DepthwiseConv2D(3, activation="relu")(x))
    model = keras.Model(image, layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(x)))
    images = pictures(6, 24)
    done = written(to_onnx.quantize(model, [images], **V1, precision=precision), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.01
    convolutions = [node for node in onnx.load_from_string(done.onnx).graph.node if node.op_type == "Conv"]
    groups = [a.i for node in convolutions for a in node.attribute if a.name == "group" and a.i > 1]
    assert groups == [24, 32]


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_an_activation_on_the_logits_is_not_lost(precision: Any, tmp_path: Path) -> None:
    image = layers.Input((24, 24, 3))
    x = layers.Conv2D(16, 3, activation="relu")(layers.Conv2D(16, 3, strides=2, activation="relu")(image))
    logits = layers.ReLU(2.0)(layers.Dense(8, kernel_initializer="normal")(layers.Flatten()(x)))
    model = keras.Model(image, layers.Softmax()(logits))
    images = pictures(6, 24)
    written(to_onnx.quantize(model, [images], **V1, precision=precision), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.01


def test_a_dead_channel_does_not_overflow(tmp_path: Path) -> None:
    image = layers.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2)(image)
    dead = layers.Conv2D(16, 1, activation="relu")
    model = keras.Model(image, layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(dead(x))))
    kernel, bias = (np.asarray(v).copy() for v in dead.weights)
    kernel[..., 3], bias[3] = 1e-12, 0.7  # a scale of 1e-14 would need a bias of 1e14 steps
    dead.set_weights([kernel, bias])
    images = pictures(6, 32)
    written(to_onnx.quantize(model, [images], **V1), tmp_path / "q.onnx")
    assert np.abs(answers(tmp_path / "q.onnx", images) - wanted(model, images, **V1)).max() < 0.02


def test_what_cannot_be_converted(v3: tuple[keras.Model, np.ndarray]) -> None:
    image = layers.Input((None, None, 3))
    loose = keras.Model(image, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(image)))
    with pytest.raises(ConverterError, match="fixed"):
        to_onnx.convert(loose, **V1)
    with pytest.raises(ConverterError, match="no calibration image"):
        to_onnx.quantize(v3[0], [], **V1)


def test_real_weights_on_photographs(data: Path, tmp_path: Path) -> None:
    """ImageNet's V2: float equals Keras, int8 agrees on nearly every photograph."""
    from PIL import Image

    def photographs(folder: str, count: int) -> np.ndarray:
        files = sorted((data / "imagenet" / folder).glob("*/*.png"))[:count]
        return np.stack([np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files])

    model = keras.applications.MobileNetV2(weights=None)
    model.load_weights(data / "models" / "mobilenet_v2_1.0_224.weights.h5")
    images = photographs("validation", 30)
    same(model, tmp_path / "m.onnx", images, **V1)
    written(to_onnx.quantize(model, [photographs("calibration", 30)], **V1), tmp_path / "q.onnx")
    found, right = answers(tmp_path / "q.onnx", images), wanted(model, images, **V1)
    assert (found.argmax(1) == right.argmax(1)).mean() >= 0.8


def test_measuring_ranges_reports_nothing_to_microsoft(tmp_path: Path) -> None:
    """ONNX Runtime's wheels do, from a folder below the cache; a process of its own, as it begins with the import."""
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[1] image) => (float[1] y) {y = Relu(image)}'
        ),
        tmp_path / "m",
    )
    code = "import sys, onnx; from converters.onnx_ranges import _watching; _watching(onnx.load(sys.argv[1]), [])"
    own = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    own |= dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(tmp_path))
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], env=own, check=True)
    assert [one.name for one in tmp_path.iterdir()] == ["m"]
