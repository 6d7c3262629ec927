"""Loading any Keras classifier: old and new files, what they eat and answer, and everything that must be refused."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from edgenet.errors import EdgenetError, UsageError
from edgenet.labels import Labels
from edgenet.nets import weights
from edgenet.nets.affine import answers_probabilities, as_classifier, flatten, input_affine
from edgenet.nets.graph import _computes
from edgenet.nets.h5 import names_in
from edgenet.nets.load import load_model
from edgenet.nets.network import open_network
from edgenet.nets.weights import classes_in, imagenet_labels, imagenet_weights, load_weights
from edgenet.spec import ModelSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras and h5py warn about their own old formats
layers = keras.layers
RAW = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype("float32")


def shuffle(model: keras.Model) -> keras.Model:
    """Give every weight a value of its own, so that a mix-up shows."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) * 0.2 + 0.1 for w in model.get_weights()])
    return model


def backbone() -> keras.Model:
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=2, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    return keras.Model(image, layers.BatchNormalization(name="depthwise_bn")(x), name="backbone")


def tutorial() -> keras.Model:
    """A transfer-learning model as tutorials write it: augmentation, arithmetic, a frozen nested model, logits."""
    image = keras.Input((32, 32, 3))
    x = keras.Sequential([keras.Input((32, 32, 3)), layers.RandomFlip(), layers.RandomRotation(0.2)])(image)
    x = x / 127.5 - 1.0
    base = backbone()
    base.trainable = False
    x = layers.GlobalAveragePooling2D()(base(x, training=False))
    return shuffle(keras.Model(image, layers.Dense(5, name="head")(layers.Dropout(0.2)(x))))


def small(front: list[Any], head: Any | None = None) -> keras.Model:
    head = head or layers.Dense(3, activation="softmax")
    stack = [keras.Input((32, 32, 3)), *front, layers.Conv2D(4, 3, strides=2), layers.GlobalAveragePooling2D(), head]
    return keras.Sequential(stack)


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(EdgenetError) as caught:
        load_model(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


# --- Keras 3 files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_tutorial_model_loads_flat_and_deterministic(tmp_path: Path, suffix: str) -> None:
    model, path = tutorial(), tmp_path / f"m{suffix}"
    model.save(path)
    loaded = load_model(path)
    expected = model.predict(RAW, verbose=0)
    np.testing.assert_allclose(loaded.predict(RAW, verbose=0), expected, atol=1e-6)
    # Called directly, Keras' own augmentation layers would be active; nothing of them is left.
    np.testing.assert_allclose(np.asarray(loaded(RAW)), expected, atol=1e-6)
    assert not any(
        isinstance(layer, keras.Model) or type(layer).__name__.startswith("Random") for layer in loaded.layers
    )
    affine = input_affine(loaded)
    assert affine is not None
    assert (affine.scale, affine.offset) == (pytest.approx(1 / 127.5), -1.0)
    np.testing.assert_allclose(affine.core(RAW * affine.scale + affine.offset), expected, atol=1e-5)


def test_a_saved_model_folder_predicts_and_tells_its_softmax(tmp_path: Path) -> None:
    model = shuffle(small([layers.Rescaling(1 / 255)]))
    model.export(tmp_path / "saved", verbose=False)
    loaded = load_model(tmp_path / "saved")
    np.testing.assert_allclose(loaded.predict(RAW, verbose=0), model.predict(RAW, verbose=0), atol=1e-6)
    assert answers_probabilities(loaded)
    assert as_classifier(loaded).output_shape == (None, 3)


def test_the_suffix_does_not_matter_and_an_open_size_needs_one(tmp_path: Path) -> None:
    image = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    model = keras.Model(image, layers.Dense(3)(x))
    model.save(tmp_path / "open.keras")
    path = (tmp_path / "open.keras").rename(tmp_path / "open.bin")
    assert "--size" in refused(path)
    small([]).save(tmp_path / "fixed.keras")
    assert "takes 32x32 pixels: leave --size 64 out" in refused(tmp_path / "fixed.keras", size=64)
    assert load_model(tmp_path / "fixed.keras", size=32).input_shape == (None, 32, 32, 3)
    loaded = load_model(path, size=32)
    assert loaded.input_shape == (None, 32, 32, 3)
    np.testing.assert_allclose(loaded.predict(RAW, verbose=0), model.predict(RAW, verbose=0), rtol=1e-5, atol=1e-4)


# --- Keras 2 files -----------------------------------------------------------------------------------------------


def keras2(path: Path, model: keras.Model, config: dict[str, Any], tops: dict[str, list[tuple[str, Any]]]) -> None:
    """Write an .h5 file as Keras 2.4 did: its configuration, weights named layer/weight:0 in groups of top layers."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([name.encode() for name in tops])
        for top, weights in tops.items():
            inner = group.create_group(top)
            inner.attrs["weight_names"] = np.array([name.encode() for name, _ in weights], dtype="S64")
            for name, values in weights:
                inner.create_dataset(name, data=values)


def layer2(kind: str, name: str, sources: list[Any], **config: Any) -> dict[str, Any]:
    nodes = [[[source, index, 0, {}] for source, index in sources]] if sources else []
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def test_a_keras_2_file_with_all_its_traps(tmp_path: Path) -> None:
    model = tutorial()
    image = {"batch_input_shape": [None, 32, 32, 3], "dtype": "float32", "ragged": False, "sparse": False}
    base = {
        "class_name": "Functional",
        "name": "backbone",
        "config": {
            "name": "backbone",
            "layers": [
                layer2("InputLayer", "input_1", [], **image),
                layer2("Conv2D", "stem", [("input_1", 0)], filters=4, kernel_size=[3, 3], strides=[2, 2]),
                layer2("BatchNormalization", "stem/bn", [("stem", 0)], axis=[3]),  # slashes are forbidden in Keras 3
                layer2("DepthwiseConv2D", "depthwise", [("stem/bn", 0)], kernel_size=[3, 3], groups=1),
                layer2("BatchNormalization", "depthwise_bn", [("depthwise", 0)], axis=[3]),
            ],
            "input_layers": [["input_1", 0, 0]],
            "output_layers": [["depthwise_bn", 0, 0]],
        },
        "inbound_nodes": [[["tf.math.subtract", 0, 0, {"training": False}]]],
    }
    augmentation = {"name": "augmentation", "layers": [layer2("InputLayer", "flip_input", [], **image)]}
    augmentation["layers"].append(layer2("RandomFlip", "flip", [], mode="horizontal", rng_type="stateful"))  # type: ignore[attr-defined]
    divide = layer2("TFOpLambda", "tf.math.truediv", [], function="math.truediv")
    divide["inbound_nodes"] = [["augmentation", 1, 0, {"y": 127.5, "name": None}]]
    subtract = layer2("TFOpLambda", "tf.math.subtract", [], function="math.subtract")
    subtract["inbound_nodes"] = [["tf.math.truediv", 0, 0, {"y": 1.0, "name": None}]]
    config = {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": [
                layer2("InputLayer", "input_2", [], **image),
                layer2("Sequential", "augmentation", [("input_2", 0)], **{"layers": augmentation["layers"]}),
                divide,
                subtract,
                base,
                layer2("GlobalAveragePooling2D", "pool", [("backbone", 1)]),
                layer2("Dense", "head", [("pool", 0)], units=5, activation="linear"),
            ],
            "input_layers": [["input_2", 0, 0]],
            "output_layers": [["head", 0, 0]],
        },
    }
    names = ["stem/kernel:0", "stem/bias:0", *(f"stem/bn/{n}:0" for n in ("gamma", "beta", "moving_mean"))]
    names += ["stem/bn/moving_variance:0", "depthwise/depthwise_kernel:0", "depthwise/bias:0"]
    names += [f"depthwise_bn/{n}:0" for n in ("gamma", "beta", "moving_mean", "moving_variance")]
    values = list(zip(names, model.get_layer("backbone").get_weights(), strict=True))
    # Trainable weights first, then the moving statistics: another order than Keras 3's, same shapes throughout.
    values.sort(key=lambda item: "moving" in item[0])
    head = list(zip(["head/kernel:0", "head/bias:0"], model.get_layer("head").get_weights(), strict=True))
    keras2(tmp_path / "old.h5", model, config, {"augmentation": [], "backbone": values, "head": head})
    loaded = load_model(tmp_path / "old.h5")
    np.testing.assert_allclose(loaded.predict(RAW, verbose=0), model.predict(RAW, verbose=0), atol=1e-5)
    affine = input_affine(loaded)
    assert affine is not None
    assert (affine.scale, affine.offset) == (pytest.approx(1 / 127.5), -1.0)


def test_arithmetic_in_a_keras_2_file_is_what_it_was(tmp_path: Path) -> None:
    """Each operation that such files name, with a number; a product and a sum of two tensors; the number first."""
    with_numbers = (
        *(("math.multiply", 3.0), ("__operators__.mul", 0.5), ("math.truediv", 4.0), ("math.divide", 0.7)),
        *(("__operators__.truediv", 5.0), ("math.add", 11.0), ("__operators__.add", 2.0), ("math.subtract", 6.0)),
        *(("__operators__.sub", 0.3), ("math.multiply", ["input", 0, 0]), ("__operators__.add", ["input", 0, 0])),
    )
    turned = (("math.subtract", 9.0), ("math.multiply", 0.25), ("__operators__.add", 7.0))
    image = {"batch_input_shape": [None, 32, 32, 3], "dtype": "float32"}
    steps, last = [layer2("InputLayer", "input", [], **image)], "input"
    for number, (function, other) in enumerate(with_numbers):
        step = layer2("TFOpLambda", f"step{number}", [], function=function)
        step["inbound_nodes"], last = [[last, 0, 0, {"y": other, "name": None}]], f"step{number}"
        steps.append(step)
    for number, (function, first) in enumerate(turned):
        step = layer2("TFOpLambda", f"turned{number}", [], function=function)
        step["inbound_nodes"] = [["_CONSTANT_VALUE", -1, first, {"y": [last, 0, 0], "name": None}]]
        last = f"turned{number}"
        steps.append(step)
    steps += [layer2("GlobalAveragePooling2D", "pool", [(last, 0)]), layer2("Dense", "head", [("pool", 0)], units=3)]
    config = {"name": "model", "layers": steps, "input_layers": [["input", 0, 0]], "output_layers": [["head", 0, 0]]}
    head = [("head/kernel:0", np.eye(3, dtype=np.float32)), ("head/bias:0", np.zeros(3, np.float32))]
    keras2(tmp_path / "old.h5", keras.Model(), {"class_name": "Functional", "config": config}, {"head": head})
    x = RAW.astype(np.float64)
    expected = ((9 - ((x * 3 * 0.5 / 4 / 0.7 / 5 + 11 + 2 - 6 - 0.3) * x + x)) * 0.25 + 7).mean(axis=(1, 2))
    np.testing.assert_allclose(load_model(tmp_path / "old.h5").predict(RAW, verbose=0), expected, rtol=1e-4)
    for function, *node in (
        ("math.truediv", "_CONSTANT_VALUE", -1, 2.0, {"y": ["input", 0, 0]}),
        ("math.multiply", "input", 0, 0, {"y": [0.5, 0.25, 0.125]}),
    ):
        step["config"]["function"], step["inbound_nodes"] = function, [node]
        keras2(tmp_path / "odd.h5", keras.Model(), {"class_name": "Functional", "config": config}, {"head": head})
        assert f"is the TensorFlow operation tf.{function}, which Keras 3" in refused(tmp_path / "odd.h5")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_normalization_that_learnt_its_mean_still_knows_it(tmp_path: Path, suffix: str) -> None:
    normalization = layers.Normalization()
    normalization.adapt(RAW)
    model, path = small([normalization]), tmp_path / f"m{suffix}"
    model.save(path)
    np.testing.assert_allclose(load_model(path).predict(RAW, verbose=0), model.predict(RAW, verbose=0), atol=1e-6)


def test_names_that_keras_stored_in_pieces_are_put_together(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "pieces.h5", "w") as file:
        for number, names in enumerate((["a", "b"], ["c"])):
            file.attrs[f"layer_names{number}"] = np.array([name.encode() for name in names])
        assert names_in(file, "layer_names") == ["a", "b", "c"]
        assert names_in(file, "weight_names") == []


def test_teachable_machine(data: Path) -> None:
    path = data / "foreign" / "teachable_machine" / "keras_model.h5"
    model = load_model(path)
    assert (model.input_shape, model.output_shape) == ((None, 224, 224, 3), (None, 4))
    assert model.count_params() == 538_708
    assert input_affine(model) is None  # its page scales to -1..1 outside the model: the caller has to ask
    assert answers_probabilities(model)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype("float32")
    answer = np.asarray(model(image))[0]
    # From tf_keras 2.21 on the same array.
    np.testing.assert_allclose(answer, TEACHABLE, atol=1e-6)


# --- what it eats and answers ------------------------------------------------------------------------------------


def computed(arithmetic: Any) -> keras.Model:
    """What users write of pixels in a functional model."""
    image = keras.Input((32, 32, 3))
    return keras.Model(image, arithmetic(image))


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        (lambda: [computed(lambda x: x / 127.5 - 1)], (1 / 127.5, -1.0)),
        (lambda: [computed(lambda x: (x + 3) * (2 / 255))], (2 / 255, 6 / 255)),
        (lambda: [computed(lambda x: keras.ops.divide(x, 255.0) - 0.5)], (1 / 255, -0.5)),
        (lambda: [computed(lambda x: 1 - x / 255)], (1 / 255, 0.0)),
        (lambda: [layers.Rescaling(1 / 255)], (1 / 255, 0.0)),
        (lambda: [layers.RandomFlip(), layers.Rescaling(1 / 255), layers.Rescaling(2.0, -1)], (2 / 255, -1.0)),
        (lambda: [keras.Sequential([layers.Rescaling(2.0, -1.0), layers.Conv2D(3, 1)])], (2.0, -1.0)),
        (lambda: [layers.Rescaling([1.0, 2.0, 3.0])], (1.0, 0.0)),
        (lambda: [layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])], (1.0, 0.0)),
        (lambda: [layers.ZeroPadding2D(), layers.Rescaling(1 / 255, 1.0)], (1.0, 0.0)),
        (lambda: [], None),
        (lambda: [layers.Conv2D(3, 1), layers.Rescaling(1 / 6, 0.5)], None),
    ],
)
def test_input_affine(front: Any, expected: tuple[float, float] | None) -> None:
    model = shuffle(small(front()))
    affine = input_affine(model)
    if expected is None:
        assert affine is None
        return
    assert affine is not None
    assert (affine.scale, affine.offset) == pytest.approx(expected)
    core = affine.core.predict(RAW * affine.scale + affine.offset, verbose=0)
    np.testing.assert_allclose(core, model.predict(RAW, verbose=0), atol=1e-5)
    assert np.ptp(core) > 1e-6 or core.shape[1] == 1


@pytest.mark.parametrize(
    ("head", "known", "classes"),
    [
        (lambda: layers.Dense(3, activation="softmax"), True, 3),
        (lambda: layers.Dense(3, activation="sigmoid"), True, 3),
        (lambda: layers.Dense(3), False, 3),
        (lambda: layers.Dense(1, activation="sigmoid"), True, 2),
        (lambda: layers.Dense(1), False, 2),
        (lambda: keras.Sequential([layers.Dense(3), layers.Rescaling([0.0] * 3, [-1.0, 1.0, 1.0])]), False, 3),
        (lambda: keras.Sequential([layers.Dense(3), layers.Rescaling([0.0] * 3, [0.4, 0.5, 0.6])]), False, 3),
    ],
)
def test_as_classifier(head: Any, known: bool, classes: int) -> None:
    model = small([layers.Rescaling(1 / 255)], head())
    assert answers_probabilities(model) is known
    classifier = as_classifier(model)
    raw, answer = model.predict(RAW, verbose=0), classifier.predict(RAW, verbose=0)
    assert answer.shape == (2, classes)
    if classes == 2:
        yes = raw if known else 1 / (1 + np.exp(-raw))
        np.testing.assert_allclose(answer, np.hstack([1 - yes, yes]), atol=1e-6)
    elif known:
        np.testing.assert_array_equal(answer, raw)
    else:
        np.testing.assert_allclose(answer, np.exp(raw) / np.exp(raw).sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    "head",
    [
        lambda x: layers.Dense(1, activation="sigmoid")(x),
        lambda x: layers.Activation("sigmoid")(layers.Dense(1, use_bias=False)(x)),
        lambda x: keras.ops.sigmoid(layers.Dense(1)(x)),
        lambda x: keras.ops.clip(layers.Dense(1, activation="sigmoid")(x), 1e-7, 1 - 1e-7),
        lambda x: layers.Flatten()(layers.Activation("sigmoid")(layers.Reshape((1, 1, 1))(layers.Dense(1)(x)))),
        lambda x: keras.ops.sigmoid(layers.Add()([layers.Dense(1)(x), layers.Dense(1)(x)])),
        lambda x: keras.ops.sigmoid(layers.Dense(1, activation="relu")(x)),
        lambda x: layers.Flatten()(layers.Conv2D(1, 1, activation="sigmoid")(layers.Reshape((1, 1, 4))(x))),
        lambda x: layers.Flatten()(keras.ops.sigmoid(layers.Conv2D(1, 1)(layers.Reshape((1, 1, 4))(x)))),
    ],
)
def test_one_sigmoid_answers_no_and_yes_as_any_classifier_does(head: Any) -> None:
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(image)))
    model = shuffle(keras.Model(image, head(x)))
    yes = model.predict(RAW, verbose=0)
    assert 0 < yes.min() < yes.max() < 1
    np.testing.assert_allclose(as_classifier(model).predict(RAW, verbose=0), np.hstack([1 - yes, yes]), atol=1e-6)


@pytest.mark.parametrize(
    "head",
    [
        lambda x: layers.Dense(3, activation=layers.Softmax())(x),
        lambda x: keras.ops.clip(layers.Dense(3, activation="softmax")(x), 1e-7, 1 - 1e-7),
        lambda x: layers.Average()([layers.Dense(3, activation="softmax")(x), layers.Dense(3, "softmax")(-x)]),
        lambda x: layers.GlobalAveragePooling1D()(layers.Softmax()(layers.Reshape((2, 3))(layers.Dense(6)(x)))),
    ],
)
def test_probabilities_get_no_second_softmax(head: Any) -> None:
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(image)))
    model = shuffle(keras.Model(image, head(x)))
    np.testing.assert_allclose(as_classifier(model).predict(RAW, verbose=0), model.predict(RAW, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("front", "range_", "scale"),
    [
        (lambda: [layers.Rescaling(2.0, -1.0)], "0..1", 1 / 255),
        (lambda: [layers.Rescaling(2.0, 0.5)], "-1..1", 1 / 127.5),
        (lambda: [layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.05, 0.05, 0.05])], "0..1", 1 / 255),
        (lambda: [layers.Resizing(16, 16), layers.Rescaling([2.0, 2.0, 2.0], -1.0)], "0..1", 1 / 255),
        (lambda: [layers.Normalization(mean=[123.0, 117.0, 104.0], variance=[3400.0, 3300.0, 3300.0])], "", 1.0),
    ],
)
def test_what_normalizes_other_pixels_than_bytes_is_asked_about(
    tmp_path: Path, front: Any, range_: str, scale: float
) -> None:
    model = shuffle(small(front()))
    model.save(tmp_path / "mine.keras")
    raw = RAW.astype(np.uint8)
    if range_:
        with pytest.raises(UsageError, match="scaled before; give --input-range"):
            open_network(tmp_path / "mine.keras")
    with pytest.raises(EdgenetError, match=r"input range '0-1': give 0\.\.255|normalizes 0\.\.255 itself"):
        open_network(tmp_path / "mine.keras", input_range="0-1")
    network = open_network(str(tmp_path / "mine.keras"), input_range=range_)
    answer = np.concatenate(list(network.scores([raw])))
    given = RAW * np.float32(scale) - (range_ == "-1..1")
    np.testing.assert_allclose(answer, model.predict(given, verbose=0), atol=1e-5)


def test_a_nested_backbone_may_answer_several_scales() -> None:
    image = keras.Input((32, 32, 3))
    fine = layers.Conv2D(4, 3, strides=2)(image)
    backbone = keras.Model(image, [fine, layers.Conv2D(6, 3, strides=2)(fine)])
    outer = keras.Input((32, 32, 3))
    one, other = backbone(layers.Rescaling(1 / 255)(outer))
    pooled = [layers.GlobalAveragePooling2D()(one), layers.GlobalMaxPooling2D()(other)]
    model = shuffle(keras.Model(outer, layers.Dense(3)(layers.Concatenate()(pooled))))
    np.testing.assert_allclose(flatten(model).predict(RAW, verbose=0), model.predict(RAW, verbose=0), rtol=1e-5)


def test_flatten_leaves_out_what_only_training_uses_and_nothing_else() -> None:
    front = [layers.RandomFlip(), layers.RandomCrop(24, 20), layers.Activation("linear"), layers.GaussianNoise(0.9)]
    model = shuffle(small([*front, layers.Conv2D(4, 3), layers.Activation("relu"), layers.Dropout(0.5)]))
    flat = flatten(model)
    assert [type(layer).__name__ for layer in flat.layers[1:4]] == ["RandomCrop", "Conv2D", "Activation"]
    np.testing.assert_allclose(flat.predict(RAW, verbose=0), model.predict(RAW, verbose=0), rtol=1e-5)


def test_a_logit_that_is_clipped_stays_so() -> None:
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(image)))
    model = shuffle(keras.Model(image, keras.ops.clip(layers.Dense(1)(x), -1e-3, 1e-3)))
    yes = 1 / (1 + np.exp(-model.predict(RAW, verbose=0)))
    np.testing.assert_allclose(as_classifier(model).predict(RAW, verbose=0), np.hstack([1 - yes, yes]), atol=1e-6)


def test_flatten_renames_twins() -> None:
    image = keras.Input((32, 32, 3))
    halves = [small([], layers.Dense(3, name="twin"))(image), small([], layers.Dense(3, name="twin"))(image)]
    model = keras.Model(image, layers.Add()(halves))
    np.testing.assert_allclose(flatten(model).predict(RAW, verbose=0), model.predict(RAW, verbose=0), rtol=1e-5)


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_runs_only_with_trust(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"code{suffix}"
    model = small([layers.Lambda(lambda x: x / 255.0, output_shape=(32, 32, 3), name="divide_it")])
    model.save(path)
    text = refused(path)
    assert "'divide_it'" in text
    assert "--trust" in text
    loaded = load_model(path, trust=True)
    np.testing.assert_allclose(loaded.predict(RAW, verbose=0), model.predict(RAW, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    "item",
    [
        {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"},
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"name": "x", "filepath": "/tmp"}},
        {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"name": "x", "module": "eA=="}},
        {"module": "keras.saving", "class_name": "function", "config": "load_model", "registered_name": "load_model"},
        {"module": "keras", "class_name": "function", "config": "Model", "registered_name": "Model"},
        {"module": "keras.src.engine.training", "class_name": "function", "config": "load", "registered_name": "load"},
        {"module": "keras_other.layers", "class_name": "Dense", "config": {"name": "x"}},
    ],
)
def test_a_config_that_calls_other_code_is_refused(tmp_path: Path, item: dict[str, Any]) -> None:
    path = rewritten(tmp_path, lambda config: config["config"]["layers"][1]["config"].update(activation=item))
    assert "--trust" in refused(path)


def rewritten(folder: Path, change: Any) -> Path:
    small([], layers.Dense(3)).save(folder / "good.keras")
    path = folder / "bad.keras"
    with zipfile.ZipFile(folder / "good.keras") as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            target.writestr(name, content)
    return path


def test_a_layer_that_would_exhaust_memory_is_refused(tmp_path: Path) -> None:
    path = rewritten(tmp_path, lambda config: config["config"]["layers"][1]["config"].update(filters=10**12))
    assert "filters = 1000000000000" in refused(path)


def test_what_only_training_uses_may_be_anybodys(tmp_path: Path) -> None:
    theirs = {"module": "theirs", "class_name": "Own", "config": {}, "registered_name": "Own"}
    parts = {"kernel_initializer": theirs, "kernel_regularizer": theirs, "bias_constraint": theirs}
    path = rewritten(tmp_path, lambda config: config["config"]["layers"][1]["config"].update(parts))
    assert load_model(path).output_shape == (None, 3)


def test_a_custom_class_is_told(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1].update(module=None, class_name="MyConv", registered_name="Custom>MyConv")

    text = refused(rewritten(tmp_path, change))
    assert "MyConv" in text
    assert "SavedModel" in text


class Reaching(tf.Module):
    """A SavedModel that answers as a classifier does, and does one thing more."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones((3, 2)))
        self.act = act

    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), tf.float32)])  # type: ignore[untyped-decorator]
    def __call__(self, image: Any) -> Any:
        self.act()
        return tf.nn.softmax(tf.reduce_mean(image, (1, 2)) @ self.kernel)


@pytest.mark.parametrize(
    ("operation", "act"),
    [
        ("PrintV2", lambda place: tf.print("owned", output_stream=f"file://{place}")),
        (
            "SaveV2",
            lambda place: tf.raw_ops.SaveV2(prefix=place, tensor_names=["x"], shape_and_slices=[""], tensors=[1]),
        ),
        ("WriteFile", lambda place: tf.io.write_file(place, "owned")),
        ("ReadFile", lambda place: tf.io.read_file(place)),
        ("EagerPyFunc", lambda place: tf.py_function(lambda: Path(place).write_text("x"), [], tf.int64)),
        ("DebugIdentity", lambda place: tf.raw_ops.DebugIdentity(input=1, debug_urls=[f"file://{place}"])),
    ],
)
def test_a_saved_model_that_does_more_than_compute_is_refused(
    tmp_path: Path, operation: str, act: Callable[[str], object]
) -> None:
    place = str(tmp_path / "owned")
    module = Reaching(lambda: act(place))
    tf.saved_model.save(module, str(tmp_path / "saved"), {"serving_default": module.__call__})
    text = refused(tmp_path / "saved")
    assert f"({operation})" in text
    assert "--trust" in text
    module = Reaching(lambda: tf.cond(tf.constant(True), lambda: [act(place)], lambda: [act(place)]) and None)
    with contextlib.suppress(TypeError, ValueError):  # an operation without a result can be no branch's result
        tf.saved_model.save(module, str(tmp_path / "hidden"), {"serving_default": module.__call__})
        assert f"({operation})" in refused(tmp_path / "hidden")
    assert not Path(place).exists()


@pytest.mark.parametrize("hidden", ["listed by an object alone", "behind another of its name", "a gradient's"])
def test_no_graph_hides_what_it_does(tmp_path: Path, hidden: str) -> None:
    module = Reaching(lambda: tf.io.write_file(str(tmp_path / "owned"), "owned"))
    tf.saved_model.save(module, str(tmp_path / "saved"), {"serving_default": module.__call__})
    file = tmp_path / "saved" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(file.read_bytes())
    (meta,) = saved.meta_graphs
    functions = meta.graph_def.library.function
    if hidden == "listed by an object alone":
        meta.signature_def.clear()
        meta.object_graph_def.concrete_functions.clear()
    elif hidden == "behind another of its name":
        for one in [one for one in functions if any(node.op == "WriteFile" for node in one.node_def)]:
            functions.add().CopyFrom(one)
            del functions[-1].node_def[:]
    else:
        for one in functions:
            for node in [node for node in one.node_def if node.op == "WriteFile"]:
                node.op = "SymbolicGradient"
    file.write_bytes(saved.SerializeToString())
    assert f"({'SymbolicGradient' if hidden.startswith('a ') else 'WriteFile'})" in refused(tmp_path / "saved")


def test_a_branch_of_several_hides_nothing(tmp_path: Path) -> None:
    def write() -> Any:
        tf.io.write_file(str(tmp_path / "owned"), "owned")
        return tf.constant(0)

    module = Reaching(lambda: tf.switch_case(tf.constant(1), [lambda: tf.constant(1), write]))
    tf.saved_model.save(module, str(tmp_path / "saved"), {"serving_default": module.__call__})
    assert "(WriteFile)" in refused(tmp_path / "saved")


@pytest.mark.parametrize("key", ["saved_model_main_op", "legacy_init_op"])
def test_what_runs_as_a_saved_model_is_loaded_hides_nothing(tmp_path: Path, key: str) -> None:
    module = Reaching(lambda: None)
    tf.saved_model.save(module, str(tmp_path / "saved"), {"serving_default": module.__call__})
    file = tmp_path / "saved" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(file.read_bytes())
    (meta,) = saved.meta_graphs
    meta.graph_def.node.add(name="write", op="WriteFile")
    meta.graph_def.node.add(name="init", op="NoOp", input=["^write"])
    meta.collection_def[key].node_list.value.append("init")
    file.write_bytes(saved.SerializeToString())
    assert "'write' (WriteFile)" in refused(tmp_path / "saved")


def test_what_an_operation_may_do() -> None:
    reaching = (
        *("Abort", "ImmutableConst", "InitializeTableFromTextFileV2", "RecordInput", "RemoteCall", "SymbolicGradient"),
        *("ReadFile", "WriteFile", "MatchingFiles", "RestoreV2", "SaveV2", "MergeV2Checkpoints", "PrintV2", "PyFunc"),
        *("EagerPyFunc", "FileSystemSetConfiguration", "TensorDataset", "TextLineDataset", "CollectiveReduce", "Send"),
        *("DecodeProtoV2", "TPUExecute", "WriteSummary", "DebugIdentity", "no such operation", "__name__"),
    )
    computing = (
        *("Conv2D", "DepthwiseConv2dNative", "MatMul", "FusedBatchNormV3", "Softmax", "Mean", "AvgPool", "Relu6", "If"),
        *("PartitionedCall", "StatefulPartitionedCall", "ReadVariableOp", "ResizeBilinear", "StridedSlice", "Einsum"),
        *("Cast", "Assert", "XlaCallModule", "HashTableV2", "DecodeJpeg", "FakeQuantWithMinMaxVars", "While", "Case"),
    )
    assert [op for op in reaching if _computes(op)] == []
    assert [op for op in computing if not _computes(op)] == []


def test_a_saved_model_of_tensorflow_1_is_loaded(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, (None, 32, 32, 3))
        kernel = v1.get_variable("kernel", initializer=np.eye(3, 2, dtype=np.float32), use_resource=False)
        scores = tf.nn.softmax(tf.reduce_mean(image, (1, 2)) @ kernel)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "v1"), {"image": image}, {"scores": scores})
    raw = RAW / 255
    logits = raw.mean((1, 2))[:, :2]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(load_model(tmp_path / "v1").predict(raw, verbose=0), expected, atol=1e-6)


def test_a_custom_class_with_the_name_of_keras_own_is_told(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1].update(module=None, registered_name="my>Conv2D")

    assert "a custom class, Conv2D" in refused(rewritten(tmp_path, change))
    assert "a custom class, Conv2D" in refused(tmp_path / "bad.keras", trust=True)


def test_mixed_precision_as_the_first_keras_3_wrote_it(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        for layer in config["config"]["layers"]:
            layer["config"]["dtype"] = "mixed_float16"

    loaded = load_model(rewritten(tmp_path, change))
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}


def test_why_a_lambda_fails_is_said(tmp_path: Path) -> None:
    own: dict[str, Any] = {"half": 0.5}
    divide = eval("lambda x: x * half", own)  # what a user's script knew, and no file keeps
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(layers.Lambda(divide)(image))
    keras.Model(image, layers.Dense(3)(x)).save(tmp_path / "code.keras")
    assert "Lambda.call(). We could not automatically infer" in refused(tmp_path / "code.keras", trust=True)


def test_a_saved_model_with_augmentation_in_it_is_refused(tmp_path: Path) -> None:
    model = small([layers.RandomFlip(name="random_flip"), layers.Rescaling(1 / 255)])
    model.export(tmp_path / "saved", verbose=False)
    assert "answers at random: random_flip" in refused(tmp_path / "saved")
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, 32, 32, 3), tf.float32)]
    archive.add_endpoint("serve", lambda image: model(image, training=False), signature)
    archive.write_out(tmp_path / "served", verbose=False)
    answer = load_model(tmp_path / "served").predict(RAW, verbose=0)
    np.testing.assert_allclose(answer, model.predict(RAW, verbose=0), atol=1e-6)


def test_a_size_that_a_saved_model_does_not_take(tmp_path: Path) -> None:
    small([layers.Rescaling(1 / 255)]).export(tmp_path / "saved", verbose=False)
    assert "leave --size 96 out" in refused(tmp_path / "saved", size=96)
    assert load_model(tmp_path / "saved", size=32).input_shape == (None, 32, 32, 3)


def test_zip_bombs_and_escapes(tmp_path: Path) -> None:
    bomb = rewritten(tmp_path, lambda config: None)
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(200 * 2**20))
    assert "zip bomb" in refused(bomb)
    escape = rewritten(tmp_path, lambda config: None)
    with zipfile.ZipFile(escape, "a") as archive:
        archive.writestr("../../evil", "x")
    assert "outside the archive" in refused(escape)


def test_hdf5_bombs_and_links(tmp_path: Path) -> None:
    small([], layers.Dense(3)).save(tmp_path / "bomb.h5")
    with h5py.File(tmp_path / "bomb.h5", "a") as file:
        file.create_dataset("zeros", shape=(2**33,), dtype="float32", chunks=(2**20,), compression="gzip")
    assert "bomb" in refused(tmp_path / "bomb.h5")
    small([], layers.Dense(3)).save(tmp_path / "link.h5")
    with h5py.File(tmp_path / "link.h5", "a") as file:
        file["secret"] = h5py.ExternalLink("/etc/passwd", "/")
    assert "link to another place" in refused(tmp_path / "link.h5")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((4,), np.uint8)
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset("stolen", layout)
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("stolen", (4,), np.uint8, external=[("/etc/passwd", 0, 4)])
    for name in ("virtual.h5", "external.h5"):
        assert "dataset 'stolen' takes its data from another file" in refused(tmp_path / name)


def test_damaged_files(tmp_path: Path) -> None:
    for suffix in (".keras", ".h5"):
        small([], layers.Dense(3)).save(tmp_path / f"good{suffix}")
        whole = (tmp_path / f"good{suffix}").read_bytes()
        cut, flipped, garbage = (tmp_path / f"{n}{suffix}" for n in ("cut", "flipped", "garbage"))
        cut.write_bytes(whole[: len(whole) // 2])
        assert "damaged" in refused(cut)
        flipped.write_bytes(whole.replace(b"Conv2D", b"Conv9D"))
        refused(flipped)
        garbage.write_bytes(os.urandom(4096))
        assert "damaged or no Keras model" in refused(garbage)
    (tmp_path / "empty.keras").touch()
    assert "empty" in refused(tmp_path / "empty.keras")
    assert "does not exist" in refused(tmp_path / "none.keras")
    assert "saved_model.pb" in refused(tmp_path)
    (tmp_path / "lite.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    assert "TFLite" in refused(tmp_path / "lite.tflite")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_mutated_files_end_in_one_line(tmp_path: Path, suffix: str) -> None:
    model = small([], layers.Dense(3))
    good, path = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    model.save_weights(good) if suffix == ".weights.h5" else model.save(good)
    whole, rng, errors = good.read_bytes(), np.random.default_rng(7), list[str]()
    for _ in range(40):
        content = bytearray(whole)
        for at in rng.integers(0, min(len(content), 4000), 8):
            content[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            load_weights(model, path) if suffix == ".weights.h5" else load_model(path)
        except EdgenetError as exc:
            errors.append(str(exc))
    assert len(errors) > 5
    assert not any("\n" in error for error in errors)


@pytest.mark.parametrize(
    ("shape", "outputs", "message"),
    [((32, 32, 1), 1, "grayscale"), ((32, 32, 4), 1, "no image classifier"), ((32, 32, 3), 2, "2 outputs")],
)
def test_other_networks_are_told(tmp_path: Path, shape: tuple[int, ...], outputs: int, message: str) -> None:
    image = keras.Input(shape)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    keras.Model(image, [layers.Dense(3)(x) for _ in range(outputs)]).save(tmp_path / "m.keras")
    assert message in refused(tmp_path / "m.keras")


def test_weights_alone_ask_for_their_network(tmp_path: Path) -> None:
    small([], layers.Dense(3)).save_weights(tmp_path / "w.weights.h5")
    assert "--weights" in refused(tmp_path / "w.weights.h5")


# --- weights of a known network ----------------------------------------------------------------------------------


def network(alpha: float = 1.0, classes: int = 3) -> keras.Model:
    return keras.applications.MobileNetV2((32, 32, 3), alpha=alpha, weights=None, classes=classes)


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    return shuffle(network(0.35))


@pytest.fixture(scope="module")
def untrained() -> tuple[keras.Model, keras.Model, keras.Model]:
    """The network that was trained, as nobody did, a wider one, and one of more classes: building them takes long."""
    return network(0.35), network(0.5), network(0.35, classes=10)


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_weights_of_every_kind(
    tmp_path: Path, trained: keras.Model, untrained: tuple[keras.Model, ...], suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    trained.save_weights(path) if suffix == ".weights.h5" else trained.save(path)
    fresh, before, more = untrained
    fresh.set_weights([np.zeros_like(values) for values in fresh.get_weights()])
    load_weights(fresh, path)
    for ours, theirs in zip(fresh.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert classes_in(path) == 3
    kept = before.get_weights()
    with pytest.raises(EdgenetError, match=r"does not fit: its layer .* holds .* needs .*another alpha"):
        load_weights(before, path)
    assert all((a == b).all() for a, b in zip(kept, before.get_weights(), strict=True))
    with pytest.raises(EdgenetError, match=r"tells 3 classes apart, the network 10 .*--classes 3"):
        load_weights(more, path)


def test_weights_that_are_not_finite(tmp_path: Path, trained: keras.Model) -> None:
    broken = network(0.35)
    values = trained.get_weights()
    values[4][0] = np.nan
    broken.set_weights(values)
    broken.save_weights(tmp_path / "nan.weights.h5")
    with pytest.raises(EdgenetError, match="not finite"):
        load_weights(network(0.35), tmp_path / "nan.weights.h5")
    model = small([])
    model.layers[-1].bias.assign([0, np.inf, 0])
    model.save(tmp_path / "diverged.h5")
    assert "/bias' is not finite (training diverged?)" in refused(tmp_path / "diverged.h5")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mobilenet_v1_0.25_224.h5", lambda: keras.applications.MobileNet(alpha=0.25, weights=None)),
        ("mobilenet_v2_1.0_224.weights.h5", lambda: keras.applications.MobileNetV2(weights=None)),
        (
            "mobilenet_v3_small_1.0_224.weights.h5",
            lambda: keras.applications.MobileNetV3Small((224, 224, 3), weights=None),
        ),
    ],
)
def test_published_weights(data: Path, name: str, make: Any) -> None:
    path = data / "models" / name
    ours, theirs = make(), make()
    load_weights(ours, path)
    theirs.load_weights(path)
    assert all((a == b).all() for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True))
    assert classes_in(path) == 1000


def test_imagenet_weights_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there: offline on any machine
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies of its first use
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))  # nothing cached there
    with pytest.raises(
        EdgenetError, match=r"cannot download mobilenet_2_5_128_tf\.h5 \(.*refused.*\); give --weights FILE"
    ):
        imagenet_weights(ModelSpec.parse("mobilenet_v1_0.25_128"))
    with pytest.raises(EdgenetError, match="give --labels FILE"):
        imagenet_labels()
    with pytest.raises(EdgenetError, match=r"alphas 0\.75, 1\.0"):
        imagenet_weights(ModelSpec.parse("mobilenet_v3_large_0.5_224"))
    with pytest.raises(EdgenetError, match="sizes 96, 128"):
        imagenet_weights(ModelSpec.parse("mobilenet_v2_1.0_100"))
    assert capsys.readouterr().out == ""


def test_imagenets_classes_come_in_the_order_of_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that Keras publishes is an object: its members have no order."""
    rows = {str(number): [f"n{number:08}", f"name {number}"] for number in range(12)}
    (tmp_path / "index.json").write_text(json.dumps(rows, sort_keys=True))
    monkeypatch.setattr(weights, "_download", lambda *_: tmp_path / "index.json")
    assert imagenet_labels() == Labels(
        tuple(f"name {number}" for number in range(12)), tuple(f"n{number:08}" for number in range(12))
    )


TEACHABLE = [0.00014340791676659137, 0.9997653365135193, 8.96558027818628e-09, 9.12777686608024e-05]


def test_a_network_in_float64_is_told_so(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    keras.Model(image, keras.layers.Dense(3, "softmax", dtype="float64")(x)).save(tmp_path / "m.keras")
    with pytest.raises(EdgenetError, match=r"m\.keras computes in float64, .* build and save it in float32"):
        open_network(tmp_path / "m.keras")


def test_a_saved_model_without_a_signature_is_told_how_to_write_one(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    assert "has no signature serving_default to call: write it with model.export(...)" in refused(tmp_path / "saved")
