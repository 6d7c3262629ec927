"""The classifier of int8 files: integers inside, float logits, in the delegate; and who is one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from converters import tflite_classifier, tflite_graph, to_tflite

SIGNED = {"scale": 1 / 127.5, "offset": -1.0}
CLASSES, FEATURES = 1000, 96
HEADS = ["convolution", "dense", "dense with bias"]


def network(head: str) -> keras.Model:
    """Random scores, each with a twin: the two best are nearly the same."""
    keras.utils.set_random_seed(6)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(FEATURES, 3, 8, activation="relu", kernel_initializer="random_normal", name="stem")(image)
    x = layers.GlobalAveragePooling2D(keepdims=head == "convolution", name="features")(x)
    x = layers.Dropout(0.2)(x)
    if head == "convolution":
        x = layers.Conv2D(CLASSES, 1, name="scores")(x)
        model = keras.Model(image, layers.Softmax()(layers.Reshape((CLASSES,))(x)))
    else:
        model = keras.Model(image, layers.Dense(CLASSES, "softmax", name="scores")(x))
    rng = np.random.default_rng(3)
    kernel, bias = rng.normal(0, 1, (FEATURES, CLASSES)), rng.normal(0, head == "dense with bias", CLASSES)
    kernel[:, 1::2] = kernel[:, ::2] + rng.normal(0, 0.02, (FEATURES, CLASSES // 2))
    bias[1::2] = bias[::2]
    model.get_layer("scores").set_weights([kernel.reshape(model.get_layer("scores").kernel.shape), bias])
    return model


@pytest.fixture(scope="module", params=HEADS)
def graph(request: pytest.FixtureRequest) -> bytes:
    return to_tflite.trace(network(request.param))


def operators(flatbuffer: bytes) -> list[tuple[int, list[int]]]:
    """Each operator's code, and the types of what it reads and answers."""
    model = tflite_graph.read(flatbuffer)
    tensors = model.subgraphs[0].tensors
    return [
        (model.operatorCodes[op.opcodeIndex].builtinCode, [tensors[i].type for i in (*op.inputs, *op.outputs)])
        for op in model.subgraphs[0].operators
    ]


def answers(flatbuffer: bytes, images: np.ndarray) -> np.ndarray:
    runner = Interpreter(model_content=flatbuffer, num_threads=1)
    runner.allocate_tensors()
    rows = []
    for one in images:
        runner.set_tensor(runner.get_input_details()[0]["index"], one[np.newaxis])
        runner.invoke()
        rows.append(runner.get_tensor(runner.get_output_details()[0]["index"])[0].copy())
    return np.stack(rows)


def ties(scores: np.ndarray) -> float:
    best = np.sort(scores, axis=1)
    return float((best[:, -1] == best[:, -2]).mean())


def test_random_scores_do_not_tie(graph: bytes, images: np.ndarray) -> None:
    logits = np.log(answers(tflite_graph.uint8_front(graph, 1 / 127.5, 0, -1.0), images))
    step = np.ptp(logits) / 255
    assert ties(np.rint(logits / step)) > 0.1, "8 bits must be too few for them, or this test says nothing"
    scores = answers(to_tflite.quantize(graph, [images], **SIGNED).flatbuffer, images)
    assert ties(scores) == 0
    assert np.abs(np.log(scores) - logits).max() < 3 * step


def test_the_classifier_holds_integers_and_answers_float(graph: bytes, images: np.ndarray) -> None:
    made = to_tflite.quantize(graph, [images], **SIGNED)
    kinds = schema.TensorType
    heads = [types for code, types in operators(made.flatbuffer) if code == schema.BuiltinOperator.CONV_2D][1:]
    assert heads == [[kinds.FLOAT32, kinds.INT8, kinds.FLOAT32, kinds.FLOAT32]]
    assert all(code != schema.BuiltinOperator.FULLY_CONNECTED for code, _ in operators(made.flatbuffer))
    assert made.kept_float == ("SOFTMAX x 1",)
    assert len(made.flatbuffer) < 0.35 * len(graph)
    assert {r.tensor for r in made.ranges}.isdisjoint(tflite_classifier.float_tensors(graph))


def test_the_whole_graph_is_in_the_delegate(graph: bytes, images: np.ndarray) -> None:
    runner = Interpreter(model_content=to_tflite.quantize(graph, [images], **SIGNED).flatbuffer)
    runner.allocate_tensors()
    (delegate,) = (op for op in runner._get_ops_details() if op["op_name"] == "DELEGATE")
    assert list(delegate["outputs"]) == [runner.get_output_details()[0]["index"]]


def test_a_classifier_that_is_kept_float_is_float(graph: bytes, images: np.ndarray) -> None:
    logits = tflite_classifier.float_tensors(graph)
    made = to_tflite.quantize(graph, [images], **SIGNED, keep_float=logits)
    assert len(made.kept_float) == 2
    assert len(made.flatbuffer) > 4 * CLASSES * FEATURES


@pytest.mark.parametrize("head", HEADS)
def test_a_dense_layer_is_the_same_as_a_convolution(head: str, images: np.ndarray) -> None:
    graph = to_tflite.trace(network(head))
    dynamic = to_tflite._quantized(graph, "dynamic_wi8_afp32", (), ())
    rewritten = tflite_classifier.dense_as_convolution(dynamic)
    both = [tflite_graph.uint8_front(one, SIGNED["scale"], 0, SIGNED["offset"]) for one in (dynamic, rewritten)]
    np.testing.assert_array_equal(*(answers(one, images[:6]) for one in both))
    codes = [code for code, _ in operators(rewritten)]
    assert schema.BuiltinOperator.FULLY_CONNECTED not in codes
    assert codes.count(schema.BuiltinOperator.CONV_2D) == 2


def test_dynamic_files_have_no_dense_layer_that_old_runtimes_read_wrongly(images: np.ndarray) -> None:
    made = to_tflite.quantize(to_tflite.trace(network("dense")), [], **SIGNED, precision="dynamic")
    assert all(code != schema.BuiltinOperator.FULLY_CONNECTED for code, _ in operators(made.flatbuffer))


def test_a_dense_layer_of_many_rows_stays(images: np.ndarray) -> None:
    image = keras.Input((64, 64, 3))
    x = layers.Reshape((64, FEATURES))(layers.Conv2D(FEATURES, 8, 8)(image))
    core = keras.Model(image, layers.Dense(5, "softmax")(layers.Flatten()(layers.Dense(7, "relu")(x))))
    made = to_tflite.quantize(to_tflite.trace(core), [], **SIGNED, precision="dynamic")
    codes = [code for code, _ in operators(made.flatbuffer)]
    assert codes.count(schema.BuiltinOperator.FULLY_CONNECTED) == 1
    expected = np.asarray(core(images[:4] * np.float32(SIGNED["scale"]) + np.float32(SIGNED["offset"])))
    np.testing.assert_allclose(answers(made.flatbuffer, images[:4]), expected, atol=0.02)


def test_a_sigmoid_at_the_end_answers_float_as_a_softmax_does(images: np.ndarray) -> None:
    """In 8 bits it would answer 256 probabilities, and call certain whatever is nearly so."""
    keras.utils.set_random_seed(6)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(FEATURES, 3, 8, activation="relu", kernel_initializer="random_normal")(image)
    x = layers.Multiply()([x, layers.Conv2D(FEATURES, 1, activation="sigmoid")(x)])  # a gate inside stays integer
    x = layers.GlobalAveragePooling2D()(x)
    core = keras.Model(image, layers.Dense(5, "sigmoid", kernel_initializer=keras.initializers.RandomNormal(0, 20))(x))
    made = to_tflite.quantize(to_tflite.trace(core), [images], **SIGNED)
    assert made.kept_float == ("LOGISTIC x 1",)
    got = answers(made.flatbuffer, images).astype(np.float64)
    expected = np.asarray(core(images * np.float32(SIGNED["scale"]) + np.float32(SIGNED["offset"])), np.float64)
    assert (np.abs(expected - 0.5) > 0.498).mean() > 0.1, "some must be nearly certain, or this test says nothing"
    assert len(np.unique(got)) > 0.95 * got.size
    logit = np.log(expected / (1 - expected))
    assert np.abs(np.log(got / (1 - got)) - logit).max() < np.ptp(logit) / 50
    hybrid = [schema.TensorType.FLOAT32, schema.TensorType.INT8]
    convolutions = [types for code, types in operators(made.flatbuffer) if code == schema.BuiltinOperator.CONV_2D]
    assert [types[:2] == hybrid for types in convolutions] == [False, False, True]


NO_CLASSIFIER: dict[str, Any] = {
    "nothing behind it": lambda x: layers.Dense(5)(x),
    "an activation of its own": lambda x: layers.Softmax()(layers.Dense(5, "relu")(x)),
    "no layer": lambda x: layers.Softmax()(x),
    "something between": lambda x: layers.Softmax()(layers.Activation("tanh")(layers.Dense(5)(x))),
    "read twice": lambda x: (lambda y: layers.Softmax()(y) * y)(layers.Dense(5)(x)),
}


@pytest.mark.parametrize("head", NO_CLASSIFIER)
def test_what_is_no_classifier_is_quantized_as_before(head: str, images: np.ndarray) -> None:
    image = keras.Input((64, 64, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, 8, activation="relu")(image))
    graph = to_tflite.trace(keras.Model(image, NO_CLASSIFIER[head](x)))
    assert tflite_classifier.float_tensors(graph) == ()
    made = to_tflite.quantize(graph, [images[:4]], **SIGNED)
    assert answers(made.flatbuffer, images[:2]).dtype == np.float32
    hybrid = [schema.TensorType.FLOAT32, schema.TensorType.INT8]
    weighted = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED)
    assert all(types[:2] != hybrid for code, types in operators(made.flatbuffer) if code in weighted)


def test_a_convolution_of_a_map_is_no_classifier() -> None:
    """Its logits are averaged behind it."""
    image = keras.Input((64, 64, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 1)(layers.Conv2D(8, 3, 8)(image)))
    assert tflite_classifier.float_tensors(to_tflite.trace(keras.Model(image, layers.Softmax()(x)))) == ()
