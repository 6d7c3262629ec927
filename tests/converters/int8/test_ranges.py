"""Ranges: in those that are aligned, XNNPACK's sums and ONNX Runtime's are the same level, for every pair of levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converters.int8 import arithmetic, ranges
from converters.int8.arithmetic import STEPS, Levels, Range
from converters.int8.prepare import Prepared
from converters.int8.simulator import Simulator
from tests.converters.in_onnx import opened

from .networks import is_aligned, position

pytestmark = pytest.mark.parametrize("mobile", ["dense"], indirect=True)

PAIRS = np.arange(STEPS + 1)
ADDED = ("trunk", "narrow", "residual")
SPANS = st.builds(Range, st.floats(-60, -0.1), st.floats(0.1, 60))


@pytest.fixture(scope="module")
def one(mobile: Prepared) -> Simulator:
    return mobile.simulator


def aligned(simulator: Simulator, spans: list[Range]) -> list[Range]:
    """Align what the network adds, from these ranges on."""
    points = [position(simulator, name) for name in ADDED]
    after = ranges.aligned(simulator.core, simulator.kinds, dict(zip(points, spans, strict=True)))
    return [after[point] for point in points]


def by_onnx_runtime(a: Range, b: Range, total: Range) -> np.ndarray:
    """Add every pair of levels: [256, 256]."""
    nodes, values = [], []
    for name, span in (("a", a), ("b", b), ("c", total)):
        values.append(helper.make_tensor(f"{name}_scale", TensorProto.FLOAT, (), [float(span.scale)]))
        values.append(helper.make_tensor(f"{name}_zero", TensorProto.UINT8, (), [span.zero]))
    for name in ("a", "b"):
        nodes.append(helper.make_node("DequantizeLinear", [name, f"{name}_scale", f"{name}_zero"], [f"{name}_real"]))
    nodes.append(helper.make_node("Add", ["a_real", "b_real"], ["sum"]))
    nodes.append(helper.make_node("QuantizeLinear", ["sum", "c_scale", "c_zero"], ["c"]))
    shape = [STEPS + 1, STEPS + 1]
    infos = {name: helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in "abc"}
    graph = helper.make_graph(nodes, "add", [infos["a"], infos["b"]], [infos["c"]], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = opened(model.SerializeToString())
    levels = PAIRS.astype(np.uint8)
    first, second = (np.ascontiguousarray(array) for array in np.meshgrid(levels, levels, indexing="ij"))
    (answer,) = session.run(None, {"a": first, "b": second})
    return np.asarray(answer, np.int64)


def by_xnnpack(a: Range, b: Range, total: Range) -> np.ndarray:
    first, second = np.meshgrid(PAIRS.astype(np.float32), PAIRS.astype(np.float32), indexing="ij")
    levels = [Levels(x - span.zero, span.scale, 0) for x, span in ((first, a), (second, b))]
    return np.asarray(arithmetic.add(*levels, total, 0).values, np.int64) + total.zero


@given(spans=st.lists(SPANS, min_size=3, max_size=3))
@settings(max_examples=100, deadline=None)
def test_every_sum_is_the_same_level_in_both_runtimes(one: Simulator, spans: list[Range]) -> None:
    after = aligned(one, spans)
    first, second, total = (float(span.scale) for span in after)
    assume(total / 10 <= max(first, second) <= 4 * total)  # beyond, most sums are cut off
    np.testing.assert_array_equal(by_onnx_runtime(*after), by_xnnpack(*after))


def test_without_it_some_sums_are_not(mobile: Prepared) -> None:
    """A step of 3/512 of the sum's: multiples that end in exactly a half, which one rounds up and the other to even."""
    spans = [Range(-3.0, 3.0), Range(-3.0, 3.0), Range(-4.0, 4.0)]
    assert (by_onnx_runtime(*spans) != by_xnnpack(*spans)).any()
    after = aligned(mobile.simulator, spans)
    assert (by_onnx_runtime(*after) == by_xnnpack(*after)).all()


def test_what_calibration_gives_is_aligned(mobile: Prepared) -> None:
    seen = {point: Range(span.low, span.high * 1.001) for point, span in mobile.start.ranges.items()}
    assert not is_aligned(mobile, replace(mobile.start, ranges=seen)), "or this test says nothing"
    assert is_aligned(mobile, mobile.start)


@given(spans=st.lists(SPANS, min_size=3, max_size=3))
@settings(max_examples=100, deadline=None)
def test_they_grow_by_little_and_stay(one: Simulator, spans: list[Range]) -> None:
    after = aligned(one, spans)
    for wide, span in zip(after, spans, strict=True):
        assert abs(wide.zero - span.zero) <= 1  # 127.5 is rounded either way
        assert wide.low <= span.low * (1 - 1e-6)
        assert wide.high >= span.high * (1 - 1e-6)
    growth = [float(wide.scale / span.scale) for wide, span in zip(after, spans, strict=True)]
    parts = ranges.PARTS * np.array([float(span.scale) for span in after[:2]]) / float(after[2].scale)
    if max(float(span.scale) for span in spans[:2]) * ranges.PARTS > ranges.FEWEST_PARTS * float(spans[2].scale):
        np.testing.assert_allclose(parts, np.rint(parts), rtol=1e-5)
        assert growth[2] <= 1.021
        assert max(growth[:2]) <= 1 + 1.01 / max(min(parts) - 1, 1)
    else:
        assert growth == [1, 1, 1]
    again = aligned(one, after)
    ends = [[(span.low, span.high) for span in spans] for spans in (after, again)]
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)
