"""What was decided about a network is what both files hold: ranges, weights, biases, and what stays float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from converters import onnx_graph, onnx_plan, onnx_quantize, tflite_graph, to_onnx, to_tflite
from converters.int8 import fold, graph, points, ranges, simulator
from converters.int8.arithmetic import Range
from converters.int8.simulator import Simulator, State
from tests.converters.in_onnx import opened

SCALE, OFFSET = 1 / 127.5, -1.0
PROBES = 3


def network() -> keras.Model:
    """A hard swish first, depthwise layers, ReLU6, a gate, a residual, pooling, a dense layer."""

    def convolve(x: Any, name: str, filters: int, size: int = 1, strides: int = 1) -> Any:
        layer = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=name)
        return layers.BatchNormalization(name=f"{name}_bn")(layer(x))

    def filtered(x: Any, name: str) -> Any:
        layer = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=name)
        return layers.BatchNormalization(name=f"{name}_bn")(layer(x))

    image = layers.Input((64, 64, 3))
    x = layers.Activation("hard_swish", name="stem_swish")(convolve(image, "stem", 16, 3, 2))
    x = layers.ReLU(6.0, name="early_relu")(filtered(x, "early"))
    trunk = convolve(x, "trunk", 24)
    x = layers.Activation("hard_swish", name="wide_swish")(convolve(trunk, "wide", 40))
    x = layers.Activation("hard_swish", name="deep_swish")(filtered(x, "deep"))
    gate = layers.Conv2D(8, 1, activation="relu", name="squeeze")(
        layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    )
    gate = layers.Conv2D(40, 1, name="excite")(gate)
    gate = layers.ReLU(6.0, name="gate")(gate + 3.0) * (1.0 / 6.0)
    x = layers.Add(name="residual")([trunk, convolve(layers.Multiply(name="gated")([x, gate]), "narrow", 24)])
    x = layers.GlobalAveragePooling2D(name="features")(convolve(x, "last", 40))
    return keras.Model(image, layers.Dense(11, "softmax", name="scores")(x))


def as_if_trained(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Spread the activations, open some gates and close others, and tell the pictures apart."""
    rng = np.random.default_rng(4)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
            layer.gamma.assign(rng.uniform(0.7, 1.8, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.7, layer.beta.shape))
    for name, factor in (("excite", 30), ("scores", 4)):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * factor)
    model(images * np.float32(SCALE) + np.float32(OFFSET), training=True)
    return model


@dataclass(frozen=True)
class Case:
    """A folded network, where its points lie in both graphs, and odd ranges for it."""

    core: keras.Model
    traced: bytes
    images: np.ndarray
    simulator: Simulator
    state: State
    in_tflite: points.Names
    in_onnx: points.Names

    @property
    def input(self) -> dict[str, float]:
        return {"scale": SCALE, "offset": -self.simulator.zero * SCALE}

    def position(self, name: str) -> int:
        if name == "shift":  # Keras numbers what has no name of its own, over all networks of a process
            return next(i for i, node in enumerate(self.simulator.steps) if graph.added_constant(node) == 3)
        if name == "opening":
            return next(point for point, kind in self.simulator.kinds.items() if kind == "opening")
        return next(i for i, node in enumerate(self.simulator.steps) if node.operation.name == name)

    def decided(self, names: points.Names) -> dict[str, tuple[float, float]]:
        spans = self.state.ranges.items()
        return {name: (span.low, span.high) for point, span in spans for name in names.get(point, ())}


def odd(kind: ranges.Kind, low: float, high: float, rng: np.random.Generator) -> Range:
    """Not what was seen: mostly narrower, sometimes wider."""
    if kind == "swish":
        # Where the zero point, computed again from the range, would come out one lower.
        traps = [zero for zero in range(1, 255) if np.floor(765 / (3 + 3 / zero * (255 - zero))) != zero]
        near = min(traps, key=lambda zero: abs(765 / (3 + high) - zero))
        return Range(-3.0, 3 / near * (255 - near))
    stretch = rng.uniform(0.8, 1.15, 2) if kind != "scores" else (1.1, 1.1)
    return ranges.allowed(kind, low * stretch[0], high * stretch[1])


@pytest.fixture(scope="module")
def case(images: np.ndarray) -> Case:
    keras.utils.set_random_seed(11)
    model = as_if_trained(network(), images)
    zero = tflite_graph.zero_point(SCALE, OFFSET)
    core = fold.fold(model, OFFSET + zero * SCALE)
    traced = to_tflite.trace(core)
    x = (images[:PROBES].astype(np.float32) - zero) * np.float32(SCALE)
    in_tflite = points.match(core, x, points.tflite_values(traced, x))
    in_onnx = points.match(core, x, to_onnx.float_values(core, images[:PROBES], scale=SCALE, offset=-zero * SCALE))
    steps = graph.nodes(core)
    stored = [point for point in in_tflite if graph.activation(steps[point].operation) != "softmax"]
    classifier = next(i for i, node in enumerate(steps) if node.operation.name == "scores")
    simulated = Simulator(core, stored, SCALE, zero, classifier)
    seen, rng = simulated.seen(images), np.random.default_rng(8)
    spans = {p: odd(simulated.kinds[p], float(both.min()), float(both.max()), rng) for p, both in seen.items()}
    relu6 = next(p for p in stored if steps[p].operation.name == "early_relu")
    spans[relu6] = Range(0.0, 6.7)  # beyond what it answers
    features = next(p for p in stored if steps[p].operation.name == "features")
    spans[features] = ranges.allowed("free", float(seen[features].min()), float(seen[features].max()))
    state = State(simulator.weights_of(core), spans)
    return Case(core, traced, images, simulated, state, in_tflite, in_onnx)


def unread() -> Iterator[np.ndarray]:
    raise AssertionError("all ranges are decided: no image need be read")
    yield


def tflite_file(case: Case, state: State) -> to_tflite.TfliteModel:
    kept = [name for point in state.kept_float for name in case.in_tflite.get(point, ())]
    return to_tflite.quantize(
        case.traced, [case.images], **case.input, decided=case.decided(case.in_tflite), keep_float=kept
    )


def onnx_file(case: Case, state: State) -> to_onnx.OnnxModel:
    simulator.write_weights(case.core, state.weights)
    kept = [name for point in state.kept_float for name in case.in_onnx.get(point, ())]
    return to_onnx.quantize(case.core, unread(), **case.input, decided=case.decided(case.in_onnx), keep_float=kept)


@pytest.fixture(scope="module")
def tflite(case: Case) -> to_tflite.TfliteModel:
    return tflite_file(case, case.state)


@pytest.fixture(scope="module")
def in_onnx(case: Case) -> to_onnx.OnnxModel:
    return onnx_file(case, case.state)


def tflite_scores(file: to_tflite.TfliteModel, images: np.ndarray) -> np.ndarray:
    runner = Interpreter(model_content=file.flatbuffer, num_threads=1)
    runner.allocate_tensors()
    rows = []
    for image in images:
        runner.set_tensor(runner.get_input_details()[0]["index"], image[np.newaxis])
        runner.invoke()
        rows.append(runner.get_tensor(runner.get_output_details()[0]["index"])[0].copy())
    return np.stack(rows)


def onnx_scores(file: to_onnx.OnnxModel, images: np.ndarray) -> np.ndarray:
    session = opened(file.onnx)
    return np.concatenate([session.run(None, {"image": image[np.newaxis]})[0] for image in images])


def logits(scores: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))
    return logs - np.median(logs, axis=1, keepdims=True)


def logit_step(case: Case) -> float:
    return float(case.state.ranges[case.position("scores")].scale)


# --- reading the files back -------------------------------------------------------------------------------------------


def tflite_grids(file: to_tflite.TfliteModel) -> dict[str, tuple[np.float32, int]]:
    """Scale and zero point, as of uint8, of each int8 tensor with one scale."""
    tensors = tflite_graph.read(file.flatbuffer).subgraphs[0].tensors
    found = {}
    for tensor in tensors:
        parameters = tensor.quantization
        if tensor.type == schema.TensorType.INT8 and len(parameters.scale) == 1:
            name = tensor.name.decode().removesuffix("_quantized")
            found[name] = (np.float32(parameters.scale[0]), int(parameters.zeroPoint[0]) + 128)
    return found


def onnx_grids(file: to_onnx.OnnxModel) -> dict[str, tuple[np.float32, int]]:
    """Scale and zero point of each tensor that is read back from bytes."""
    model = onnx_graph.from_model(onnx.load_from_string(file.onnx))
    found = {}
    for node in model.nodes:
        if node.op == "DequantizeLinear" and node.inputs[0] not in model.constants:
            scale, zero = (model.constants[name] for name in node.inputs[1:])
            assert (scale.dtype, zero.dtype) == (np.float32, np.uint8)
            found[node.output.removesuffix(".dq")] = (np.float32(scale), int(zero))
    return found


def grid(span: Range) -> tuple[np.float32, int]:
    return span.scale, span.zero


@dataclass(frozen=True)
class Layer:
    """Integers of a layer with weights, [out, ...] and [out]."""

    weight: np.ndarray
    bias: np.ndarray


def tflite_layers(file: to_tflite.TfliteModel) -> dict[str, Layer]:
    """Weights as [out, in, height, width] and biases, by the name of the tensor that the layer answers.

    The classifier's weights are [out, in], and its biases float.
    """
    model = tflite_graph.read(file.flatbuffer)
    tensors = model.subgraphs[0].tensors

    def values(index: int, kind: type) -> np.ndarray:
        tensor = tensors[index]
        return np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), kind).reshape(tensor.shape)

    found = {}
    for op in model.subgraphs[0].operators:
        code = model.operatorCodes[op.opcodeIndex].builtinCode
        layouts = {
            schema.BuiltinOperator.CONV_2D: (0, 3, 1, 2),
            schema.BuiltinOperator.DEPTHWISE_CONV_2D: (3, 0, 1, 2),
        }
        if code in layouts and tensors[op.inputs[1]].type == schema.TensorType.INT8:
            weight = values(op.inputs[1], np.int8).transpose(layouts[code])
            in_float = tensors[op.inputs[2]].type == schema.TensorType.FLOAT32
            bias = values(op.inputs[2], np.float32 if in_float else np.int32)
            name = tensors[op.outputs[0]].name.decode()
            found[name.removesuffix("/pixel")] = Layer(weight[..., 0, 0] if in_float else weight, bias)
    return found


def onnx_layer(file: to_onnx.OnnxModel, name: str) -> Layer:
    """The same of an ONNX layer, with its dead channels."""
    constants = onnx_graph.from_model(onnx.load_from_string(file.onnx)).constants
    if f"{name}.weight.q" in constants:
        return Layer(constants[f"{name}.weight.q"], constants[f"{name}.bias.q"])
    weight, bias = constants[f"{name}.weight.whole"], constants[f"{name}.bias.whole"]
    multiple = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127, 1)
    rows = (weight / multiple.reshape(-1, 1, 1, 1)).reshape(len(weight), weight.shape[2], -1, 3)
    return Layer(rows.transpose(0, 3, 1, 2), bias / multiple)


# --- ranges -----------------------------------------------------------------------------------------------------------


def test_every_point_of_tflite_is_found_in_onnx(case: Case) -> None:
    missing = [case.simulator.steps[p].operation.name for p in case.simulator.points if p not in case.in_onnx]
    assert missing == ["gate"]  # relu6(x + 3) and its sixth are one HardSigmoid there


def test_tflite_holds_the_ranges(case: Case, tflite: to_tflite.TfliteModel) -> None:
    grids = tflite_grids(tflite)
    for point, span in case.state.ranges.items():
        if point == case.simulator.classifier:
            assert not grids.keys() & set(case.in_tflite[point])  # logits stay float
        else:
            assert [grids[name] for name in case.in_tflite[point]] == [grid(span)], case.in_tflite[point]


def test_onnx_holds_the_ranges(case: Case, in_onnx: to_onnx.OnnxModel) -> None:
    grids = onnx_grids(in_onnx)
    for point, span in case.state.ranges.items():
        name = case.simulator.steps[point].operation.name
        if name == "scores":
            assert not grids.keys() & set(case.in_onnx[point])  # logits stay float
        else:
            found = [grids[tensor] for tensor in case.in_onnx.get(point, ()) if tensor in grids]
            assert found == [grid(span)] if name != "gate" else not found, name


def test_the_image_is_not_read_where_all_is_decided(in_onnx: to_onnx.OnnxModel) -> None:
    assert in_onnx.calibration_images == 0  # and unread() would have raised
    assert in_onnx.kept_float == ("Add x 1", "Conv x 1", "Softmax x 1")


def test_what_is_not_decided_is_measured(case: Case) -> None:
    decided = case.decided(case.in_onnx)
    left_out, *_ = case.in_onnx[case.position("trunk")]
    del decided[left_out]
    made = to_onnx.quantize(case.core, [case.images], **case.input, decided=decided)
    seen = np.asarray(case.simulator.seen(case.images)[case.position("trunk")])
    assert made.calibration_images == len(case.images)
    assert made.ranges[left_out] == pytest.approx((seen.min(), seen.max()), rel=1e-3)
    assert all(made.ranges[name] == span for name, span in decided.items() if name in made.ranges)


@pytest.mark.parametrize("high", [1e-3, 0.7, 2.9999, 3.0001, 11.1, 200.0])
def test_a_hard_swish_is_cut_at_minus_three_exactly(high: float) -> None:
    span = ranges.allowed("swish", -9.0, high)
    assert onnx_quantize.Grid.spanning(span.low, span.high, 255) == onnx_quantize.Grid(span.scale, span.zero)
    assert onnx_plan._cuts_at_minus_three(span.low, span.high)
    assert not onnx_plan._cuts_at_minus_three(-3.1, span.high)


def test_a_range_that_a_hard_swish_cannot_share_leaves_it_float(case: Case, in_onnx: to_onnx.OnnxModel) -> None:
    decided = case.decided(case.in_onnx)
    (name,) = case.in_onnx[case.position("wide")]
    decided[name] = (-2.5, decided[name][1])
    made = to_onnx.quantize(case.core, unread(), **case.input, decided=decided)
    assert counted(made.kept_float) - counted(in_onnx.kept_float) == Counter(("HardSwish",))
    assert onnx_grids(made)[name] == grid(Range(*decided[name]))


def test_division_rounds_as_multiplication() -> None:
    """A float32 product between two levels goes to the even one; the quotient must follow it."""
    rng = np.random.default_rng(3)
    factors = np.exp(rng.uniform(np.log(1.2e-3), np.log(1e-2), 40)).astype(np.float32)
    zero = 20
    sums = np.arange(-200_000, 200_001, dtype=np.float32)
    multiples, divisors = onnx_quantize._division(factors, zero, np.full(40, 2e5, np.float32))
    wrong = naive = 0
    for factor, multiple, divisor in zip(factors, multiples, divisors, strict=True):
        wanted = np.rint(sums * factor).clip(-zero, 255 - zero)
        wrong += int((np.rint(sums * multiple / divisor).clip(-zero, 255 - zero) != wanted).sum())
        naive += int((np.rint(sums / np.float32(1 / np.float64(factor))).clip(-zero, 255 - zero) != wanted).sum())
    assert wrong < naive / 4


# --- integers ---------------------------------------------------------------------------------------------------------


def test_both_files_hold_the_same_weights_and_biases(
    case: Case, tflite: to_tflite.TfliteModel, in_onnx: to_onnx.OnnxModel
) -> None:
    of_tflite = tflite_layers(tflite)
    assert len(of_tflite) == len(case.simulator.fused) == len(case.state.weights)
    for start, one in case.simulator.fused.items():
        layer = case.simulator.steps[start].operation.name
        there = of_tflite[case.in_tflite[one.point][0]]
        here = onnx_layer(in_onnx, layer)
        if start == case.simulator.classifier:
            kernel, bias = case.state.weights[layer]
            np.testing.assert_array_equal(there.bias, bias)
            unit = case.state.ranges[case.position("features")].scale * np.abs(kernel).max(axis=0) / 127
            there = Layer(there.weight, np.rint(bias / unit))
        kept = tuple(slice(size) for size in there.weight.shape)  # behind them lie dead channels
        np.testing.assert_array_equal(here.weight[kept], there.weight, err_msg=layer)
        np.testing.assert_array_equal(here.bias[kept[0]], there.bias, err_msg=layer)
        assert not here.weight[len(there.weight) :].any()


def test_both_files_answer_what_the_simulator_answers(
    case: Case, tflite: to_tflite.TfliteModel, in_onnx: to_onnx.OnnxModel
) -> None:
    """TFLite's classifier rounds its features for each picture anew, ONNX's does not: half a step, and mostly less."""
    case.simulator.load(case.state)
    expected = logits(case.simulator.scores(case.images))
    assert np.ptp(expected, axis=0).max() > 20 * logit_step(case), "the network must tell the pictures apart"
    np.testing.assert_allclose(logits(tflite_scores(tflite, case.images)), expected, atol=0.001 * logit_step(case))
    off = np.abs(logits(onnx_scores(in_onnx, case.images)) - expected).max(axis=1)
    assert (off < 1.02 * logit_step(case)).mean() > 0.9  # half a step each of a logit and of the median
    assert off.max() < 2 * logit_step(case)


def test_names_do_not_depend_on_weights(case: Case) -> None:
    values = to_onnx.float_values(case.core, case.images[:1], **case.input)
    assert values["stem"].shape == (1, 32, 32, 16)
    assert values["wide.hardswish"].shape == (1, 32, 32, 48)  # 8 of them are dead
    zeros = {name: (kernel * 0, bias * 0) for name, (kernel, bias) in case.state.weights.items()}
    simulator.write_weights(case.core, zeros)
    assert list(to_onnx.float_values(case.core, case.images[:1], **case.input)) == list(values)
    simulator.write_weights(case.core, case.state.weights)


# --- what stays float -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Keras operations that are kept in float, and what the files then compute in float that they did not before."""

    operations: tuple[str, ...]
    in_tflite: tuple[str, ...]
    in_onnx: Mapping[str, int]


KEPT = {
    "layer between integers": Kept(("trunk",), ("CONV_2D",), {"Conv": 1}),
    "depthwise": Kept(("early", "early_relu"), ("DEPTHWISE_CONV_2D",), {"Conv": 1, "Clip": 1, "HardSwish": 1}),
    "hard swish": Kept(("wide", "wide_swish"), ("CONV_2D",), {"Conv": 1, "HardSwish": 1}),
    "hard swish of an integer layer": Kept(("wide_swish",), (), {"HardSwish": 1}),
    "integer layer of a float one's hard swish": Kept(("wide",), ("CONV_2D",), {"Conv": 1, "HardSwish": 1}),
    "gate": Kept(("excite", "shift", "gate", "opening"), ("CONV_2D", "MUL"), {"Conv": 1, "HardSigmoid": 1}),
    "gate without its layer": Kept(("opening",), ("MUL",), {}),  # in ONNX there is nothing left to compute
    "gated": Kept(("deep_swish", "gated"), ("MUL",), {"HardSwish": 1, "Mul": 1}),
    "residual": Kept(("narrow", "residual"), ("CONV_2D", "ADD"), {"Conv": 1, "Add": 1}),
    "pool": Kept(("features",), ("MEAN",), {"GlobalAveragePool": 1}),
    "dense": Kept(("scores",), ("FULLY_CONNECTED",), {"Gemm": 1}),
    "stem": Kept(("stem", "stem_swish"), ("CONV_2D",), {"HardSwish": 1}),  # its sums are float anyway
    "run": Kept(
        ("trunk", "wide", "wide_swish", "deep", "deep_swish"),
        ("CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D"),
        {"Conv": 3, "HardSwish": 2},
    ),
}


def counted(kept_float: tuple[str, ...]) -> Counter[str]:
    return Counter({name: int(count) for name, count in (entry.split(" x ") for entry in kept_float)})


@pytest.mark.parametrize("what", KEPT)
def test_what_is_kept_in_float_is_float_in_both_files(
    case: Case, tflite: to_tflite.TfliteModel, in_onnx: to_onnx.OnnxModel, what: str
) -> None:
    kept = KEPT[what]
    positions = frozenset(case.position(operation) for operation in kept.operations)
    state = replace(case.state, kept_float=positions)
    there, here = tflite_file(case, state), onnx_file(case, state)
    assert counted(there.kept_float) - counted(tflite.kept_float) == Counter(kept.in_tflite)
    assert counted(here.kept_float) - counted(in_onnx.kept_float) == Counter(kept.in_onnx)

    step = logit_step(case)
    of_tflite, of_onnx = (logits(f) for f in (tflite_scores(there, case.images), onnx_scores(here, case.images)))
    off = np.abs(of_onnx - of_tflite).max(
        axis=1
    )  # other kernels sum in another order: a level may differ here or there
    assert np.median(off) < 1.02 * step
    assert off.max() < 2 * step
    case.simulator.load(state)
    expected = logits(case.simulator.scores(case.images))
    assert np.median(np.abs(of_onnx - expected).max(axis=1)) < 3 * step


def test_a_float_layer_holds_its_own_weights(case: Case) -> None:
    """Its coarse weights would cost it most: one of them dwarfs the others."""
    kernel, bias = (array.copy() for array in case.state.weights["trunk"])
    kernel[..., :] *= np.geomspace(1, 1e-3, kernel.shape[-1], dtype=np.float32)
    state = replace(case.state, weights={**case.state.weights, "trunk": (kernel, bias)})
    simulator.write_weights(case.core, state.weights)
    trunk = case.position("trunk")
    made = to_onnx.quantize(
        case.core, unread(), **case.input, decided=case.decided(case.in_onnx), keep_float=case.in_onnx[trunk]
    )
    case.simulator.load(replace(state, kept_float=frozenset({trunk})))
    expected = logits(case.simulator.scores(case.images))
    simulator.write_weights(case.core, case.state.weights)
    assert np.median(np.abs(logits(onnx_scores(made, case.images)) - expected).max(axis=1)) < 1.02 * logit_step(case)


def test_16_bits_take_ranges_and_floats_too(case: Case) -> None:
    simulator.write_weights(case.core, case.state.weights)
    made = to_onnx.quantize(
        case.core,
        [case.images],  # the input of the gate, which has bytes of its own in int8, is decided nowhere
        **case.input,
        precision="int16x8",
        decided=case.decided(case.in_onnx),
        keep_float=case.in_onnx[case.position("last")],
    )
    model = onnx_graph.from_model(onnx.load_from_string(made.onnx))
    (name,) = case.in_onnx[case.position("narrow")]
    low, high = case.decided(case.in_onnx)[name]
    assert model.constants[f"{name}.scale"] == pytest.approx((high - low) / 65535)
    assert model.constants["early.clip.scale"] == pytest.approx(6 / 65535)  # saturation must be the ReLU6
    case.simulator.load(case.state)
    difference = logits(onnx_scores(made, case.images)) - logits(case.simulator.scores(case.images))
    assert np.median(np.abs(difference)) < 2 * logit_step(case)


def test_of_two_sums_in_a_row_both_are_aligned() -> None:
    """Aligning the second leaves the first as it is, which it adds to."""
    x = layers.Input((4, 4, 3))
    first, second = layers.Add(), layers.Add()
    core = keras.Model(x, second([first([layers.Conv2D(2, 1)(x), layers.Conv2D(2, 1)(x)]), layers.Conv2D(2, 1)(x)]))
    steps, made = graph.nodes(core), graph.producers(core)
    spans = {i: Range(-1.0 - 0.3 * i, 2.0 - 0.2 * i) for i in range(len(steps))}
    wider = ranges.aligned(core, dict.fromkeys(spans, "free"), spans)
    for i, node in enumerate(steps):
        if node.operation in (first, second):
            addends = [wider[made[id(tensor)]] for tensor in node.input_tensors]
            parts = [ranges.PARTS * float(one.scale) / float(wider[i].scale) for one in addends]
            np.testing.assert_allclose(parts, np.rint(parts), rtol=1e-5)
