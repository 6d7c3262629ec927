"""The simulator answers what the file answers, to the last integer. All that is decided about a network rests on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from PIL import Image

from converters import to_tflite
from converters.int8 import islands, points, ranges
from converters.int8.arithmetic import Range
from converters.int8.prepare import Prepared, Writer, prepare
from converters.int8.simulator import Simulator, State, write_weights

from .networks import DEAD_CHANNEL, SIGNED, answers_of, file_scores, float_scores, name_of, position

RANGES = ["seen", "odd 1", "odd 2", "odd 3"]


@dataclass(frozen=True)
class Case:
    """A network in its simulator, the way into files, and where its points lie in them."""

    prepared: Prepared
    writer: Writer
    names: points.Names

    @property
    def simulator(self) -> Simulator:
        return self.prepared.simulator

    def file(self, state: State) -> bytes:
        return self.writer.tflite(state).flatbuffer

    def scores(self, state: State, images: np.ndarray) -> np.ndarray:
        self.simulator.load(state)
        return self.simulator.scores(images)

    def step(self, state: State) -> float:
        """Of the logits, if they were stored in 8 bits: a measure of what matters."""
        return float(state.ranges[position(self.simulator, "scores")].scale)


def case_of(prepared: Prepared, images: np.ndarray) -> Case:
    writer = Writer(prepared, prepared.start, images)
    x = prepared.simulator.read(images[: points.PROBES])
    core = prepared.simulator.core
    return Case(prepared, writer, points.match(core, x, points.tflite_values(to_tflite.trace(core), x)))


@pytest.fixture(scope="module")
def case(mobile: Prepared, images: np.ndarray) -> Case:
    return case_of(mobile, images)


def state_with(case: Case, which: str) -> State:
    """Ranges as they were seen, or odd ones: mostly narrower, so that values are cut off; sometimes wider."""
    start = case.prepared.start
    if which == "seen":
        return start
    rng = np.random.default_rng(int(which[-1]))
    odd: dict[int, Range] = {}
    for point, span in start.ranges.items():
        kind = case.simulator.kinds[point]
        stretch = rng.uniform(0.7, 1.2, 2) if kind != "scores" else (1.1, 1.1)
        odd[point] = ranges.allowed(kind, span.low * stretch[0], span.high * stretch[1])
    return replace(start, ranges=odd)


@dataclass(frozen=True)
class Stored:
    """An int8 tensor of a file: integers less the zero point, and its grid, as of uint8."""

    integers: np.ndarray
    scale: np.float32
    zero: int


def stored_in(flatbuffer: bytes, images: np.ndarray) -> dict[str, Stored]:
    """Run a file and read every int8 tensor that it computes, by the name that it had in float."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that all tensors are kept
        runner = Interpreter(model_content=flatbuffer, experimental_preserve_all_tensors=True, num_threads=1)
    runner.allocate_tensors()
    produced = {i for op in runner._get_ops_details() for i in op["outputs"]}
    details = [t for t in runner.get_tensor_details() if t["dtype"] == np.int8 and t["index"] in produced]
    rows: dict[str, list[np.ndarray]] = {t["name"]: [] for t in details}
    for image in images:
        runner.set_tensor(runner.get_input_details()[0]["index"], image[np.newaxis])
        runner.invoke()
        for tensor in details:
            rows[tensor["name"]].append(runner.get_tensor(tensor["index"])[0].astype(np.float32))
    found = {}
    for tensor in details:
        scale, zero = tensor["quantization"]
        integers = np.stack(rows[tensor["name"]]) - zero
        found[tensor["name"].removesuffix("_quantized")] = Stored(integers, np.float32(scale), zero + 128)
    return found


def differing(case: Case, state: State, images: np.ndarray) -> list[str]:
    """Names of the points whose integers or grids are not the file's."""
    there, here = stored_in(case.file(state), images), case.simulator.stored(images, state)
    assert here.keys() == set(case.simulator.points) - {position(case.simulator, "scores")}
    wrong = []
    for point, integers in here.items():
        same_size = [there[name] for name in case.names[point] if there[name].integers.size == integers.size]
        assert same_size, name_of(case.simulator, point)
        span = state.ranges[point]
        for one in same_size:
            equal = (one.integers.reshape(integers.shape) == integers).all()
            if not equal or (one.scale, one.zero) != (span.scale, span.zero):
                wrong.append(name_of(case.simulator, point))
    return wrong


def off_in_steps(case: Case, state: State, file: bytes, images: np.ndarray) -> np.ndarray:
    """The largest difference of logits between simulator and file, in steps, for each picture."""

    def logits(scores: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))
        return logs - np.median(logs, axis=1, keepdims=True)

    ours, its = logits(case.scores(state, images)), logits(file_scores(file, images))
    assert np.ptp(its, axis=0).max() > 20 * case.step(state), "the network must tell the pictures apart"
    largest: np.ndarray = np.abs(ours - its).max(axis=1) / case.step(state)
    return largest


@pytest.mark.parametrize("which", RANGES)
def test_every_stored_integer_is_the_files(case: Case, images: np.ndarray, others: np.ndarray, which: str) -> None:
    pictures = np.concatenate([images[:3], others[-3:]])
    assert differing(case, state_with(case, which), pictures) == []


@pytest.mark.parametrize("which", RANGES)
def test_the_scores_are_the_files(case: Case, others: np.ndarray, which: str) -> None:
    state = state_with(case, which)
    off = off_in_steps(case, state, case.file(state), others)
    assert (off < 0.001).mean() >= 0.99


def test_no_range_cuts_logits_off(case: Case, others: np.ndarray) -> None:
    state = case.prepared.start
    point = position(case.simulator, "scores")
    assert case.simulator.classifier == point
    narrow = replace(state, ranges={**state.ranges, point: Range(-1.0, 1.0)})
    assert case.file(narrow) == case.file(state)
    np.testing.assert_array_equal(case.scores(narrow, others), case.scores(state, others))


BETWEEN = {
    "nothing": lambda x: layers.Dropout(0.2)(x),
    "flattened": lambda x: layers.Flatten()(x),
    "unfolded": lambda x: layers.Dropout(0.2)(layers.Reshape((1, 1, 64))(layers.Flatten()(x))),
}


def late_swish(between: str) -> keras.Model:
    """What V3 ends with; the row of features has values on both sides of zero."""
    keras.utils.set_random_seed(2)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(24, 3, 4, activation="relu", name="stem")(image)
    x = layers.Dense(64, name="wide")(layers.GlobalAveragePooling2D(keepdims=between != "unfolded")(x))
    x = BETWEEN[between](layers.Activation("hard_swish", name="swish")(x))
    if len(x.shape) == 4:
        x = layers.Flatten()(layers.Conv2D(9, 1, name="scores")(x))
        model = keras.Model(image, layers.Softmax()(x))
    else:
        model = keras.Model(image, layers.Dense(9, "softmax", name="scores")(x))
    for name, factor in (("wide", 12), ("scores", 3)):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * factor)
    return model


@pytest.mark.parametrize("between", BETWEEN)
def test_a_hard_swish_ahead_of_the_classifier(images: np.ndarray, between: str) -> None:
    """Nothing is stored between the two."""
    pictures = images[:, ::2, ::2]
    prepared = prepare(late_swish(between), pictures, **SIGNED)
    assert prepared is not None
    made = case_of(prepared, pictures)
    for which in ("seen", "odd 1", "odd 2"):
        state = state_with(made, which)
        assert {name_of(made.simulator, point) for point in made.simulator.float_points()} == {"swish", "scores"}
        off = off_in_steps(made, state, made.file(state), pictures)
        assert off.max() < 0.001


def test_a_dead_channel_answers_its_bias(case: Case, images: np.ndarray) -> None:
    """Its weights are about 1e-12: in their steps the bias is beyond int32."""
    state = case.prepared.start
    kernel, bias = state.weights["wide"]
    assert 0 < np.abs(kernel[..., DEAD_CHANNEL]).max() < 1e-10
    point = position(case.simulator, "wide_relu")
    held = case.simulator.stored(images[:2], state)[point][..., DEAD_CHANNEL] * state.ranges[point].scale
    np.testing.assert_allclose(held, bias[DEAD_CHANNEL], atol=state.ranges[point].scale)
    assert bias[DEAD_CHANNEL] > 1
    kernel, bias = kernel.copy(), bias.copy()
    kernel[..., DEAD_CHANNEL], bias[DEAD_CHANNEL] = 3e-43, 0  # in float32, its steps times those of its input are none
    none = replace(state, weights={**state.weights, "wide": (kernel, bias)})
    assert not case.simulator.stored(images[:2], none)[point][..., DEAD_CHANNEL].any()


def test_means_between_two_levels_are_rounded_as_the_file_does() -> None:
    """About one mean in 50 000 lies so near to a tie that the order of the float operations decides."""
    keras.utils.set_random_seed(0)
    image = keras.Input((14, 14, 3))
    x = layers.Conv2D(256, 1, bias_initializer=keras.initializers.RandomNormal(stddev=0.3), name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Activation("hard_swish")(x))
    model = keras.Model(image, layers.Dense(5, "softmax", name="scores")(x))
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (400, 1, 1, 3)) + rng.integers(-60, 60, (400, 14, 14, 3))
    pictures = np.clip(colours, 0, 255).astype(np.uint8)
    prepared = prepare(model, pictures[:50], **SIGNED)
    assert prepared is not None
    made = case_of(prepared, pictures[:50])
    point = position(made.simulator, "mean")
    for which in ("odd 1", "odd 2", "odd 3", "odd 4"):
        state = state_with(made, which)
        there = stored_in(made.file(state), pictures)[made.names[point][0]].integers
        here = made.simulator.stored(pictures, state)[point]
        np.testing.assert_array_equal(here, there.reshape(here.shape))


AN_OPERATOR_OF_ITS_OWN = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="the file rounds what an int8 padding answers"
)


def island_off(case: Case, images: np.ndarray, where: str) -> np.ndarray:
    """How many steps off the logits are with the smallest island around a point."""
    point = position(case.simulator, where)
    state = replace(state_with(case, "odd 1"), kept_float=islands.around(case.simulator, point))
    assert point not in case.simulator.stored(images[:1], state)
    return off_in_steps(case, state, case.file(state), images)


@pytest.mark.parametrize(
    "where",
    [
        "trunk",
        "wide_relu",
        "deep",
        "pool",
        "gate",
        "gated",
        "residual",
        "last_relu",
        "features",
    ],
)
def test_with_an_island_of_float_the_scores_are_the_files(case: Case, others: np.ndarray, where: str) -> None:
    """Float additions in another order would differ in the last bit, which now and then rounds to the next level."""
    off = island_off(case, others, where)
    assert (off < 0.01).mean() >= 0.98  # only the float mean of all pixels is added up otherwise


@pytest.mark.parametrize("mobile", ["convolution", pytest.param("dense", marks=AN_OPERATOR_OF_ITS_OWN)], indirect=True)
def test_an_island_behind_a_padding(case: Case, others: np.ndarray) -> None:
    """Between a hard swish, which is float, and an island lies nothing (Keras' padding) or an int8 PAD (PyTorch's)."""
    off = island_off(case, others, "down_relu")
    assert (off < 1.01).mean() >= 0.95
    assert np.median(off) < 0.1


def test_an_island_is_float_in_the_file(case: Case) -> None:
    whole = case.writer.tflite(case.prepared.start).kept_float
    kept = islands.of_layers(case.simulator, ["wide", "deep"])
    assert set(whole) == {"HARD_SWISH x 2", "SOFTMAX x 1"}
    there = case.writer.tflite(replace(case.prepared.start, kept_float=kept)).kept_float
    assert set(there) == {*whole, "CONV_2D x 1", "DEPTHWISE_CONV_2D x 1"}


def test_all_in_float_is_the_float_network(case: Case, images: np.ndarray) -> None:
    """But for the scores, which no island reaches beyond."""
    everything = frozenset(range(len(case.simulator.steps)))
    state = replace(state_with(case, "odd 1"), kept_float=everything)
    np.testing.assert_allclose(case.scores(state, images), float_scores(case.prepared, images), rtol=1e-4, atol=1e-6)


def test_a_point_is_float_where_all_who_touch_it_are(case: Case) -> None:
    simulator = case.simulator

    def places(*names: str) -> frozenset[int]:
        return frozenset(position(simulator, name) for name in names)

    def stays(*names: str) -> set[str]:
        return {name_of(simulator, point) for point in simulator.float_points(places(*names))}

    always = {"scores"}
    assert stays("trunk") == always
    assert stays("deep") == always | {"deep"}, "the hard swish that reads it is always float"
    assert stays("features") == always | {"features"}, "so is what the classifier reads"
    assert stays("trunk", "wide") == always, "the residual reads the trunk, too"
    assert stays("trunk", "wide", "residual") == always | {"trunk"}
    assert stays("trunk", "wide", "wide_relu", "residual") == always | {"trunk"}
    assert stays("trunk", "wide", "wide_relu", "deep", "residual") == always | {"trunk", "wide_relu", "deep"}


def test_what_a_file_computes_in_one_operator(case: Case) -> None:
    simulator = case.simulator
    by_name = {name_of(simulator, start): one for start, one in simulator.fused.items()}
    assert {name: name_of(simulator, one.point) for name, one in by_name.items()} == {
        "stem": "stem",
        "down": "down_relu",
        "trunk": "trunk",
        "wide": "wide_relu",
        "deep": "deep",
        "squeeze": "squeeze_activation",
        "excite": "gate",
        "narrow": "narrow",
        "last": "last_relu",
        "scores": "scores",
    }
    assert {name: (one.shift, one.floor, one.ceiling) for name, one in by_name.items() if one.passed} == {
        "down": (0.0, 0.0, 6.0),
        "wide": (0.0, 0.0, 6.0),
        "squeeze": (0.0, 0.0, np.inf),
        "excite": (3.0, 0.0, 6.0),
        "last": (0.0, 0.0, np.inf),
    }
    wide, free = by_name["wide"], by_name["trunk"]
    assert wide.bounds(Range(0.0, 12.0)) == (0, 128)
    assert wide.bounds(Range(-3.0, 12.0)) == (51, 153)
    assert wide.bounds(Range(0.0, 5.0)) == (0, 255)
    assert free.bounds(Range(-3.0, 12.0)) == (0, 255)


def test_what_is_seen_are_the_extremes_of_each_picture(case: Case, images: np.ndarray) -> None:
    write_weights(case.simulator.core, case.prepared.start.weights)
    done: list[int] = []
    many = np.concatenate([images, images[:6]])  # more than a batch
    seen = case.simulator.seen(many, done.append)
    true = answers_of(case.simulator.core, case.simulator.read(many))
    assert list(seen) == list(case.simulator.points)
    assert done == [25, 30]
    for point, both in seen.items():
        values = true[name_of(case.simulator, point)].reshape(len(many), -1)
        expected = np.stack([values.min(axis=1), values.max(axis=1)], axis=1)
        np.testing.assert_allclose(both, expected, atol=1e-4)


def test_stored_values_are_counted(case: Case, images: np.ndarray) -> None:
    stored = case.simulator.stored(images[:1], case.prepared.start)
    assert case.simulator.stored_values() == sum(values.size for values in stored.values())


def test_one_state_after_another(case: Case, images: np.ndarray) -> None:
    """Each load forgets the one before, weights and ranges alike."""
    start, odd = case.prepared.start, state_with(case, "odd 2")
    halved = replace(start, weights={name: (kernel / 2, bias) for name, (kernel, bias) in start.weights.items()})
    first, ranged, weighted, again = (case.scores(state, images) for state in (start, odd, halved, start))
    np.testing.assert_array_equal(first, again)
    assert np.abs(ranged - first).max() > 1e-3
    assert np.abs(weighted - first).max() > 1e-2


def test_an_error_of_floats_moves_what_islands_answer_alone(case: Case, images: np.ndarray) -> None:
    simulator = case.simulator
    simulator.load(case.prepared.start)
    np.testing.assert_array_equal(simulator.scores(images, float_error=0.01), simulator.scores(images))
    island = islands.around(simulator, position(simulator, "down_relu"))
    simulator.load(replace(case.prepared.start, kept_float=island))
    off = simulator.scores(images, float_error=0.01)
    assert np.abs(off - simulator.scores(images)).max() > 1e-4
    np.testing.assert_array_equal(simulator.scores(images, float_error=1e-12), simulator.scores(images))
    right = simulator.scores(images)
    simulator.load(replace(case.prepared.start, kept_float=island), in_order=False)
    np.testing.assert_allclose(simulator.scores(images), right, atol=0.05)  # a level moves here and there
    np.testing.assert_allclose(np.median(np.abs(simulator.scores(images) - right)), 0, atol=1e-6)
    exit_, inside = position(simulator, "trunk"), position(simulator, "down_relu")
    simulator.load(replace(case.prepared.start, kept_float=island))
    np.testing.assert_array_equal(simulator.scores(images, 0.01, at=exit_), off)
    np.testing.assert_array_equal(simulator.scores(images, 0.01, at=inside), simulator.scores(images))


def test_islands_end_where_integers_are_stored_of_what_they_compute(case: Case) -> None:
    """A hard swish behind an island reads its floats as they are: they are rounded behind it."""
    simulator = case.simulator
    for before, ends in (("stem_swish", {"down_relu"}), ("wide_relu", {"deep_swish"})):
        island = islands.around(simulator, position(simulator, before))
        assert simulator.exits(island) >= {position(simulator, name) for name in ends}
        assert not simulator.exits(island) & {position(simulator, before)}
    assert simulator.exits(frozenset()) == frozenset()


# --- real networks on real photographs --------------------------------------------------------------------------------


def photographs(files: Iterable[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files])


def real_network(family: str, data: Path) -> keras.Model:
    if family == "V2":
        model = keras.applications.MobileNetV2(weights=None)
        model.load_weights(data / "models" / "mobilenet_v2_1.0_224.weights.h5")
        return model
    if family == "V1-0.25":
        model = keras.applications.MobileNet(alpha=0.25, weights=None)
        model.load_weights(data / "models" / "mobilenet_v1_0.25_224.h5")
        return model
    model = keras.applications.MobileNetV3Small((224, 224, 3), weights=None, include_preprocessing=False)
    model.load_weights(data / "models" / "mobilenet_v3_small_1.0_224.weights.h5")
    return model


ISLANDS = {
    "V1-0.25": ("conv_pw_2", "conv_dw_3"),
    "V2": ("Conv1", "expanded_conv_depthwise"),
    "V3-Small": ("conv", "expanded_conv_1_expand", "expanded_conv_10_depthwise"),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", ISLANDS)
def test_real_networks_answer_photographs_as_their_files_do(data: Path, family: str) -> None:
    """With islands of float early in the network, too: there a last bit would move most logits of most photographs."""
    seen = photographs(sorted((data / "imagenet" / "calibration").glob("*/*.png"))[::8])
    unseen = photographs(sorted((data / "imagenet" / "validation").glob("*/*.png"))[::6][:50])
    assert len(unseen) == 50
    prepared = prepare(real_network(family, data), seen, **SIGNED)
    assert prepared is not None
    simulator, writer = prepared.simulator, Writer(prepared, prepared.start, seen)
    (scores,) = (p for p, kind in simulator.kinds.items() if kind == "scores")
    for kept in (frozenset[int](), islands.of_layers(simulator, ISLANDS[family])):
        state = replace(prepared.start, kept_float=kept)
        simulator.load(state)
        ours, its = simulator.scores(unseen), file_scores(writer.tflite(state).flatbuffer, unseen)
        off = np.abs(np.log(np.maximum(ours, 1e-37)) - np.log(np.maximum(its, 1e-37))).max(axis=1)
        assert (off < 0.001 * state.ranges[scores].scale).mean() >= 0.99
