"""Keras -> TFLite: the files answer what the network answers, in the shape and at the places promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from converters import tflite_graph, to_tflite
from converters.calibration import SMALLEST_SPAN, activation_ranges
from converters.errors import ConverterError

SIGNED = {"scale": 1 / 127.5, "offset": -1.0}
BYTES = {"scale": 1.0, "offset": 0.0}


def answers(flatbuffer: bytes, images: np.ndarray) -> np.ndarray:
    graph = Interpreter(model_content=flatbuffer, num_threads=1)
    graph.allocate_tensors()
    image, output = graph.get_input_details()[0], graph.get_output_details()[0]
    rows = []
    for one in images:
        graph.set_tensor(image["index"], one[np.newaxis])
        graph.invoke()
        rows.append(graph.get_tensor(output["index"])[0].copy())
    return np.stack(rows)


def reference(core: Any, images: np.ndarray, scale: float, offset: float) -> np.ndarray:
    return np.asarray(core(images.astype(np.float32) * np.float32(scale) + np.float32(offset), training=False))


def sqnr_db(expected: np.ndarray, got: np.ndarray) -> float:
    signal, other = (np.log(p) - np.log(p).mean(axis=1, keepdims=True) for p in (expected, got))
    return float(10 * np.log10(np.square(signal).sum() / np.square(signal - other).sum()))


@pytest.fixture(scope="session")
def graph(core: Any) -> bytes:
    return to_tflite.trace(core)


def test_float32_file_is_the_same_function_on_raw_bytes(core: Any, graph: bytes, images: np.ndarray) -> None:
    expected = reference(core, images, **SIGNED)
    got = answers(to_tflite.convert(graph, **SIGNED).flatbuffer, images)
    assert np.ptp(expected, axis=0).max() > 0.01, "the network must tell the pictures apart"
    np.testing.assert_allclose(got, expected, atol=2e-4)
    assert (got.argmax(1) == expected.argmax(1)).all()


def test_every_file_has_the_promised_interface(graph: bytes, images: np.ndarray) -> None:
    files = [
        to_tflite.convert(graph, **SIGNED).flatbuffer,
        to_tflite.quantize(graph, [images], **SIGNED).flatbuffer,
        to_tflite.quantize(graph, [images], **SIGNED, precision="dynamic").flatbuffer,
    ]
    for file in files:
        runner = Interpreter(model_content=file)
        eats, says = runner.get_input_details()[0], runner.get_output_details()[0]
        assert (eats["name"], eats["dtype"], list(eats["shape"])) == ("image", np.uint8, [1, 64, 64, 3])
        assert (says["name"], says["dtype"], list(says["shape"])) == ("probabilities", np.float32, [1, 11])
        signature = runner.get_signature_list()["serving_default"]
        assert signature == {"inputs": ["image"], "outputs": ["probabilities"]}


def test_int8_file_stays_near_and_wholly_in_the_delegate(core: Any, graph: bytes, images: np.ndarray) -> None:
    model = to_tflite.quantize(graph, [images[:12], images[12:]], **SIGNED)
    expected = reference(core, images, **SIGNED)
    assert model.calibration_images == len(images)
    assert sqnr_db(expected, answers(model.flatbuffer, images)) > 6
    runner = Interpreter(model_content=model.flatbuffer)
    runner.allocate_tensors()
    names = [op["op_name"] for op in runner._get_ops_details()]
    assert names.count("DELEGATE") == 1, "an operator outside of XNNPACK splits the graph in two"
    assert len(model.flatbuffer) < 0.45 * len(graph)


def test_hard_swish_is_what_stays_float(graph: bytes, images: np.ndarray) -> None:
    swishes = sum("HARD_SWISH" in str(op["op_name"]) for op in _operators(graph))
    kept = to_tflite.quantize(graph, [images], **SIGNED).kept_float
    assert kept == ((f"HARD_SWISH x {swishes}", "SOFTMAX x 1") if swishes else ("SOFTMAX x 1",))


@pytest.mark.parametrize(("precision", "least"), [("int16x8", 12), ("dynamic", 9)])
def test_other_integer_precisions(core: Any, graph: bytes, images: np.ndarray, precision: Any, least: float) -> None:
    model = to_tflite.quantize(graph, [images], **SIGNED, precision=precision)
    few = images[:6]
    assert sqnr_db(reference(core, few, **SIGNED), answers(model.flatbuffer, few)) > least


def test_activations_of_16_bits_have_room_for_what_no_image_showed(images: np.ndarray) -> None:
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Conv2D(8, 3, strides=4, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    pale = (images // 2 + 64).astype(np.uint8)
    traced = to_tflite.trace(model)
    done = to_tflite.quantize(traced, [pale], **SIGNED, precision="int16x8")
    assert sqnr_db(reference(model, images, **SIGNED), answers(done.flatbuffer, images)) > 35
    known = {r.tensor: (r.low, r.high) for r in done.ranges[1:]}
    again = to_tflite.quantize(traced, [pale], **SIGNED, precision="int16x8", decided=known)
    assert again.flatbuffer == done.flatbuffer  # what is decided, is


def test_what_tflite_lacks_is_named() -> None:
    import keras

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.UpSampling2D(2, interpolation="bicubic"), keras.layers.Flatten()]
    )
    with pytest.raises(ConverterError, match=r"TFLite: TFLite has no ResizeBicubic; convert to ONNX instead$"):
        to_tflite.trace(model)


def test_float16_halves_the_file(core: Any, graph: bytes, images: np.ndarray) -> None:
    half = to_tflite.convert(to_tflite.trace(core, "float16"), **SIGNED).flatbuffer
    assert len(half) < 0.6 * len(graph)
    np.testing.assert_allclose(answers(half, images), reference(core, images, **SIGNED), atol=0.05)


def test_raw_bytes_network_needs_no_offset(core: Any, graph: bytes, images: np.ndarray) -> None:
    """A network with normalization inside takes 0..255: no ADD in front, zero point 0."""
    file = to_tflite.convert(graph, **BYTES).flatbuffer
    np.testing.assert_allclose(answers(file, images[:4]), reference(core, images[:4], **BYTES), atol=2e-4)


def test_the_half_level_of_the_input_goes_into_the_first_bias(core: Any, graph: bytes, images: np.ndarray) -> None:
    """uint8 over -1..1 has its zero at 127.5; without the shift every pixel would be half a level off."""
    zero = tflite_graph.zero_point(**SIGNED)
    rest = SIGNED["offset"] + zero * SIGNED["scale"]
    assert abs(rest) == pytest.approx(0.5 / 127.5)
    # Far from the border, shifting the input and shifting the bias are the same; so they are on a flat picture, but for
    # the padding, which the comparison allows for.
    flat = np.full((1, 64, 64, 3), 200, np.uint8)
    shifted = tflite_graph.uint8_front(tflite_graph.shift_input(graph, rest), SIGNED["scale"], zero, 0.0)
    unshifted = tflite_graph.uint8_front(graph, SIGNED["scale"], zero, 0.0)
    expected = reference(core, flat, **SIGNED)
    with_shift = np.abs(answers(shifted, flat) - expected).max()
    without = np.abs(answers(unshifted, flat) - expected).max()
    assert with_shift < 0.8 * without


def test_ranges_are_the_true_extremes_of_every_image(graph: bytes, images: np.ndarray) -> None:
    """One outlier in one image must be inside: averaging over images would clip it."""
    calm = np.clip(images.astype(int) // 4 + 96, 0, 255).astype(np.uint8)
    loud = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None, :, :, None].repeat(3, 3)
    together = activation_ranges(graph, [calm, loud], **SIGNED)
    alone = {r.tensor: r for r in activation_ranges(graph, [loud], **SIGNED)}
    others = {r.tensor: r for r in activation_ranges(graph, [calm], **SIGNED)}
    for r in together:
        assert r.low == pytest.approx(min(alone[r.tensor].low, others[r.tensor].low), abs=1e-6)
        assert r.high == pytest.approx(max(alone[r.tensor].high, others[r.tensor].high), abs=1e-6)
        assert r.low <= 0 <= r.high
        assert r.high - r.low >= SMALLEST_SPAN * 0.999
    grown = [r for r in together if r.high > 1.05 * others[r.tensor].high]
    assert grown, "the loud picture must widen some range, or this test says nothing"


def test_the_ranges_measured_are_the_ranges_in_the_file(graph: bytes, images: np.ndarray) -> None:
    model = to_tflite.quantize(graph, [images], **SIGNED)
    runner = Interpreter(model_content=model.flatbuffer)
    written = {t["name"]: t["quantization"] for t in runner.get_tensor_details() if t["dtype"] == np.int8}
    compared = 0
    for r in model.ranges:
        if r.tensor in written and written[r.tensor][0]:
            compared += 1
            assert written[r.tensor][0] == pytest.approx((r.high - r.low) / 255, rel=1e-4)
    assert compared > 10


def test_a_dead_channel_keeps_the_sign_of_its_bias(images: np.ndarray) -> None:
    """Weights of 1e-12 would put a bias of 6 at 1e12 steps: beyond int32, where it changes sign."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="dead"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    kernel, bias = model.get_layer("dead").get_weights()
    kernel[..., 1], bias[1] = 1e-12, 6.0
    model.get_layer("dead").set_weights([kernel, bias])
    file = to_tflite.quantize(to_tflite.trace(model), [images], **SIGNED).flatbuffer
    expected = reference(model, images, **SIGNED)
    np.testing.assert_allclose(answers(file, images), expected, atol=0.05)


def test_same_network_gives_the_same_bytes(graph: bytes, images: np.ndarray) -> None:
    first, second = (to_tflite.quantize(graph, [images], **SIGNED).flatbuffer for _ in range(2))
    assert first == second


def _operators(flatbuffer: bytes) -> list[dict[str, Any]]:
    runner = Interpreter(model_content=flatbuffer)
    return [dict(op) for op in runner._get_ops_details()]


def recurrent(layer: str, **options: Any) -> Any:
    """Read a picture row by row."""
    import keras

    image = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(8, 3, strides=3, activation="relu")(image)
    x = getattr(keras.layers, layer)(6, **options)(keras.layers.Reshape((8, 64))(x))
    return keras.Model(image, keras.layers.Dense(4, "softmax")(x))


@pytest.mark.parametrize(
    ("layer", "options", "why"),
    [
        ("LSTM", {}, r"it has a loop \(LSTM, GRU\)"),
        ("GRU", {}, r"it has a loop \(LSTM, GRU\)"),
        ("LSTM", {"unroll": True}, "nobody reads a part of a split in it"),
    ],
)
def test_what_cannot_be_quantized_is_named_with_what_to_do(layer: str, options: dict[str, bool], why: str) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
    graph = to_tflite.trace(recurrent(layer, **options))
    with pytest.raises(ConverterError, match=rf"{why}.*; give --precision dynamic, or convert it$"):
        to_tflite.quantize(graph, [pictures], **SIGNED)
    assert to_tflite.quantize(graph, [], **SIGNED, precision="dynamic").flatbuffer
